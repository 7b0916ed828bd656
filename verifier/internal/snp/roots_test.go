package snp

import (
	"testing"

	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/verifier/internal/check"
)

// TestRoots compares the pinned digests with AMD's certificates.
func TestRoots(t *testing.T) {
	pairs := amdPairs()
	if len(pairs) != 6 {
		t.Fatalf("%d chains, want VCEK and VLEK of three product lines", len(pairs))
	}
	found := map[string]bool{}
	for _, p := range pairs {
		found[p.ask.Subject.CommonName] = true
		if err := p.ark.CheckSignatureFrom(p.ark); err != nil {
			t.Errorf("%s is not self-signed: %v", p.ark.Subject.CommonName, err)
		}
		if err := p.ask.CheckSignatureFrom(p.ark); err != nil {
			t.Errorf("%s: %v", p.ask.Subject.CommonName, err)
		}
		for product := range arks {
			want := p.ark.Subject.CommonName == "ARK-"+string(product)
			if got := acceptsRoot(&check.Expect{}, p.ark, product); got != want {
				t.Errorf("%s as root of %s: %v", p.ark.Subject.CommonName, product, got)
			}
			if acceptsRoot(&check.Expect{Simulated: true}, p.ark, product) {
				t.Errorf("%s accepted in a simulation", p.ark.Subject.CommonName)
			}
		}
	}
	for product := range arks {
		for _, k := range []snp.SigningKey{snp.VCEK, snp.VLEK} {
			if !found[caName(k, product)] {
				t.Errorf("no chain for %s", caName(k, product))
			}
		}
	}
}
