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
	_, err := w.AddObject(raw)
	return err
}

// AddObject is Add, and returns the object's id.
func (w *ParcelWriter) AddObject(raw []byte) (object.ID, error) {
	h, err := object.ParseHead(raw)
	if err != nil {
		return object.ID{}, err
	}
	oid := object.Sum(raw)
	w.root = oid
	if _, again := w.entries[oid]; again {
		return oid, nil
	}
	e := Entry{Object: oid, Size: int64(len(raw))}
	if h.Kind == object.KindArrayChunk {
		e.Chunk, w.buf = seal(w.buf[:0], w.secret, oid, raw)
		if err := w.put(e.Chunk, w.buf); err != nil {
			return oid, err
		}
		w.chunks = append(w.chunks, e)
	} else {
		e.Inline = slices.Clone(raw)
	}
	w.entries[oid] = e
	return oid, nil
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

// Source is where the stored bytes of chunks come from. It may be anyone's: they are
// checked.
type Source interface {
	// Fetch appends the stored bytes of a chunk, at most size of them, to dst.
	Fetch(ctx context.Context, dst []byte, id ID, size int64) ([]byte, error)
	// Stream reads chunks one after the other, of each as many bytes as it is said to
	// have; it may read ahead. It ends with ctx, or when it is closed.
	Stream(ctx context.Context, chunks []Stored) io.ReadCloser
}

// Stored is a chunk as a store has it.
type Stored struct {
	ID   ID
	Size int64 // bytes
}

// Fetch is a [Source] of whole chunks, one at a time.
type Fetch func(ctx context.Context, dst []byte, id ID, size int64) ([]byte, error)

// Fetch calls f.
func (f Fetch) Fetch(ctx context.Context, dst []byte, id ID, size int64) ([]byte, error) {
	return f(ctx, dst, id, size)
}

// Stream fetches each chunk when it is read.
func (f Fetch) Stream(ctx context.Context, chunks []Stored) io.ReadCloser {
	return &fetched{ctx: ctx, fetch: f, chunks: chunks}
}

type fetched struct {
	ctx    context.Context
	fetch  Fetch
	chunks []Stored
	buf    []byte
	rest   []byte
}

func (f *fetched) Read(b []byte) (n int, err error) {
	for len(f.rest) == 0 {
		if len(f.chunks) == 0 {
			return 0, io.EOF
		}
		c := f.chunks[0]
		if f.buf, err = f.fetch(f.ctx, f.buf[:0], c.ID, c.Size); err != nil {
			return 0, err
		}
		if int64(len(f.buf)) != c.Size {
			return 0, fmt.Errorf("%w: %d bytes of %s, want %d", ErrMismatch, len(f.buf), c.ID.Short(), c.Size)
		}
		f.rest, f.chunks = f.buf, f.chunks[1:]
	}
	n = copy(b, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *fetched) Close() error { return nil }

// Parcel is an opened manifest, whose array chunks can be opened one by one, any
// number of times, each time with every check. It is safe for concurrent use.
type Parcel struct {
	secret   *Secret
	source   Source
	manifest *Manifest
	ids      []ID
	entries  map[object.ID]Entry

	mu     sync.Mutex
	known  map[object.ID]*Layout // of array chunks that were read whole
	leaves int                   // in known
}

// OpenParcel fetches and opens a manifest and checks that it lists exactly the count
// chunks under root, both from a signed statement. Errors wrap those of [Open] and
// [ParseManifest]; errors of the source are passed on.
func OpenParcel(ctx context.Context, secret *Secret, ref Ref, root Digest, count uint64, from Source) (*Parcel, error) {
	if ref.Size > MaxManifest {
		return nil, fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrTooLarge, ref.Size, MaxManifest)
	}
	stored, err := from.Fetch(ctx, nil, ref.ID, StoredSize(int64(ref.Size)))
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
	p := &Parcel{secret: secret, source: from, manifest: m, ids: m.Chunks(ref.ID), entries: map[object.ID]Entry{}, known: map[object.ID]*Layout{}}
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
	e, err := p.entry(id)
	if err != nil || e.Inline != nil {
		return e.Inline, err
	}
	m := scratches.Get().(*scratch)
	defer scratches.Put(m)
	if m.sealed, err = p.source.Fetch(ctx, m.sealed[:0], e.Chunk, StoredSize(e.Size)); err != nil {
		return nil, err
	}
	plain, err := Open(make([]byte, 0, e.Size), e.Chunk, m.sealed, p.secret.Opening(e.Object))
	if err == nil && int64(len(plain)) != e.Size {
		return nil, otherSize(e, int64(len(plain)))
	}
	return plain, err
}

func otherSize(e Entry, size int64) error {
	return fmt.Errorf("%w: object of %d bytes, the manifest says %d", ErrOpening, size, e.Size)
}

// entry returns what the manifest says of an object that can be opened.
func (p *Parcel) entry(id object.ID) (Entry, error) {
	e, ok := p.entries[id]
	switch {
	case !ok:
		return e, fmt.Errorf("%w: the manifest has no such object", ErrOpening)
	case e.Inline == nil && e.Chunk.IsZero():
		return e, fmt.Errorf("%w: the manifest names the object alone, and no chunk with it", ErrNotFound)
	}
	return e, nil
}

// scratch is memory for one sealed chunk.
type scratch struct{ sealed []byte }

// scratches are those that nobody uses.
var scratches = sync.Pool{New: func() any { return new(scratch) }}
