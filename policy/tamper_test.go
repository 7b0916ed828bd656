package policy

import (
	"testing"

	"github.com/concordat/concordat/ci/tamper"
)

// TestTamper: whatever is changed in something that members signed, it is refused.
func TestTamper(t *testing.T) {
	t.Parallel()
	p := example()
	credential, err := SignCredential(issuerKey("hospital-a"), credential(p))
	if err != nil {
		t.Fatal(err)
	}
	next := successor(p, func(p *Policy) { p.Name = "later" })
	denial := deny(t, p, "lab-b", DenyChip, fill(64, 3))
	_, of, err := p.VerifyDenial(denial)
	if err != nil || of != "lab-b" {
		t.Fatal(of, err)
	}
	for name, c := range map[string]struct {
		raw    []byte
		least  int
		verify func([]byte) error
	}{
		"credential": {credential, 60, func(b []byte) error { _, _, err := p.VerifyCredential(b, day); return err }},
		"approval":   {approve(t, next, "bank-c")[0], 40, func(b []byte) error { _, err := p.VerifyApproval(b, next); return err }},
		"denial":     {denial, 40, func(b []byte) error { _, _, err := p.VerifyDenial(b); return err }},
		// Adopted by as many members as it needs, so that not one approval may go.
		"chain": {genesis(t).Encode(), 500, func(b []byte) error { _, err := ParseChain(b); return err }},
	} {
		if err := c.verify(c.raw); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n := 0
		tamper.Each(c.raw, func(path string, mutated []byte) {
			n++
			if c.verify(mutated) == nil {
				t.Errorf("%s%s: accepted", name, path)
			}
		})
		if n < c.least {
			t.Errorf("%s: only %d changes", name, n)
		}
	}
}
