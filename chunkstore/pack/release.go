package pack

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/chunkstore"
)

// Runs implements chunkstore.Store.
func (s *Store) Runs(ctx context.Context) ([]chunkstore.Usage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []chunkstore.Usage
	for k, r := range s.runs {
		if u := r.usage(k); u.Owners > 0 {
			all = append(all, u)
		}
	}
	return all, nil
}

// usage is called with the store's lock.
func (r *run) usage(k runKey) chunkstore.Usage {
	u := chunkstore.Usage{Federation: k.federation, Run: k.run}
	if asked := r.asked.Load(); asked != 0 {
		u.Used = time.Unix(0, asked)
	}
	for _, idx := range r.scopes {
		if len(idx.batches) == 0 {
			continue // one that goes on
		}
		u.Owners++
		u.Chunks += len(idx.chunks)
		for _, b := range idx.batches {
			u.Bytes += b.bytes
		}
		if last := idx.batches[len(idx.batches)-1].at; last.After(u.Used) {
			u.Used = last
		}
	}
	return u
}

// Release implements chunkstore.Store. It unlinks packs and writes nothing. What is left
// of them after a crash is there again, and is released again. Empty directories stay
// until the next Open.
func (s *Store) Release(ctx context.Context, federation, run chunkstore.Digest, since time.Time) (chunkstore.Usage, error) {
	if err := begin(ctx, chunkstore.Scope{Federation: federation, Run: run}); err != nil {
		return chunkstore.Usage{}, err
	}
	r, u, err := s.forget(runKey{federation, run}, since)
	if err != nil || r == nil {
		return u, err
	}
	// Nobody finds the chunks any more, and whoever stores some of this run now makes
	// packs of his own.
	var errs []error
	for _, idx := range r.scopes {
		kept, err := s.remove(idx)
		if err != nil {
			errs = append(errs, err)
		}
		u.Bytes -= kept
	}
	s.reserve(federation, -u.Bytes)
	if len(errs) > 0 {
		return u, fmt.Errorf("pack: %w", errors.Join(errs...))
	}
	return u, nil
}

// forget takes a run out of the index, and returns it with what it holds, nil if there
// is none.
func (s *Store) forget(k runKey, since time.Time) (*run, chunkstore.Usage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.runs[k]
	if r == nil {
		return nil, chunkstore.Usage{Federation: k.federation, Run: k.run}, nil
	}
	u := r.usage(k)
	busy := u.Used.After(since)
	for _, idx := range r.scopes {
		busy = busy || idx.users > 0
	}
	if busy {
		return nil, chunkstore.Usage{}, fmt.Errorf("%w: %s", chunkstore.ErrInUse, k.run.Short())
	}
	delete(s.runs, k)
	return r, u, nil
}

// remove unlinks the packs of a scope that is not in the index any more. It returns the
// bytes of chunks that the next Open may find again.
func (s *Store) remove(idx *scope) (kept int64, err error) {
	bytes := make(map[*pack]int64)
	for _, b := range idx.batches {
		bytes[b.pack] += b.bytes
	}
	var errs []error
	for p, n := range bytes {
		if err := s.fsys.Remove(p.path); err != nil {
			errs = append(errs, err)
			kept += n
			continue
		}
		s.files.forget(p)
	}
	if err := s.fsys.SyncDir(idx.dir); err != nil {
		errs = append(errs, fmt.Errorf("sync %s: %w", idx.dir, err))
		kept = 0
		for _, n := range bytes {
			kept += n
		}
	}
	return kept, errors.Join(errs...)
}
