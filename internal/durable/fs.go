package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// FS is the part of a file system that durable writes need. Names are paths in
// the operating system's form; errors wrap those of io/fs. Implementations are
// safe for concurrent use.
type FS interface {
	// OpenFile is os.OpenFile. Flags in use: os.O_RDONLY, os.O_RDWR, and
	// os.O_RDWR with os.O_CREATE and os.O_EXCL.
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Mkdir(name string, perm fs.FileMode) error
	ReadDir(name string) ([]fs.DirEntry, error)
	Stat(name string) (fs.FileInfo, error)
	// Rename moves a file or directory and replaces a file at to.
	Rename(from, to string) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
	// Lock creates the file if need be and locks it against other processes
	// and other calls, without waiting: a held lock is [ErrLocked]. Closing the
	// result, or the end of the process, gives it back.
	Lock(name string) (io.Closer, error)
}

// File is an open file. *os.File is one.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync makes the file's bytes durable. After an error their state is
	// unknown.
	Sync() error
	Stat() (fs.FileInfo, error)
}

// ErrLocked is wrapped by [FS.Lock] where another process, or another part of
// this one, holds the lock.
var ErrLocked = errors.New("durable: locked by another process")

// OS is the machine's own file system. Locks need flock(2): where there is
// none, Lock fails with errors.ErrUnsupported.
type OS struct{}

// OpenFile implements [FS].
func (OS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err // not f: a nil *os.File is not a nil File
	}
	return f, nil
}

// Mkdir implements [FS].
func (OS) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(name, perm) }

// ReadDir implements [FS].
func (OS) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(name) }

// Stat implements [FS].
func (OS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// Rename implements [FS].
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements [FS].
func (OS) Remove(name string) error { return os.Remove(name) }

// SyncDir implements [FS].
func (OS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Lock implements [FS].
func (OS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return held{f}, nil
}

// held is a lock file. A process that is being started holds a copy of its descriptor
// until it runs its own program: closing this one alone would not give the lock up.
type held struct{ *os.File }

func (h held) Close() error { return errors.Join(unlock(h.File), h.File.Close()) }

// MkdirAll creates dir and what is missing above it, durably: each directory's
// entry is synced before anything is made inside it. An existing dir is synced
// into its parent once more, because whoever made it may have been killed in
// between.
func MkdirAll(fsys FS, dir string, perm fs.FileMode) error {
	parent := filepath.Dir(dir)
	info, err := fsys.Stat(dir)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("durable: %s is not a directory", dir)
	case err == nil && parent == dir:
		return nil
	case errors.Is(err, fs.ErrNotExist) && parent != dir:
		if err := MkdirAll(fsys, parent, perm); err != nil {
			return err
		}
		if err := fsys.Mkdir(dir, perm); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("durable: %w", err)
		}
	case err != nil:
		return fmt.Errorf("durable: %w", err)
	}
	if err := fsys.SyncDir(parent); err != nil {
		return fmt.Errorf("durable: sync %s: %w", parent, err)
	}
	return nil
}
