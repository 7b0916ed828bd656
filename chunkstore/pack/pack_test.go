package pack_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/pack"
	"github.com/concordat/concordat/chunkstore/storetest"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/durable/faultfs"
)

func TestStore(t *testing.T) {
	t.Parallel()
	for name, fsys := range map[string]func(*testing.T) (durable.FS, string){
		"os": func(t *testing.T) (durable.FS, string) {
			return durable.OS{}, filepath.Join(t.TempDir(), "a", "chunks")
		},
		"fault": func(t *testing.T) (durable.FS, string) { return faultfs.New(), "/chunks" },
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T, c storetest.Config) chunkstore.Store {
				f, root := fsys(t)
				s, err := pack.Open(f, root, pack.Options{FederationBytes: c.FederationBytes, Now: c.Now})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return s
			})
		})
	}
}

type chunk struct {
	id     chunkstore.ID
	stored []byte
}

// chunks are four small ones, or four of which some need a pack of their own.
func chunks(large bool) (c [4]chunk) {
	for i := range c {
		n := 100 + i
		if large && i > 0 {
			n = 40_000 * i
		}
		c[i].id, c[i].stored = storetest.Chunk(uint64(i), n)
	}
	return c
}

func put(s *pack.Store, c ...chunk) error {
	var ids []chunkstore.ID
	var stored [][]byte
	for _, c := range c {
		ids, stored = append(ids, c.id), append(stored, c.stored)
	}
	return storetest.Put(s, storetest.Scopes[0], ids, stored)
}

// history commits two batches, releases them and commits a third. It returns how many
// of these steps were confirmed.
func history(fsys durable.FS, c [4]chunk) (done int) {
	now := time.Unix(1_800_000_000, 0)
	s, err := pack.Open(fsys, "/chunks", pack.Options{Now: func() time.Time { return now }})
	if err != nil {
		return 0
	}
	defer s.Close()
	if put(s, c[0], c[1]) != nil {
		return 0
	}
	now = now.Add(time.Second)
	if put(s, c[1], c[2]) != nil {
		return 1
	}
	if _, err := storetest.Release(s, storetest.Scopes[0], now); err != nil {
		return 2
	}
	if put(s, c[3]) != nil {
		return 3
	}
	return 4
}

// TestCrash loses power in every operation of a history, and looks at every
// disk that may be left.
func TestCrash(t *testing.T) {
	t.Parallel()
	t.Run("small", func(t *testing.T) { testCrash(t, chunks(false)) })
	t.Run("large", func(t *testing.T) { testCrash(t, chunks(true)) })
}

func testCrash(t *testing.T, c [4]chunk) {
	t.Parallel()
	whole := faultfs.New()
	if history(whole, c) != 4 {
		t.Fatal("history fails without a crash")
	}
	total := whole.Ops()
	for n := 1; n <= total+1; n++ {
		f := faultfs.New()
		f.CrashAt(n)
		done := history(f, c)
		for _, keep := range faultfs.Keeps {
			disk := f.Recover(keep)
			s, err := pack.Open(disk, "/chunks", pack.Options{})
			if err != nil || len(s.Damaged()) > 0 {
				t.Fatalf("op %d of %d, %v: %v, %v", n, total, keep, err, s.Damaged())
			}
			var has [4]bool
			for i := range c {
				has[i] = storetest.Has(t, s, storetest.Scopes[0], c[i].id, c[i].stored)
			}
			where := fmt.Sprintf("op %d of %d, %v: after %d steps the store has %v", n, total, keep, done, has)
			// A step that was confirmed shows, and one that was not may: after two,
			// the release has begun and may have taken either batch.
			switch {
			case done == 1 && (!has[0] || !has[1]), done >= 4 && !has[3]:
				t.Errorf("%s: a committed chunk is lost", where)
			case done >= 3 && (has[0] || has[1] || has[2]):
				t.Errorf("%s: a released chunk is back", where)
			case has[0] && !has[1], has[2] && !has[1]:
				t.Errorf("%s: a batch is there in part", where)
			}
			// What Open showed is durable: a power cut now takes nothing.
			again := held(t, disk.Recover(faultfs.Synced), c)
			if again != has {
				t.Errorf("%s, and %v after a second power cut", where, again)
			}
			if err := put(s, c[0], c[1], c[2], c[3]); err != nil {
				t.Errorf("%s and takes no more: %v", where, err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if got := held(t, disk.Recover(faultfs.Synced), c); got != [4]bool{true, true, true, true} {
				t.Errorf("%s, and %v after all were put and a power cut", where, got)
			}
		}
	}
}

// held opens a disk and reports which chunks are there.
func held(t *testing.T, disk *faultfs.FS, c [4]chunk) (has [4]bool) {
	t.Helper()
	s, err := pack.Open(disk, "/chunks", pack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range c {
		has[i] = storetest.Has(t, s, storetest.Scopes[0], c[i].id, c[i].stored)
	}
	return has
}

// TestFailure lets every operation fail once without a crash: a batch whose
// Commit failed is there whole or not at all, and the store goes on.
func TestFailure(t *testing.T) {
	t.Parallel()
	for _, large := range []bool{false, true} {
		for _, second := range []bool{false, true} {
			t.Run(fmt.Sprintf("large %v second %v", large, second), func(t *testing.T) {
				t.Parallel()
				for n := 1; testFailure(t, chunks(large), second, n); n++ {
				}
			})
		}
	}
}

// testFailure reports whether there is an operation n.
func testFailure(t *testing.T, c [4]chunk, second bool, n int) bool {
	boom := errors.New("i/o error")
	f := faultfs.New()
	s, err := pack.Open(f, "/chunks", pack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if second {
		if err := put(s, c[3]); err != nil {
			t.Fatal(err)
		}
	}
	before := f.Ops()
	f.FailAt(n, boom)
	err = put(s, c[0], c[1])
	if f.Ops()-before < n {
		if err != nil || n < 5 || !second && n < 10 {
			t.Fatalf("%d operations: %v", n-1, err)
		}
		return false
	}
	if err != nil && !errors.Is(err, boom) {
		t.Fatalf("operation %d fails: %v", n, err)
	}
	if err := put(s, c[2]); err != nil {
		t.Fatalf("operation %d failed: the next batch: %v", n, err)
	}
	s.Close()
	s, err = pack.Open(f, "/chunks", pack.Options{})
	if err != nil || len(s.Damaged()) > 0 {
		t.Fatalf("operation %d failed: %v, %v", n, err, s.Damaged())
	}
	defer s.Close()
	a := storetest.Has(t, s, storetest.Scopes[0], c[0].id, c[0].stored)
	b := storetest.Has(t, s, storetest.Scopes[0], c[1].id, c[1].stored)
	if a != b || !storetest.Has(t, s, storetest.Scopes[0], c[2].id, c[2].stored) || second && !storetest.Has(t, s, storetest.Scopes[0], c[3].id, c[3].stored) {
		t.Fatalf("operation %d failed: store has %v %v", n, a, b)
	}
	return true
}

// TestReleaseFails lets every operation of a release fail once. Nobody is told that a chunk
// is there which is not, nothing of another run is lost, the quota counts what may come
// back, and the next process releases that.
func TestReleaseFails(t *testing.T) {
	t.Parallel()
	c := chunks(true)
	size := int64(len(c[0].stored) + len(c[1].stored) + len(c[2].stored))
	for n := 1; ; n++ {
		now := time.Unix(1_800_000_000, 0)
		f := faultfs.New()
		o := pack.Options{FederationBytes: size + int64(len(c[3].stored)), Now: func() time.Time { return now }}
		s, err := pack.Open(f, "/chunks", o)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(put(s, c[0]), put(s, c[1], c[2]), storetest.Put(s, storetest.Scopes[2], []chunkstore.ID{c[3].id}, [][]byte{c[3].stored})); err != nil {
			t.Fatal(err)
		}
		before, boom := f.Ops(), errors.New("i/o error")
		f.FailAt(n, boom)
		freed, err := storetest.Release(s, storetest.Scopes[0], now)
		if last := f.Ops()-before < n; last {
			if err != nil || n < 4 || freed.Bytes != size { // two packs and a directory
				t.Fatalf("%d operations: %+v, %v", n-1, freed, err)
			}
			s.Close()
			return
		}
		f.FailAt(1<<30, nil) // that is, none any more
		if !errors.Is(err, boom) || freed.Bytes >= size {
			t.Fatalf("operation %d failed: %+v, %v", n, freed, err)
		}
		for i := range 3 {
			if storetest.Has(t, s, storetest.Scopes[0], c[i].id, c[i].stored) {
				t.Errorf("operation %d failed: the store shows a chunk of what it releases", n)
			}
		}
		over := size - freed.Bytes
		if err := put(s, c[2]); int64(len(c[2].stored)) > freed.Bytes && !errors.Is(err, chunkstore.ErrQuota) || int64(len(c[2].stored)) <= freed.Bytes && err != nil {
			t.Errorf("operation %d failed, %d bytes may come back: the next batch: %v", n, over, err)
		}
		s.Close()
		if s, err = pack.Open(f, "/chunks", o); err != nil {
			t.Fatal(err)
		}
		if _, err := storetest.Release(s, storetest.Scopes[0], now); err != nil {
			t.Fatalf("operation %d failed: the next process: %v", n, err)
		}
		if all, err := s.Runs(t.Context()); err != nil || len(all) != 1 || !storetest.Has(t, s, storetest.Scopes[2], c[3].id, c[3].stored) {
			t.Errorf("operation %d failed: %+v, %v are left", n, all, err)
		}
		if err := put(s, c[0], c[1], c[2]); err != nil {
			t.Errorf("operation %d failed: the quota is not given back: %v", n, err)
		}
		s.Close()
	}
}

// TestReleaseFreesDisk: the space is free when Release returns, also that of packs that
// were read before, and a reader who comes in between finds the chunk or is told that it
// is not there.
func TestReleaseFreesDisk(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s, err := pack.Open(durable.OS{}, root, pack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	c, ctx := chunks(true)[3], t.Context()
	for range 20 {
		if err := put(s, c); err != nil {
			t.Fatal(err)
		}
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for {
					p := make([]byte, len(c.stored))
					n, err := s.ReadAt(ctx, storetest.Scopes[0], c.id, p, 0)
					if errors.Is(err, chunkstore.ErrNotFound) {
						return
					}
					if err != nil && err != io.EOF || !bytes.Equal(p[:n], c.stored) {
						t.Errorf("read: %d bytes, %v", n, err)
						return
					}
				}
			})
		}
		if _, err := storetest.Release(s, storetest.Scopes[0], time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		readers.Wait()
		packs, err := filepath.Glob(filepath.Join(root, "*", "*", "*", "*"))
		if err != nil || len(packs) > 0 {
			t.Fatalf("%v, %v are left", packs, err)
		}
		if runtime.GOOS != "linux" {
			continue
		}
		open, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range open {
			if to, _ := os.Readlink(fd); strings.HasPrefix(to, root) && strings.HasSuffix(to, "(deleted)") {
				t.Fatalf("%s keeps its space", to)
			}
		}
	}
}

// TestFull: a disk that is full anywhere in a batch refuses it, keeps what was
// committed, and takes the batch once there is room.
func TestFull(t *testing.T) {
	t.Parallel()
	for _, large := range []bool{false, true} {
		c := chunks(large)
		for free := int64(0); ; free += 1 + free/7 {
			f := faultfs.New()
			s, err := pack.Open(f, "/chunks", pack.Options{FederationBytes: int64(len(c[0].stored) + len(c[1].stored) + len(c[2].stored))})
			if err != nil {
				t.Fatal(err)
			}
			if err := put(s, c[0]); err != nil {
				t.Fatal(err)
			}
			f.Fill(free)
			err = put(s, c[1], c[2])
			if err == nil {
				if free < int64(len(c[1].stored)) {
					t.Errorf("%d bytes took more", free)
				}
				s.Close()
				break
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("%d bytes free: %v", free, err)
			}
			f.Fill(-1)
			if err := put(s, c[1], c[2]); err != nil { // within the quota: nothing is counted twice
				t.Fatalf("after %d bytes were free: %v", free, err)
			}
			s.Close()
			if got := held(t, f.Recover(faultfs.Synced), c); got != [4]bool{true, true, true, false} {
				t.Fatalf("after %d bytes were free the store has %v", free, got)
			}
		}
	}
}

func TestReopen(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	c := chunks(false)
	size := int64(len(c[0].stored) + len(c[1].stored))
	open := func() *pack.Store {
		s, err := pack.Open(durable.OS{}, root, pack.Options{FederationBytes: size})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := open()
	if _, err := pack.Open(durable.OS{}, root, pack.Options{}); !errors.Is(err, durable.ErrLocked) {
		t.Errorf("second process: %v, want ErrLocked", err)
	}
	if err := put(s, c[0], c[1]); err != nil {
		t.Fatal(err)
	}
	b, err := s.Put(context.Background(), storetest.Scopes[4]) // and is killed
	if err != nil {
		t.Fatal(err)
	}
	b.Add(c[2].id, bytes.NewReader(c[2].stored))
	s.Close()
	s = open()
	defer s.Close()
	if !storetest.Has(t, s, storetest.Scopes[0], c[0].id, c[0].stored) || storetest.Has(t, s, storetest.Scopes[4], c[2].id, c[2].stored) {
		t.Error("not exactly the committed chunks are there")
	}
	if err := put(s, c[2]); !errors.Is(err, chunkstore.ErrQuota) {
		t.Errorf("the quota is forgotten: %v", err)
	}
	if u, err := storetest.Release(s, storetest.Scopes[0], time.Now().Add(time.Hour)); u.Bytes != size || err != nil {
		t.Errorf("released %+v, %v, want %d bytes", u, err, size)
	}
	s.Close()
	s = open()
	s.Close()
	if list, _ := os.ReadDir(root); len(list) != 1 {
		t.Errorf("an emptied store holds %v", list)
	}
}

// TestStrangers: the store does not guess about files that are not its own.
func TestStrangers(t *testing.T) {
	t.Parallel()
	d := fmt.Sprintf("%064x", 1)
	for _, path := range []string{"file", "dir/x", d + "/x", d + "/" + d + "/x/y", d + "/" + d + "/" + d + "/x/y",
		d + "/" + d + "/" + d + "/0123456789abcdef-01234567/x", fmt.Sprintf("%064x/%s/%s/0123456789abcdef-01234567/%s", 0, d, d, d), "A" + d[1:] + "/x/y"} {
		root := t.TempDir()
		os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o700)
		if err := os.WriteFile(filepath.Join(root, path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := pack.Open(durable.OS{}, root, pack.Options{}); err == nil {
			s.Close()
			t.Errorf("%s is taken as the store's", path)
		}
	}
}

func BenchmarkPut(b *testing.B) {
	for _, n := range []int{1 << 20, 5 << 20} {
		b.Run(fmt.Sprintf("%dMiB", n>>20), func(b *testing.B) {
			s, err := pack.Open(durable.OS{}, b.TempDir(), pack.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			id, stored := storetest.Chunk(1, n)
			b.SetBytes(int64(n))
			for b.Loop() {
				if err := storetest.Put(s, storetest.Scopes[0], []chunkstore.ID{id}, [][]byte{stored}); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				storetest.Release(s, storetest.Scopes[0], time.Now().Add(time.Hour))
				b.StartTimer()
			}
		})
	}
}
