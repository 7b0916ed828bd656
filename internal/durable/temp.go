package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Temp is a file in the making: until [Temp.Publish] nobody finds it, and once
// that returns it is there, whole. The caller writes it in any order, and closes
// it; that is no more than giving the descriptor back. It is not safe for
// concurrent use.
type Temp struct {
	File
	fsys      FS
	dir       string
	tmp, name string // name is "" before Publish has tried to give it
}

// CreateTemp starts a file in dir, which must exist. The caller ends it with
// Publish or Discard; [Sweep] removes what a killed process left.
func CreateTemp(fsys FS, dir string, perm fs.FileMode) (*Temp, error) {
	tmp := temporary(dir)
	f, err := fsys.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	return &Temp{File: f, fsys: fsys, dir: dir, tmp: tmp}, nil
}

// Publish makes the bytes durable and then gives the file its name within the
// directory, durably too; a file that has that name is replaced. The file stays
// open. After an error it may or may not be visible, but never in part.
func (t *Temp) Publish(name string) error {
	if err := t.Sync(); err != nil {
		return fmt.Errorf("durable: sync %s: %w", t.tmp, err)
	}
	t.name = filepath.Join(t.dir, name)
	if err := t.fsys.Rename(t.tmp, t.name); err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	if err := t.fsys.SyncDir(t.dir); err != nil {
		return fmt.Errorf("durable: sync %s: %w", t.dir, err)
	}
	return nil
}

// Discard closes the file and removes it: also one whose Publish failed, if it
// was to have a name that no other file had. It returns nil only if the file is
// gone for good, whatever crashes. It must not follow a Publish that succeeded.
func (t *Temp) Discard() error {
	t.Close()
	err := t.fsys.Remove(t.tmp)
	if t.name != "" { // renamed or not
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		if rerr := t.fsys.Remove(t.name); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		err = errors.Join(err, t.fsys.SyncDir(t.dir))
	}
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	return nil
}
