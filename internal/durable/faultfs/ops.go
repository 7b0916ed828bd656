package faultfs

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"syscall"

	"github.com/concordat/concordat/internal/durable"
)

// OpenFile implements [durable.FS].
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (durable.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(); err != nil {
		return nil, pathError("open", name, err)
	}
	d, base, err := f.parent(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	n := d.entries[base]
	switch {
	case n != nil && flag&os.O_EXCL != 0:
		return nil, pathError("open", name, fs.ErrExist)
	case n != nil && n.dir:
		return nil, pathError("open", name, fs.ErrInvalid)
	case n == nil && flag&os.O_CREATE == 0:
		return nil, pathError("open", name, fs.ErrNotExist)
	case n == nil:
		n = new(node)
		d.entries[base] = n
	}
	return &file{fsys: f, node: n, name: name, write: flag&os.O_RDWR != 0}, nil
}

// Mkdir implements [durable.FS].
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(); err != nil {
		return pathError("mkdir", name, err)
	}
	d, base, err := f.parent(name)
	if err == nil && d.entries[base] != nil {
		err = fs.ErrExist
	}
	if err != nil {
		return pathError("mkdir", name, err)
	}
	d.entries[base] = newDir()
	return nil
}

// ReadDir implements [durable.FS].
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(); err != nil {
		return nil, pathError("readdir", name, err)
	}
	d, err := f.lookup(name)
	if err == nil && !d.dir {
		err = fs.ErrInvalid
	}
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	var out []fs.DirEntry
	for _, base := range slices.Sorted(maps.Keys(d.entries)) {
		n := d.entries[base]
		out = append(out, info{base, int64(len(n.data)), n.dir})
	}
	return out, nil
}

// Rename implements [durable.FS].
func (f *FS) Rename(from, to string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(); err != nil {
		return pathError("rename", from, err)
	}
	src, a, err := f.parent(from)
	if err != nil {
		return pathError("rename", from, err)
	}
	dst, b, err := f.parent(to)
	if err != nil {
		return pathError("rename", to, err)
	}
	n := src.entries[a]
	if n == nil {
		return pathError("rename", from, fs.ErrNotExist)
	}
	if old := dst.entries[b]; old != nil && (old.dir || n.dir) {
		return pathError("rename", to, fs.ErrExist)
	}
	delete(src.entries, a)
	dst.entries[b] = n
	return nil
}

// Remove implements [durable.FS].
func (f *FS) Remove(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(); err != nil {
		return pathError("remove", name, err)
	}
	d, base, err := f.parent(name)
	if err == nil {
		switch n := d.entries[base]; {
		case n == nil:
			err = fs.ErrNotExist
		case n.dir && len(n.entries) != 0:
			err = fs.ErrInvalid
		}
	}
	if err != nil {
		return pathError("remove", name, err)
	}
	delete(d.entries, base)
	return nil
}

// SyncDir implements [durable.FS].
func (f *FS) SyncDir(name string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.step(); err != nil {
		return pathError("sync", name, err)
	}
	d, err := f.lookup(name)
	if err != nil {
		return pathError("sync", name, err)
	}
	d.stable = maps.Clone(d.entries)
	return nil
}

type file struct {
	fsys   *FS
	node   *node
	name   string
	write  bool
	closed bool
}

// begin takes the lock, which the caller gives back, and counts one operation.
func (h *file) begin(write bool) (half bool, err error) {
	h.fsys.mu.Lock()
	if half, err = h.fsys.step(); err == nil && (h.closed || write && !h.write) {
		err = fs.ErrClosed
	}
	return half, err
}

func (h *file) ReadAt(b []byte, off int64) (int, error) {
	_, err := h.begin(false)
	defer h.fsys.mu.Unlock()
	if err != nil {
		return 0, pathError("read", h.name, err)
	}
	if off < 0 {
		return 0, pathError("read", h.name, fs.ErrInvalid)
	}
	if off >= int64(len(h.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) WriteAt(b []byte, off int64) (int, error) {
	half, err := h.begin(true)
	defer h.fsys.mu.Unlock()
	if half {
		b = b[:len(b)/2]
	} else if err != nil {
		return 0, pathError("write", h.name, err)
	}
	if grow := off + int64(len(b)) - int64(len(h.node.data)); h.fsys.full && grow > 0 {
		if over := grow - h.fsys.free; over > 0 {
			b = b[:max(0, int64(len(b))-over)]
			err = errors.Join(err, syscall.ENOSPC)
		}
		h.fsys.free -= min(grow, h.fsys.free)
	}
	if end := off + int64(len(b)); len(b) > 0 && end > int64(len(h.node.data)) {
		h.node.data = append(h.node.data, make([]byte, end-int64(len(h.node.data)))...)
	}
	n := 0
	if len(b) > 0 {
		n = copy(h.node.data[off:], b)
	}
	if err != nil {
		return n, pathError("write", h.name, err)
	}
	return n, nil
}

func (h *file) Truncate(size int64) error {
	_, err := h.begin(true)
	defer h.fsys.mu.Unlock()
	if err == nil && size > int64(len(h.node.data)) {
		err = fs.ErrInvalid // no user extends a file this way
	}
	if err != nil {
		return pathError("truncate", h.name, err)
	}
	h.node.data = h.node.data[:size:size]
	return nil
}

func (h *file) Sync() error {
	_, err := h.begin(true)
	defer h.fsys.mu.Unlock()
	if err != nil {
		return pathError("sync", h.name, err)
	}
	h.node.synced = append([]byte(nil), h.node.data...)
	return nil
}

func (h *file) Stat() (fs.FileInfo, error) {
	_, err := h.begin(false)
	defer h.fsys.mu.Unlock()
	if err != nil {
		return nil, pathError("stat", h.name, err)
	}
	return info{path.Base(h.name), int64(len(h.node.data)), false}, nil
}

func (h *file) Close() error {
	h.fsys.mu.Lock()
	defer h.fsys.mu.Unlock()
	if h.closed {
		return pathError("close", h.name, fs.ErrClosed)
	}
	h.closed = true
	return nil
}
