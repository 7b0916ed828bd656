package keyfile

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier/tlog"
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

func TestWitness(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "witness.key")
	want, err := CreateWitness(path, "hospital-a/witness")
	if err != nil {
		t.Fatal(err)
	}
	priv, k, err := ReadWitness(path)
	if err != nil {
		t.Fatal(err)
	}
	if k != want || !k.IsWitness() || k.Name() != "hospital-a/witness" {
		t.Errorf("key %v, want %v", k, want)
	}
	if again, err := tlog.NewWitnessKey(k.Name(), priv.Public().(ed25519.PublicKey)); err != nil || again != want {
		t.Errorf("the private key is of %v, %v", again, err)
	}
	line, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range line {
		bad := bytes.Clone(line)
		bad[i] ^= 1
		file := filepath.Join(dir, fmt.Sprint("bad", i))
		if err := Create(file, bad); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ReadWitness(file); err == nil {
			t.Errorf("byte %d may change", i)
		} else if strings.Contains(err.Error(), string(line[len(line)-20:len(line)-1])) {
			t.Errorf("error shows the key: %v", err)
		}
	}
	if _, err := CreateWitness(filepath.Join(dir, "x"), "no spaces"); err == nil {
		t.Error("created a key with a bad name")
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("left a file behind")
	}
}
