package attestation

import (
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/merkle"
)

// MaxNonces bounds the nodes of one window, and so the path of a proof.
const MaxNonces = 1 << 20

const maxNoncePath = 20 // log2(MaxNonces)

// NonceTree collects the challenges of one nonce window, so that one piece of
// evidence answers all of them. It is an RFC 9162 tree; the entry of a leaf is
// "concordat/nonce/1" || 00 || node id || nonce, which makes a proof of one node
// useless to another. The zero value is empty. It is not safe for concurrent
// use.
type NonceTree struct {
	leaves []merkle.Hash
	added  []NonceProof // node and nonce only
}

// Add appends the challenge of a node and returns its leaf index. node is the
// node id. The same challenge may be added twice; it then has two leaves. It
// fails if the window is full.
func (t *NonceTree) Add(node Digest, nonce [32]byte) (uint64, error) {
	if len(t.leaves) >= MaxNonces {
		return 0, fmt.Errorf("nonce tree: window of %d challenges is full", MaxNonces)
	}
	t.leaves = append(t.leaves, nonceLeaf(node, nonce))
	t.added = append(t.added, NonceProof{Node: node, Nonce: nonce})
	return uint64(len(t.leaves) - 1), nil
}

// Count returns the number of leaves.
func (t *NonceTree) Count() uint64 { return uint64(len(t.leaves)) }

// Root returns the root for the claims. An empty tree has none: claims with it
// are refused.
func (t *NonceTree) Root() Digest {
	if len(t.leaves) == 0 {
		return Digest{}
	}
	return merkle.Root(t.leaves)
}

// Proof returns the proof for leaf index. It panics if index is out of range.
// It hashes the tree anew; use [NonceTree.Proofs] for all of them.
func (t *NonceTree) Proof(index uint64) *NonceProof {
	p := t.added[index]
	p.Index, p.Count = index, t.Count()
	for _, h := range merkle.Inclusion(t.leaves, int(index)) {
		p.Path = append(p.Path, h)
	}
	return &p
}

// Proofs returns the proofs of all leaves, in order, in O(n log n).
func (t *NonceTree) Proofs() []NonceProof {
	out := make([]NonceProof, len(t.added))
	copy(out, t.added)
	for i := range out {
		out[i].Index, out[i].Count = uint64(i), t.Count()
	}
	provePaths(t.leaves, out)
	return out
}

// provePaths appends to every proof its path below the subtree over leaves and
// returns the subtree's root.
func provePaths(leaves []merkle.Hash, proofs []NonceProof) merkle.Hash {
	if len(leaves) == 0 {
		return merkle.EmptyRoot()
	}
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	left, right := provePaths(leaves[:k], proofs[:k]), provePaths(leaves[k:], proofs[k:])
	for i := range proofs {
		sibling := right
		if i >= k {
			sibling = left
		}
		proofs[i].Path = append(proofs[i].Path, sibling)
	}
	return merkle.NodeHash(left, right)
}

// NonceProof says that one challenge is a leaf of a window's tree. Node and
// Nonce are what the verifier itself sent, from its own memory; only Index,
// Count and Path may come from outside.
type NonceProof struct {
	Node  Digest
	Nonce [32]byte
	Index uint64
	Count uint64
	Path  []Digest // nearest sibling first
}

// Verify checks the proof against root and count, both from claims that the
// platform signed.
func (p *NonceProof) Verify(root Digest, count uint64) error {
	switch {
	case p.Node.IsZero():
		return errors.New("nonce proof: no node")
	case p.Nonce == [32]byte{}:
		return errors.New("nonce proof: nonce of zeros")
	case p.Count != count:
		return fmt.Errorf("nonce proof: for %d leaves, the claims say %d", p.Count, count)
	case count > MaxNonces || len(p.Path) > maxNoncePath:
		return fmt.Errorf("nonce proof: path of %d in a tree of %d leaves, limit %d", len(p.Path), count, MaxNonces)
	}
	path := make([]merkle.Hash, len(p.Path))
	for i, d := range p.Path {
		path[i] = d
	}
	if err := merkle.VerifyInclusion(nonceLeaf(p.Node, p.Nonce), p.Index, count, path, root); err != nil {
		return fmt.Errorf("nonce proof: %w", err)
	}
	return nil
}

func nonceLeaf(node Digest, nonce [32]byte) merkle.Hash {
	b := make([]byte, 0, 96)
	b = append(b, "concordat/nonce/1\x00"...)
	b = append(b, node[:]...)
	b = append(b, nonce[:]...)
	return merkle.LeafHash(b)
}
