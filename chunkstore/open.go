package chunkstore

import (
	"crypto/cipher"
	"crypto/subtle"
	"fmt"
	"slices"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/merkle"
)

// Opener opens the segments of one chunk, each checked against the chunk's id.
// It is safe for concurrent use.
type Opener struct {
	id     ID
	n      int64
	header [HeaderSize]byte
	leaves []merkle.Hash
	gcm    cipher.AEAD
}

// NewOpener checks that l is the layout of id, and that the opening is the one
// that the chunk was sealed with. id must come from a signed statement; l may
// come from anyone, and the opening from its owner.
//
// A layout of other bytes is [ErrMismatch]; an opening that the header does not
// commit to is [ErrOpening], whatever it would decrypt.
func NewOpener(id ID, l *Layout, o Opening) (*Opener, error) {
	got, err := l.ID()
	if err != nil {
		return nil, fmt.Errorf("chunk %s: %w", id.Short(), err)
	}
	if got != id {
		return nil, fmt.Errorf("%w: want %s, got %s", ErrMismatch, id.Short(), got.Short())
	}
	commitment := o.commitment()
	if subtle.ConstantTimeCompare(commitment[:], l.Header[16:]) != 1 {
		return nil, fmt.Errorf("%w: %s is committed to another", ErrOpening, id.Short())
	}
	n, err := plainSize(&l.Header)
	if err != nil {
		return nil, err
	}
	return &Opener{id, n, l.Header, append([]merkle.Hash(nil), l.Leaves...), o.aead()}, nil
}

// Size returns the length of the object in bytes. Where a manifest says how
// long an object is, the caller compares.
func (o *Opener) Size() int64 { return o.n }

// Segments returns the number of segments.
func (o *Opener) Segments() int { return len(o.leaves) }

// SegmentSpan returns where segment i lies in the stored bytes, for
// [Store.ReadAt].
func (o *Opener) SegmentSpan(i int) (off int64, size int) { return segmentSpan(o.n, i) }

// OpenSegment checks and decrypts segment i and appends its plaintext to dst:
// [SegmentSize] bytes, fewer for the last. To decrypt in place, pass sealed[:0]
// as dst; otherwise they must not overlap. sealed must not change during the
// call.
//
// It makes the same checks every time, so two readings give the same bytes or
// an error. It panics if there is no segment i.
func (o *Opener) OpenSegment(dst []byte, i int, sealed []byte) ([]byte, error) {
	if i < 0 || i >= len(o.leaves) {
		panic(fmt.Sprintf("chunkstore: internal error: segment %d of %d", i, len(o.leaves)))
	}
	if _, want := o.SegmentSpan(i); len(sealed) != want {
		return nil, fmt.Errorf("%w: segment %d of %s has %d bytes, want %d", ErrMismatch, i, o.id.Short(), len(sealed), want)
	}
	if merkle.LeafHash(sealed) != o.leaves[i] {
		return nil, fmt.Errorf("%w: segment %d of %s", ErrMismatch, i, o.id.Short())
	}
	nonce := segmentNonce(i, i == len(o.leaves)-1)
	out, err := o.gcm.Open(dst, nonce[:], sealed, o.header[:])
	if err != nil {
		// Authentic by the id, and yet not sealed with this key: the sealer
		// committed to garbage.
		return nil, fmt.Errorf("%w: segment %d of %s does not decrypt", ErrOpening, i, o.id.Short())
	}
	return out, nil
}

// openSegments is OpenSegment for segments from first on, at most together, hashed side by
// side; not hashed at all if the opener's leaves were just measured on these very bytes.
func (o *Opener) openSegments(dst []byte, first int, sealed [][]byte, measured bool) ([]byte, error) {
	var leaves [together]merkle.Hash
	if !measured {
		merkle.LeafHashes(leaves[:len(sealed)], sealed)
	}
	for k, s := range sealed {
		i := first + k
		if !measured && leaves[k] != o.leaves[i] {
			return nil, fmt.Errorf("%w: segment %d of %s", ErrMismatch, i, o.id.Short())
		}
		nonce := segmentNonce(i, i == len(o.leaves)-1)
		var err error
		if dst, err = o.gcm.Open(dst, nonce[:], s, o.header[:]); err != nil {
			return nil, fmt.Errorf("%w: segment %d of %s does not decrypt", ErrOpening, i, o.id.Short())
		}
	}
	return dst, nil
}

// Open checks a whole chunk against its id, decrypts it, checks that it is the
// object that the opening names, and appends it to dst. The errors are those of
// [NewOpener] and [Opener.OpenSegment]; another object is [ErrOpening].
func Open(dst []byte, id ID, stored []byte, o Opening) ([]byte, error) {
	l, err := Measure(stored)
	if err != nil {
		return nil, fmt.Errorf("chunk %s: %w", id.Short(), err)
	}
	op, err := NewOpener(id, l, o)
	if err != nil {
		return nil, err
	}
	at := len(dst)
	dst = slices.Grow(dst, int(op.Size())) // or every segment would copy those before it
	for i := range op.Segments() {
		off, size := op.SegmentSpan(i)
		nonce := segmentNonce(i, i == op.Segments()-1)
		// Measure has just hashed these bytes: the leaf needs no second look.
		if dst, err = op.gcm.Open(dst, nonce[:], stored[off:off+int64(size)], op.header[:]); err != nil {
			return nil, fmt.Errorf("%w: segment %d of %s does not decrypt", ErrOpening, i, id.Short())
		}
	}
	if object.Sum(dst[at:]) != o.oid() {
		return nil, fmt.Errorf("%w: %s holds another object", ErrOpening, id.Short())
	}
	return dst, nil
}
