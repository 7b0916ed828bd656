package chunkstore

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/merkle"
)

// Seal appends the chunk of an object to dst and returns its id and the
// extended slice. oid is the SHA-256 of plain. The same secret and object give
// the same bytes, always: a chunk that was deleted is made anew from them.
//
// It panics if oid is another object's or plain is larger than [MaxPlain]: two
// texts under one key and nonce would give away both, so oid is computed once
// more here rather than believed. plain and dst must not overlap.
func Seal(dst []byte, s *Secret, oid object.ID, plain []byte) (ID, []byte) {
	if len(plain) > MaxPlain {
		panic(fmt.Sprintf("chunkstore: internal error: Seal of %d bytes, limit %d", len(plain), MaxPlain))
	}
	if object.Sum(plain) != oid {
		panic("chunkstore: internal error: Seal under the id of another object")
	}
	return seal(dst, s, oid, plain)
}

// seal is [Seal] for callers that have just computed oid from plain.
func seal(dst []byte, s *Secret, oid object.ID, plain []byte) (ID, []byte) {
	opening := s.Opening(oid)
	gcm := opening.aead()
	l := Layout{Header: newHeader(len(plain), opening.commitment())}
	dst = slices.Grow(dst, int(StoredSize(int64(len(plain)))))
	dst = append(dst, l.Header[:]...)
	count := Segments(int64(len(plain)))
	l.Leaves = make([]merkle.Hash, count)
	segments := make([][]byte, count)
	for i := range count {
		part := plain[i*SegmentSize : min((i+1)*SegmentSize, len(plain))]
		nonce := segmentNonce(i, i == count-1)
		at := len(dst)
		dst = gcm.Seal(dst, nonce[:], part, l.Header[:]) // dst has the room: it does not move
		segments[i] = dst[at:]
		if len(segments)-i == 1 || i%together == together-1 { // while they are in the cache
			from := i / together * together
			merkle.LeafHashes(l.Leaves[from:i+1], segments[from:i+1])
		}
	}
	id, err := l.ID()
	if err != nil {
		panic("chunkstore: internal error: " + err.Error())
	}
	return id, dst
}

// segmentNonce marks the last segment, so that an object cannot be cut short at
// a segment's end (STREAM: Hoang et al., CRYPTO 2015).
func segmentNonce(i int, last bool) (nonce [12]byte) {
	if last {
		nonce[0] = 1
	}
	binary.BigEndian.PutUint64(nonce[4:], uint64(i))
	return nonce
}
