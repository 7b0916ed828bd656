package durable_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/durable/faultfs"
)

func readLog(t testing.TB, f durable.FS, name string) (*durable.Log, []string, error) {
	t.Helper()
	var got []string
	l, err := durable.OpenLog(f, name, func(r []byte) error { got = append(got, string(r)); return nil })
	return l, got, err
}

// record makes records of very different lengths, zeros among their bytes.
func record(i int) string { return fmt.Sprintf("%d:%s", i, bytes.Repeat([]byte{0, byte(i)}, i*i*i)) }

func TestLogCrash(t *testing.T) {
	t.Parallel()
	work := func(f durable.FS) int {
		l, err := durable.OpenLog(f, "/j", func([]byte) error { return nil })
		if err != nil {
			return 0
		}
		defer l.Close()
		for i := range 6 {
			if l.Append([]byte(record(i))) != nil {
				return i
			}
		}
		return 6
	}
	eachCrash(t, nil, work, func(t *testing.T, disk *faultfs.FS, promised int) {
		l, got, err := readLog(t, disk, "/j")
		if err != nil {
			t.Fatal(err)
		}
		if len(got) < promised || len(got) > promised+1 {
			t.Fatalf("%d records after %d confirmed", len(got), promised)
		}
		for i, r := range got {
			if r != record(i) {
				t.Fatalf("record %d changed", i)
			}
		}
		// What recovery showed is durable: a power cut now takes nothing.
		_, again, err := readLog(t, disk.Recover(faultfs.Synced), "/j")
		if err != nil || len(again) != len(got) {
			t.Fatalf("%d of %d records after a second cut: %v", len(again), len(got), err)
		}
		if err := l.Append([]byte("next")); err != nil {
			t.Fatal(err)
		}
		l.Close()
		_, again, err = readLog(t, disk.Recover(faultfs.Synced), "/j")
		if err != nil || len(again) != len(got)+1 || again[len(got)] != "next" {
			t.Fatalf("%d of %d records after a third cut: %v", len(again), len(got)+1, err)
		}
	})
}

// TestLogStops: after one failed write or sync nothing may be appended, because
// what is on disk is not known.
func TestLogStops(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 2; n++ {
		f := faultfs.New()
		l, _, err := readLog(t, f, "/j")
		if err != nil {
			t.Fatal(err)
		}
		boom := errors.New("i/o error")
		f.FailAt(n, boom)
		if err := l.Append([]byte("a")); !errors.Is(err, boom) {
			t.Fatalf("got %v, want the failure", err)
		}
		if err := l.Append([]byte("b")); !errors.Is(err, boom) {
			t.Fatalf("append after a failure: %v", err)
		}
	}
}

func TestLogDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "j")
	l, _, err := readLog(t, durable.OS{}, name)
	if err != nil {
		t.Fatal(err)
	}
	const n = 5
	for i := range n {
		if err := l.Append([]byte(record(i))); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	last := len(good) - 8 - len(record(n-1))
	open := func(b []byte) ([]string, error) {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, got, err := readLog(t, durable.OS{}, name)
		if err == nil {
			l.Close()
		}
		return got, err
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		got, err := open(bad)
		if i >= last { // indistinguishable from a torn append
			if err != nil || len(got) != n-1 {
				t.Fatalf("byte %d of %d changed in the last record: %d records, %v", i, len(good), len(got), err)
			}
		} else if !errors.Is(err, durable.ErrCorrupt) {
			t.Fatalf("byte %d of %d changed: %d records, %v, want ErrCorrupt", i, len(good), len(got), err)
		}
	}
	for cut := len(good) - 1; cut >= last; cut-- {
		if got, err := open(good[:cut]); err != nil || len(got) != n-1 {
			t.Fatalf("cut to %d of %d: %d records, %v", cut, len(good), len(got), err)
		}
	}
	if _, err := open(append(bytes.Clone(good), make([]byte, durable.MaxRecord+9)...)); !errors.Is(err, durable.ErrCorrupt) {
		t.Fatalf("more than one record of garbage: %v, want ErrCorrupt", err)
	}
	stop := errors.New("stop")
	os.WriteFile(name, good, 0o600)
	if _, err := durable.OpenLog(durable.OS{}, name, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Fatalf("replay's error: got %v", err)
	}
}

func TestLogLimits(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "j")
	l, _, err := readLog(t, durable.OS{}, name)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := readLog(t, durable.OS{}, name); !errors.Is(err, durable.ErrLocked) {
		t.Fatalf("second open: got %v, want ErrLocked", err)
	}
	if l.Append(nil) == nil || l.Append(make([]byte, durable.MaxRecord+1)) == nil {
		t.Fatal("record without or with too many bytes is accepted")
	}
	if err := l.Append(bytes.Repeat([]byte{7}, durable.MaxRecord)); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := l.Append([]byte{byte(i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Fatal(err)
	}
	if err := l.Append([]byte("x")); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("append after close: %v", err)
	}
	l, got, err := readLog(t, durable.OS{}, name)
	if err != nil || len(got) != 9 || len(got[0]) != durable.MaxRecord {
		t.Fatalf("%d records, %v", len(got), err)
	}
	l.Close()
}

// TestLogFormat pins the file's bytes.
func TestLogFormat(t *testing.T) {
	t.Parallel()
	f := faultfs.New()
	l, _, err := readLog(t, f, "/j")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{"a", "concordat"} {
		if err := l.Append([]byte(r)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := durable.ReadFile(f, "/j", 1000)
	if err != nil {
		t.Fatal(err)
	}
	const want = "43434c4f47310d0a" +
		"00000001" + "5c5235ed" + "61" +
		"00000009" + "fd212067" + "636f6e636f72646174"
	if h := hex.EncodeToString(got); h != want {
		t.Fatalf("log file\n got %s\nwant %s", h, want)
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte("CCLOG1\r\n"))
	f.Add([]byte("CCLOG1\r\n\x00\x00\x00\x01\x00\x00\x00\x00a"))
	f.Add([]byte("CCLOG1\r\n\x00\x00\x00\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		disk := faultfs.New()
		if err := durable.WriteFile(disk, "/j", b, 0o600); err != nil {
			t.Fatal(err)
		}
		l, got, err := readLog(t, disk, "/j")
		if err != nil {
			return
		}
		if err := l.Append([]byte("x")); err != nil {
			t.Fatal(err)
		}
		l.Close()
		_, again, err := readLog(t, disk, "/j")
		if err != nil || len(again) != len(got)+1 {
			t.Fatalf("a log that opened with %d records has %d after one append: %v", len(got), len(again), err)
		}
	})
}
