package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/internal/cose"
)

var (
	fedA = cose.Sum([]byte("a"))
	fedB = cose.Sum([]byte("b"))
)

func openTest(t testing.TB, path string, l Limits) *Store {
	t.Helper()
	s, err := Open(context.Background(), path, l, func() time.Time { return time.Unix(1000, 0) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func hosted(t testing.TB, l Limits) *Store {
	t.Helper()
	s := openTest(t, filepath.Join(t.TempDir(), "a?b#c.db"), l)
	for i, f := range []Digest{fedA, fedB} {
		if err := s.Host(t.Context(), f, fmt.Sprint("origin", i), 1, f); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func waiting(t *testing.T, s *Store, f Digest, to string, after int64) (payloads []string) {
	t.Helper()
	err := s.Pending(t.Context(), f, to, after, func(_ int64, _ [16]byte, _ string, p []byte) bool {
		payloads = append(payloads, string(p))
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return payloads
}

func TestHost(t *testing.T) {
	t.Parallel()
	s := hosted(t, DefaultLimits)
	ctx := t.Context()
	if err := s.Host(ctx, fedA, "origin0", 3, fedB); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"older version":    s.Host(ctx, fedA, "origin0", 2, fedA),
		"another policy":   s.Host(ctx, fedA, "origin0", 3, fedA),
		"another origin":   s.Host(ctx, fedA, "origin9", 3, fedB),
		"an origin in use": s.Host(ctx, cose.Sum([]byte("c")), "origin0", 1, fedA),
		"another key":      bindTwice(t, s),
	} {
		if !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func bindTwice(t *testing.T, s *Store) error {
	first, err := s.BindInstance(t.Context(), fedA, []byte("i"), []byte("k"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.BindInstance(t.Context(), fedA, []byte("i"), []byte("k"))
	if err != nil || again != first {
		t.Errorf("same key: rank %d, %v, want %d", again, err, first)
	}
	if later, err := s.BindInstance(t.Context(), fedA, []byte("j"), []byte("k")); err != nil || later <= first {
		t.Errorf("later instance: rank %d, %v", later, err)
	}
	_, err = s.BindInstance(t.Context(), fedA, []byte("i"), []byte("other"))
	return err
}

// put enqueues one payload.
func put(s *Store, f Digest, h [16]byte, from, to string, payload []byte) error {
	return s.Enqueue(context.Background(), f, from, 1, func(int) ([16]byte, string, []byte) { return h, to, payload })[0]
}

func TestMessages(t *testing.T) {
	t.Parallel()
	s := hosted(t, Limits{PairMessages: 3, PairBytes: 10, MailboxMessages: 4, MailboxBytes: 100})
	ctx := t.Context()
	put := func(f Digest, h byte, from, to, payload string) error {
		return put(s, f, [16]byte{h}, from, to, []byte(payload))
	}
	for i, p := range []string{"1", "2", "3"} {
		if err := put(fedA, byte(i), "x", "z", p); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ got, want error }{
		"the same again":         {put(fedA, 0, "x", "z", "1"), nil},
		"other payload":          {put(fedA, 0, "x", "z", "x"), ErrConflict},
		"one too many of a pair": {put(fedA, 9, "x", "z", ""), ErrFull},
		"too many bytes":         {put(fedA, 9, "x", "v", "12345678901"), ErrFull},
		"same handle, other one": {put(fedA, 0, "y", "z", "4"), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if err := put(fedA, 5, "v", "z", "5"); !errors.Is(err, ErrFull) {
		t.Errorf("full mailbox: %v", err)
	}
	if err := put(cose.Sum([]byte("nobody")), 5, "v", "z", "5"); err == nil {
		t.Error("a federation that is not hosted was written to")
	}
	if got := fmt.Sprint(waiting(t, s, fedA, "z", 0)); got != "[1 2 3 4]" {
		t.Errorf("waiting: %s", got)
	}
	if got := waiting(t, s, fedB, "z", 0); got != nil {
		t.Errorf("the other federation reads %v", got)
	}
	if err := s.Remove(ctx, fedB, [][16]byte{{0}, {1}}, "z"); err != nil || len(waiting(t, s, fedA, "z", 0)) != 4 {
		t.Errorf("the other federation removes: %v", err)
	}
	if err := s.Remove(ctx, fedA, [][16]byte{{0}, {1}, {77}}, "y", "z"); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(waiting(t, s, fedA, "z", 0)); got != "[3]" {
		t.Errorf("after removal: %s", got)
	}
	for h := byte(10); h < 12; h++ { // what was removed is free again
		if err := put(fedA, h, "x", "z", "n"); err != nil {
			t.Error(err)
		}
	}
	if n, err := s.Expire(ctx, time.Unix(1001, 0)); n != 3 || err != nil {
		t.Errorf("expired %d, %v", n, err)
	}
	var left int
	if err := s.r.QueryRow("SELECT count(*) FROM queue").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d queue rows are left, %v", left, err)
	}
}

// TestGroup checks that a write that fails among others takes nothing of theirs
// with it.
func TestGroup(t *testing.T) {
	t.Parallel()
	l := DefaultLimits
	l.PairMessages = 1
	s := hosted(t, l)
	var wg sync.WaitGroup
	for i := range byte(100) {
		wg.Go(func() {
			from := fmt.Sprint(i)
			if i%2 == 1 {
				from = fmt.Sprint(i - 1)
			}
			err := put(s, fedA, [16]byte{i}, from, "z", []byte{i})
			if err != nil && !errors.Is(err, ErrFull) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(waiting(t, s, fedA, "z", 0)); n != 50 {
		t.Errorf("%d messages, want one of each of 50 senders", n)
	}
}

func TestLog(t *testing.T) {
	t.Parallel()
	s := hosted(t, DefaultLimits)
	ctx := t.Context()
	d := func(i int) Digest { return cose.Sum(fmt.Append(nil, i)) }
	next := func(want uint64) {
		t.Helper()
		if n, err := s.NextEntry(ctx, fedA); n != want || err != nil {
			t.Errorf("next entry %d, %v, want %d", n, err, want)
		}
	}
	next(0)
	if err := s.PutEntries(ctx, fedA, 0, []Digest{d(0), d(1), d(1), d(3)}); err != nil {
		t.Fatal(err)
	}
	next(0) // index 2 is a gap: read again
	if err := errors.Join(s.PutEntries(ctx, fedB, 0, []Digest{d(1)}), s.PutEntries(ctx, fedB, 1, []Digest{d(2)})); err != nil {
		t.Fatal(err)
	}
	if n, err := s.NextEntry(ctx, fedB); n != 2 || err != nil {
		t.Errorf("next entry %d, %v", n, err)
	}
	if i, ok, err := s.EntryIndex(ctx, fedA, d(1)); i != 1 || !ok || err != nil {
		t.Errorf("index %d, %v, %v", i, ok, err)
	}
	if _, ok, err := s.EntryIndex(ctx, fedA, d(2)); ok || err != nil {
		t.Errorf("an entry of another federation is known: %v", err)
	}
	for _, c := range []struct {
		size uint64
		note string
	}{{3, "three"}, {300, "x"}, {300, "big"}} {
		if err := s.PutCheckpoint(ctx, fedA, c.size, []byte(c.note)); err != nil {
			t.Fatal(err)
		}
	}
	for size, want := range map[uint64]string{0: "big", 3: "three", 300: "big", 4: "", 1 << 63: ""} {
		if n, err := s.Checkpoint(ctx, fedA, size); string(n) != want || err != nil {
			t.Errorf("checkpoint %d: %q, %v", size, n, err)
		}
	}
	if n, err := s.Checkpoint(ctx, fedB, 0); n != nil || err != nil {
		t.Errorf("the other federation reads %q, %v", n, err)
	}
}

func TestBlobs(t *testing.T) {
	t.Parallel()
	s := hosted(t, Limits{BlobBytes: 10})
	ctx := t.Context()
	x := []byte("12345678")
	for range 2 {
		if err := s.PutBlob(ctx, fedA, cose.Sum(x), x, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.PutBlob(ctx, fedA, cose.Sum([]byte("123")), []byte("123"), nil); !errors.Is(err, ErrFull) {
		t.Errorf("over quota: %v", err)
	}
	if b, err := s.Blob(ctx, fedA, cose.Sum(x)); !bytes.Equal(b, x) || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if b, err := s.Blob(ctx, fedB, cose.Sum(x)); b != nil || err != nil {
		t.Errorf("the other federation reads %q, %v", b, err)
	}
	// A name costs too, is its instance's own, and the first object of it stays.
	named := hosted(t, Limits{BlobBytes: nameBytes + 16})
	n := Name{Instance: [16]byte{1}, Statement: cose.Sum(x), Role: "acks"}
	for _, data := range []string{"first", "second"} {
		if err := named.PutBlob(ctx, fedA, cose.Sum([]byte(data)), []byte(data), &n); err != nil {
			t.Fatal(err)
		}
	}
	other := Name{Instance: [16]byte{2}, Statement: n.Statement, Role: n.Role}
	if err := named.PutBlob(ctx, fedA, cose.Sum([]byte("first")), []byte("first"), &other); !errors.Is(err, ErrFull) {
		t.Errorf("a name over quota: %v", err)
	}
	for _, c := range []struct {
		federation Digest
		name       Name
		want       string
	}{{fedA, n, "first"}, {fedB, n, ""}, {fedA, other, ""}, {fedA, Name{Instance: n.Instance, Statement: n.Statement, Role: "inputs"}, ""}} {
		if b, err := named.Named(ctx, c.federation, c.name); string(b) != c.want || err != nil {
			t.Errorf("%+v: %q, %v; want %q", c.name, b, err, c.want)
		}
	}
	for _, c := range []struct {
		n  int64
		ok bool
	}{{5, true}, {6, false}, {-9, true}, {10, true}, {1, false}, {1 << 62, false}} {
		if err := s.Use(ctx, fedA, "chunks", c.n, 10); errors.Is(err, ErrFull) == c.ok {
			t.Errorf("use %d: %v", c.n, err)
		}
	}
}

func TestReopenAndClose(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "link.db")
	s := openTest(t, path, DefaultLimits)
	if err := errors.Join(s.Host(t.Context(), fedA, "o", 1, fedA), put(s, fedA, [16]byte{1}, "x", "z", []byte("p")), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := s.Host(t.Context(), fedA, "o", 1, fedA); !errors.Is(err, ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if _, err := s.Blob(t.Context(), fedA, fedA); !errors.Is(err, ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	s = openTest(t, path, DefaultLimits)
	if got := waiting(t, s, fedA, "z", 0); len(got) != 1 {
		t.Errorf("after reopening: %v", got)
	}
	if _, err := s.w.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if s, err := Open(t.Context(), path, DefaultLimits, time.Now); err == nil {
		s.Close()
		t.Error("a database of a later program was opened")
	}
}

func BenchmarkEnqueue(b *testing.B) {
	for _, parallel := range []int{1, 16, 128} {
		b.Run(fmt.Sprint("senders=", parallel), func(b *testing.B) {
			l := DefaultLimits
			l.PairMessages, l.MailboxMessages, l.PairBytes, l.MailboxBytes = 1<<40, 1<<40, 1<<60, 1<<60
			s := hosted(b, l)
			payload := make([]byte, 1024)
			b.SetBytes(int64(len(payload)))
			b.ResetTimer()
			var wg sync.WaitGroup
			for p := range parallel {
				wg.Go(func() {
					for i := p; i < b.N; i += parallel {
						h := [16]byte(fmt.Appendf(nil, "%016d", i))
						if err := put(s, fedA, h, fmt.Sprint(p), "z", payload); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
