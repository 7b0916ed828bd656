package durable

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Dir is a directory in the making: until [Dir.Publish] returns nobody finds
// it, and from then on it is there with every file. It is not safe for
// concurrent use.
type Dir struct {
	fsys   FS
	parent string
	tmp    string // "" once published or discarded
}

// CreateDir starts a directory inside parent, which must exist. The caller ends
// it with Publish or Discard.
func CreateDir(fsys FS, parent string, perm fs.FileMode) (*Dir, error) {
	tmp := temporary(parent)
	if err := fsys.Mkdir(tmp, perm); err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	return &Dir{fsys, parent, tmp}, nil
}

// Create starts a new file in the directory. The caller closes the Writer, and
// checks that error, before Publish.
func (d *Dir) Create(name string, perm fs.FileMode) (*Writer, error) {
	path := filepath.Join(d.tmp, name)
	f, err := d.fsys.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	return &Writer{f: f, name: path}, nil
}

// Remove takes a file out of the directory again.
func (d *Dir) Remove(name string) error {
	if err := d.fsys.Remove(filepath.Join(d.tmp, name)); err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	return nil
}

// Publish gives the directory its name within parent, durably. After an error
// the directory may or may not be visible, but never in part.
func (d *Dir) Publish(name string) error {
	if err := d.fsys.SyncDir(d.tmp); err != nil {
		return fmt.Errorf("durable: sync %s: %w", d.tmp, err)
	}
	if err := d.fsys.Rename(d.tmp, filepath.Join(d.parent, name)); err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	d.tmp = ""
	if err := d.fsys.SyncDir(d.parent); err != nil {
		return fmt.Errorf("durable: sync %s: %w", d.parent, err)
	}
	return nil
}

// Discard removes the directory. After Publish it does nothing, so it may be
// deferred.
func (d *Dir) Discard() error {
	if d.tmp == "" {
		return nil
	}
	tmp := d.tmp
	d.tmp = ""
	return RemoveTree(d.fsys, tmp)
}
