package pack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/durable"
)

// Release implements chunkstore.Store. A pack that holds younger batches too is
// written again without the older ones: small batches alone share packs, so
// that this is little.
func (s *Store) Release(ctx context.Context, sc chunkstore.Scope, before time.Time) (int64, error) {
	if err := begin(ctx, sc); err != nil {
		return 0, err
	}
	idx := s.use(sc)
	defer s.leave(sc, idx)
	idx.tailMu.Lock()
	defer idx.tailMu.Unlock()
	// From here on nobody finds the batches. Should removing one fail, the next
	// Open sees it again, and a later Release removes it.
	var freed int64
	var errs []error
	emptied, partly := s.forget(idx, before)
	for _, p := range emptied {
		if err := s.remove(idx, p); err != nil {
			errs = append(errs, err)
		} else {
			freed += p.dead
		}
	}
	for _, p := range partly { // what needs space, after what gives some
		if err := s.rewrite(sc, idx, p); err != nil {
			errs = append(errs, err)
		} else {
			freed += p.dead
		}
	}
	if len(emptied)+len(partly) > 0 {
		if err := s.fsys.SyncDir(idx.dir); err != nil {
			return 0, fmt.Errorf("pack: sync %s: %w", idx.dir, errors.Join(append(errs, err)...))
		}
	}
	s.reserve(sc.Federation, -freed)
	if len(errs) > 0 {
		return freed, fmt.Errorf("pack: %w", errors.Join(errs...))
	}
	return freed, nil
}

// forget takes the batches that were committed before that time out of the
// index, and returns the packs that hold them: those that hold nothing else any
// more, and those that do.
func (s *Store) forget(idx *scope, before time.Time) (emptied, partly []*pack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var touched []*pack
	idx.batches = slices.DeleteFunc(idx.batches, func(b *batchInfo) bool {
		if !b.at.Before(before) {
			return false
		}
		if !slices.Contains(touched, b.pack) {
			touched = append(touched, b.pack)
		}
		b.pack.live--
		b.pack.dead += b.bytes
		for _, r := range b.records {
			if idx.chunks[r.id].batch == b {
				delete(idx.chunks, r.id)
			}
		}
		return true
	})
	for _, p := range touched {
		if p.live == 0 {
			emptied = append(emptied, p)
		} else {
			partly = append(partly, p)
		}
	}
	return emptied, partly
}

// remove unlinks a pack. The caller syncs the directory.
func (s *Store) remove(idx *scope, p *pack) error {
	if idx.tail == p {
		idx.tail = nil
	}
	s.files.forget(p)
	return s.fsys.Remove(p.path)
}

// rewrite replaces a pack by one that holds its live batches alone. The caller
// holds tailMu and syncs the directory.
func (s *Store) rewrite(sc chunkstore.Scope, idx *scope, p *pack) error {
	s.mu.RLock()
	var keep []*batchInfo
	for _, b := range idx.batches {
		if b.pack == p {
			keep = append(keep, b)
		}
	}
	s.mu.RUnlock()
	h, err := s.files.get(p)
	if err != nil {
		return err
	}
	defer s.files.put(h)
	data := appendHeader(nil, sc)
	moved := make([][]record, len(keep))
	for i, b := range keep {
		l := newLayout()
		for _, r := range b.records {
			to := record{r.id, int64(len(data)) + recordSize, r.size}
			a := to.announcement()
			data = append(data, a[:]...)
			data = append(data, make([]byte, r.size)...)
			if n, err := h.ReadAt(data[to.off:], r.off); int64(n) < r.size {
				return fmt.Errorf("read %s: %w", p.path, err)
			}
			l.add(to)
		}
		data = append(data, l.commit(b.at, int64(len(data)))...)
		moved[i] = l.records
	}
	t, err := durable.CreateTemp(s.fsys, idx.dir, 0o600)
	if err != nil {
		return err
	}
	name := packName(keep[len(keep)-1].at)
	if _, err = t.WriteAt(data, 0); err == nil {
		err = t.Publish(name)
	}
	if err != nil {
		return errors.Join(err, t.Discard())
	}
	s.replace(idx, p, t, name, keep, moved, int64(len(data)))
	return s.remove(idx, p)
}

// replace has the index point to the pack that was written instead of p.
func (s *Store) replace(idx *scope, p *pack, t *durable.Temp, name string, keep []*batchInfo, moved [][]record, size int64) {
	fresh := s.open(idx, t, name, size)
	if size < maxTail {
		idx.tail = fresh
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh.live, p.live = len(keep), 0
	for i, b := range keep {
		b.pack, b.records = fresh, moved[i]
		for _, r := range b.records {
			if idx.chunks[r.id].batch == b {
				idx.chunks[r.id] = location{b, fresh, r.off, r.size}
			}
		}
	}
}
