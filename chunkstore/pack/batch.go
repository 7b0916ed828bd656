package pack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/durable"
)

var errEnded = errors.New("pack: the batch has ended")

// batch writes its files into a directory that nobody sees before Commit.
type batch struct {
	s     *Store
	ctx   context.Context
	scope chunkstore.Scope
	dir   *durable.Dir
	sizes map[chunkstore.ID]int64
	info  batchInfo
	ended bool
}

// Put implements chunkstore.Store.
func (s *Store) Put(ctx context.Context, sc chunkstore.Scope) (chunkstore.Batch, error) {
	if err := begin(ctx, sc); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(s.fsys, s.dir(sc), 0o700); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	dir, err := durable.CreateDir(s.fsys, s.dir(sc), 0o700)
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return &batch{s: s, ctx: ctx, scope: sc, dir: dir, sizes: make(map[chunkstore.ID]int64)}, nil
}

// quotaWriter counts every write against the quota before it is made.
type quotaWriter struct {
	b *batch
	w *durable.Writer
	n int64
}

func (q *quotaWriter) Write(p []byte) (int, error) {
	if err := q.b.ctx.Err(); err != nil {
		return 0, err
	}
	if err := q.b.s.reserve(q.b.scope.Federation, int64(len(p))); err != nil {
		return 0, err
	}
	q.n += int64(len(p))
	return q.w.Write(p)
}

func (b *batch) Add(id chunkstore.ID, r io.Reader) error {
	if b.ended {
		return errEnded
	}
	if _, dup := b.sizes[id]; dup {
		_, err := chunkstore.Copy(io.Discard, r, id)
		return err
	}
	name := id.String()
	w, err := b.dir.Create(name, 0o600)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	q := &quotaWriter{b: b, w: w}
	size, err := chunkstore.Copy(q, r, id)
	if err != nil {
		w.Abort()
	} else if err = w.Close(); err != nil {
		err = fmt.Errorf("pack: %w", err)
	}
	if err == nil {
		b.sizes[id] = size
		b.info.ids = append(b.info.ids, id)
		b.info.bytes += size
		return nil
	}
	b.s.reserve(b.scope.Federation, -q.n)
	if rerr := b.dir.Remove(name); rerr != nil {
		b.Discard() // a file that is not a chunk must not become visible
		return errors.Join(err, fmt.Errorf("pack: %w", rerr))
	}
	return err
}

func (b *batch) Commit() error {
	if b.ended {
		return errEnded
	}
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if len(b.info.ids) == 0 {
		return b.Discard()
	}
	b.ended = true
	var random [4]byte
	rand.Read(random[:]) // never fails
	b.info.at = b.s.options.Now()
	b.info.name = fmt.Sprintf("%016x-%s", uint64(b.info.at.UnixNano()), hex.EncodeToString(random[:]))
	if err := b.dir.Publish(b.info.name); err != nil {
		// Perhaps visible at the next Open: its bytes stay counted until then.
		b.dir.Discard()
		return fmt.Errorf("pack: %w", err)
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.index(b.scope, &b.info, b.sizes)
	return nil
}

func (b *batch) Discard() error {
	if b.ended {
		return nil
	}
	b.ended = true
	err := b.dir.Discard()
	b.s.reserve(b.scope.Federation, -b.info.bytes)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}
