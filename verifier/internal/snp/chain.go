package snp

import (
	"bytes"
	"crypto/x509"
	"fmt"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/verifier/internal/check"
)

// caName is the common name that AMD gives to the certificate above a kind of
// key: ASK or ASVK (57230, chapter 3).
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
	if err := check.CheckMark(s.cert, want.Simulated); err != nil {
		return err
	}
	var refused error
	refuse := func(err error) {
		if refused == nil {
			refused = err
		}
	}
	for _, c := range candidates(chains, want, refuse) {
		if c.ask.Subject.CommonName != caName(key, product) {
			continue
		}
		if err := checkPath(s.cert, c.pair, product, want); err != nil {
			refuse(err)
			continue
		}
		if c.given {
			goodPairs.Put(c.key, c.pair)
		}
		if !s.remembered {
			goodSigners.Put(check.Key(s.cert.Raw, []byte(key.String())), signer{cert: s.cert, ext: s.ext})
		}
		s.pair = c.pair
		return nil
	}
	refuse(fmt.Errorf("no certificate of %q was given", caName(key, product)))
	return refused
}

// candidate is a chain, and the key of its document in goodPairs if it was given.
type candidate struct {
	pair
	key   [32]byte
	given bool
}

// candidates returns the chains that may lead to an accepted root: those given
// and, for real hardware, AMD's own.
func candidates(chains [][]byte, want *check.Expect, refuse func(error)) []candidate {
	var all []candidate
	for _, b := range chains {
		p, key, err := recall(b)
		if err != nil {
			refuse(err)
			continue
		}
		all = append(all, candidate{p, key, true})
	}
	if !want.Simulated {
		for _, p := range amdPairs() {
			all = append(all, candidate{pair: p})
		}
	}
	return all
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
		if err := checkLink(link[0], link[1]); err != nil {
			return err
		}
	}
	return nil
}

func checkLink(child, parent *x509.Certificate) error {
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
	err := check.Signed(child.Raw, parent, func() error { return child.CheckSignatureFrom(parent) })
	if err != nil {
		return fmt.Errorf("certificate %.80q: %w", child.Subject.CommonName, err)
	}
	return nil
}

// CA is a signing CA of AMD (ASK or ASVK) and the root above it.
type CA struct{ Signing, Root *x509.Certificate }

// Certificates returns what a second verifier needs to form its own opinion of
// raw, which [snp.Parse] gave as rep: the certificate of the signing key, or nil,
// and, for the product line, the signing CAs under accepted roots: only the key
// of the root was looked at, no signature.
func Certificates(raw []byte, rep *snp.Report, ends *attestation.Endorsements, refs []attestation.Digest, want check.Expect) (vek *x509.Certificate, product snp.Product, cas []CA) {
	key := rep.SignerInfo.Key()
	s, _ := findSigner(certsOf(ends, refs, key), raw, rep)
	product, known := productOf(rep, s)
	if s != nil {
		vek = s.cert
	}
	if !known {
		return vek, "", nil
	}
	for _, p := range candidates(ends.ByType(attestation.TypeAMDChain, refs), &want, func(error) {}) {
		if p.ask.Subject.CommonName == caName(key, product) && acceptsRoot(&want, p.ark, product) {
			cas = append(cas, CA{Signing: p.ask, Root: p.ark})
		}
	}
	return vek, product, cas
}
