package attestation

import (
	"encoding/binary"
	"slices"
	"testing"
)

func testTree(t testing.TB, n int) *NonceTree {
	t.Helper()
	tree := new(NonceTree)
	for i := range n {
		var nonce [32]byte
		binary.BigEndian.PutUint32(nonce[:], uint32(i)+1)
		if index, err := tree.Add(fill(byte(i+1)), nonce); err != nil || index != uint64(i) {
			t.Fatal(index, err)
		}
	}
	return tree
}

func TestNonceTree(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 100} {
		tree := testTree(t, n)
		all := tree.Proofs()
		for i := range all {
			p := tree.Proof(uint64(i))
			if !slices.Equal(p.Path, all[i].Path) || p.Index != all[i].Index || p.Node != all[i].Node {
				t.Fatalf("%d leaves: Proof(%d) and Proofs differ", n, i)
			}
			if err := p.Verify(tree.Root(), uint64(n)); err != nil {
				t.Errorf("leaf %d of %d: %v", i, n, err)
			}
		}
	}
	if !new(NonceTree).Root().IsZero() || len(new(NonceTree).Proofs()) != 0 {
		t.Error("empty tree has a root")
	}
}

func TestNonceProofRefused(t *testing.T) {
	tree := testTree(t, 6)
	root := tree.Root()
	for name, c := range map[string]struct {
		spoil func(*NonceProof)
		count uint64
	}{
		"another node":   {func(p *NonceProof) { p.Node = fill(77) }, 6},
		"another nonce":  {func(p *NonceProof) { p.Nonce[31] = 1 }, 6},
		"no node":        {func(p *NonceProof) { p.Node = Digest{} }, 6},
		"no nonce":       {func(p *NonceProof) { p.Nonce = [32]byte{} }, 6},
		"another index":  {func(p *NonceProof) { p.Index++ }, 6},
		"index too high": {func(p *NonceProof) { p.Index = 6 }, 6},
		"count":          {func(p *NonceProof) { p.Count = 5 }, 6},
		"claimed count":  {func(p *NonceProof) {}, 7},
		"path":           {func(p *NonceProof) { p.Path[0][0] ^= 1 }, 6},
		"short path":     {func(p *NonceProof) { p.Path = p.Path[1:] }, 6},
		"long path":      {func(p *NonceProof) { p.Path = make([]Digest, maxNoncePath+1) }, 6},
		"huge tree":      {func(p *NonceProof) { p.Count = MaxNonces + 1 }, MaxNonces + 1},
		"empty tree":     {func(p *NonceProof) { p.Count = 0 }, 0},
	} {
		p := tree.Proof(2)
		c.spoil(p)
		if p.Verify(root, c.count) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if tree.Proof(2).Verify(fill(1), 6) == nil {
		t.Error("another root: accepted")
	}
}

// BenchmarkNonceProofs is one window of ten thousand nodes.
func BenchmarkNonceProofs(b *testing.B) {
	tree := testTree(b, 10_000)
	for b.Loop() {
		tree.Proofs()
	}
}
