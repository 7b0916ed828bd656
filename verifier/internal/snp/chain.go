package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/verifier/internal/check"
)

// signer is the certificate of the key that signed a report.
type signer struct {
	cert *x509.Certificate
	ext  *vek
	pair // zero until [findChain]
}

// findSigner returns the certificate that belongs to the report: the first that
// names its chip and reported TCB, else the first that parses. Its error is
// about the first document, and nil if there is none at all.
func findSigner(docs [][]byte, rep *snp.Report) (*signer, error) {
	var first *signer
	var firstErr error
	for _, der := range docs {
		s, err := parseSigner(der)
		if err != nil {
			if firstErr == nil {
				firstErr = err
			}
			continue
		}
		if s.fits(rep) {
			return s, nil
		}
		if first == nil {
			first = s
		}
	}
	if first != nil {
		return first, nil
	}
	return nil, firstErr
}

func parseSigner(der []byte) (*signer, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ext, err := parseVEK(c)
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

// fits reports whether s was issued for the report's TCB and chip.
func (s *signer) fits(rep *snp.Report) bool {
	tcb, err := rep.ReportedTCB.Decode(s.ext.product)
	return err == nil && tcb == s.ext.tcb && (s.ext.hwID == nil || bytes.Equal(s.ext.hwID, chipID(rep, s.ext.product)))
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

// leafName and caName are the common names that AMD gives to the certificates of
// a kind of key (57230, chapter 3).
func leafName(k snp.SigningKey) string { return "SEV-" + k.String() }

func caName(k snp.SigningKey, p snp.Product) string {
	if k == snp.VLEK {
		return "SEV-VLEK-" + string(p)
	}
	return "SEV-" + string(p)
}

// findChain looks for the signing CA and the accepted root above s, in chains
// that came with the evidence and, for real hardware, in AMD's own. It returns
// why the first candidate was refused.
func (s *signer) findChain(chains [][]byte, key snp.SigningKey, product snp.Product, want *check.Expect) error {
	if s.cert.Subject.CommonName != leafName(key) {
		return fmt.Errorf("certificate is of %.80q, want %q", s.cert.Subject.CommonName, leafName(key))
	}
	if err := check.CheckMark(s.cert, want.Simulated); err != nil {
		return err
	}
	var candidates []pair
	var refused error
	refuse := func(err error) {
		if refused == nil {
			refused = err
		}
	}
	for _, b := range chains {
		p, err := parsePair(b)
		if err != nil {
			refuse(err)
			continue
		}
		candidates = append(candidates, p)
	}
	if !want.Simulated {
		candidates = append(candidates, amdPairs()...)
	}
	for _, p := range candidates {
		if p.ask.Subject.CommonName != caName(key, product) {
			continue
		}
		if err := checkPath(s.cert, p, product, want); err != nil {
			refuse(err)
			continue
		}
		s.pair = p
		return nil
	}
	refuse(fmt.Errorf("no certificate of %q was given", caName(key, product)))
	return refused
}

// checkPath checks leaf → ask → ark. The root is known by its key; its signature
// over itself makes the rest of its certificate, such as its validity, the
// vendor's word too.
func checkPath(leaf *x509.Certificate, p pair, product snp.Product, want *check.Expect) error {
	if !acceptsRoot(want, p.ark, product) {
		return fmt.Errorf("root %.80q with key %s is not accepted", p.ark.Subject.CommonName, check.SPKI(p.ark))
	}
	for _, c := range []*x509.Certificate{p.ask, p.ark} {
		if err := check.CheckMark(c, want.Simulated); err != nil {
			return err
		}
	}
	for _, link := range [][2]*x509.Certificate{{p.ark, p.ark}, {p.ask, p.ark}, {leaf, p.ask}} {
		child, parent := link[0], link[1]
		switch {
		case !bytes.Equal(child.RawIssuer, parent.RawSubject):
			return fmt.Errorf("certificate %.80q was issued by %.80q, not %.80q",
				child.Subject.CommonName, child.Issuer.CommonName, parent.Subject.CommonName)
		case child.SignatureAlgorithm != x509.SHA384WithRSAPSS:
			return fmt.Errorf("certificate %.80q is signed with %v, want %v",
				child.Subject.CommonName, child.SignatureAlgorithm, x509.SHA384WithRSAPSS)
		case len(child.UnhandledCriticalExtensions) > 0:
			return fmt.Errorf("certificate %.80q has an unknown critical extension", child.Subject.CommonName)
		}
		// CheckSignatureFrom also demands that the parent is a CA that may sign
		// certificates.
		if err := child.CheckSignatureFrom(parent); err != nil {
			return fmt.Errorf("certificate %.80q: %w", child.Subject.CommonName, err)
		}
	}
	return nil
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

// checkReport checks the signature of a report, which [snp.Parse] gave as rep.
func (s *signer) checkReport(raw []byte, rep *snp.Report) bool {
	return verifyP384(s.cert.PublicKey.(*ecdsa.PublicKey), snp.SignedPart(raw), rep.R[:], rep.S[:])
}

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

// Certificates returns what a second verifier needs to form its own opinion of
// rep: the certificate of the signing key, or nil, and, for the product line,
// the signing CAs under accepted roots: only the key of the root was looked at,
// no signature.
func Certificates(rep *snp.Report, ends *attestation.Endorsements, refs []attestation.Digest, want check.Expect) (vek *x509.Certificate, product snp.Product, cas []CA) {
	key := rep.SignerInfo.Key()
	s, _ := findSigner(certsOf(ends, refs, key), rep)
	product, known := productOf(rep, s)
	if s != nil {
		vek = s.cert
	}
	if !known {
		return vek, "", nil
	}
	var pairs []pair
	for _, b := range ends.ByType(attestation.TypeAMDChain, refs) {
		if p, err := parsePair(b); err == nil {
			pairs = append(pairs, p)
		}
	}
	if !want.Simulated {
		pairs = append(pairs, amdPairs()...)
	}
	for _, p := range pairs {
		if p.ask.Subject.CommonName == caName(key, product) && acceptsRoot(&want, p.ark, product) {
			cas = append(cas, CA{Signing: p.ask, Root: p.ark})
		}
	}
	return vek, product, cas
}

// CA is a signing CA of AMD (ASK or ASVK) and the root above it.
type CA struct{ Signing, Root *x509.Certificate }
