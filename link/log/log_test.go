package log

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

const origin = "log.example/federation"

var federation = cose.Sum([]byte("federation"))

// memory is a Store in memory.
type memory struct {
	mu          sync.Mutex
	entries     map[cose.Digest]uint64
	checkpoints map[uint64][]byte
}

func (m *memory) EntryIndex(_ context.Context, _, d cose.Digest) (uint64, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.entries[d]
	return i, ok, nil
}

func (m *memory) PutEntries(_ context.Context, _ cose.Digest, first uint64, digests []cose.Digest) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, d := range digests {
		if _, ok := m.entries[d]; !ok {
			m.entries[d] = first + uint64(i)
		}
	}
	return nil
}

func (m *memory) NextEntry(context.Context, cose.Digest) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.entries)), nil
}

func (m *memory) PutCheckpoint(_ context.Context, _ cose.Digest, size uint64, note []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.checkpoints[size] = note
	return nil
}

func (m *memory) Checkpoint(_ context.Context, _ cose.Digest, size uint64) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if size == 0 {
		for s := range m.checkpoints {
			size = max(size, s)
		}
	}
	return m.checkpoints[size], nil
}

func newMemory() *memory {
	return &memory{entries: make(map[cose.Digest]uint64), checkpoints: make(map[uint64][]byte)}
}

// stage is a log with member witnesses.
type stage struct {
	*Log
	cfg       Config
	store     *memory
	published chan []byte
	members   []*tlog.Witness
}

func newStage(t testing.TB, members, need int) *stage {
	t.Helper()
	return newStageAt(t, members, need, 0)
}

func newStageAt(t testing.TB, members, need int, interval time.Duration) *stage {
	t.Helper()
	s := &stage{store: newMemory(), published: make(chan []byte, 10000), members: witnesses(t, members)}
	s.cfg = Config{
		Federation: federation, Dir: t.TempDir(), Origin: origin, Key: signerOf(t, 0), Need: need, Store: s.store,
		Published: func(n []byte) { s.published <- n },
		Logger:    slog.New(slog.NewTextHandler(t.Output(), nil)), CheckpointInterval: interval,
	}
	for _, w := range s.members {
		s.cfg.Witnesses = append(s.cfg.Witnesses, w.Key())
	}
	s.open(t)
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// witnesses are those of the first members, who have cosigned nothing yet.
func witnesses(t testing.TB, members int) (all []*tlog.Witness) {
	t.Helper()
	logKey, err := VerifierKey(origin, signerOf(t, 0).Public())
	if err != nil {
		t.Fatal(err)
	}
	for i := range members {
		w, err := tlog.NewWitness(tlog.WitnessConfig{
			Origin: origin, LogKey: logKey, Name: fmt.Sprint("member-", i), Key: seed(byte(i + 1)),
			Save: func(tlog.State) error { return nil }, Now: func() time.Time { return time.Unix(1700000000, 0) },
		}, tlog.State{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	return all
}

func seed(b byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
}

func signerOf(t testing.TB, b byte) *cose.Signer {
	t.Helper()
	s, err := cose.NewSigner(seed(b))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stage) open(t testing.TB) {
	t.Helper()
	l, err := Open(context.Background(), s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Log = l
}

func (s *stage) reopen(t *testing.T) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.open(t)
}

// attach has member i answer as a node does.
func (s *stage) attach(t testing.TB, i int, claimed uint64) *Witness {
	t.Helper()
	var w *Witness
	requests := make(chan Request, 1)
	w, err := s.AttachWitness(s.members[i].Key(), claimed, func(r Request) { requests <- r })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case r := <-requests:
				w.Answer(answer(t, s.members[i], r))
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); w.Detach() })
	return w
}

func answer(t testing.TB, m *tlog.Witness, r Request) ([]byte, uint64) {
	proof := make([]tlog.Digest, len(r.Proof))
	for i, h := range r.Proof {
		proof[i] = tlog.Digest(h)
	}
	line, err := m.Add(r.OldSize, proof, r.Note)
	var held *tlog.HeldError
	if errors.As(err, &held) {
		return nil, held.Held
	}
	if err != nil {
		t.Errorf("witness: %v", err)
	}
	return line, 0
}

func (s *stage) append(t testing.TB, entries ...string) {
	t.Helper()
	for _, e := range entries {
		if _, err := s.Append(context.Background(), []byte(e)); err != nil {
			t.Fatal(err)
		}
	}
}

// await waits for a published checkpoint of at least the size with at least as
// many cosignatures, and checks every one on the way.
func (s *stage) await(t testing.TB, size uint64, cosignatures int) *tlog.Checkpoint {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case n := <-s.published:
			c, sigs, err := tlog.Open(n, tlog.Trust{Origin: origin, LogKey: s.signer.key, Witnesses: s.cfg.Witnesses, Need: s.cfg.Need})
			if err != nil {
				t.Fatalf("published: %v\n%s", err, n)
			}
			if c.Size >= size && len(sigs) >= cosignatures {
				return c
			}
		case <-deadline:
			t.Fatalf("no checkpoint of size %d with %d cosignatures", size, cosignatures)
		}
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	s := newStage(t, 3, 2)
	s.append(t, "a", "b")
	s.attach(t, 0, 0)
	if n, size := s.Published(); n != nil || size != 0 {
		t.Fatalf("published with no cosignature: %s", n)
	}
	s.attach(t, 1, 0)
	s.await(t, 2, 2)
	// A third comes late: the same checkpoint again, with its line.
	s.attach(t, 2, 0)
	s.await(t, 2, 3)
	s.append(t, "c")
	c := s.await(t, 3, 3)

	// What is published leads to the entries, by the reader that members use.
	var got []string
	if err := tlog.Audit(t.Context(), s, nil, c, func(_ uint64, e []byte) error { got = append(got, string(e)); return nil }); err != nil {
		t.Fatal(err)
	}
	if strings.Join(got, "") != "abc" {
		t.Errorf("entries %q", got)
	}
	for i, e := range got {
		for _, size := range []uint64{0, c.Size} {
			raw, note, err := s.Receipt(t.Context(), uint64(i), size)
			if err != nil {
				t.Fatal(err)
			}
			h := receipt.ReceiptHeader{Issuer: origin, Subject: federation.String(), Origin: origin, Size: c.Size}
			if err := receipt.VerifyReceipt([]byte(e), raw, s.cfg.Key.Public(), receipt.Own(h).ForRoot(c.Root)); err != nil {
				t.Error(err)
			}
			if n, _ := s.Published(); !bytes.Equal(n, note) {
				t.Errorf("receipt comes with\n%s, published is\n%s", note, n)
			}
		}
	}
	for name, size := range map[string]uint64{"not published": 99, "nonsense": 1 << 63} {
		if _, _, err := s.Receipt(t.Context(), 0, size); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := s.Receipt(t.Context(), 3, 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("entry that is not there: %v", err)
	}
}

func TestAppendIsIdempotent(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, 1)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			e := []byte(fmt.Sprint(i % 8))
			first, err := s.Append(context.Background(), e)
			again, err2 := s.Append(context.Background(), e)
			if err != nil || err2 != nil || first != again {
				t.Errorf("%d and %d, %v, %v", first, again, err, err2)
			}
		})
	}
	wg.Wait()
	if n, err := s.Size(t.Context()); n != 8 || err != nil {
		t.Errorf("size %d, %v, want 8", n, err)
	}
	for _, bad := range []int{0, MaxEntry + 1} {
		if _, err := s.Append(t.Context(), make([]byte, bad)); err == nil {
			t.Errorf("entry of %d bytes taken", bad)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), []byte("x")); err == nil {
		t.Error("a closed log takes entries")
	}
}

// TestReopen loses the index, as a crash between the log and the store does, and
// the unfinished round.
func TestReopen(t *testing.T) {
	t.Parallel()
	s := newStage(t, 2, 2)
	s.append(t, "a", "b", "c")
	s.attach(t, 0, 0)
	s.reopen(t)
	clear(s.store.entries)
	s.reopen(t)
	if i, err := s.Append(t.Context(), []byte("b")); i != 1 || err != nil {
		t.Errorf("entry b is at %d, %v, want 1", i, err)
	}
	// Member 0 has cosigned 3 already, and says so when asked from 0.
	s.attach(t, 0, 0)
	s.attach(t, 1, 0)
	s.await(t, 3, 2)
	s.reopen(t)
	if _, size := s.Published(); size != 3 {
		t.Errorf("published %d after reopening, want 3", size)
	}
	s.attach(t, 0, 3)
	s.attach(t, 1, 3)
	s.append(t, "d")
	s.await(t, 4, 2)

	// Another key, or a directory that was set back, is refused.
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := s.cfg
	other.Key = signerOf(t, 99)
	if l, err := Open(t.Context(), other); err == nil {
		l.Close(t.Context())
		t.Error("opened with another key")
	}
	empty := s.cfg
	empty.Dir = t.TempDir()
	if l, err := Open(t.Context(), empty); err == nil || !strings.Contains(err.Error(), "set back") {
		l.Close(t.Context())
		t.Errorf("opened an empty directory after publishing: %v", err)
	}
}

// TestWitnessAhead has a witness that cosigned a checkpoint larger than the one
// in the round: the round must go on to a newer one.
func TestWitnessAhead(t *testing.T) {
	t.Parallel()
	s := newStage(t, 2, 2)
	s.attach(t, 0, 0)
	s.append(t, "a")
	for s.members[0].Held().Size != 1 { // round 1 has begun, and has member 0's word alone
		time.Sleep(time.Millisecond)
	}
	s.append(t, "b")
	two, err := s.sign(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.members[1].Add(0, nil, two.note); err != nil {
		t.Fatal(err)
	}
	s.attach(t, 1, 2)
	s.await(t, 2, 2)
}

// TestBadWitnesses has witnesses that lie; they harm nobody but themselves.
func TestBadWitnesses(t *testing.T) {
	t.Parallel()
	s := newStage(t, 3, 2)
	if _, err := s.AttachWitness(s.signer.key, 0, nil); err == nil {
		t.Error("the log's own key attached as a witness")
	}
	stranger, err := tlog.NewWitnessKey("member-0", seed(77).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.AttachWitness(stranger, 0, nil); err == nil {
		t.Error("a stranger with a member's name attached")
	}
	lie := func(answer func(r Request) ([]byte, uint64)) *int {
		asked := new(int)
		var w *Witness
		ready := make(chan struct{})
		w, err := s.AttachWitness(s.members[2].Key(), 0, func(r Request) {
			<-ready
			*asked++
			c, size := answer(r)
			go w.Answer(c, size)
		})
		close(ready)
		if err != nil {
			t.Fatal(err)
		}
		return asked
	}
	lines := func(m int, note []byte) []byte {
		l, err := witnesses(t, 3)[m].Add(0, nil, note)
		if err != nil {
			t.Error(err)
		}
		return l
	}
	asked := []*int{
		lie(func(Request) ([]byte, uint64) { return []byte("rubbish\n"), 0 }),
		lie(func(Request) ([]byte, uint64) { return bytes.Repeat([]byte("x"), 1<<20), 0 }),
		lie(func(r Request) ([]byte, uint64) { return lines(1, r.Note), 0 }),                                 // another member's
		lie(func(r Request) ([]byte, uint64) { return append(lines(2, r.Note), lines(1, r.Note)...), 0 }),    // two lines
		lie(func(r Request) ([]byte, uint64) { return bytes.TrimSuffix(lines(2, r.Note), []byte("\n")), 0 }), // none
		lie(func(Request) ([]byte, uint64) { return nil, 0 }),                                                // "I hold 0" again and again
		lie(func(Request) ([]byte, uint64) { return nil, 1 << 62 }),
	}
	s.append(t, "a")
	s.attach(t, 0, 0)
	s.attach(t, 1, 0)
	s.await(t, 1, 2)
	n, _ := s.Published()
	if bytes.Contains(n, []byte("member-2")) {
		t.Errorf("a liar's line is published:\n%s", n)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i, n := range asked {
		if *n == 0 || *n > maxMoves+1 {
			t.Errorf("liar %d was asked %d times", i, *n)
		}
	}
}

func TestReadTilePaths(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, 1)
	s.append(t, "a")
	for _, ok := range []string{"tile/0/000.p/1", "tile/entries/000.p/1"} {
		if _, err := s.ReadTile(t.Context(), ok); err != nil {
			t.Error(err)
		}
	}
	for _, none := range []string{"checkpoint", "tile/0/000", "tile/63/x001/x234/067", "tile/entries/999.p/255"} {
		if _, err := s.ReadTile(t.Context(), none); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", none, err)
		}
	}
	for _, bad := range []string{
		"", "/", ".", "..", "../checkpoint", ".state/treeState", "tile", "tile/", "tile/0", "tile/0/", "tile/0/../../.state/treeState", "tile/64/000", "tile/00/000",
		"tile/-1/000", "tile/0/0", "tile/0/0000", "tile/0/001/000", "tile/0/x001", "tile/0/000.p", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01",
		"tile/0/000\n", "\ntile/0/000", "tile//000", "/tile/0/000", "tile/0/000/", "tile/entries/000/.", "tile/0/" + strings.Repeat("x000/", 20) + "000", "checkpoint/", "CHECKPOINT",
	} {
		if _, err := s.ReadTile(t.Context(), bad); !errors.Is(err, ErrPath) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzTilePath(f *testing.F) {
	f.Add("tile/0/x001/234.p/5")
	f.Add("tile/entries/000")
	f.Fuzz(func(t *testing.T, p string) {
		if !tilePath.MatchString(p) {
			return
		}
		if strings.Contains(p, "..") || strings.Contains(p, "//") || !strings.HasPrefix(p, "tile/") || strings.ContainsAny(p, "\x00\n\\~") {
			t.Errorf("%q is taken for a tile", p)
		}
	})
}

// TestEntriesFillOneMessage checks that the largest entries leave their bundle
// readable in one message.
func TestEntriesFillOneMessage(t *testing.T) {
	if largest := bundleWidth * (2 + MaxEntry); largest+64 > 8<<20 {
		t.Errorf("a bundle has up to %d bytes", largest)
	}
}

const bundleWidth = 256
