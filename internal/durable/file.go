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
	t, err := CreateTemp(fsys, filepath.Dir(name), perm)
	if err != nil {
		return err
	}
	defer t.Close() // it was synced, or an error is returned already
	if err = writeAt(t, data, 0); err != nil {
		err = fmt.Errorf("durable: write %s: %w", t.tmp, err)
	} else {
		err = t.Publish(filepath.Base(name))
	}
	if err != nil {
		fsys.Remove(t.tmp) // best effort: Sweep finds it otherwise
	}
	return err
}

func writeAt(f File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return err
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

// Sweep removes the temporary files that a killed process left in dir. Nobody
// else may be writing into dir: call it under a lock. A dir that does not exist
// is clean.
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
		if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil {
			return fmt.Errorf("durable: %w", err)
		}
	}
	return nil
}
