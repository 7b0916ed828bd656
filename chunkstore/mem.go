package chunkstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// Mem is a [Store] in memory. The zero value is an empty store without a limit;
// the fields must not change once it is in use.
type Mem struct {
	FederationBytes int64            // limit for the chunks of one federation, open batches included; 0 is none
	Now             func() time.Time // nil is time.Now

	mu     sync.Mutex
	scopes map[Scope]map[ID]memChunk
	used   map[Digest]int64 // by federation
}

var _ Store = (*Mem)(nil)

type memChunk struct {
	data []byte // never changed
	at   time.Time
}

func (m *Mem) get(ctx context.Context, s Scope, id ID) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.scopes[s][id]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id.Short())
	}
	return c.data, nil
}

// Missing implements [Store].
func (m *Mem) Missing(ctx context.Context, s Scope, ids []ID) ([]uint64, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	bitmap := make([]uint64, (len(ids)+63)/64)
	for i, id := range ids {
		if _, ok := m.scopes[s][id]; !ok {
			bitmap[i/64] |= 1 << (i % 64)
		}
	}
	return bitmap, nil
}

// Size implements [Store].
func (m *Mem) Size(ctx context.Context, s Scope, id ID) (int64, error) {
	data, err := m.get(ctx, s, id)
	return int64(len(data)), err
}

// ReadAt implements [Store].
func (m *Mem) ReadAt(ctx context.Context, s Scope, id ID, p []byte, off int64) (int, error) {
	data, err := m.get(ctx, s, id)
	if err != nil {
		return 0, err
	}
	n, err := bytes.NewReader(data).ReadAt(p, off)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("chunkstore: %w", err)
	}
	return n, err
}

// Release implements [Store].
func (m *Mem) Release(ctx context.Context, s Scope, before time.Time) (int64, error) {
	if err := s.Check(); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var freed int64
	for id, c := range m.scopes[s] {
		if c.at.Before(before) {
			freed += int64(len(c.data))
			delete(m.scopes[s], id)
		}
	}
	if len(m.scopes[s]) == 0 {
		delete(m.scopes, s)
	}
	if freed > 0 {
		m.used[s.Federation] -= freed
	}
	return freed, nil
}

// Put implements [Store].
func (m *Mem) Put(ctx context.Context, s Scope) (Batch, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &memBatch{m: m, ctx: ctx, scope: s, chunks: make(map[ID][]byte)}, nil
}

// reserve counts n bytes more, or fewer, for a federation.
func (m *Mem) reserve(federation Digest, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > 0 && m.FederationBytes > 0 && n > m.FederationBytes-m.used[federation] {
		return fmt.Errorf("%w: %d bytes for a federation", ErrQuota, m.FederationBytes)
	}
	if m.used == nil {
		m.used = make(map[Digest]int64)
	}
	m.used[federation] += n
	return nil
}

type memBatch struct {
	m      *Mem
	ctx    context.Context
	scope  Scope
	chunks map[ID][]byte
	ended  bool
}

// memWriter counts every write against the quota before it takes the bytes.
type memWriter struct {
	b    *memBatch
	data []byte
}

func (w *memWriter) Write(p []byte) (int, error) {
	if err := w.b.ctx.Err(); err != nil {
		return 0, err
	}
	if err := w.b.m.reserve(w.b.scope.Federation, int64(len(p))); err != nil {
		return 0, err
	}
	w.data = append(w.data, p...)
	return len(p), nil
}

func (b *memBatch) Add(id ID, r io.Reader) error {
	if b.ended {
		return errEnded
	}
	w := &memWriter{b: b}
	_, err := Copy(w, r, id)
	if _, dup := b.chunks[id]; err != nil || dup {
		b.m.reserve(b.scope.Federation, -int64(len(w.data)))
		return err
	}
	b.chunks[id] = w.data
	return nil
}

func (b *memBatch) Commit() error {
	if b.ended {
		return errEnded
	}
	if err := b.ctx.Err(); err != nil {
		return err
	}
	b.ended = true
	now := time.Now
	if b.m.Now != nil {
		now = b.m.Now
	}
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	if b.m.scopes == nil {
		b.m.scopes = make(map[Scope]map[ID]memChunk)
	}
	if b.m.scopes[b.scope] == nil && len(b.chunks) > 0 {
		b.m.scopes[b.scope] = make(map[ID]memChunk)
	}
	for id, data := range b.chunks {
		if old, ok := b.m.scopes[b.scope][id]; ok {
			b.m.used[b.scope.Federation] -= int64(len(old.data))
		}
		b.m.scopes[b.scope][id] = memChunk{data, now()}
	}
	return nil
}

func (b *memBatch) Discard() error {
	if b.ended {
		return nil
	}
	b.ended = true
	for _, data := range b.chunks {
		b.m.reserve(b.scope.Federation, -int64(len(data)))
	}
	b.chunks = nil
	return nil
}
