package nvgpu

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/verifier/internal/check"
)

// deviceRoots are the accepted roots of devices: the SHA-256 of the SubjectPublicKeyInfo of "NVIDIA Device Identity
// CA", the P-384 root that NVIDIA's verifier ships as
// nv-local-gpu-verifier/verifier/certs/verifier_device_root.pem (SHA-256 of the
// certificate: 102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48).
var deviceRoots = []attestation.Digest{{
	0xa9, 0x0c, 0x4e, 0xb5, 0xac, 0xfd, 0x3e, 0x3d, 0x03, 0xa2, 0x5d, 0xb6, 0xa2, 0x6b, 0x84, 0xf7,
	0x20, 0xad, 0x05, 0x03, 0x19, 0x6c, 0x62, 0x7c, 0x21, 0xdd, 0xd4, 0x8d, 0xd8, 0x5b, 0x06, 0xa4,
}}

// The places in a chain, leaf first.
const (
	leaf        = iota // "GH100 A01 GSP FMC LF": an alias key of this boot's firmware; signs reports
	own                // "GH100 A01 GSP BROM": the device's own key; its serial number is the ueid
	provisioner        // "NVIDIA GH100 Provisioner ICA 1"
	identity           // "NVIDIA GH100 Identity"
	root               // "NVIDIA Device Identity CA"
	chainLength
)

// parseChain decodes the five PEM certificates of a chain, leaf first. The leaf's
// key is on P-384.
func parseChain(b []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for len(chain) <= chainLength {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(chain)+1, err)
		}
		chain = append(chain, c)
	}
	if len(chain) != chainLength {
		return nil, fmt.Errorf("the chain does not have %d certificates", chainLength)
	}
	if k, ok := chain[leaf].PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P384() {
		return nil, errors.New("the leaf's key is not on P-384")
	}
	return chain, nil
}

// verifyChain checks that chain is one: every certificate signed by the next, a
// CA where it signs, valid at the judged time, marked as its federation demands,
// and the last one, by its key, a root of vendor's or of the federation's. What
// stands above the second certificate is verified once in a set.
func (s *Set) verifyChain(chain []*x509.Certificate, vendor []attestation.Digest, want *check.Expect) error {
	if want.At.IsZero() {
		return errors.New("no time to judge at") // x509 would take its own clock
	}
	last := len(chain) - 1
	if !want.Accepts(chain[last], vendor) {
		return fmt.Errorf("the root %q has key %s, which is not accepted", chain[last].Subject.CommonName, check.SPKI(chain[last]))
	}
	for _, c := range chain {
		if err := check.CheckMark(c, want.Simulated); err != nil {
			return err
		}
	}
	var upper strings.Builder
	for _, c := range chain[2:] {
		upper.Write(c.Raw) // DER: a certificate says itself where it ends
	}
	path := chain
	if s.upper[upper.String()] {
		path = chain[:3] // up to a CA that is known to reach the root
	}
	if err := verifyPath(path, want); err != nil {
		return err
	}
	s.upper[upper.String()] = true
	return nil
}

// verifyPath verifies path with its last certificate as the trusted one. While all of
// its certificates are valid, the judged time makes no difference, and a path that was
// good once is not verified again.
func verifyPath(path []*x509.Certificate, want *check.Expect) error {
	var all []byte
	for _, c := range path {
		if want.At.Before(c.NotBefore) || want.At.After(c.NotAfter) {
			return verifyPathAt(path, want.At)
		}
		all = append(all, c.Raw...) // DER: a certificate says itself where it ends
	}
	return check.Signed(all, path[len(path)-1], func() error { return verifyPathAt(path, want.At) })
}

func verifyPathAt(path []*x509.Certificate, at time.Time) error {
	last := len(path) - 1
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(path[last])
	for _, c := range path[1:last] {
		middle.AddCert(c)
	}
	found, err := path[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: middle, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // NVIDIA's certificates state none
	})
	if err != nil {
		return err
	}
	for _, f := range found {
		if slices.EqualFunc(f, path, (*x509.Certificate).Equal) {
			return nil
		}
	}
	return errors.New("the certificates verify only in another order than the given one")
}
