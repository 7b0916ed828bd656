// Package merkle is the one Merkle tree of this project: the RFC 9162 tree
// with SHA-256 (section 2.1; RFC 9942 calls it RFC9162_SHA256).
//
// Nonce batches, chunk segments, contributions, step inputs, acks and the
// transparency log all use it; what differs between them is only the bytes of
// an entry, and every user prefixes those with a domain tag of its own, so that
// a proof of one kind never verifies as another.
//
// Start with [Root] for a small list, [Range] to stream a large one in
// O(log n) memory, and [VerifyInclusion] and [VerifyConsistency] to check
// proofs that came from outside. All functions are pure and safe for
// concurrent use; a Range is not.
package merkle

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/bits"

	"github.com/concordat/concordat/internal/lanes"
)

// Hash is a SHA-256 node or leaf hash of the tree.
type Hash = [sha256.Size]byte

// MaxProof is the most elements that a proof may have: a path in a tree of
// 2^63 leaves. Longer proofs are refused before any hashing.
const MaxProof = 63

// ErrProof is returned, wrapped with the reason, by every proof check that
// fails.
var ErrProof = errors.New("merkle: proof does not verify")

// LeafHash returns SHA-256(0x00 || entry) (RFC 9162 2.1.1).
func LeafHash(entry []byte) Hash {
	h := sha256.New()
	h.Write([]byte{0})
	h.Write(entry)
	var out Hash
	h.Sum(out[:0])
	return out
}

// LeafHashes sets hashes[i] to [LeafHash] of entries[i], several at once where the
// processor can. Both have one length.
func LeafHashes(hashes []Hash, entries [][]byte) { lanes.Sum(hashes, 0, entries) }

// NodeHash returns SHA-256(0x01 || left || right) (RFC 9162 2.1.1).
func NodeHash(left, right Hash) Hash {
	var b [1 + 2*sha256.Size]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+sha256.Size:], right[:])
	return sha256.Sum256(b[:])
}

// EmptyRoot returns the root of the tree without leaves, SHA-256("").
func EmptyRoot() Hash { return sha256.Sum256(nil) }

// Root returns the root over leaf hashes (not entries).
func Root(leaves []Hash) Hash {
	var r Range
	for _, l := range leaves {
		r.Append(l)
	}
	return r.Root()
}

// Range is an append-only tree that keeps only the roots of its perfect
// subtrees: at most 64 hashes for any size. The zero value is the empty tree.
type Range struct {
	size  uint64
	peaks []Hash // left to right; one per set bit of size
}

// ResumeRange returns the range of the given size with the given peaks (as
// [Range.Peaks] returned them).
func ResumeRange(size uint64, peaks []Hash) (*Range, error) {
	if bits.OnesCount64(size) != len(peaks) {
		return nil, fmt.Errorf("merkle: range of %d leaves has %d peaks, want %d", size, len(peaks), bits.OnesCount64(size))
	}
	return &Range{size: size, peaks: append([]Hash(nil), peaks...)}, nil
}

// Append adds one leaf hash.
func (r *Range) Append(leaf Hash) {
	for s := r.size; s&1 == 1; s >>= 1 {
		last := len(r.peaks) - 1
		leaf = NodeHash(r.peaks[last], leaf)
		r.peaks = r.peaks[:last]
	}
	r.peaks = append(r.peaks, leaf)
	r.size++
}

// Size returns the number of leaves.
func (r *Range) Size() uint64 { return r.size }

// Peaks returns a copy of the perfect subtrees' roots, left to right.
func (r *Range) Peaks() []Hash { return append([]Hash(nil), r.peaks...) }

// Root returns the root of the leaves so far.
func (r *Range) Root() Hash {
	if r.size == 0 {
		return EmptyRoot()
	}
	h := r.peaks[len(r.peaks)-1]
	for i := len(r.peaks) - 2; i >= 0; i-- {
		h = NodeHash(r.peaks[i], h)
	}
	return h
}

// split returns the largest power of two smaller than n, for n > 1.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

// Inclusion returns the inclusion path of leaf index among leaves, nearest
// sibling first (RFC 9162 2.1.3.1). It panics if index is out of range. It
// costs O(n) hashes; keep the leaves of trees that are asked often.
func Inclusion(leaves []Hash, index int) []Hash {
	if index < 0 || index >= len(leaves) {
		panic(fmt.Sprintf("merkle: internal error: leaf %d of %d", index, len(leaves)))
	}
	if len(leaves) == 1 {
		return nil
	}
	k := split(len(leaves))
	if index < k {
		return append(Inclusion(leaves[:k], index), Root(leaves[k:]))
	}
	return append(Inclusion(leaves[k:], index-k), Root(leaves[:k]))
}

// Consistency returns the proof that the tree over leaves extends the one over
// leaves[:old] (RFC 9162 2.1.4.1). It panics unless 0 < old <= len(leaves).
func Consistency(leaves []Hash, old int) []Hash {
	if old <= 0 || old > len(leaves) {
		panic(fmt.Sprintf("merkle: internal error: consistency from %d to %d", old, len(leaves)))
	}
	return subproof(leaves, old, true)
}

func subproof(leaves []Hash, old int, whole bool) []Hash {
	if old == len(leaves) {
		if whole {
			return nil
		}
		return []Hash{Root(leaves)}
	}
	k := split(len(leaves))
	if old <= k {
		return append(subproof(leaves[:k], old, whole), Root(leaves[k:]))
	}
	return append(subproof(leaves[k:], old-k, false), Root(leaves[:k]))
}

// RootFromInclusion recomputes the root that path proves for leaf at index in a
// tree of size leaves (RFC 9162 2.1.3.2). The size of a tree is not fixed by
// its root: compare sizes against signed bytes, never against a proof.
func RootFromInclusion(leaf Hash, index, size uint64, path []Hash) (Hash, error) {
	if index >= size {
		return Hash{}, fmt.Errorf("%w: index %d in a tree of %d", ErrProof, index, size)
	}
	inner := bits.Len64(index ^ (size - 1))
	border := bits.OnesCount64(index >> inner)
	if len(path) != inner+border {
		return Hash{}, fmt.Errorf("%w: path has %d elements, want %d", ErrProof, len(path), inner+border)
	}
	h := leaf
	for i, p := range path[:inner] {
		if index>>i&1 == 0 {
			h = NodeHash(h, p)
		} else {
			h = NodeHash(p, h)
		}
	}
	for _, p := range path[inner:] {
		h = NodeHash(p, h)
	}
	return h, nil
}

// VerifyInclusion checks that leaf is at index of the tree with the given size
// and root. The error wraps [ErrProof].
func VerifyInclusion(leaf Hash, index, size uint64, path []Hash, root Hash) error {
	got, err := RootFromInclusion(leaf, index, size, path)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(got[:], root[:]) != 1 {
		return fmt.Errorf("%w: root is %x, path leads to %x", ErrProof, root[:8], got[:8])
	}
	return nil
}

// VerifyConsistency checks that the tree (newSize, newRoot) extends the tree
// (oldSize, oldRoot) (RFC 9162 2.1.4.2). Every tree extends the empty one, and
// then oldRoot must be [EmptyRoot] and the proof empty. The error wraps
// [ErrProof].
func VerifyConsistency(oldSize, newSize uint64, proof []Hash, oldRoot, newRoot Hash) error {
	switch {
	case oldSize > newSize:
		return fmt.Errorf("%w: tree shrinks from %d to %d", ErrProof, oldSize, newSize)
	case oldSize == newSize:
		if len(proof) != 0 || oldRoot != newRoot {
			return fmt.Errorf("%w: two roots for size %d", ErrProof, oldSize)
		}
		return nil
	case oldSize == 0:
		if len(proof) != 0 || oldRoot != EmptyRoot() {
			return fmt.Errorf("%w: empty tree with root %x", ErrProof, oldRoot[:8])
		}
		return nil
	case len(proof) == 0 || len(proof) > MaxProof+1:
		return fmt.Errorf("%w: consistency proof of %d elements", ErrProof, len(proof))
	}
	fr, sr, err := consistencyRoots(oldSize, newSize, proof, oldRoot)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(fr[:], oldRoot[:])&subtle.ConstantTimeCompare(sr[:], newRoot[:]) != 1 {
		return fmt.Errorf("%w: trees of %d and %d leaves are not consistent", ErrProof, oldSize, newSize)
	}
	return nil
}
