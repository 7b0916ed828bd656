package chunkstore

import (
	"fmt"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
)

// A manifest's bytes are one deterministic CBOR item,
//
//	["concordat/manifest/1", [[oid, chunk, n, inline], …], pad]
//
// with byte strings oid (32), chunk (32, or none), inline (n bytes, or none)
// and pad, which holds zeros. The whole is 4096·2^j bytes long for the smallest
// j that a pad can reach.
type manifestBody struct {
	_       struct{} `cbor:",toarray"`
	Label   string
	Entries []entryBody
	Pad     []byte
}

type entryBody struct {
	_      struct{} `cbor:",toarray"`
	Object object.ID
	Chunk  []byte
	Size   uint64
	Inline []byte
}

const (
	labelManifest = "concordat/manifest/1"
	minManifest   = 4 << 10
)

// Encode returns the padded bytes: the object to seal, whose id is object.Sum
// of them.
func (m *Manifest) Encode() []byte {
	body, pad, err := m.encode()
	if err != nil {
		panic("chunkstore: internal error: " + err.Error()) // NewManifest and ParseManifest saw to it
	}
	body.Pad = make([]byte, pad)
	return cose.Marshal(body)
}

// encode returns the body without its pad, and the pad's length.
func (m *Manifest) encode() (body manifestBody, pad int, err error) {
	body = manifestBody{Label: labelManifest, Entries: make([]entryBody, len(m.entries))}
	size := int64(0)
	for i, e := range m.entries {
		b := entryBody{Object: e.Object, Size: uint64(e.Size), Inline: e.Inline}
		if !e.Chunk.IsZero() {
			b.Chunk = e.Chunk[:]
		}
		body.Entries[i] = b
		size += int64(len(e.Inline))
	}
	if size > MaxManifest {
		return body, 0, fmt.Errorf("%w: manifest of more than %d bytes, limit %d", ErrTooLarge, size, MaxManifest)
	}
	pad, err = padding(len(cose.Marshal(body)) - 1) // without the empty pad's one byte
	return body, pad, err
}

// headSize returns the length of the head of a CBOR byte string of n bytes
// (RFC 8949 3).
func headSize(n int) int {
	switch {
	case n < 24:
		return 1
	case n < 1<<8:
		return 2
	case n < 1<<16:
		return 3
	}
	return 5
}

// padding returns the length of the pad after size other bytes. Because of the
// heads a few totals cannot be reached: then the next power of two is taken.
func padding(size int) (int, error) {
	for total := minManifest; total <= MaxManifest; total *= 2 {
		for _, head := range []int{1, 2, 3, 5} {
			if n := total - size - head; n >= 0 && headSize(n) == head {
				return n, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: manifest of %d bytes without padding, limit %d", ErrTooLarge, size, MaxManifest)
}

// ParseManifest decodes and checks a manifest: its form and padding, every
// inline object against its id, and that the list is exactly the post-order of
// its last object. What the bodies of those objects say is object.Inflate's to
// check. It keeps no reference to b.
//
// A manifest that is not well-formed was sealed that way: the error wraps
// [ErrOpening] or [ErrTooLarge].
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrTooLarge, len(b), MaxManifest)
	}
	var body manifestBody
	if err := cose.Unmarshal(b, &body); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrOpening, err)
	}
	if body.Label != labelManifest {
		return nil, fmt.Errorf("%w: not a manifest", ErrOpening)
	}
	for _, z := range body.Pad {
		if z != 0 {
			return nil, fmt.Errorf("%w: manifest padding is not zero", ErrOpening)
		}
	}
	entries := make([]Entry, len(body.Entries))
	for i, e := range body.Entries {
		if e.Size > MaxPlain || len(e.Chunk) != 0 && len(e.Chunk) != len(ID{}) {
			return nil, fmt.Errorf("%w: manifest entry %d: size or chunk id", ErrOpening, i)
		}
		entries[i] = Entry{Object: e.Object, Size: int64(e.Size)}
		copy(entries[i].Chunk[:], e.Chunk)
		if len(e.Chunk) != 0 && entries[i].Chunk.IsZero() {
			return nil, fmt.Errorf("%w: manifest entry %d: chunk id of zeros", ErrOpening, i)
		}
		if len(e.Inline) != 0 {
			entries[i].Inline = e.Inline
		}
	}
	if err := checkEntries(entries); err != nil {
		return nil, err
	}
	if pad, err := padding(len(b) - headSize(len(body.Pad)) - len(body.Pad)); err != nil || pad != len(body.Pad) {
		return nil, fmt.Errorf("%w: manifest is not padded to its size", ErrOpening)
	}
	return &Manifest{entries}, nil
}
