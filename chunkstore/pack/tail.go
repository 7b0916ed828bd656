package pack

import (
	"fmt"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/durable"
)

const (
	// maxTail ends a tail: a pack that large gets no further batches, so that
	// damage to it loses few.
	maxTail = 1 << 20
	// maxGroup is the most bytes that are appended, and synced, at once.
	maxGroup = 1 << 20
)

// commitSmall appends a batch to the scope's tail. Whoever comes first takes
// all that wait with it, as one batch; those that come while it writes wait for
// the next.
func (s *Store) commitSmall(b *batch) error {
	idx := b.idx
	s.mu.Lock()
	idx.waiting = append(idx.waiting, b)
	s.mu.Unlock()
	idx.tailMu.Lock()
	defer idx.tailMu.Unlock()
	for !b.done {
		group := s.takeGroup(idx)
		err := s.appendGroup(b.scope, idx, group)
		for _, g := range group {
			g.done, g.err = true, err
		}
	}
	return b.err
}

func (s *Store) takeGroup(idx *scope) []*batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, size := 0, recordSize
	for n < len(idx.waiting) && size+len(idx.waiting[n].buf) <= maxGroup {
		size += len(idx.waiting[n].buf)
		n++
	}
	group := idx.waiting[:n:n]
	idx.waiting = idx.waiting[n:]
	return group
}

// appendGroup commits a group of batches as one. The caller holds tailMu.
func (s *Store) appendGroup(sc chunkstore.Scope, idx *scope, group []*batch) error {
	info := &batchInfo{at: s.options.Now()}
	var data []byte
	var from int64 // where data begins in the file
	if idx.tail != nil {
		from = idx.tail.size
	} else {
		data = appendHeader(nil, sc)
	}
	l := newLayout()
	for _, b := range group {
		at := from + int64(len(data))
		data = append(data, b.buf...)
		for _, r := range b.records {
			r.off += at
			h := r.announcement()
			copy(data[r.off-from-recordSize:], h[:])
			l.add(r)
		}
		info.bytes += b.bytes
		b.buf = nil
	}
	info.records = l.records
	end := from + int64(len(data))
	commit := l.commit(info.at, end)
	end += recordSize

	if tail := idx.tail; tail != nil {
		gone, err := s.appendTail(tail, data, commit)
		if err != nil {
			idx.tail = nil // what is on disk behind its size is not known
			if gone {
				s.reserve(sc.Federation, -info.bytes)
			}
			return fmt.Errorf("pack: append to %s: %w", tail.path, err)
		}
		tail.size, info.pack = end, tail
		s.mu.Lock()
		s.index(idx, info)
		s.mu.Unlock()
	} else {
		gone, err := s.create(sc, idx, append(data, commit...), info)
		if err != nil {
			if gone {
				s.reserve(sc.Federation, -info.bytes)
			}
			return err
		}
		idx.tail = info.pack
	}
	if end >= maxTail {
		idx.tail = nil
	}
	return nil
}

// appendTail appends a batch to a pack: its chunks, durably, and then its
// commit. gone says after an error that no trace of it is left.
func (s *Store) appendTail(tail *pack, data, commit []byte) (gone bool, err error) {
	h, err := s.files.get(tail)
	if err != nil {
		return true, err
	}
	defer s.files.put(h)
	if _, err = h.WriteAt(data, tail.size); err == nil {
		if err = h.Sync(); err == nil {
			if _, err = h.WriteAt(commit, tail.size+int64(len(data))); err == nil {
				err = h.Sync()
			}
		}
	}
	if err != nil {
		return h.Truncate(tail.size) == nil && h.Sync() == nil, err
	}
	return false, nil
}

// create makes a pack that holds one batch. gone says after an error that no
// trace of it is left.
func (s *Store) create(sc chunkstore.Scope, idx *scope, data []byte, info *batchInfo) (gone bool, err error) {
	if err := s.makeDir(idx); err != nil {
		return true, err
	}
	t, err := durable.CreateTemp(s.fsys, idx.dir, 0o600)
	if err != nil {
		return true, fmt.Errorf("pack: %w", err)
	}
	name := packName(info.at)
	if _, err = t.WriteAt(data, 0); err == nil {
		err = t.Publish(name)
	}
	if err != nil {
		return t.Discard() == nil, fmt.Errorf("pack: %w", err)
	}
	s.publish(idx, t, name, info, int64(len(data)))
	return false, nil
}
