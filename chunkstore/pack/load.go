package pack

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/durable"
)

// load builds the index from what is in the root.
func (s *Store) load() error {
	return s.each(s.root, func(name string) error {
		federation, err := parseDigest(name)
		if err != nil {
			return err
		}
		return s.each(filepath.Join(s.root, name), func(name string) error {
			run, err := parseDigest(name)
			if err != nil {
				return err
			}
			return s.each(filepath.Join(s.root, federation.String(), name), func(name string) error {
				owner, err := parseDigest(name)
				if err != nil {
					return err
				}
				return s.loadScope(chunkstore.Scope{Federation: federation, Run: run, Owner: owner})
			})
		})
	})
}

// each calls f with the name of every directory in dir, and removes dir if it
// is empty then: releases leave empty scopes behind.
func (s *Store) each(dir string, f func(name string) error) error {
	entries, err := s.fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if dir == s.root && e.Name() == "lock" {
			continue
		}
		if !e.IsDir() {
			return fmt.Errorf("%s in %s is not the store's", e.Name(), dir)
		}
		if err := f(e.Name()); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
	return s.removeEmpty(dir)
}

func (s *Store) removeEmpty(dir string) error {
	if left, err := s.fsys.ReadDir(dir); err != nil || len(left) > 0 || dir == s.root {
		return err
	}
	return s.fsys.Remove(dir)
}

func (s *Store) loadScope(sc chunkstore.Scope) error {
	if err := sc.Check(); err != nil {
		return err
	}
	dir := s.dir(sc)
	if err := durable.Sweep(s.fsys, dir); err != nil {
		return err
	}
	// A killed process may have given a pack its name and not synced that. The
	// pack counts from now on, so it must last.
	if err := s.fsys.SyncDir(dir); err != nil {
		return err
	}
	entries, err := s.fsys.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		stem, isPack := strings.CutSuffix(e.Name(), packSuffix)
		switch {
		case e.IsDir() && isName(stem, 4):
			return fmt.Errorf("%s is a batch in the layout of one file a chunk, which this version does not read: move %s away; nodes send again what is missing", filepath.Join(dir, e.Name()), s.root)
		case e.IsDir() || !isPack || !isName(stem, 8):
			return fmt.Errorf("%s in %s is not the store's", e.Name(), dir)
		}
		path := filepath.Join(dir, e.Name())
		err := s.loadPack(sc, path)
		if errors.Is(err, errDamaged) {
			s.damaged = append(s.damaged, fmt.Errorf("pack: %s: %w; its chunks are missing until nodes send them again, and the file may be removed", path, err))
		} else if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return s.removeEmpty(dir)
}

func (s *Store) loadPack(sc chunkstore.Scope, path string) error {
	f, err := s.fsys.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	batches, end, err := parse(f, info.Size(), sc)
	if err != nil {
		return err
	}
	if end < info.Size() {
		s.torn = append(s.torn, fmt.Errorf("pack: %s: cut off %d bytes behind its last batch, at %d", path, info.Size()-end, end))
		if err := f.Truncate(end); err != nil {
			return err
		}
	}
	// The first batch was durable before the pack had its name; a killed process
	// may not have synced what it appended, which counts from now on.
	if end < info.Size() || len(batches) > 1 {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p, idx := &pack{path: path, size: end}, s.scope(sc)
	for _, c := range batches {
		b := &batchInfo{pack: p, at: c.at, records: c.records}
		for _, r := range c.records {
			b.bytes += r.size
		}
		s.index(idx, b)
		s.used[sc.Federation] += b.bytes
	}
	if end < maxTail {
		idx.tail = p
	}
	return nil
}

// index adds a batch. The caller holds the store's lock.
func (s *Store) index(idx *scope, b *batchInfo) {
	at, _ := slices.BinarySearchFunc(idx.batches, b, func(x, y *batchInfo) int { return x.at.Compare(y.at) })
	idx.batches = slices.Insert(idx.batches, at, b)
	for _, r := range b.records {
		if old, ok := idx.chunks[r.id]; !ok || !b.at.Before(old.batch.at) {
			idx.chunks[r.id] = location{b, b.pack, r.off, r.size}
		}
	}
}

// isName reports whether name is a time and so many random bytes, in hex.
func isName(name string, random int) bool {
	stamp, rest, _ := strings.Cut(name, "-")
	_, err1 := strconv.ParseUint(stamp, 16, 64)
	_, err2 := hex.DecodeString(rest)
	return err1 == nil && err2 == nil && len(stamp) == 16 && len(rest) == 2*random
}

// parseDigest decodes a directory's name; 64 zeros are the zero Digest.
func parseDigest(name string) (d chunkstore.Digest, err error) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(d) || hex.EncodeToString(b) != name {
		return d, fmt.Errorf("%.80s is not the store's", name)
	}
	return chunkstore.Digest(b), nil
}

var _ = fs.ErrExist
