// Package storetest is the suite that every chunkstore.Store must pass. Start
// with [Run]. It tests the contract as one process sees it; what survives a
// crash is for each store's own tests, with [Chunk] and [Has] to help.
package storetest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
)

// Config is what the suite asks of the store under test.
type Config struct {
	FederationBytes int64            // 0 is no limit
	Now             func() time.Time // the clock to use
}

// Chunk returns the i-th test chunk, sealed from n bytes of plaintext.
func Chunk(i uint64, n int) (chunkstore.ID, []byte) {
	plain := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), 1})
	r.Read(plain)
	secret := chunkstore.NewUplink([32]byte{1}, chunkstore.Digest{2}, i)
	return chunkstore.Seal(nil, secret, object.Sum(plain), plain)
}

// Scopes differ from the first in one field each.
var Scopes = []chunkstore.Scope{
	{Federation: digest(1), Run: digest(2), Owner: digest(3)},
	{Federation: digest(4), Run: digest(2), Owner: digest(3)},
	{Federation: digest(1), Run: digest(4), Owner: digest(3)},
	{Federation: digest(1), Run: digest(2), Owner: digest(4)},
	{Federation: digest(1), Run: digest(2)}, // the downlink
}

func digest(i byte) chunkstore.Digest { return chunkstore.Digest{31: i} }

// Put commits chunks, each of which must be the one that its id names.
func Put(s chunkstore.Store, scope chunkstore.Scope, ids []chunkstore.ID, stored [][]byte) error {
	b, err := s.Put(context.Background(), scope)
	if err != nil {
		return err
	}
	defer b.Discard()
	for i, id := range ids {
		if err := b.Add(id, bytes.NewReader(stored[i])); err != nil {
			return err
		}
	}
	return b.Commit()
}

// Release releases the run of a scope.
func Release(s chunkstore.Store, scope chunkstore.Scope, since time.Time) (chunkstore.Usage, error) {
	return s.Release(context.Background(), scope.Federation, scope.Run, since)
}

// Has reports whether the store has the chunk, and fails the test if it has it
// in part, or says different things about it.
func Has(t testing.TB, s chunkstore.Store, scope chunkstore.Scope, id chunkstore.ID, stored []byte) bool {
	t.Helper()
	ctx := context.Background()
	bitmap, err := s.Missing(ctx, scope, []chunkstore.ID{id})
	if err != nil || len(bitmap) != 1 {
		t.Fatalf("Missing: %v, %v", bitmap, err)
	}
	got := make([]byte, len(stored))
	n, rerr := s.ReadAt(ctx, scope, id, got, 0)
	size, serr := s.Size(ctx, scope, id)
	if bitmap[0] == 1 {
		if !errors.Is(rerr, chunkstore.ErrNotFound) || !errors.Is(serr, chunkstore.ErrNotFound) {
			t.Fatalf("chunk %s is missing, but read: %v, size: %v", id.Short(), rerr, serr)
		}
		return false
	}
	if rerr != nil && rerr != io.EOF || serr != nil || n != len(stored) || size != int64(len(stored)) || !bytes.Equal(got, stored) {
		t.Fatalf("chunk %s is there, but read: %d bytes, %v, size: %d, %v", id.Short(), n, rerr, size, serr)
	}
	return true
}

// Run tests the stores that open returns, each empty.
func Run(t *testing.T, open func(t *testing.T, c Config) chunkstore.Store) {
	for name, test := range map[string]func(*testing.T, func(*testing.T, Config) chunkstore.Store){
		"Batch": testBatch, "Scopes": testScopes, "ReadAt": testReadAt, "Missing": testMissing, "Refuses": testRefuses,
		"ReaderErrors": testReaderErrors, "Quota": testQuota, "Release": testRelease, "InUse": testInUse, "Runs": testRuns, "Concurrent": testConcurrent, "Cancelled": testCancelled,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, open) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testBatch(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	s, scope, ctx := open(t, Config{}), Scopes[0], context.Background()
	id1, c1 := Chunk(1, 100)
	id2, c2 := Chunk(2, 0)
	b, err := s.Put(ctx, scope)
	must(t, err)
	must(t, b.Add(id1, bytes.NewReader(c1)))
	must(t, b.Add(id1, bytes.NewReader(c1)))
	if Has(t, s, scope, id1, c1) {
		t.Error("a chunk is visible before Commit")
	}
	must(t, b.Add(id2, bytes.NewReader(c2)))
	must(t, b.Commit())
	must(t, b.Discard())
	if !Has(t, s, scope, id1, c1) || !Has(t, s, scope, id2, c2) {
		t.Error("a chunk is not there after Commit")
	}
	if b.Add(id1, bytes.NewReader(c1)) == nil || b.Commit() == nil {
		t.Error("a batch goes on after Commit")
	}

	id3, c3 := Chunk(3, 100)
	b, err = s.Put(ctx, scope)
	must(t, err)
	must(t, b.Add(id3, bytes.NewReader(c3)))
	must(t, b.Discard())
	must(t, b.Discard())
	if Has(t, s, scope, id3, c3) {
		t.Error("a discarded chunk is there")
	}
	if b.Add(id3, bytes.NewReader(c3)) == nil || b.Commit() == nil {
		t.Error("a batch goes on after Discard")
	}
	must(t, Put(s, scope, nil, nil))
	must(t, Put(s, scope, []chunkstore.ID{id1, id3}, [][]byte{c1, c3}))
	if !Has(t, s, scope, id1, c1) || !Has(t, s, scope, id3, c3) {
		t.Error("a chunk is not there after a second batch with it")
	}
}

func testScopes(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	s, ctx := open(t, Config{}), context.Background()
	id, c := Chunk(1, 10)
	for i, scope := range Scopes {
		if Has(t, s, scope, id, c) {
			t.Fatalf("scope %d sees the chunk of another", i)
		}
		must(t, Put(s, scope, []chunkstore.ID{id}, [][]byte{c}))
	}
	// One chunk is in all of them; the release of a run takes it from the scopes of
	// that run alone.
	if _, err := Release(s, Scopes[0], time.Now().Add(1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for i, scope := range Scopes {
		other := scope.Federation != Scopes[0].Federation || scope.Run != Scopes[0].Run
		if Has(t, s, scope, id, c) != other {
			t.Errorf("scope %d is wrong after the release of the run of scope 0", i)
		}
	}
	for _, bad := range []chunkstore.Scope{{}, {Federation: digest(1)}, {Run: digest(1), Owner: digest(1)}} {
		_, err1 := s.Missing(ctx, bad, nil)
		_, err2 := s.Put(ctx, bad)
		_, err3 := s.Size(ctx, bad, id)
		_, err4 := s.ReadAt(ctx, bad, id, nil, 0)
		_, err5 := Release(s, bad, time.Now())
		for i, err := range []error{err1, err2, err3, err4, err5} {
			if err == nil || errors.Is(err, chunkstore.ErrNotFound) {
				t.Errorf("method %d takes an incomplete scope: %v", i, err)
			}
		}
	}
}

func testReadAt(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	s, scope, ctx := open(t, Config{}), Scopes[4], context.Background()
	id, c := Chunk(1, 200_000)
	must(t, Put(s, scope, []chunkstore.ID{id}, [][]byte{c}))
	for _, span := range [][2]int{{0, 1}, {0, len(c)}, {48, 65552}, {len(c) - 1, 1}, {100_000, 7}} {
		p := make([]byte, span[1])
		n, err := s.ReadAt(ctx, scope, id, p, int64(span[0]))
		if n != len(p) || err != nil && (err != io.EOF || span[0]+span[1] != len(c)) || !bytes.Equal(p, c[span[0]:span[0]+span[1]]) {
			t.Errorf("read %d bytes at %d: %d, %v", span[1], span[0], n, err)
		}
	}
	if n, err := s.ReadAt(ctx, scope, id, make([]byte, 10), int64(len(c)-4)); n != 4 || err != io.EOF {
		t.Errorf("read past the end: %d, %v, want 4 and io.EOF", n, err)
	}
	if n, err := s.ReadAt(ctx, scope, id, make([]byte, 10), int64(len(c))); n != 0 || err != io.EOF {
		t.Errorf("read at the end: %d, %v, want 0 and io.EOF", n, err)
	}
	if _, err := s.ReadAt(ctx, scope, id, make([]byte, 10), -1); err == nil || err == io.EOF {
		t.Errorf("read at -1: %v, want an error", err)
	}
}

func testMissing(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	s, scope := open(t, Config{}), Scopes[0]
	var ids, have []chunkstore.ID
	var stored [][]byte
	for i := range uint64(130) {
		id, c := Chunk(i, 5)
		ids = append(ids, id)
		if i%3 == 0 {
			have, stored = append(have, id), append(stored, c)
		}
	}
	must(t, Put(s, scope, have, stored))
	bitmap, err := s.Missing(context.Background(), scope, ids)
	must(t, err)
	if len(bitmap) != 3 {
		t.Fatalf("bitmap of %d words for %d ids", len(bitmap), len(ids))
	}
	for i := range 64 * len(bitmap) {
		if got, want := bitmap[i/64]>>(i%64)&1 == 1, i < len(ids) && i%3 != 0; got != want {
			t.Errorf("bit %d is %v, want %v", i, got, want)
		}
	}
	if bitmap, err := s.Missing(context.Background(), scope, nil); err != nil || len(bitmap) != 0 {
		t.Errorf("nothing asked: %v, %v", bitmap, err)
	}
}

// testRefuses: nothing but the chunk itself is taken under its id, and the
// batch goes on.
func testRefuses(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	s, scope := open(t, Config{}), Scopes[0]
	id, c := Chunk(1, 70_000)
	other, oc := Chunk(2, 10)
	b, err := s.Put(context.Background(), scope)
	must(t, err)
	defer b.Discard()
	change := func(at int, to byte) []byte {
		bad := bytes.Clone(c)
		bad[at] ^= to
		return bad
	}
	huge := bytes.Clone(c)
	binary.BigEndian.PutUint64(huge[8:], chunkstore.MaxPlain+1)
	for name, v := range map[string]struct {
		r    io.Reader
		want error
	}{
		"magic":         {bytes.NewReader(change(0, 1)), chunkstore.ErrMismatch},
		"suite":         {bytes.NewReader(change(4, 3)), chunkstore.ErrMismatch},
		"reserved":      {bytes.NewReader(change(7, 1)), chunkstore.ErrMismatch},
		"length":        {bytes.NewReader(change(15, 1)), chunkstore.ErrMismatch},
		"commitment":    {bytes.NewReader(change(47, 0x80)), chunkstore.ErrMismatch},
		"first segment": {bytes.NewReader(change(48, 1)), chunkstore.ErrMismatch},
		"last byte":     {bytes.NewReader(change(len(c)-1, 1)), chunkstore.ErrMismatch},
		"nothing":       {bytes.NewReader(nil), chunkstore.ErrMismatch},
		"header only":   {bytes.NewReader(c[:48]), chunkstore.ErrMismatch},
		"truncated":     {bytes.NewReader(c[:len(c)-1]), chunkstore.ErrMismatch},
		"one segment":   {bytes.NewReader(c[:48+65552]), chunkstore.ErrMismatch},
		"extended":      {bytes.NewReader(append(bytes.Clone(c), 0)), chunkstore.ErrMismatch},
		"another":       {bytes.NewReader(oc), chunkstore.ErrMismatch},
		"too large":     {bytes.NewReader(huge), chunkstore.ErrTooLarge},
		"endless":       {io.MultiReader(bytes.NewReader(c), endless{}), chunkstore.ErrMismatch},
	} {
		if err := b.Add(id, v.r); !errors.Is(err, v.want) {
			t.Errorf("%s: got %v, want %v", name, err, v.want)
		}
	}
	must(t, b.Add(other, iotest.OneByteReader(bytes.NewReader(oc))))
	must(t, b.Commit())
	if Has(t, s, scope, id, c) || !Has(t, s, scope, other, oc) {
		t.Error("the batch did not go on without the refused chunks")
	}
	must(t, Put(s, scope, []chunkstore.ID{id}, [][]byte{c}))
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// testReaderErrors: a failing connection is not a wrong chunk.
func testReaderErrors(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	s := open(t, Config{})
	id, c := Chunk(1, 70_000)
	b, err := s.Put(context.Background(), Scopes[0])
	must(t, err)
	defer b.Discard()
	broken := errors.New("connection lost")
	for _, n := range []int{0, 10, 48, 60_000, len(c)} {
		err := b.Add(id, io.MultiReader(bytes.NewReader(c[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || errors.Is(err, chunkstore.ErrMismatch) {
			t.Errorf("connection lost after %d bytes: %v", n, err)
		}
	}
	must(t, b.Add(id, bytes.NewReader(c)))
	must(t, b.Commit())
}

func testQuota(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	id1, c1 := Chunk(1, 70_000)
	id2, c2 := Chunk(2, 70_000)
	s := open(t, Config{FederationBytes: int64(len(c1) + len(c2) - 1)})
	ctx := context.Background()
	must(t, Put(s, Scopes[0], []chunkstore.ID{id1}, [][]byte{c1}))
	for _, scope := range []chunkstore.Scope{Scopes[0], Scopes[2], Scopes[4]} { // one federation
		if err := Put(s, scope, []chunkstore.ID{id2}, [][]byte{c2}); !errors.Is(err, chunkstore.ErrQuota) {
			t.Errorf("over the quota: %v", err)
		}
	}
	must(t, Put(s, Scopes[1], []chunkstore.ID{id2}, [][]byte{c2})) // another federation
	b, err := s.Put(ctx, Scopes[1])
	must(t, err)
	if err := b.Add(id1, bytes.NewReader(c1)); !errors.Is(err, chunkstore.ErrQuota) {
		t.Errorf("over the quota: %v", err)
	}
	must(t, b.Discard())
	freed, err := Release(s, Scopes[0], time.Now().Add(1000*time.Hour))
	if err != nil || freed.Bytes != int64(len(c1)) {
		t.Errorf("released %+v, %v, want %d bytes", freed, err, len(c1))
	}
	for range 3 { // given back exactly
		b, err := s.Put(ctx, Scopes[0])
		must(t, err)
		must(t, b.Add(id2, bytes.NewReader(c2)))
		must(t, b.Discard())
	}
	must(t, Put(s, Scopes[0], []chunkstore.ID{id2}, [][]byte{c2}))
}

func testRelease(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	now := time.Unix(1_800_000_000, 0)
	s := open(t, Config{Now: func() time.Time { return now }})
	id1, c1 := Chunk(1, 100)
	id2, c2 := Chunk(2, 100_000)
	run, elsewhere := []chunkstore.Scope{Scopes[0], Scopes[3], Scopes[4]}, []chunkstore.Scope{Scopes[1], Scopes[2]}
	for _, scope := range append(elsewhere, run...) {
		must(t, Put(s, scope, []chunkstore.ID{id1, id2}, [][]byte{c1, c2}))
		now = now.Add(time.Second)
		must(t, Put(s, scope, []chunkstore.ID{id2}, [][]byte{c2}))
	}
	if _, err := Release(s, Scopes[0], now.Add(-1)); !errors.Is(err, chunkstore.ErrInUse) {
		t.Errorf("release of a run that was written since: %v", err)
	}
	freed, err := Release(s, Scopes[4], now) // whichever of its owners is named
	if err != nil || freed.Federation != Scopes[0].Federation || freed.Run != Scopes[0].Run || freed.Owners != 3 || freed.Chunks != 6 || freed.Bytes < 3*int64(len(c1)+len(c2)) {
		t.Errorf("release: %+v, %v", freed, err)
	}
	for _, scope := range run {
		if Has(t, s, scope, id1, c1) || Has(t, s, scope, id2, c2) {
			t.Errorf("a chunk of a run that is released is there")
		}
	}
	for _, scope := range elsewhere {
		if !Has(t, s, scope, id1, c1) || !Has(t, s, scope, id2, c2) {
			t.Errorf("a chunk of another run is gone")
		}
	}
	if again, err := Release(s, Scopes[0], now); err != nil || again.Bytes != 0 || again.Chunks != 0 {
		t.Errorf("released again: %+v, %v", again, err)
	}
	must(t, Put(s, Scopes[0], []chunkstore.ID{id1}, [][]byte{c1})) // as after a loss
	if !Has(t, s, Scopes[0], id1, c1) {
		t.Error("a run that was released takes no chunks")
	}
}

// testInUse: whoever stores or asks keeps a run.
func testInUse(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	now := time.Unix(1_800_000_000, 0)
	s := open(t, Config{Now: func() time.Time { return now }})
	scope, ctx := Scopes[0], context.Background()
	id, c := Chunk(1, 100)
	other, oc := Chunk(2, 100)
	b, err := s.Put(ctx, Scopes[4])
	must(t, err)
	must(t, b.Add(other, bytes.NewReader(oc)))
	must(t, Put(s, scope, []chunkstore.ID{id}, [][]byte{c}))
	later := now.Add(time.Hour)
	if _, err := Release(s, scope, later); !errors.Is(err, chunkstore.ErrInUse) {
		t.Errorf("release during a batch of another owner: %v", err)
	}
	must(t, b.Discard())
	for name, ask := range map[string]func() error{
		"missing": func() error { _, err := s.Missing(ctx, Scopes[4], []chunkstore.ID{id}); return err },
		"size":    func() error { _, err := s.Size(ctx, scope, id); return err },
		"read":    func() error { _, err := s.ReadAt(ctx, scope, id, make([]byte, 1), 0); return err },
	} {
		now = now.Add(time.Second)
		must(t, ask())
		if _, err := Release(s, scope, now.Add(-1)); !errors.Is(err, chunkstore.ErrInUse) {
			t.Errorf("release after %s: %v", name, err)
		}
		all, err := s.Runs(ctx)
		if err != nil || len(all) != 1 || !all[0].Used.Equal(now) {
			t.Errorf("after %s: %+v, %v, want it used at %v", name, all, err, now)
		}
	}
	if !Has(t, s, scope, id, c) {
		t.Error("a run in use lost a chunk")
	}
	if _, err := Release(s, scope, now); err != nil {
		t.Error(err)
	}
	if Has(t, s, scope, id, c) {
		t.Error("a released chunk is there")
	}
}

func testRuns(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	now := time.Unix(1_800_000_000, 0)
	s := open(t, Config{Now: func() time.Time { return now }})
	ctx := context.Background()
	runs := func(want ...chunkstore.Usage) {
		t.Helper()
		all, err := s.Runs(ctx)
		if err != nil || len(all) != len(want) {
			t.Fatalf("runs: %+v, %v, want %+v", all, err, want)
		}
		for _, w := range want {
			found := false
			for _, u := range all {
				found = found || u.Used.Equal(w.Used) && u.Federation == w.Federation && u.Run == w.Run && u.Owners == w.Owners && u.Chunks == w.Chunks && u.Bytes == w.Bytes
			}
			if !found {
				t.Errorf("runs: %+v lack %+v", all, w)
			}
		}
	}
	runs()
	id1, c1 := Chunk(1, 100)
	id2, c2 := Chunk(2, 70_000)
	must(t, Put(s, Scopes[0], []chunkstore.ID{id1, id2}, [][]byte{c1, c2}))
	must(t, Put(s, Scopes[1], []chunkstore.ID{id1}, [][]byte{c1}))
	first := now
	now = now.Add(time.Minute)
	must(t, Put(s, Scopes[4], []chunkstore.ID{id1}, [][]byte{c1}))
	b, err := s.Put(ctx, Scopes[2]) // has nothing yet
	must(t, err)
	runs(chunkstore.Usage{Federation: Scopes[0].Federation, Run: Scopes[0].Run, Owners: 2, Chunks: 3, Bytes: int64(2*len(c1) + len(c2)), Used: now},
		chunkstore.Usage{Federation: Scopes[1].Federation, Run: Scopes[1].Run, Owners: 1, Chunks: 1, Bytes: int64(len(c1)), Used: first})
	must(t, b.Discard())
	_, err = Release(s, Scopes[0], now)
	must(t, err)
	_, err = Release(s, Scopes[1], now)
	must(t, err)
	runs()
}

func testConcurrent(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	s := open(t, Config{})
	ctx := context.Background()
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			scope := Scopes[w%2]
			for i := range uint64(8) {
				id, c := Chunk(i, 1000)
				if err := Put(s, scope, []chunkstore.ID{id}, [][]byte{c}); err != nil {
					t.Error(err)
				}
				p := make([]byte, len(c))
				// Another worker may release it in between.
				if _, err := s.ReadAt(ctx, scope, id, p, 0); err == nil && !bytes.Equal(p, c) || err != nil && err != io.EOF && !errors.Is(err, chunkstore.ErrNotFound) {
					t.Errorf("read: %v", err)
				}
				if i == 4 {
					if _, err := Release(s, scope, time.Now().Add(time.Hour)); err != nil && !errors.Is(err, chunkstore.ErrInUse) {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, scope := range Scopes[:2] {
		id, c := Chunk(9, 1000)
		if err := Put(s, scope, []chunkstore.ID{id}, [][]byte{c}); err != nil || !Has(t, s, scope, id, c) {
			t.Error(fmt.Errorf("after all: %w", err))
		}
	}
}

func testCancelled(t *testing.T, open func(*testing.T, Config) chunkstore.Store) {
	s, scope := open(t, Config{}), Scopes[0]
	id, c := Chunk(1, 100)
	ctx, cancel := context.WithCancel(context.Background())
	b, err := s.Put(ctx, scope)
	must(t, err)
	defer b.Discard()
	must(t, b.Add(id, bytes.NewReader(c)))
	cancel()
	if err := b.Commit(); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	if _, err := s.Put(ctx, scope); !errors.Is(err, context.Canceled) {
		t.Errorf("put: %v", err)
	}
	if _, err := s.Missing(ctx, scope, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("missing: %v", err)
	}
	if Has(t, s, scope, id, c) {
		t.Error("a cancelled batch is visible")
	}
}
