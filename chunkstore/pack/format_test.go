package pack

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/storetest"
	"github.com/concordat/concordat/internal/durable/faultfs"
)

var update = flag.Bool("update", false, "write the golden pack again")

// golden is a pack of two batches, of two chunks and of one.
func golden() (data []byte, ids []chunkstore.ID, stored [][]byte, ends []int64) {
	data = appendHeader(nil, storetest.Scopes[0])
	at := time.Unix(1_800_000_000, 123)
	for batch, n := range []int{2, 1} {
		l := newLayout()
		for range n {
			id, b := storetest.Chunk(uint64(len(ids)), 10+len(ids))
			ids, stored = append(ids, id), append(stored, b)
			r := record{id, int64(len(data)) + recordSize, int64(len(b))}
			a := r.announcement()
			data = append(append(data, a[:]...), b...)
			l.add(r)
		}
		data = append(data, l.commit(at.Add(time.Duration(batch)*time.Second), int64(len(data)))...)
		ends = append(ends, int64(len(data)))
	}
	return data, ids, stored, ends
}

// TestGolden: the format is for ever.
func TestGolden(t *testing.T) {
	t.Parallel()
	data, ids, _, ends := golden()
	file := filepath.Join("testdata", "v1.pack")
	if *update {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(data, want) {
		t.Fatalf("the pack is not that of %s (%v)", file, err)
	}
	batches, end, err := parse(bytes.NewReader(want), int64(len(want)), storetest.Scopes[0])
	if err != nil || end != ends[1] || len(batches) != 2 {
		t.Fatalf("%d batches up to %d, %v", len(batches), end, err)
	}
	var got []chunkstore.ID
	for i, b := range batches {
		if want := time.Unix(1_800_000_000+int64(i), 123); !b.at.Equal(want) {
			t.Errorf("batch %d is of %v, want %v", i, b.at, want)
		}
		for _, r := range b.records {
			got = append(got, r.id)
		}
	}
	if !slices.Equal(got, ids) {
		t.Errorf("chunks %v, want %v", got, ids)
	}
}

// disk is a store with one pack of these bytes.
func disk(t *testing.T, data []byte) (*faultfs.FS, string) {
	t.Helper()
	f := faultfs.New()
	s, err := Open(f, "/chunks", Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := s.dir(storetest.Scopes[0])
	if err := s.makeDir(&scope{dir: dir}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, packName(time.Unix(0, 0)))
	w, err := f.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.Close()
	return f, path
}

// TestDamage flips every bit of a pack: the store names the pack and serves none of
// it, or serves bytes that are not the chunk's, which whoever reads them detects. It
// never has a chunk of another name.
func TestDamage(t *testing.T) {
	t.Parallel()
	whole, ids, stored, ends := golden()
	for i := range 8 * len(whole) {
		data := bytes.Clone(whole)
		data[i/8] ^= 1 << (i % 8)
		f, path := disk(t, data)
		s, err := Open(f, "/chunks", Options{})
		if err != nil {
			t.Fatalf("bit %d: %v", i, err)
		}
		wrong, missing := 0, 0
		for k, id := range ids {
			got := make([]byte, len(stored[k]))
			_, err := s.ReadAt(t.Context(), storetest.Scopes[0], id, got, 0)
			switch {
			case errors.Is(err, chunkstore.ErrNotFound):
				missing++
			case err != nil:
				t.Fatalf("bit %d: %v", i, err)
			case !bytes.Equal(got, stored[k]):
				wrong++
			}
		}
		torn := missing == 1 && int64(i/8) >= ends[1]-recordSize && len(s.Torn()) == 1 // as a crash before the commit
		if damaged := len(s.Damaged()) == 1 && missing == len(ids); !damaged && !torn && (wrong != 1 || missing != 0) {
			t.Errorf("bit %d: %d chunks wrong, %d missing, damage %v", i, wrong, missing, s.Damaged())
		}
		if _, err := f.Stat(path); err != nil {
			t.Errorf("bit %d: the pack is gone: %v", i, err)
		}
		s.Close()
	}
}

// TestTorn cuts a pack off everywhere behind its first batch: the batches before the
// cut are there, and the store goes on.
func TestTorn(t *testing.T) {
	t.Parallel()
	whole, ids, stored, ends := golden()
	for n := ends[0]; n <= int64(len(whole)); n++ {
		f, path := disk(t, whole[:n])
		s, err := Open(f, "/chunks", Options{})
		if err != nil || len(s.Damaged()) > 0 {
			t.Fatalf("%d bytes: %v, %v", n, err, s.Damaged())
		}
		if torn := n != ends[0] && n != ends[1]; len(s.Torn()) == 1 != torn {
			t.Errorf("%d bytes: told %v", n, s.Torn())
		}
		for k, id := range ids {
			if has := storetest.Has(t, s, storetest.Scopes[0], id, stored[k]); has != (k < 2 || n == ends[1]) {
				t.Errorf("%d bytes: chunk %d is there: %v", n, k, has)
			}
		}
		if info, err := f.Stat(path); err != nil || info.Size() != ends[0] && info.Size() != ends[1] {
			t.Errorf("%d bytes: the pack was not cut to its last batch: %v", n, err)
		}
		if err := storetest.Put(s, storetest.Scopes[0], ids[2:], stored[2:]); err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		s.Close()
		if s, err = Open(f.Recover(faultfs.Synced), "/chunks", Options{}); err != nil || !storetest.Has(t, s, storetest.Scopes[0], ids[2], stored[2]) {
			t.Fatalf("%d bytes: what was put then is lost: %v", n, err)
		}
		s.Close()
	}
}

// TestGroup: small batches that wait for the disk are made durable together.
func TestGroup(t *testing.T) {
	t.Parallel()
	f := faultfs.New()
	s, err := Open(f, "/chunks", Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sc := storetest.Scopes[0]
	idx := s.use(sc)
	defer s.leave(sc, idx)
	ops := func(n int) int {
		idx.tailMu.Lock()
		var all sync.WaitGroup
		for k := range n {
			all.Go(func() {
				id, b := storetest.Chunk(uint64(1000*n+k), 50)
				if err := storetest.Put(s, sc, []chunkstore.ID{id}, [][]byte{b}); err != nil {
					t.Error(err)
				}
			})
		}
		for waiting := 0; waiting < n; runtime.Gosched() {
			s.mu.Lock()
			waiting = len(idx.waiting)
			s.mu.Unlock()
		}
		before := f.Ops()
		idx.tailMu.Unlock()
		all.Wait()
		return f.Ops() - before
	}
	ops(1) // makes the pack
	if one, many := ops(1), ops(100); many != one {
		t.Errorf("a batch takes %d operations, a hundred that wait for each other %d", one, many)
	}
	if got := len(idx.batches); got != 3 {
		t.Errorf("the store has %d batches, want 3: those that waited for each other are one", got)
	}
}

// Any bytes are a pack or damage; what is found lies within the file.
func FuzzParse(f *testing.F) {
	whole, _, _, ends := golden()
	f.Add(whole)
	f.Add(whole[:ends[0]+20])
	f.Add(whole[:packHeader])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		batches, end, err := parse(bytes.NewReader(data), int64(len(data)), storetest.Scopes[0])
		if err != nil {
			if !errors.Is(err, errDamaged) {
				t.Fatal(err)
			}
			return
		}
		if len(batches) == 0 || end > int64(len(data)) {
			t.Fatalf("%d batches up to %d of %d bytes", len(batches), end, len(data))
		}
		for _, b := range batches {
			for _, r := range b.records {
				if r.off < int64(packHeader) || r.size < 0 || r.off+r.size > end {
					t.Fatalf("a chunk at %d of %d bytes, up to %d", r.off, r.size, end)
				}
			}
		}
		again, end2, err := parse(bytes.NewReader(data[:end]), end, storetest.Scopes[0])
		if err != nil || end2 != end || len(again) != len(batches) {
			t.Fatalf("cut to its batches: %d up to %d, %v; want %d up to %d", len(again), end2, err, len(batches), end)
		}
	})
}
