package chunkstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/merkle"
)

// Ref names a sealed manifest. ID comes from a signed statement, or is leaf 0 of a
// root that does; the rest is checked when it is opened.
type Ref struct {
	OID  object.ID // of the manifest's plaintext
	ID   ID
	Size uint64 // of the plaintext, in bytes
}

// Sealed is what a statement says about a parcel: a contribution, or a step's
// outputs. It is comparable.
type Sealed struct {
	Manifest Ref
	Root     Digest // over all chunks, the manifest's first
	Count    uint64 // chunks, the manifest's included
}

// ParcelWriter seals the objects below one root: array chunks each as a chunk of its
// own, all others inline in the manifest. It keeps names, not bytes, of chunks. It is
// not safe for concurrent use.
type ParcelWriter struct {
	secret  *Secret
	put     func(ID, []byte) error
	entries map[object.ID]Entry
	chunks  []Entry // array chunks, in the order of Add
	root    object.ID
	buf     []byte
}

// NewParcelWriter returns a writer that hands every chunk to put, or to nobody if put
// is nil: the parcel is then only named. put must not keep the bytes.
func NewParcelWriter(secret *Secret, put func(ID, []byte) error) *ParcelWriter {
	if put == nil {
		put = func(ID, []byte) error { return nil }
	}
	return &ParcelWriter{secret: secret, put: put, entries: map[object.ID]Entry{}}
}

// Add takes one object. Objects may come in any order, the root last; a repeated one
// costs nothing.
func (w *ParcelWriter) Add(raw []byte) error {
	h, err := object.ParseHead(raw)
	if err != nil {
		return err
	}
	oid := object.Sum(raw)
	w.root = oid
	if _, again := w.entries[oid]; again {
		return nil
	}
	e := Entry{Object: oid, Size: int64(len(raw))}
	if h.Kind == object.KindArrayChunk {
		e.Chunk, w.buf = seal(w.buf[:0], w.secret, oid, raw)
		if err := w.put(e.Chunk, w.buf); err != nil {
			return err
		}
		w.chunks = append(w.chunks, e)
	} else {
		e.Inline = slices.Clone(raw)
	}
	w.entries[oid] = e
	return nil
}

// AddSealed takes an array chunk that was sealed under the same secret before, and is
// stored.
func (w *ParcelWriter) AddSealed(e Entry) error {
	if e.Inline != nil || e.Chunk.IsZero() {
		return errors.New("chunkstore: internal error: entry of no chunk")
	}
	if _, again := w.entries[e.Object]; !again {
		w.entries[e.Object] = e
		w.chunks = append(w.chunks, e)
	}
	return nil
}

// Chunks returns the array chunks so far, for [ParcelWriter.AddSealed].
func (w *ParcelWriter) Chunks() []Entry { return slices.Clone(w.chunks) }

// Close seals the manifest and returns what a statement says of the parcel. The last
// object that was added is its root; objects that are not below it are refused.
func (w *ParcelWriter) Close() (Sealed, error) {
	var list []Entry
	if err := w.order(w.root, &list, map[object.ID]bool{}); err != nil {
		return Sealed{}, err
	}
	if len(list) != len(w.entries) {
		return Sealed{}, fmt.Errorf("chunkstore: %d objects are not below the root", len(w.entries)-len(list))
	}
	m, err := NewManifest(list)
	if err != nil {
		return Sealed{}, err
	}
	plain := m.Encode()
	oid := object.Sum(plain)
	id, stored := seal(nil, w.secret, oid, plain)
	if err := w.put(id, stored); err != nil {
		return Sealed{}, err
	}
	ids := m.Chunks(id)
	return Sealed{Manifest: Ref{OID: oid, ID: id, Size: uint64(len(plain))}, Root: Root(ids), Count: uint64(len(ids))}, nil
}

// order lists the objects below id, children first.
func (w *ParcelWriter) order(id object.ID, list *[]Entry, seen map[object.ID]bool) error {
	if seen[id] {
		return nil
	}
	seen[id] = true
	e, ok := w.entries[id]
	if !ok {
		return errors.New("chunkstore: an object's child was not added")
	}
	if e.Inline != nil {
		h, err := object.ParseHead(e.Inline)
		if err != nil {
			return err
		}
		for _, c := range h.Children {
			if err := w.order(c, list, seen); err != nil {
				return err
			}
		}
	}
	*list = append(*list, e)
	return nil
}

// Fetch appends the stored bytes of a chunk, at most size of them, to dst. They may come
// from anywhere: they are checked.
type Fetch func(ctx context.Context, dst []byte, id ID, size int64) ([]byte, error)

// Parcel is an opened manifest, whose array chunks can be opened one by one, any
// number of times, each time with every check. It is safe for concurrent use.
type Parcel struct {
	secret   *Secret
	fetch    Fetch
	manifest *Manifest
	ids      []ID
	entries  map[object.ID]Entry
}

// OpenParcel fetches and opens a manifest and checks that it lists exactly the count
// chunks under root, both from a signed statement. Errors wrap those of [Open] and
// [ParseManifest]; errors of fetch are passed on.
func OpenParcel(ctx context.Context, secret *Secret, ref Ref, root Digest, count uint64, fetch Fetch) (*Parcel, error) {
	if ref.Size > MaxManifest {
		return nil, fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrTooLarge, ref.Size, MaxManifest)
	}
	stored, err := fetch(ctx, nil, ref.ID, StoredSize(int64(ref.Size)))
	if err != nil {
		return nil, err
	}
	plain, err := Open(nil, ref.ID, stored, secret.Opening(ref.OID))
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	m, err := ParseManifest(plain)
	if err != nil {
		return nil, err
	}
	p := &Parcel{secret: secret, fetch: fetch, manifest: m, ids: m.Chunks(ref.ID), entries: map[object.ID]Entry{}}
	if got := Root(p.ids); got != root || uint64(len(p.ids)) != count {
		return nil, fmt.Errorf("%w: manifest lists %d chunks under %s, the statement says %d under %s", ErrOpening, len(p.ids), got.Short(), count, root.Short())
	}
	for _, e := range m.Entries() {
		p.entries[e.Object] = e
	}
	return p, nil
}

// Root returns the object that everything else is below.
func (p *Parcel) Root() object.ID { return p.manifest.Root() }

// Entries returns the objects, children first. The caller must not change them.
func (p *Parcel) Entries() []Entry { return p.manifest.Entries() }

// ManifestProof returns the path of the manifest's chunk, leaf 0, to the root.
func (p *Parcel) ManifestProof() []merkle.Hash { return Prove(p.ids, 0) }

// Inline returns the bytes of an object that is no array chunk.
func (p *Parcel) Inline(id object.ID) ([]byte, error) {
	e, ok := p.entries[id]
	if !ok || e.Inline == nil {
		return nil, fmt.Errorf("%w: the manifest has no such object", ErrOpening)
	}
	return e.Inline, nil
}

// Open returns the bytes of any object of the parcel, fetched and checked if it is an
// array chunk.
func (p *Parcel) Open(ctx context.Context, id object.ID) ([]byte, error) {
	return p.open(ctx, id, new(scratch))
}

// scratch is memory for one chunk, sealed and open.
type scratch struct{ sealed, plain []byte }

// open is Open; what it returns may be in s.
func (p *Parcel) open(ctx context.Context, id object.ID, s *scratch) (_ []byte, err error) {
	e, ok := p.entries[id]
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: the manifest has no such object", ErrOpening)
	case e.Inline != nil:
		return e.Inline, nil
	case e.Chunk.IsZero():
		return nil, fmt.Errorf("%w: the object is frozen and not in the parcel", ErrNotFound)
	}
	if s.sealed, err = p.fetch(ctx, s.sealed[:0], e.Chunk, StoredSize(e.Size)); err != nil {
		return nil, err
	}
	if s.plain, err = Open(s.plain[:0], e.Chunk, s.sealed, p.secret.Opening(id)); err != nil {
		return nil, err
	}
	if int64(len(s.plain)) != e.Size {
		return nil, fmt.Errorf("%w: object of %d bytes, the manifest says %d", ErrOpening, len(s.plain), e.Size)
	}
	return s.plain, nil
}

// ArrayReader reads an array's bytes, one chunk in memory at a time. a is in outline,
// inflated from this parcel.
func (p *Parcel) ArrayReader(ctx context.Context, a *object.Array) io.Reader {
	return &arrayReader{ctx: ctx, p: p, chunks: a.Chunks}
}

type arrayReader struct {
	ctx    context.Context
	p      *Parcel
	chunks []object.Chunk
	rest   []byte
	memory *scratch // rest is in it; nil after the end
}

// scratches are those of arrays that were read to their end.
var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (r *arrayReader) Read(b []byte) (int, error) {
	for len(r.rest) == 0 {
		if len(r.chunks) == 0 {
			if r.memory != nil {
				scratches.Put(r.memory)
				r.memory = nil
			}
			return 0, io.EOF
		}
		if r.memory == nil {
			r.memory = scratches.Get().(*scratch)
		}
		raw, err := r.p.open(r.ctx, r.chunks[0].ID, r.memory)
		if err != nil {
			return 0, err
		}
		if r.rest, err = object.ChunkData(raw); err != nil {
			return 0, err
		}
		r.chunks = r.chunks[1:]
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
