package main

import (
	"archive/zip"
	"os"
	"path/filepath"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

// npz writes an archive of files, compressed.
func npz(t *testing.T, files map[string][]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.npz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	for name, b := range files {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestNPZ(t *testing.T) {
	t.Parallel()
	a, err := object.NewArray(object.NPY{Descr: "<f4", Shape: []int{2}}, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	if err != nil {
		t.Fatal(err)
	}
	array := a.Bytes()
	got, err := initialArrays(npz(t, map[string][]byte{"layer.0.npy": array}))
	if err != nil || len(got) != 1 || got[0].Name != "layer.0" || string(got[0].Array.Bytes()) != string(array) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, files := range map[string]map[string][]byte{
		"nothing":    {},
		"other file": {"readme.txt": []byte("x")},
		"no array":   {"a.npy": []byte("x")},
		"truncated":  {"a.npy": array[:len(array)-1]},
		"longer":     {"a.npy": append(append([]byte(nil), array...), 0)},
		"bomb":       {"a.npy": make([]byte, 64<<20)},
	} {
		if _, err := initialArrays(npz(t, files)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	large, err := object.NewArray(object.NPY{Descr: "<f8", Shape: []int{3 << 17, 4}}, make([]byte, 12<<20))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := initialArrays(npz(t, map[string][]byte{"w.npy": large.Bytes()})); err != nil || len(got[0].Array.Chunks) != 3 || string(got[0].Array.Bytes()) != string(large.Bytes()) {
		t.Errorf("12 MiB: %v", err)
	}
	if _, err := initialArrays("/nonexistent.npz"); err == nil {
		t.Error("a missing file was read")
	}
}
