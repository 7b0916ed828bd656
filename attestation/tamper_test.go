package attestation

import (
	"bytes"
	"testing"

	"github.com/concordat/concordat/ci/tamper"
)

// TestTamper: no field of claims, of an envelope or of a set is ignored. Whatever
// is changed is refused, or read as what it now says, under another digest.
func TestTamper(t *testing.T) {
	t.Parallel()
	walk := func(name string, raw []byte, least int, read func([]byte) ([]byte, error)) {
		t.Helper()
		n := 0
		tamper.Each(raw, func(path string, mutated []byte) {
			n++
			if again, err := read(mutated); err == nil && !bytes.Equal(again, mutated) {
				t.Errorf("%s%s: read as something else", name, path)
			}
		})
		if n < least {
			t.Errorf("%s: only %d changes", name, n)
		}
	}
	claims := testClaims(t).Encode()
	good := ReportData(claims, true)
	walk("claims", claims, 100, func(b []byte) ([]byte, error) {
		if ReportData(b, true) == good {
			t.Error("other claims have the same report data")
		}
		c, err := ParseClaims(b)
		if err != nil {
			return nil, err
		}
		return c.Encode(), nil
	})
	e := testEvidence(t)
	walk("evidence", e.Encode(), 40, func(b []byte) ([]byte, error) {
		got, err := ParseEvidence(b)
		if err != nil {
			return nil, err
		}
		if got.Digest() == e.Digest() {
			t.Error("another envelope has the same digest")
		}
		return got.Encode(), nil
	})
	walk("endorsements", testEndorsements(t).Encode(), 10, func(b []byte) ([]byte, error) {
		got, err := ParseEndorsements(b)
		if err != nil {
			return nil, err
		}
		return got.Encode(), nil
	})
}
