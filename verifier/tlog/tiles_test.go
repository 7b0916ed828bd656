package tlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"filippo.io/torchwood"
	xtlog "golang.org/x/mod/sumdb/tlog"

	"github.com/concordat/concordat/internal/merkle"
)

// memTiles are the files of a log.
type memTiles map[string][]byte

func (m memTiles) ReadTile(_ context.Context, path string) ([]byte, error) {
	b, ok := m[path]
	if !ok {
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return b, nil
}

// writeTiles lays out a log of n entries as torchwood and x/mod do: their paths,
// their hashes.
func writeTiles(t testing.TB, n int) memTiles {
	t.Helper()
	m := make(memTiles)
	var hashes []xtlog.Hash
	reader := xtlog.HashReaderFunc(func(idx []int64) ([]xtlog.Hash, error) {
		var out []xtlog.Hash
		for _, i := range idx {
			out = append(out, hashes[i])
		}
		return out, nil
	})
	var bundle []byte
	for i := range n {
		stored, err := xtlog.StoredHashes(int64(i), entry(i), reader)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, stored...)
		if bundle, err = torchwood.AppendTileEntry(bundle, entry(i)); err != nil {
			t.Fatal(err)
		}
		if (i+1)%256 == 0 || i == n-1 {
			tile := xtlog.Tile{H: 8, L: -1, N: int64(i / 256), W: i%256 + 1}
			m[torchwood.TilePath(tile)] = bundle
			bundle = nil
		}
	}
	for _, tile := range xtlog.NewTiles(8, 0, int64(n)) {
		b, err := xtlog.ReadTileData(tile, reader)
		if err != nil {
			t.Fatal(err)
		}
		m[torchwood.TilePath(tile)] = b
	}
	return m
}

func TestAudit(t *testing.T) {
	ctx := context.Background()
	for _, n := range []int{0, 1, 2, 255, 256, 257, 600, 66000} {
		if n > 1000 && testing.Short() {
			continue
		}
		tiles, c := writeTiles(t, n), checkpoint(n)
		var next uint64
		each := func(i uint64, e []byte) error {
			if i != next || !bytes.Equal(e, entry(int(i))) {
				t.Fatalf("entry %d is %q", i, e)
			}
			next++
			return nil
		}
		if err := Audit(ctx, tiles, nil, &c, each); err != nil || next != uint64(n) {
			t.Fatalf("%d entries: %d, %v", n, next, err)
		}
	}
}

func TestAuditGoesOn(t *testing.T) {
	ctx := context.Background()
	var from merkle.Range
	var seen uint64
	each := func(i uint64, _ []byte) error {
		if i != seen {
			t.Errorf("entry %d, want %d", i, seen)
		}
		seen++
		return nil
	}
	for _, n := range []int{3, 3, 300, 512, 700} {
		c := checkpoint(n)
		if err := Audit(ctx, writeTiles(t, n), &from, &c, each); err != nil || from.Size() != uint64(n) || seen != uint64(n) {
			t.Fatalf("to %d: %d, %v", n, seen, err)
		}
	}
	c := checkpoint(3)
	if err := Audit(ctx, writeTiles(t, 3), &from, &c, each); err == nil {
		t.Error("the log shrinks")
	}
}

func TestAuditRefuses(t *testing.T) {
	ctx := context.Background()
	c := checkpoint(300)
	ignore := func(uint64, []byte) error { return nil }
	for name, change := range map[string]func(memTiles){
		"entry changed": func(m memTiles) {
			m["tile/entries/000"] = bundleOf(append([][]byte{[]byte("x")}, make([][]byte, 255)...))
		},
		"bundle cut":     func(m memTiles) { m["tile/entries/000"] = m["tile/entries/000"][:100] },
		"bundle missing": func(m memTiles) { delete(m, "tile/entries/000") },
		"last missing":   func(m memTiles) { delete(m, "tile/entries/001.p/44") },
		"too large":      func(m memTiles) { m["tile/entries/000"] = make([]byte, maxBundleFile+1) },
	} {
		m := writeTiles(t, 300)
		change(m)
		var from merkle.Range
		if err := Audit(ctx, m, &from, &c, ignore); err == nil || from.Size() != 0 {
			t.Errorf("%s: %v, at %d", name, err, from.Size())
		}
	}
	wrong := c
	wrong.Root = Digest{1}
	if err := Audit(ctx, writeTiles(t, 300), nil, &wrong, ignore); !errors.Is(err, merkle.ErrProof) {
		t.Errorf("another root: %v", err)
	}
	stop := errors.New("stop")
	if err := Audit(ctx, writeTiles(t, 300), nil, &c, func(uint64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := Audit(cancelled, writeTiles(t, 300), nil, &c, ignore); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// The partial bundle is gone, the full one of a longer log serves.
	longer := writeTiles(t, 512)
	if err := Audit(ctx, longer, nil, &c, ignore); err != nil {
		t.Errorf("from a longer log: %v", err)
	}
}

func TestProofsFromTiles(t *testing.T) {
	ctx := context.Background()
	for _, n := range []int{1, 2, 7, 256, 257, 1000, 66000} {
		if n > 10000 && testing.Short() {
			continue
		}
		tiles, c := writeTiles(t, n), checkpoint(n)
		all := leaves(n)
		for _, i := range []int{0, n / 3, n / 2, n - 1} {
			path, err := InclusionFromTiles(ctx, tiles, &c, uint64(i))
			if err != nil {
				t.Fatalf("inclusion of %d in %d: %v", i, n, err)
			}
			if want := merkle.Inclusion(all, i); fmt.Sprint(path) != fmt.Sprint(digests(want)) {
				t.Errorf("path of %d in %d differs", i, n)
			}
		}
		for _, old := range []int{1, max(1, n/3), max(1, n/2), n} {
			proof, err := ConsistencyFromTiles(ctx, tiles, uint64(old), merkle.Root(all[:old]), &c)
			if err != nil {
				t.Fatalf("consistency from %d to %d: %v", old, n, err)
			}
			if want := merkle.Consistency(all, old); fmt.Sprint(proof) != fmt.Sprint(digests(want)) {
				t.Errorf("proof from %d to %d differs", old, n)
			}
		}
	}
}

func TestProofsFromBadTiles(t *testing.T) {
	ctx := context.Background()
	c := checkpoint(300)
	m := writeTiles(t, 300)
	if _, err := InclusionFromTiles(ctx, m, &c, 300); err == nil {
		t.Error("entry beyond the log")
	}
	if _, err := ConsistencyFromTiles(ctx, m, 0, Digest{}, &c); err == nil {
		t.Error("from size 0")
	}
	if _, err := ConsistencyFromTiles(ctx, m, 5, Digest{1}, &c); !errors.Is(err, merkle.ErrProof) {
		t.Errorf("from another root: %v", err)
	}
	m["tile/0/000"][40] ^= 1
	if _, err := InclusionFromTiles(ctx, m, &c, 0); !errors.Is(err, merkle.ErrProof) {
		t.Errorf("changed tile: %v", err)
	}
	m["tile/0/000"] = m["tile/0/000"][:64]
	if _, err := InclusionFromTiles(ctx, m, &c, 200); err == nil {
		t.Error("short tile")
	}
	delete(m, "tile/0/000")
	if _, err := InclusionFromTiles(ctx, m, &c, 200); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing tile: %v", err)
	}
}

func FuzzAudit(f *testing.F) {
	c := checkpoint(3)
	f.Add(bundleOf([][]byte{entry(0), entry(1), entry(2)}))
	f.Add([]byte{0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var got [][]byte
		err := Audit(context.Background(), memTiles{"tile/entries/000.p/3": b}, nil, &c, func(_ uint64, e []byte) error {
			got = append(got, bytes.Clone(e))
			return nil
		})
		if err == nil && (len(got) != 3 || !bytes.Equal(got[0], entry(0)) || !bytes.Equal(got[2], entry(2))) {
			t.Errorf("other entries pass: %q", got)
		}
	})
}
