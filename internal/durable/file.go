package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrTooLarge is wrapped by [ReadFile] where a file is larger than its limit.
var ErrTooLarge = errors.New("durable: file is too large")

// Names that start with temporaryPrefix belong to this package. They are
// invisible: whoever lists a directory skips or sweeps them.
const temporaryPrefix = ".tmp-"

func isTemporary(name string) bool { return strings.HasPrefix(name, temporaryPrefix) }

func temporary(dir string) string {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return filepath.Join(dir, temporaryPrefix+hex.EncodeToString(b[:]))
}

// WriteFile makes name hold data, durably: after a crash at any moment name
// holds data or what it held before, whole. It replaces an existing file and
// its permissions. On an error the old content may or may not be replaced.
func WriteFile(fsys FS, name string, data []byte, perm fs.FileMode) error {
	dir := filepath.Dir(name)
	tmp := temporary(dir)
	if err := create(fsys, tmp, data, perm); err != nil {
		fsys.Remove(tmp) // best effort: Sweep finds it otherwise
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		fsys.Remove(tmp)
		return fmt.Errorf("durable: %w", err)
	}
	if err := fsys.SyncDir(dir); err != nil {
		return fmt.Errorf("durable: sync %s: %w", dir, err)
	}
	return nil
}

func create(fsys FS, name string, data []byte, perm fs.FileMode) error {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	w := &Writer{f: f, name: name}
	w.Write(data) // Close returns its error
	return w.Close()
}

// ReadFile returns the content of name, at most limit bytes: a larger file is
// refused with [ErrTooLarge] before its bytes are read.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, limit %d", ErrTooLarge, name, info.Size(), limit)
	}
	b := make([]byte, info.Size())
	if n, err := f.ReadAt(b, 0); n < len(b) {
		return nil, fmt.Errorf("durable: read %s: %w", name, err)
	}
	return b, nil
}

// Sweep removes what a killed process left half-made in dir: temporary files
// and [Dir]s. Nobody else may be writing into dir: call it under a lock. A dir
// that does not exist is clean.
func Sweep(fsys FS, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	for _, e := range entries {
		if !isTemporary(e.Name()) {
			continue
		}
		name := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = RemoveTree(fsys, name)
		} else {
			err = fsys.Remove(name)
		}
		if err != nil {
			return fmt.Errorf("durable: %w", err)
		}
	}
	return nil
}

// Writer writes a new file from its start. It is not safe for concurrent use.
type Writer struct {
	f    File
	name string
	off  int64
	err  error
}

// Write appends b. After an error every further Write and Close returns it.
func (w *Writer) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.f.WriteAt(b, w.off)
	w.off += int64(n)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = fmt.Errorf("durable: write %s: %w", w.name, err)
	}
	return n, w.err
}

// Abort closes the file without making anything durable.
func (w *Writer) Abort() {
	w.f.Close()
	w.err = fs.ErrClosed
}

// Close makes the bytes durable and closes the file. Its error means that the
// file must not be used.
func (w *Writer) Close() error {
	err := w.err
	if err == nil {
		if err = w.f.Sync(); err != nil {
			err = fmt.Errorf("durable: sync %s: %w", w.name, err)
		}
	}
	if cerr := w.f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("durable: close %s: %w", w.name, cerr)
	}
	w.err = fs.ErrClosed
	return err
}
