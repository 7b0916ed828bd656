package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The constants of a quote (Part 2, TPM_GENERATED_VALUE and TPM_ST).
const (
	magic   = 0xff544347 // TPM_GENERATED_VALUE: a TPM signs nothing from outside that starts so
	typCode = 0x8018     // TPM_ST_ATTEST_QUOTE
)

// Errors of [ParseQuote] that a verifier names.
var (
	ErrMagic = errors.New("not made by a TPM") // the magic differs: the key signed bytes from outside
	ErrType  = errors.New("not a quote")       // another attestation structure
)

// Sizes of the variable fields.
const (
	maxName       = 68 // TPM2B_NAME: algorithm and the largest digest, with room for a handle
	maxExtra      = 66 // TPM2B_DATA: a TPMT_HA
	maxDigest     = 64 // TPM2B_DIGEST
	maxSelections = 16 // TPML_PCR_SELECTION: HASH_COUNT
	maxBitmap     = 4  // PCR_SELECT_MAX: 32 PCRs
)

// Quote is a TPMS_ATTEST of type quote (Part 2, 10.12.12).
type Quote struct {
	Signer     []byte // qualified name of the signing key; of no use without its parents
	ExtraData  []byte // the challenge
	Clock      Clock
	Firmware   uint64
	Selections []Selection
	Digest     []byte // hash of the selected PCRs' values, one after another, by the signature's hash
}

// Clock is a TPMS_CLOCK_INFO.
type Clock struct {
	Milliseconds uint64 // that the TPM was powered
	Resets       uint32
	Restarts     uint32
	Safe         bool
}

// Selection is the PCRs of one bank (TPMS_PCR_SELECTION).
type Selection struct {
	Hash   uint16 // TPM_ALG_ID of the bank
	Bitmap []byte // bit i%8 of byte i/8 is PCR i
}

// PCRs returns the numbers of the selected PCRs, rising.
func (s Selection) PCRs() []int {
	var out []int
	for i := range len(s.Bitmap) * 8 {
		if s.Bitmap[i/8]>>(i%8)&1 == 1 {
			out = append(out, i)
		}
	}
	return out
}

// Select returns the selection of PCRs of the SHA-256 bank, in the three bytes
// that every PC's TPM uses. It panics on a number of 24 or more.
func Select(pcrs ...int) Selection {
	s := Selection{Hash: SHA256, Bitmap: make([]byte, 3)}
	for _, i := range pcrs {
		s.Bitmap[i/8] |= 1 << (i % 8)
	}
	return s
}

// ParseQuote decodes a TPMS_ATTEST. Every accepted quote has one encoding.
func ParseQuote(b []byte) (*Quote, error) {
	if len(b) > maxQuote {
		return nil, fmt.Errorf("%w: quote of %d bytes, limit %d", ErrMalformed, len(b), maxQuote)
	}
	r := &reader{b: b}
	if m := r.u32("magic"); r.err == nil && m != magic {
		return nil, fmt.Errorf("tpm: %w: magic %08x, want %08x", ErrMagic, m, uint32(magic))
	}
	if t := r.u16("type"); r.err == nil && t != typCode {
		return nil, fmt.Errorf("tpm: %w: type %04x, want %04x", ErrType, t, typCode)
	}
	q := &Quote{
		Signer:    r.sized("qualified signer", maxName),
		ExtraData: r.sized("extra data", maxExtra),
		Clock:     Clock{Milliseconds: r.u64("clock"), Resets: r.u32("reset count"), Restarts: r.u32("restart count"), Safe: r.yes("safe")},
		Firmware:  r.u64("firmware version"),
	}
	n := r.u32("selections")
	if r.err == nil && n > maxSelections {
		return nil, fmt.Errorf("%w: %d PCR selections, limit %d", ErrMalformed, n, maxSelections)
	}
	for i := uint32(0); i < n && r.err == nil; i++ {
		s := Selection{Hash: r.u16("bank")}
		size := r.u8("size of selection")
		if r.err == nil && size > maxBitmap {
			return nil, fmt.Errorf("%w: PCR selection of %d bytes, limit %d", ErrMalformed, size, maxBitmap)
		}
		s.Bitmap = r.take("selection", int(size))
		q.Selections = append(q.Selections, s)
	}
	q.Digest = r.sized("PCR digest", maxDigest)
	r.end("quote")
	if r.err != nil {
		return nil, r.err
	}
	return q, nil
}

// Marshal returns the TPMS_ATTEST. Its variable fields must be within the limits
// that [ParseQuote] checks.
func (q *Quote) Marshal() []byte {
	be := binary.BigEndian
	b := be.AppendUint16(be.AppendUint32(nil, magic), typCode)
	b = appendSized(appendSized(b, q.Signer), q.ExtraData)
	b = be.AppendUint64(b, q.Clock.Milliseconds)
	b = be.AppendUint32(be.AppendUint32(b, q.Clock.Resets), q.Clock.Restarts)
	if q.Clock.Safe {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = be.AppendUint64(b, q.Firmware)
	b = be.AppendUint32(b, uint32(len(q.Selections)))
	for _, s := range q.Selections {
		b = append(append(be.AppendUint16(b, s.Hash), byte(len(s.Bitmap))), s.Bitmap...)
	}
	return appendSized(b, q.Digest)
}
