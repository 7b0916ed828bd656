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

	mu   sync.Mutex
	runs map[memKey]*memRun
	used map[Digest]int64 // by federation
}

type memKey struct{ federation, run Digest }

type memRun struct {
	owners map[Digest]map[ID][]byte // chunks, which never change
	used   time.Time
	open   int // batches
}

var _ Store = (*Mem)(nil)

func (m *Mem) now() time.Time {
	if m.Now != nil {
		return m.Now()
	}
	return time.Now()
}

// ask returns the chunks of a scope, and notes that it was asked for them. The caller
// holds the lock.
func (m *Mem) ask(s Scope) map[ID][]byte {
	r := m.runs[memKey{s.Federation, s.Run}]
	if r == nil {
		return nil
	}
	r.used = m.now()
	return r.owners[s.Owner]
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
	data, ok := m.ask(s)[id]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, id.Short())
	}
	return data, nil
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
	bitmap, have := make([]uint64, (len(ids)+63)/64), m.ask(s)
	for i, id := range ids {
		if _, ok := have[id]; !ok {
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

// Runs implements [Store].
func (m *Mem) Runs(ctx context.Context) ([]Usage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Usage
	for k, r := range m.runs {
		if u := r.usage(k); u.Owners > 0 {
			all = append(all, u)
		}
	}
	return all, nil
}

func (r *memRun) usage(k memKey) Usage {
	u := Usage{Federation: k.federation, Run: k.run, Owners: len(r.owners), Used: r.used}
	for _, chunks := range r.owners {
		u.Chunks += len(chunks)
		for _, c := range chunks {
			u.Bytes += int64(len(c))
		}
	}
	return u
}

// Release implements [Store].
func (m *Mem) Release(ctx context.Context, federation, run Digest, since time.Time) (Usage, error) {
	if err := (Scope{Federation: federation, Run: run}).Check(); err != nil {
		return Usage{}, err
	}
	if err := ctx.Err(); err != nil {
		return Usage{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := memKey{federation, run}
	r := m.runs[k]
	if r == nil {
		return Usage{Federation: federation, Run: run}, nil
	}
	if r.open > 0 || r.used.After(since) {
		return Usage{}, fmt.Errorf("%w: %s", ErrInUse, run.Short())
	}
	delete(m.runs, k)
	u := r.usage(k)
	m.used[federation] -= u.Bytes
	return u, nil
}

// Put implements [Store].
func (m *Mem) Put(ctx context.Context, s Scope) (Batch, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k := memKey{s.Federation, s.Run}
	r := m.runs[k]
	if r == nil {
		if m.runs == nil {
			m.runs = make(map[memKey]*memRun)
		}
		r = &memRun{owners: make(map[Digest]map[ID][]byte)}
		m.runs[k] = r
	}
	r.open++
	return &memBatch{m: m, ctx: ctx, scope: s, run: r, chunks: make(map[ID][]byte)}, nil
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
	run    *memRun
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
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	if len(b.chunks) > 0 {
		have := b.run.owners[b.scope.Owner]
		if have == nil {
			have = make(map[ID][]byte)
			b.run.owners[b.scope.Owner] = have
		}
		for id, data := range b.chunks {
			if _, again := have[id]; again {
				b.m.used[b.scope.Federation] -= int64(len(data))
			}
			have[id] = data
		}
		b.run.used = b.m.now()
	}
	b.leave()
	return nil
}

// leave ends the batch in its run, of which nothing is left if it had nothing else. The
// caller holds the lock.
func (b *memBatch) leave() {
	if b.run.open--; b.run.open == 0 && len(b.run.owners) == 0 {
		delete(b.m.runs, memKey{b.scope.Federation, b.scope.Run})
	}
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
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.leave()
	return nil
}
