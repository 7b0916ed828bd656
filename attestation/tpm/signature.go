package tpm

import (
	"encoding/binary"
	"fmt"
)

// Algorithm numbers (TCG Algorithm Registry).
const (
	SHA256 uint16 = 0x000b
	RSASSA uint16 = 0x0014 // RSASSA-PKCS1-v1_5
	RSAPSS uint16 = 0x0016
	ECDSA  uint16 = 0x0018
)

const (
	maxRSA   = 512 // bytes of a signature by RSA-4096
	maxCoord = 66  // bytes of an integer of P-521
)

// Signature is a TPMT_SIGNATURE (Part 2, 11.3.4).
type Signature struct {
	Scheme uint16 // [RSASSA], [RSAPSS] or [ECDSA]
	Hash   uint16 // TPM_ALG_ID; [SHA256] is the only one that a verifier here accepts
	RSA    []byte // of the RSA schemes
	R, S   []byte // of ECDSA, big-endian, as long as the TPM made them
}

// ParseSignature decodes a TPMT_SIGNATURE of the three schemes.
func ParseSignature(b []byte) (*Signature, error) {
	if len(b) > maxSignature {
		return nil, fmt.Errorf("%w: signature of %d bytes, limit %d", ErrMalformed, len(b), maxSignature)
	}
	r := &reader{b: b}
	s := &Signature{Scheme: r.u16("scheme"), Hash: r.u16("hash")}
	switch s.Scheme {
	case RSASSA, RSAPSS:
		s.RSA = r.sized("RSA signature", maxRSA)
	case ECDSA:
		s.R, s.S = r.sized("r", maxCoord), r.sized("s", maxCoord)
	default:
		return nil, fmt.Errorf("%w: signature scheme %04x", ErrMalformed, s.Scheme)
	}
	r.end("signature")
	if r.err != nil {
		return nil, r.err
	}
	return s, nil
}

// Marshal returns the TPMT_SIGNATURE.
func (s *Signature) Marshal() []byte {
	b := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, s.Scheme), s.Hash)
	if s.Scheme == ECDSA {
		return appendSized(appendSized(b, s.R), s.S)
	}
	return appendSized(b, s.RSA)
}
