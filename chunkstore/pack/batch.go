package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/durable"
)

// maxSmall is how many bytes of a batch are held in memory, records included:
// about a segment. A batch that grows larger gets a pack of its own.
const maxSmall = 64 << 10

var errEnded = errors.New("pack: the batch has ended")

// batch is some chunks that nobody sees before Commit: in buf while they are
// small, in a pack of their own that has no name yet once they are not.
type batch struct {
	s     *Store
	ctx   context.Context
	scope chunkstore.Scope
	idx   *scope
	have  map[chunkstore.ID]bool
	bytes int64
	ended bool

	// A small batch: the records' places are those in buf, their announcements
	// are not written yet.
	buf     []byte
	records []record

	// A large one.
	own    *durable.Temp // nil is a small one
	layout layout
	end    int64

	// Set by whoever commits the small batches, under tailMu.
	done bool
	err  error
}

// Put implements chunkstore.Store.
func (s *Store) Put(ctx context.Context, sc chunkstore.Scope) (chunkstore.Batch, error) {
	if err := begin(ctx, sc); err != nil {
		return nil, err
	}
	return &batch{s: s, ctx: ctx, scope: sc, idx: s.use(sc), have: make(map[chunkstore.ID]bool)}, nil
}

// writer is one chunk on its way into a batch. It counts every write against
// the quota before it is made.
type writer struct {
	b *batch
	n int64 // bytes so far
}

func (w *writer) Write(p []byte) (int, error) {
	b := w.b
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	if err := b.s.reserve(b.scope.Federation, int64(len(p))); err != nil {
		return 0, err
	}
	counted := w.n + int64(len(p))
	if b.own == nil && len(b.buf)+len(p) > maxSmall {
		if err := b.spill(); err != nil {
			w.n = counted
			return 0, err
		}
	}
	if b.own == nil {
		b.buf = append(b.buf, p...)
	} else if _, err := b.own.WriteAt(p, b.end+recordSize+w.n); err != nil {
		w.n = counted
		return 0, fmt.Errorf("pack: %w", err)
	}
	w.n = counted
	return len(p), nil
}

// spill moves the batch, with a chunk that it has in part, into a pack of its
// own.
func (b *batch) spill() error {
	if err := b.s.makeDir(b.idx); err != nil {
		return err
	}
	t, err := durable.CreateTemp(b.s.fsys, b.idx.dir, 0o600)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	head := appendHeader(make([]byte, 0, packHeader+len(b.buf)), b.scope)
	data, l := append(head, b.buf...), newLayout()
	end := int64(packHeader)
	for _, r := range b.records {
		r.off += int64(packHeader)
		h := r.announcement()
		copy(data[r.off-recordSize:], h[:])
		l.add(r)
		end = r.off + r.size
	}
	if _, err := t.WriteAt(data, 0); err != nil {
		t.Discard() // best effort: the next Open sweeps it
		return fmt.Errorf("pack: %w", err)
	}
	b.own, b.layout, b.end = t, l, end
	b.buf, b.records = nil, nil
	return nil
}

// makeDir makes the directory of a scope, once.
func (s *Store) makeDir(idx *scope) error {
	idx.making.Lock()
	defer idx.making.Unlock()
	if idx.made {
		return nil
	}
	if err := durable.MkdirAll(s.fsys, idx.dir, 0o700); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	idx.made = true
	return nil
}

func (b *batch) Add(id chunkstore.ID, r io.Reader) error {
	if b.ended {
		return errEnded
	}
	if b.have[id] {
		_, err := chunkstore.Copy(io.Discard, r, id)
		return err
	}
	start := len(b.buf)
	if b.own == nil {
		b.buf = append(b.buf, make([]byte, recordSize)...)
	}
	w := &writer{b: b}
	size, err := chunkstore.Copy(w, r, id)
	if err == nil && b.own != nil {
		err = b.announce(record{id, b.end + recordSize, size})
	} else if err == nil {
		b.records = append(b.records, record{id, int64(start + recordSize), size})
	}
	if err == nil {
		b.have[id] = true
		b.bytes += size
		return nil
	}
	b.s.reserve(b.scope.Federation, -w.n)
	if b.own == nil {
		b.buf = b.buf[:start]
		return err
	}
	if terr := b.own.Truncate(b.end); terr != nil {
		b.Discard() // what is not the chunk must not end up in a pack
		return errors.Join(err, fmt.Errorf("pack: %w", terr))
	}
	return err
}

// announce completes a chunk in the batch's own pack.
func (b *batch) announce(r record) error {
	p := r.announcement()
	if _, err := b.own.WriteAt(p[:], b.end); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	b.own.Begin(b.end, recordSize+r.size)
	b.layout.add(r)
	b.end = r.off + r.size
	return nil
}

func (b *batch) Commit() error {
	if b.ended {
		return errEnded
	}
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if len(b.have) == 0 {
		return b.Discard()
	}
	b.ended = true
	defer b.s.leave(b.scope, b.idx)
	if b.own == nil {
		return b.s.commitSmall(b)
	}
	at := b.s.options.Now()
	name := packName(at)
	_, err := b.own.WriteAt(b.layout.commit(at, b.end), b.end)
	if err == nil {
		err = b.own.Publish(name)
	}
	if err != nil {
		b.giveUp()
		return fmt.Errorf("pack: %w", err)
	}
	b.s.publish(b.idx, b.own, name, &batchInfo{at: at, bytes: b.bytes, records: b.layout.records}, b.end+recordSize)
	return nil
}

// publish adds a pack that has just got its name, and its one batch, to the
// index.
func (s *Store) publish(idx *scope, f durable.File, name string, info *batchInfo, size int64) {
	info.pack = s.open(idx, f, name, size)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index(idx, info)
}

// open is a pack that has just got its name. Its file stays open, for whoever
// reads it next.
func (s *Store) open(idx *scope, f durable.File, name string, size int64) *pack {
	p := &pack{path: filepath.Join(idx.dir, name), size: size}
	if h, err := s.files.add(p, f); err == nil { // or the store is closed
		s.files.put(h)
	}
	return p
}

// giveUp removes a pack without a name, or whose naming failed. Its bytes stay
// counted if it may come back when the store is opened next.
func (b *batch) giveUp() error {
	if err := b.own.Discard(); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	b.s.reserve(b.scope.Federation, -b.bytes)
	return nil
}

func (b *batch) Discard() error {
	if b.ended {
		return nil
	}
	b.ended = true
	defer b.s.leave(b.scope, b.idx)
	if b.own != nil {
		return b.giveUp()
	}
	b.s.reserve(b.scope.Federation, -b.bytes)
	return nil
}
