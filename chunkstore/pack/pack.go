package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/durable"
)

// Options of a store. The zero value is a store without a limit.
type Options struct {
	// FederationBytes limits what the chunks of one federation take up, open
	// batches and repeated chunks included; 0 is no limit.
	FederationBytes int64
	// Now dates the batches; nil is time.Now.
	Now func() time.Time
}

// Store is a chunkstore.Store in a directory.
type Store struct {
	fsys    durable.FS
	root    string
	options Options
	lock    io.Closer

	mu     sync.RWMutex
	scopes map[chunkstore.Scope]*scope
	used   map[chunkstore.Digest]int64 // by federation
	closed bool
}

var _ chunkstore.Store = (*Store)(nil)

// scope is the index of one scope, oldest batch first.
type scope struct {
	batches []*batchInfo
	chunks  map[chunkstore.ID]location // in the newest batch that has it
}

type batchInfo struct {
	name  string
	at    time.Time
	bytes int64
	ids   []chunkstore.ID
}

type location struct {
	batch *batchInfo
	size  int64
}

// Open opens the store in root, which it creates if need be, and removes what
// an earlier process left half-done. Unknown files are an error: root belongs to
// the store.
func Open(fsys durable.FS, root string, options Options) (*Store, error) {
	if options.Now == nil {
		options.Now = time.Now
	}
	if err := durable.MkdirAll(fsys, root, 0o700); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	lock, err := fsys.Lock(filepath.Join(root, "lock"))
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	s := &Store{fsys: fsys, root: root, options: options, lock: lock,
		scopes: make(map[chunkstore.Scope]*scope), used: make(map[chunkstore.Digest]int64)}
	if err := s.load(); err != nil {
		lock.Close()
		return nil, fmt.Errorf("pack: %w", err)
	}
	return s, nil
}

// Close gives the root back. Batches that are still open must not be committed.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	return s.lock.Close()
}

func (s *Store) dir(sc chunkstore.Scope) string {
	return filepath.Join(s.root, sc.Federation.String(), sc.Run.String(), sc.Owner.String())
}

// begin makes the checks that every method starts with.
func begin(ctx context.Context, sc chunkstore.Scope) error {
	if err := sc.Check(); err != nil {
		return err
	}
	return ctx.Err()
}

func (s *Store) find(ctx context.Context, sc chunkstore.Scope, id chunkstore.ID) (location, error) {
	if err := begin(ctx, sc); err != nil {
		return location{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if idx := s.scopes[sc]; idx != nil {
		if loc, ok := idx.chunks[id]; ok {
			return loc, nil
		}
	}
	return location{}, fmt.Errorf("%w: %s", chunkstore.ErrNotFound, id.Short())
}

// Missing implements chunkstore.Store.
func (s *Store) Missing(ctx context.Context, sc chunkstore.Scope, ids []chunkstore.ID) ([]uint64, error) {
	if err := begin(ctx, sc); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var have map[chunkstore.ID]location
	if idx := s.scopes[sc]; idx != nil {
		have = idx.chunks
	}
	bitmap := make([]uint64, (len(ids)+63)/64)
	for i, id := range ids {
		if _, ok := have[id]; !ok {
			bitmap[i/64] |= 1 << (i % 64)
		}
	}
	return bitmap, nil
}

// Size implements chunkstore.Store.
func (s *Store) Size(ctx context.Context, sc chunkstore.Scope, id chunkstore.ID) (int64, error) {
	loc, err := s.find(ctx, sc, id)
	return loc.size, err
}

// ReadAt implements chunkstore.Store.
func (s *Store) ReadAt(ctx context.Context, sc chunkstore.Scope, id chunkstore.ID, p []byte, off int64) (int, error) {
	for {
		loc, err := s.find(ctx, sc, id)
		if err != nil {
			return 0, err
		}
		f, err := s.fsys.OpenFile(filepath.Join(s.dir(sc), loc.batch.name, id.String()), os.O_RDONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			// Released since find, or moved to a newer batch: then look again.
			if again, aerr := s.find(ctx, sc, id); aerr != nil || again.batch != loc.batch {
				continue
			}
		}
		if err != nil {
			return 0, fmt.Errorf("pack: %w", err)
		}
		n, err := f.ReadAt(p, off)
		f.Close() // opened for reading: nothing is lost
		if err != nil && err != io.EOF {
			return n, fmt.Errorf("pack: %w", err)
		}
		return n, err
	}
}

// Release implements chunkstore.Store.
func (s *Store) Release(ctx context.Context, sc chunkstore.Scope, before time.Time) (int64, error) {
	if err := begin(ctx, sc); err != nil {
		return 0, err
	}
	var freed int64
	for _, b := range s.forget(sc, before) {
		// From here on nobody finds the batch. Should removing it fail, the next
		// Open sees it again, whole or in part, and a later Release removes it.
		if err := durable.RemoveTree(s.fsys, filepath.Join(s.dir(sc), b.name)); err != nil {
			return freed, fmt.Errorf("pack: %w", err)
		}
		s.reserve(sc.Federation, -b.bytes)
		freed += b.bytes
	}
	return freed, nil
}

// forget takes the batches that were committed before that time out of the
// index.
func (s *Store) forget(sc chunkstore.Scope, before time.Time) []*batchInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	idx := s.scopes[sc]
	if idx == nil {
		return nil
	}
	old := slices.Clone(idx.batches)
	old = slices.DeleteFunc(old, func(b *batchInfo) bool { return !b.at.Before(before) })
	idx.batches = slices.DeleteFunc(idx.batches, func(b *batchInfo) bool { return b.at.Before(before) })
	for _, b := range old {
		for _, id := range b.ids {
			if idx.chunks[id].batch == b {
				delete(idx.chunks, id)
			}
		}
	}
	if len(idx.batches) == 0 {
		delete(s.scopes, sc)
	}
	return old
}

// reserve counts n bytes more, or fewer, for a federation.
func (s *Store) reserve(federation chunkstore.Digest, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && s.options.FederationBytes > 0 && n > s.options.FederationBytes-s.used[federation] {
		return fmt.Errorf("%w: %d bytes for a federation", chunkstore.ErrQuota, s.options.FederationBytes)
	}
	s.used[federation] += n
	return nil
}
