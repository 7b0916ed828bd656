package keyfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

func TestSigner(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "node.key")
	s, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	if err := CreateSigner(path, s); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	got, err := ReadSigner(path)
	if err != nil || got.Public() != s.Public() {
		t.Errorf("read %v, %v", got, err)
	}
	before, _ := os.ReadFile(path)
	if err := CreateSigner(path, s); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second time: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("overwritten")
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o620, 0o601} {
		path := filepath.Join(dir, "open"+mode.String())
		if err := os.WriteFile(path, []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); !errors.Is(err, ErrPermissions) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if _, err := Read(dir); err == nil {
		t.Error("read a directory")
	}
	long := filepath.Join(dir, "long")
	if err := Create(long, make([]byte, MaxSize+1)); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(long); err == nil {
		t.Error("read a long file")
	}
	other := filepath.Join(dir, "other")
	if err := Create(other, []byte("hunter2")); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSigner(other); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("not a key: %v", err)
	}
	if _, err := ReadSigner(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}
