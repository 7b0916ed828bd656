package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
)

// signer is the certificate of the key that signed a report.
type signer struct {
	cert *x509.Certificate
	ext  *vek
	pair // zero until [signer.findChain]

	remembered bool // it is in goodSigners
}

// maxSigners bounds the certificates that are tried by their signature, of those
// that name the right chip and TCB. The ones that the evidence names come first.
const maxSigners = 8

// findSigner returns the certificate that belongs to the report: of those that
// name its chip and reported TCB the one whose key signed it, else the first of
// them, else the first that parses at all. Its error is about the first
// document, and nil if there is none.
func findSigner(docs [][]byte, raw []byte, rep *snp.Report) (*signer, error) {
	var fitting []*signer
	var first *signer
	var firstErr error
	for _, der := range docs {
		s, err := recallSigner(der, rep.SignerInfo.Key())
		switch {
		case err != nil && firstErr == nil:
			firstErr = err
		case err != nil:
		case s.fits(rep):
			fitting = append(fitting, s)
		case first == nil:
			first = s
		}
	}
	for i, s := range fitting {
		if len(fitting) == 1 || i < maxSigners && s.signed(raw, rep) {
			return s, nil
		}
	}
	if len(fitting) > 0 {
		return fitting[0], nil
	}
	if first != nil {
		return first, nil
	}
	return nil, firstErr
}

func parseSigner(der []byte, key snp.SigningKey) (*signer, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if c.Subject.CommonName != leafName(key) {
		return nil, fmt.Errorf("certificate is of %.80q, want %q", c.Subject.CommonName, leafName(key))
	}
	ext, err := parseVEK(c, key)
	if err != nil {
		return nil, err
	}
	k, ok := c.PublicKey.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P384() {
		return nil, fmt.Errorf("key is %v, want ECDSA P-384", c.PublicKeyAlgorithm)
	}
	if c.IsCA {
		return nil, fmt.Errorf("certificate %.80q is a CA", c.Subject.CommonName)
	}
	return &signer{cert: c, ext: ext}, nil
}

// leafName is the common name that AMD gives to the certificate of a kind of key
// (57230, chapter 3).
func leafName(k snp.SigningKey) string { return "SEV-" + k.String() }

// fits reports whether s was issued for the report's TCB and chip.
func (s *signer) fits(rep *snp.Report) bool {
	tcb, err := rep.ReportedTCB.Decode(s.ext.product)
	return err == nil && tcb == s.ext.tcb && (s.ext.hwID == nil || bytes.Equal(s.ext.hwID, chipID(rep, s.ext.product)))
}

// signed checks the signature of a report, which [snp.Parse] gave as rep.
func (s *signer) signed(raw []byte, rep *snp.Report) bool {
	h := sha512.Sum384(snp.SignedPart(raw))
	return ecdsa.Verify(s.cert.PublicKey.(*ecdsa.PublicKey), h[:], new(big.Int).SetBytes(rep.R[:]), new(big.Int).SetBytes(rep.S[:]))
}

// outOfDate returns the first certificate of the chain that is not valid at at, or
// nil.
func (s *signer) outOfDate(at time.Time) *x509.Certificate {
	for _, c := range []*x509.Certificate{s.cert, s.ask, s.ark} {
		if at.Before(c.NotBefore) || at.After(c.NotAfter) {
			return c
		}
	}
	return nil
}

// chipID returns CHIP_ID in the length that the product line gives it; bytes
// beyond it are appended if they are not zero, so that they match nothing.
func chipID(rep *snp.Report, p snp.Product) []byte {
	n := p.ChipIDSize()
	if rest := rep.ChipID[n:]; !bytes.Equal(rest, make([]byte, len(rest))) {
		n = len(rep.ChipID)
	}
	return rep.ChipID[:n]
}

// masked reports whether the host hides CHIP_ID.
func masked(rep *snp.Report) bool { return rep.ChipID == [64]byte{} }

// certsOf returns the documents that may be the certificate of a key.
func certsOf(ends *attestation.Endorsements, refs []attestation.Digest, k snp.SigningKey) [][]byte {
	if k == snp.VLEK {
		return ends.ByType(attestation.TypeAMDVLEK, refs)
	}
	return ends.ByType(attestation.TypeAMDVCEK, refs)
}

func short(b []byte) string {
	if len(b) > 8 {
		return hex.EncodeToString(b[:8]) + "…"
	}
	return hex.EncodeToString(b)
}
