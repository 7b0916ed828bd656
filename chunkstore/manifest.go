package chunkstore

import (
	"fmt"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
)

// Limits of a manifest.
const (
	// MaxManifest is the largest padded manifest in bytes.
	MaxManifest = cose.MaxItem
	// MaxEntries is how many objects one may list; arbitrary, 1.25 TiB of array
	// in chunks of Flower's size.
	MaxEntries = 1 << 18
)

// Entry is one object of a manifest, in one of three forms: Inline holds its
// bytes; or Chunk names the chunk that does; or neither is set, and the object is
// only named. ArrayChunks have the second or third form, all other objects the
// first. The third is read, and nobody writes it: arrays that a run freezes are not
// in contributions at all.
type Entry struct {
	Object object.ID
	Chunk  ID     // zero unless the object has a chunk of its own
	Size   int64  // length of the object's bytes
	Inline []byte // nil unless the bytes stand here
}

// Manifest lists everything below one object, children first. It is an object
// itself: sealed, its chunk is leaf 0 of the contribution, and the chunks that
// it names follow in its order.
type Manifest struct{ entries []Entry }

// NewManifest checks the entries, which come in the order in which
// object.Flatten emits them, the root last. It keeps entries.
func NewManifest(entries []Entry) (*Manifest, error) {
	if err := checkEntries(entries); err != nil {
		return nil, err
	}
	m := &Manifest{entries}
	if _, _, err := m.encode(); err != nil {
		return nil, err
	}
	return m, nil
}

// Entries returns the list, which must not be changed.
func (m *Manifest) Entries() []Entry { return m.entries }

// Root returns the id of the object that everything else is below.
func (m *Manifest) Root() object.ID { return m.entries[len(m.entries)-1].Object }

// Chunks returns the leaves of the contribution's tree, in order: the manifest's
// own chunk id, which only sealing tells, and those that it names.
func (m *Manifest) Chunks(own ID) []ID {
	ids := []ID{own}
	for _, e := range m.entries {
		if !e.Chunk.IsZero() {
			ids = append(ids, e.Chunk)
		}
	}
	return ids
}

// checkEntries demands that entries are exactly the post-order of the last one.
func checkEntries(entries []Entry) error {
	if len(entries) == 0 || len(entries) > MaxEntries {
		return fmt.Errorf("%w: manifest of %d objects, want 1 to %d", ErrTooLarge, len(entries), MaxEntries)
	}
	w := walk{entries: entries, heads: make([]object.Head, len(entries)), at: make(map[object.ID]int, len(entries))}
	chunks := make(map[ID]struct{}, len(entries))
	for i, e := range entries {
		h, err := e.head()
		if err != nil {
			return fmt.Errorf("manifest entry %d: %w", i, err)
		}
		if _, dup := w.at[e.Object]; dup {
			return fmt.Errorf("%w: manifest entry %d is listed twice", ErrOpening, i)
		}
		if _, dup := chunks[e.Chunk]; dup && !e.Chunk.IsZero() {
			return fmt.Errorf("%w: manifest entry %d has the chunk of another", ErrOpening, i)
		}
		w.heads[i], w.at[e.Object] = h, i
		chunks[e.Chunk] = struct{}{}
	}
	root := len(entries) - 1
	if w.heads[root].Kind == object.KindArrayChunk {
		return fmt.Errorf("%w: the manifest's root is an ArrayChunk", ErrOpening)
	}
	if err := w.visit(root); err != nil {
		return err
	}
	if w.next != len(entries) {
		return fmt.Errorf("%w: manifest entry %d is below nothing", ErrOpening, w.next-1)
	}
	return nil
}

// head checks one entry by itself and returns what it says of its object.
func (e *Entry) head() (object.Head, error) {
	if e.Inline == nil {
		if e.Size < 1 || e.Size > MaxPlain {
			return object.Head{}, fmt.Errorf("%w: object of %d bytes, want 1 to %d", ErrTooLarge, e.Size, MaxPlain)
		}
		return object.Head{Kind: object.KindArrayChunk}, nil
	}
	if !e.Chunk.IsZero() || e.Size != int64(len(e.Inline)) {
		return object.Head{}, fmt.Errorf("%w: inline object with a chunk or another size", ErrOpening)
	}
	if object.Sum(e.Inline) != e.Object {
		return object.Head{}, fmt.Errorf("%w: inline object has another id", ErrOpening)
	}
	h, err := object.ParseHead(e.Inline)
	if err != nil {
		return object.Head{}, fmt.Errorf("%w: %w", ErrOpening, err)
	}
	if h.Kind == object.KindArrayChunk {
		return object.Head{}, fmt.Errorf("%w: ArrayChunk inline", ErrOpening)
	}
	return h, nil
}

// walk visits the tree in post-order and compares with the list.
type walk struct {
	entries []Entry
	heads   []object.Head
	at      map[object.ID]int
	next    int // entries before it were visited
}

// visit recurses five deep at most: each kind of object holds only kinds below
// it.
func (w *walk) visit(i int) error {
	h := w.heads[i]
	for _, c := range h.Children {
		j, ok := w.at[c]
		if !ok {
			return fmt.Errorf("%w: manifest entry %d has a child that is not listed", ErrOpening, i)
		}
		if !h.Kind.MayHold(w.heads[j].Kind) {
			return fmt.Errorf("%w: manifest entry %d: %v in %v", ErrOpening, i, w.heads[j].Kind, h.Kind)
		}
		if j < w.next {
			continue
		}
		if err := w.visit(j); err != nil {
			return err
		}
	}
	if i != w.next {
		return fmt.Errorf("%w: manifest entry %d is out of order", ErrOpening, i)
	}
	w.next++
	return nil
}
