package receipt

import (
	"github.com/concordat/concordat/internal/merkle"
)

// Tree collects the leaves of one RFC 9162 tree and proves them. The zero value
// is empty. It keeps 32 bytes a leaf; to compute a root alone use
// [merkle.Range]. It is not safe for concurrent use.
type Tree struct{ leaves []merkle.Hash }

// Append adds an entry, made by one of the functions of internal/merkle that put
// the tag of its kind before it.
func (t *Tree) Append(entry []byte) { t.leaves = append(t.leaves, merkle.LeafHash(entry)) }

// Size returns the number of leaves.
func (t *Tree) Size() uint64 { return uint64(len(t.leaves)) }

// Root returns the root, or none if the tree is empty: that is how statements
// write it.
func (t *Tree) Root() Digest {
	if len(t.leaves) == 0 {
		return Digest{}
	}
	return merkle.Root(t.leaves)
}

// Prove returns the inclusion proof of leaf index. It panics if index is out of
// range, and costs a hash a leaf.
func (t *Tree) Prove(index uint64) Proof {
	p := Proof{Index: index, Size: t.Size()}
	for _, h := range merkle.Inclusion(t.leaves, int(index)) {
		p.Path = append(p.Path, h)
	}
	return p
}

// Proof says where an entry stands in a tree. Size is not authenticated by the
// root: compare it with signed bytes.
type Proof struct {
	Index uint64
	Size  uint64
	Path  []Digest // nearest sibling first
}

// Verify checks that entry is the leaf of p in the tree with the given root and
// size, both from a signed statement.
func (p Proof) Verify(entry []byte, size uint64, root Digest) error {
	path := make([]merkle.Hash, len(p.Path))
	for i, d := range p.Path {
		path[i] = d
	}
	return merkle.VerifyInclusion(merkle.LeafHash(entry), p.Index, size, path, root)
}
