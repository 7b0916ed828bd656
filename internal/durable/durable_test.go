package durable_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/durable/faultfs"
)

// eachCrash runs work on a fresh disk once for every operation that it does,
// loses power in that operation, and shows each disk that may be left to check.
// work returns how many of its promises it had been given when it ended.
func eachCrash(t *testing.T, setup func(durable.FS), work func(durable.FS) int, check func(t *testing.T, disk *faultfs.FS, promised int)) {
	t.Helper()
	prepare := func() *faultfs.FS {
		f := faultfs.New()
		if setup != nil {
			setup(f)
		}
		return f
	}
	whole := prepare()
	before := whole.Ops()
	work(whole)
	ops := whole.Ops() - before
	if ops < 3 {
		t.Fatalf("work did %d operations: nothing to crash", ops)
	}
	for n := 1; n <= ops+1; n++ {
		f := prepare()
		f.CrashAt(n)
		promised := work(f)
		for _, keep := range faultfs.Keeps {
			t.Run(fmt.Sprintf("op%d/%v", n, keep), func(t *testing.T) { check(t, f.Recover(keep), promised) })
		}
	}
}

func TestWriteFileCrash(t *testing.T) {
	t.Parallel()
	before, after := bytes.Repeat([]byte("old "), 100), bytes.Repeat([]byte("new!"), 200)
	setup := func(f durable.FS) {
		if err := durable.WriteFile(f, "/state", before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	work := func(f durable.FS) int {
		if durable.WriteFile(f, "/state", after, 0o600) != nil {
			return 0
		}
		return 1
	}
	eachCrash(t, setup, work, func(t *testing.T, disk *faultfs.FS, promised int) {
		got, err := durable.ReadFile(disk, "/state", 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, after) && (promised == 1 || !bytes.Equal(got, before)) {
			t.Fatalf("after a crash (confirmed: %d) the file holds %d bytes %.8q", promised, len(got), got)
		}
		if err := durable.Sweep(disk, "/"); err != nil {
			t.Fatal(err)
		}
		if list, _ := disk.ReadDir("/"); len(list) != 1 {
			t.Fatalf("swept directory holds %v", list)
		}
	})
}

func TestTempCrash(t *testing.T) {
	t.Parallel()
	work := func(f durable.FS) int {
		if durable.MkdirAll(f, "/a/b", 0o700) != nil {
			return 0
		}
		tmp, err := durable.CreateTemp(f, "/a/b", 0o600)
		if err != nil {
			return 0
		}
		defer tmp.Close()
		for at, part := range map[int64]string{6: "world", 0: "hello "} {
			if _, err := tmp.WriteAt([]byte(part), at); err != nil {
				return 0
			}
		}
		if tmp.Publish("file") != nil {
			return 0
		}
		return 1
	}
	eachCrash(t, nil, work, func(t *testing.T, disk *faultfs.FS, promised int) {
		if err := durable.Sweep(disk, "/a/b"); err != nil {
			t.Fatal(err)
		}
		got, err := durable.ReadFile(disk, "/a/b/file", 100)
		if promised == 0 && errors.Is(err, fs.ErrNotExist) {
			if list, _ := disk.ReadDir("/a/b"); len(list) > 0 {
				t.Fatalf("swept directory holds %v", list)
			}
			return
		}
		if err != nil || string(got) != "hello world" {
			t.Fatalf("confirmed %d: %q, %v", promised, got, err)
		}
	})
}

// A Discard that returned nil lasts, whatever failed before it and however the process
// ends after it.
func TestTempDiscard(t *testing.T) {
	t.Parallel()
	for n := 0; n < 8; n++ {
		f := faultfs.New()
		tmp, err := durable.CreateTemp(f, "/", 0o600)
		if err != nil {
			t.Fatal(err)
		}
		tmp.WriteAt([]byte("x"), 0)
		if n > 0 {
			f.FailAt(n, errors.New("i/o error"))
			if tmp.Publish("file") == nil {
				break // all that Publish does has failed once
			}
		}
		if err := tmp.Discard(); err != nil {
			t.Errorf("after operation %d failed: %v", n, err)
		}
		for _, keep := range faultfs.Keeps {
			disk := f.Recover(keep)
			if _, err := disk.Stat("/file"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after operation %d failed, %v: a discarded file is there: %v", n, keep, err)
			}
		}
	}
}

func TestFailureLeavesOld(t *testing.T) {
	t.Parallel()
	boom := errors.New("disk full")
	for n := 1; n <= 5; n++ {
		f := faultfs.New()
		if err := durable.WriteFile(f, "/state", []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		f.FailAt(n, boom)
		if err := durable.WriteFile(f, "/state", []byte("new"), 0o600); !errors.Is(err, boom) {
			t.Fatalf("operation %d fails: got %v, want the failure", n, err)
		}
		got, err := durable.ReadFile(f, "/state", 10)
		if err != nil || string(got) != "old" && n < 5 {
			t.Errorf("operation %d failed: file holds %q, %v", n, got, err)
		}
		if list, _ := f.ReadDir("/"); len(list) != 1 {
			t.Errorf("operation %d failed: left %v", n, list)
		}
	}
}

func TestReadFileLimit(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "f")
	if err := durable.WriteFile(durable.OS{}, name, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := durable.ReadFile(durable.OS{}, name, 5); err != nil || string(got) != "12345" {
		t.Fatalf("at the limit: %q, %v", got, err)
	}
	if _, err := durable.ReadFile(durable.OS{}, name, 4); !errors.Is(err, durable.ErrTooLarge) {
		t.Fatalf("above the limit: got %v, want ErrTooLarge", err)
	}
	if _, err := durable.ReadFile(durable.OS{}, name+"x", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing file: got %v, want fs.ErrNotExist", err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}

func TestOS(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := durable.MkdirAll(durable.OS{}, dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirAll(durable.OS{}, dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := durable.CreateTemp(durable.OS{}, dir, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.WriteAt([]byte("done"), 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Publish("f"); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || string(got) != "done" {
		t.Fatalf("%q, %v", got, err)
	}
	killed, err := durable.CreateTemp(durable.OS{}, dir, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	killed.Close()
	if err := durable.Sweep(durable.OS{}, dir); err != nil {
		t.Fatal(err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Fatalf("swept directory holds %v", list)
	}
	if err := durable.WriteFile(durable.OS{}, filepath.Join(dir, "plain"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirAll(durable.OS{}, filepath.Join(dir, "plain"), 0o700); err == nil {
		t.Fatal("MkdirAll accepts a file")
	}
}
