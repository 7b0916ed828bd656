package chunkstore

import (
	"fmt"

	"github.com/concordat/concordat/internal/merkle"
)

// LeafHash returns the leaf of a chunk in a contribution's or step's tree: the
// RFC 9162 leaf hash of "concordat/chunk-leaf/1" || 00 || id.
func LeafHash(id ID) merkle.Hash {
	return merkle.LeafHash(merkle.ChunkEntry(merkle.Hash(id)))
}

func leaves(ids []ID) []merkle.Hash {
	out := make([]merkle.Hash, len(ids))
	for i, id := range ids {
		out[i] = LeafHash(id)
	}
	return out
}

// Root returns the root of the tree over chunks in their order: the chunk_root
// of a signed statement. The statement says their number too, since a root does
// not.
func Root(ids []ID) Digest { return merkle.Root(leaves(ids)) }

// Prove returns the path that shows chunk index to be under the root of ids. It
// hashes the whole list and panics if there is no such chunk.
func Prove(ids []ID, index int) []merkle.Hash { return merkle.Inclusion(leaves(ids), index) }

// VerifyProof checks that id is chunk index of count under root. root and count
// come from a signed statement. The error wraps [merkle.ErrProof].
func VerifyProof(id ID, index, count uint64, path []merkle.Hash, root Digest) error {
	if err := merkle.VerifyInclusion(LeafHash(id), index, count, path, root); err != nil {
		return fmt.Errorf("chunk %s: %w", id.Short(), err)
	}
	return nil
}
