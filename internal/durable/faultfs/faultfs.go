// Package faultfs is a file system in memory for tests of durable writes. It
// knows the difference between what was written and what was synced, fails or
// loses power at the n-th operation, and shows the disk that the machine would
// find afterwards.
//
// Start with [New]; run the code once to count its operations ([FS.Ops]), then
// once for each of them with [FS.CrashAt] or [FS.FailAt], and after a crash
// with what [FS.Recover] returns for each [Keep]. It models directory entries,
// file bytes and locks; it does not model permissions, links or reordering
// between single directory entries.
package faultfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/concordat/concordat/internal/durable"
)

// ErrCrashed is returned by every operation from the crash on.
var ErrCrashed = errors.New("faultfs: power lost")

// Keep says what of the unsynced writes a crash leaves. Synced ones always
// survive.
type Keep int

const (
	Synced Keep = iota // power cut: nothing unsynced, neither entries nor bytes
	Torn               // power cut: every entry; of unsynced bytes the first half
	Zeroed             // power cut: every entry and size; unsynced bytes read as zeros
	Holed              // power cut: every entry and size; of unsynced bytes the first half reads as zeros
	Killed             // only the process ended: everything is there, and still unsynced
)

// Keeps lists every [Keep].
var Keeps = []Keep{Synced, Torn, Zeroed, Holed, Killed}

// String names k.
func (k Keep) String() string { return [...]string{"synced", "torn", "zeroed", "holed", "killed"}[k] }

var _ durable.FS = (*FS)(nil)

// FS is a file system in memory. It is safe for concurrent use, but the n-th
// operation is then anybody's.
type FS struct {
	mu      sync.Mutex
	root    *node
	locks   map[string]bool
	ops     int
	failAt  int // 0 = never
	failErr error
	crash   bool // the failure at failAt is the end
	crashed bool
	full    bool
	free    int64 // bytes that files may still grow by, if full
}

// node is a file or a directory, as written and as last synced.
type node struct {
	dir             bool
	data, synced    []byte
	entries, stable map[string]*node
}

func newDir() *node {
	return &node{dir: true, entries: map[string]*node{}, stable: map[string]*node{}}
}

// New returns an empty file system with the root "/".
func New() *FS { return &FS{root: newDir(), locks: map[string]bool{}} }

// Ops returns how many operations were tried so far. Each method of the file
// system and of its files is one, except Close.
func (f *FS) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// FailAt lets the n-th operation from now (1 is the next) fail with err, half
// done if it writes; later ones work again.
func (f *FS) FailAt(n int, err error) { f.arm(n, err, false) }

// CrashAt loses power in the n-th operation from now: it is half done if it
// writes, and it and all later ones fail with [ErrCrashed].
func (f *FS) CrashAt(n int) { f.arm(n, ErrCrashed, true) }

// Fill lets files grow by free bytes more in all: a write beyond that is short,
// and fails with ENOSPC. Removed and truncated files give nothing back; a
// negative number ends it.
func (f *FS) Fill(free int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.full, f.free = free >= 0, free
}

func (f *FS) arm(n int, err error, crash bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failAt, f.failErr, f.crash = f.ops+n, err, crash
}

// Recover returns the disk as the next start finds it, and leaves f as it is.
func (f *FS) Recover(keep Keep) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	root := f.root
	if keep == Killed {
		root = root.clone(map[*node]*node{})
	} else {
		root = root.survive(keep)
	}
	return &FS{root: root, locks: map[string]bool{}}
}

// clone copies n with what is synced and what is not; done keeps a node one
// node where it has two entries.
func (n *node) clone(done map[*node]*node) *node {
	if c := done[n]; c != nil {
		return c
	}
	c := &node{dir: n.dir, data: append([]byte(nil), n.data...), synced: append([]byte(nil), n.synced...)}
	done[n] = c
	if n.dir {
		c.entries, c.stable = map[string]*node{}, map[string]*node{}
		for name, e := range n.entries {
			c.entries[name] = e.clone(done)
		}
		for name, e := range n.stable {
			c.stable[name] = e.clone(done)
		}
	}
	return c
}

// survive copies what of n a power cut leaves; all of it is on the disk.
func (n *node) survive(keep Keep) *node {
	if !n.dir {
		data := append([]byte(nil), n.data...)
		switch keep {
		case Synced:
			data = append([]byte(nil), n.synced...)
		case Torn:
			if len(data) > len(n.synced) {
				data = data[:len(n.synced)+(len(data)-len(n.synced))/2]
			}
		case Zeroed:
			if len(data) > len(n.synced) {
				clear(data[len(n.synced):])
			}
		case Holed:
			if len(data) > len(n.synced) {
				clear(data[len(n.synced) : len(n.synced)+(len(data)-len(n.synced)+1)/2])
			}
		}
		return &node{data: data, synced: append([]byte(nil), data...)}
	}
	from := n.entries
	if keep == Synced {
		from = n.stable
	}
	d := newDir()
	for name, c := range from {
		c = c.survive(keep)
		d.entries[name], d.stable[name] = c, c
	}
	return d
}

// step counts one operation. half reports that the operation fails and, if it
// writes, has written half before.
func (f *FS) step() (half bool, err error) {
	f.ops++
	if f.crashed {
		return false, ErrCrashed
	}
	if f.ops == f.failAt {
		f.crashed = f.crash
		return true, f.failErr
	}
	return false, nil
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (f *FS) lookup(name string) (*node, error) {
	n := f.root
	for _, part := range strings.Split(strings.Trim(path.Clean(name), "/"), "/") {
		if part == "" || part == "." {
			continue
		}
		if !n.dir {
			return nil, fmt.Errorf("not a directory: %w", fs.ErrInvalid)
		}
		if n = n.entries[part]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

func (f *FS) parent(name string) (*node, string, error) {
	dir, base := path.Split(path.Clean(name))
	d, err := f.lookup(dir)
	if err == nil && !d.dir {
		err = fs.ErrInvalid
	}
	return d, base, err
}

// Lock implements [durable.FS]. A lock does not survive a crash.
func (f *FS) Lock(name string) (io.Closer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(); err != nil {
		return nil, pathError("lock", name, err)
	}
	if f.locks[name] {
		return nil, pathError("lock", name, durable.ErrLocked)
	}
	f.locks[name] = true
	return unlock{f, name}, nil
}

type unlock struct {
	f    *FS
	name string
}

func (u unlock) Close() error {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	delete(u.f.locks, u.name)
	return nil
}

// Stat implements [durable.FS].
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(); err != nil {
		return nil, pathError("stat", name, err)
	}
	n, err := f.lookup(name)
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return info{path.Base(name), int64(len(n.data)), n.dir}, nil
}

// info is both fs.FileInfo and fs.DirEntry.
type info struct {
	name string
	size int64
	dir  bool
}

func (i info) Name() string               { return i.name }
func (i info) Size() int64                { return i.size }
func (i info) IsDir() bool                { return i.dir }
func (i info) ModTime() time.Time         { return time.Time{} }
func (i info) Sys() any                   { return nil }
func (i info) Type() fs.FileMode          { return i.Mode().Type() }
func (i info) Info() (fs.FileInfo, error) { return i, nil }

func (i info) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o700
	}
	return 0o600
}
