package merkle

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

func leaves(n int) []Hash {
	out := make([]Hash, n)
	for i := range out {
		out[i] = LeafHash(fmt.Appendf(nil, "entry %d", i))
	}
	return out
}

func slices(p []Hash) [][]byte {
	out := make([][]byte, len(p))
	for i := range p {
		out[i] = p[i][:]
	}
	return out
}

// TestAgainstOracle compares every proof of every small tree with
// transparency-dev/merkle.
func TestAgainstOracle(t *testing.T) {
	const max = 40
	all := leaves(max)
	for n := 1; n <= max; n++ {
		root := Root(all[:n])
		for i := range n {
			p := Inclusion(all[:n], i)
			if err := VerifyInclusion(all[i], uint64(i), uint64(n), p, root); err != nil {
				t.Fatalf("inclusion %d of %d: %v", i, n, err)
			}
			if err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(i), uint64(n), all[i][:], slices(p), root[:]); err != nil {
				t.Fatalf("oracle: inclusion %d of %d: %v", i, n, err)
			}
		}
		for m := 1; m <= n; m++ {
			p, old := Consistency(all[:n], m), Root(all[:m])
			if err := VerifyConsistency(uint64(m), uint64(n), p, old, root); err != nil {
				t.Fatalf("consistency %d to %d: %v", m, n, err)
			}
			if err := proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(m), uint64(n), slices(p), old[:], root[:]); err != nil {
				t.Fatalf("oracle: consistency %d to %d: %v", m, n, err)
			}
		}
	}
}

// TestTamper changes each element of each proof, index and size and expects a
// refusal.
func TestTamper(t *testing.T) {
	all := leaves(13)
	root := Root(all)
	bad := Hash{1}
	for i := range all {
		p := Inclusion(all, i)
		for j := range p {
			q := append([]Hash(nil), p...)
			q[j][0] ^= 1
			if err := VerifyInclusion(all[i], uint64(i), 13, q, root); !errors.Is(err, ErrProof) {
				t.Errorf("leaf %d, element %d changed: %v", i, j, err)
			}
		}
		for name, err := range map[string]error{
			"longer":  VerifyInclusion(all[i], uint64(i), 13, append(p, bad), root),
			"leaf":    VerifyInclusion(bad, uint64(i), 13, p, root),
			"root":    VerifyInclusion(all[i], uint64(i), 13, p, bad),
			"outside": VerifyInclusion(all[i], 13, 13, p, root),
		} {
			if !errors.Is(err, ErrProof) {
				t.Errorf("leaf %d, %s: %v", i, name, err)
			}
		}
	}
	for m := 1; m < 13; m++ {
		p, old := Consistency(all, m), Root(all[:m])
		for j := range p {
			q := append([]Hash(nil), p...)
			q[j][0] ^= 1
			if err := VerifyConsistency(uint64(m), 13, q, old, root); !errors.Is(err, ErrProof) {
				t.Errorf("consistency from %d, element %d changed: %v", m, j, err)
			}
		}
		for name, err := range map[string]error{
			"longer": VerifyConsistency(uint64(m), 13, append(append([]Hash(nil), p...), bad), old, root),
			"empty":  VerifyConsistency(uint64(m), 13, nil, old, root),
			"shrink": VerifyConsistency(13, uint64(m), p, root, old),
			"old":    VerifyConsistency(uint64(m), 13, p, bad, root),
			"new":    VerifyConsistency(uint64(m), 13, p, old, bad),
		} {
			if !errors.Is(err, ErrProof) {
				t.Errorf("consistency from %d, %s: %v", m, name, err)
			}
		}
	}
	if err := VerifyConsistency(0, 13, nil, bad, root); !errors.Is(err, ErrProof) {
		t.Errorf("made-up empty root: %v", err)
	}
	if err := VerifyConsistency(0, 13, nil, EmptyRoot(), root); err != nil {
		t.Errorf("from the empty tree: %v", err)
	}
}

func TestResumeRange(t *testing.T) {
	all := leaves(21)
	var r Range
	for i, l := range all {
		again, err := ResumeRange(r.Size(), r.Peaks())
		if err != nil {
			t.Fatal(err)
		}
		r.Append(l)
		again.Append(l)
		if again.Root() != r.Root() || r.Root() != Root(all[:i+1]) {
			t.Fatalf("root differs after %d leaves", i+1)
		}
	}
	if _, err := ResumeRange(3, []Hash{{}}); err == nil {
		t.Error("range of 3 leaves with one peak was accepted")
	}
}

func FuzzVerify(f *testing.F) {
	all := leaves(9)
	f.Add(uint64(3), uint64(9), joined(Inclusion(all, 3)))
	f.Add(uint64(4), uint64(9), joined(Consistency(all, 4)))
	f.Fuzz(func(t *testing.T, a, b uint64, p []byte) {
		var path []Hash
		for ; len(p) >= 32; p = p[32:] {
			path = append(path, Hash(p[:32]))
		}
		_ = VerifyInclusion(all[0], a, b, path, Root(all))
		_ = VerifyConsistency(a, b, path, Root(all[:4]), Root(all))
	})
}

func joined(p []Hash) (b []byte) {
	for _, h := range p {
		b = append(b, h[:]...)
	}
	return b
}

func TestLeafHashes(t *testing.T) {
	t.Parallel()
	var entries [][]byte
	for i := range 11 {
		entries = append(entries, bytes.Repeat([]byte{byte(i)}, 100+i/8))
	}
	got := make([]Hash, len(entries))
	LeafHashes(got, entries)
	for i, e := range entries {
		if got[i] != LeafHash(e) {
			t.Errorf("entry %d: %x, want %x", i, got[i], LeafHash(e))
		}
	}
}
