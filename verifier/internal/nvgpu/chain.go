package nvgpu

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/verifier/internal/check"
)

// rootSPKI is the SHA-256 of the SubjectPublicKeyInfo of "NVIDIA Device Identity
// CA", the P-384 root that NVIDIA's verifier ships as
// nv-local-gpu-verifier/verifier/certs/verifier_device_root.pem (SHA-256 of the
// certificate: 102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48).
var rootSPKI = attestation.Digest{
	0xa9, 0x0c, 0x4e, 0xb5, 0xac, 0xfd, 0x3e, 0x3d, 0x03, 0xa2, 0x5d, 0xb6, 0xa2, 0x6b, 0x84, 0xf7,
	0x20, 0xad, 0x05, 0x03, 0x19, 0x6c, 0x62, 0x7c, 0x21, 0xdd, 0xd4, 0x8d, 0xd8, 0x5b, 0x06, 0xa4,
}

// The places in a chain, leaf first.
const (
	leaf        = iota // "GH100 A01 GSP FMC LF": an alias key of this boot's firmware; signs reports
	device             // "GH100 A01 GSP BROM": the device's own key; its serial number is the ueid
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
// and the last one an accepted root by its key.
func verifyChain(chain []*x509.Certificate, want *check.Expect) error {
	if want.At.IsZero() {
		return errors.New("no time to judge at") // x509 would take its own clock
	}
	if !want.Accepts(chain[root], []attestation.Digest{rootSPKI}) {
		return fmt.Errorf("the root %q has key %s, which is not accepted", chain[root].Subject.CommonName, check.SPKI(chain[root]))
	}
	for _, c := range chain {
		if err := check.CheckMark(c, want.Simulated); err != nil {
			return err
		}
	}
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(chain[root])
	for _, c := range chain[device:root] {
		middle.AddCert(c)
	}
	paths, err := chain[leaf].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: middle, CurrentTime: want.At,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // NVIDIA's certificates state none
	})
	if err != nil {
		return err
	}
	for _, path := range paths {
		if len(path) == chainLength && sameChain(path, chain) {
			return nil
		}
	}
	return errors.New("the certificates verify only in another order than the given one")
}

func sameChain(a, b []*x509.Certificate) bool {
	for i := range a {
		if !a[i].Equal(b[i]) {
			return false
		}
	}
	return true
}

// Names that NVIDIA gives: "NVIDIA GH100 Identity" to the CA of one chip, and to
// that chip's device and leaf certificates "GH100 A01 GSP …".
var (
	identityName = regexp.MustCompile(`^NVIDIA (G[A-Z][0-9]{3}) Identity$`)
	chipName     = regexp.MustCompile(`^(G[A-Z][0-9]{3}) [A-Z][0-9]{2} GSP (BROM|FMC LF)$`)
)

// architecture returns the GPU's architecture as a policy spells it, and its
// chip, from the names in the chain.
func architecture(chain []*x509.Certificate) (arch, chip string, err error) {
	m := identityName.FindStringSubmatch(chain[identity].Subject.CommonName)
	if m == nil {
		return "", "", fmt.Errorf("the CA %.80q names no chip", chain[identity].Subject.CommonName)
	}
	chip = m[1]
	for i, kind := range []string{leaf: "FMC LF", device: "BROM"} {
		name := chain[i].Subject.CommonName
		if n := chipName.FindStringSubmatch(name); n == nil || n[1] != chip || n[2] != kind {
			return "", "", fmt.Errorf("the certificate %.80q is not the %s of a %s", name, kind, chip)
		}
	}
	switch chip[:2] {
	case "GH":
		return "hopper", chip, nil
	case "GB":
		return "blackwell", chip, nil
	}
	return "", chip, nil
}
