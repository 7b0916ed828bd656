package pack

import (
	"encoding/hex"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/durable"
)

// load builds the index from the names in the root.
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
	// A killed process may have renamed a batch and not synced it. It counts
	// from now on, so it must last.
	if err := s.fsys.SyncDir(dir); err != nil {
		return err
	}
	return s.each(dir, func(name string) error {
		b := &batchInfo{name: name}
		stamp, _, _ := strings.Cut(name, "-")
		nano, err := strconv.ParseUint(stamp, 16, 64)
		if err != nil || len(name) != 16+1+8 {
			return fmt.Errorf("%s is not the store's", name)
		}
		b.at = time.Unix(0, int64(nano))
		files, err := s.fsys.ReadDir(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		sizes := make(map[chunkstore.ID]int64, len(files))
		for _, f := range files {
			id, err := chunkstore.ParseID(f.Name())
			if err != nil {
				return err
			}
			var info fs.FileInfo
			if info, err = f.Info(); err != nil {
				return err
			}
			b.ids = append(b.ids, id)
			b.bytes += info.Size()
			sizes[id] = info.Size()
		}
		s.index(sc, b, sizes)
		s.used[sc.Federation] += b.bytes
		return nil
	})
}

// index adds a batch. The caller holds the lock, or is alone.
func (s *Store) index(sc chunkstore.Scope, b *batchInfo, sizes map[chunkstore.ID]int64) {
	idx := s.scopes[sc]
	if idx == nil {
		idx = &scope{chunks: make(map[chunkstore.ID]location)}
		s.scopes[sc] = idx
	}
	at, _ := slices.BinarySearchFunc(idx.batches, b, func(x, y *batchInfo) int { return x.at.Compare(y.at) })
	idx.batches = slices.Insert(idx.batches, at, b)
	for id, size := range sizes {
		if old, ok := idx.chunks[id]; !ok || !b.at.Before(old.batch.at) {
			idx.chunks[id] = location{b, size}
		}
	}
}

// parseDigest decodes a directory's name; 64 zeros are the zero Digest.
func parseDigest(name string) (d chunkstore.Digest, err error) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != len(d) || hex.EncodeToString(b) != name {
		return d, fmt.Errorf("%.80s is not the store's", name)
	}
	return chunkstore.Digest(b), nil
}
