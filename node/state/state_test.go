package state

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/durable/faultfs"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/atrest"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/verifier/receipt"
)

var update = flag.Bool("update", false, "rewrite golden files")

var (
	node  = Digest{1}
	run   = Digest{2}
	first = Step{Seq: 1, Digest: Digest{3}}
)

// open opens the key and the store of a node whose directory is "/node".
func open(fsys durable.FS) (*Store, *atrest.Key, error) {
	if err := durable.MkdirAll(fsys, "/node", 0o700); err != nil {
		return nil, nil, err
	}
	key, err := atrest.Open(fsys, "/node")
	if err != nil {
		return nil, nil, err
	}
	return New(fsys, "/node/runs", node, key), key, nil
}

func newStore(t *testing.T, fsys durable.FS) *Store {
	t.Helper()
	s, _, err := open(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// files lists the names in the run's directory.
func files(t *testing.T, fsys durable.FS, run Digest) (names []string) {
	t.Helper()
	entries, err := fsys.ReadDir("/node/runs/" + run.String())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestGolden: a file that an earlier version wrote is found, and opens.
func TestGolden(t *testing.T) {
	fsys := faultfs.New()
	if err := durable.MkdirAll(fsys, "/node", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(fsys, "/node/"+atrest.File, bytes.Repeat([]byte{0xA5}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, fsys)
	const name = "state.1.03000000"
	path := filepath.Join("testdata", name+".hex")
	if *update {
		sealed := s.key.Seal(domain, s.binding(run, first), []byte("the app's state"))
		if err := os.WriteFile(path, []byte(hex.EncodeToString(sealed)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	dir := "/node/runs/" + run.String()
	if err := durable.MkdirAll(fsys, dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(fsys, dir+"/"+name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(run, first); err != nil || string(got) != "the app's state" {
		t.Errorf("read %q, %v", got, err)
	}
}

// TestRead: only the state that was left by that step's answer, in that run, at that node,
// is read; everything else is an error, and never an empty state.
func TestRead(t *testing.T) {
	fsys := faultfs.New()
	s := newStore(t, fsys)
	if got, err := s.Read(run, Step{}); err != nil || len(got) != 0 {
		t.Errorf("before the first step: %q, %v", got, err)
	}
	want := []byte("what the app remembers of patients")
	if err := s.Write(run, first, want); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(run, first); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %q, %v", got, err)
	}
	if err := s.Write(run, Step{Seq: 2}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(run, Step{Seq: 2}); err != nil || len(got) != 0 {
		t.Errorf("an empty state: %q, %v", got, err)
	}
	name := s.file(run, first)
	raw, err := durable.ReadFile(fsys, name, 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, want[:8]) {
		t.Error("the file shows the state")
	}
	put := func(name string, b []byte) {
		t.Helper()
		if err := durable.MkdirAll(fsys, filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := durable.WriteFile(fsys, name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1 << (i % 8)
		put(name, changed)
		if _, err := s.Read(run, first); !errors.Is(err, atrest.ErrSealed) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
	for _, n := range []int{0, 1, atrest.Overhead - 1, atrest.Overhead, len(raw) - 1} {
		put(name, raw[:n])
		if _, err := s.Read(run, first); !errors.Is(err, atrest.ErrSealed) {
			t.Errorf("%d bytes of it: %v", n, err)
		}
	}
	// Renamed to where another state belongs.
	elsewhere := New(fsys, "/node/runs", Digest{9}, s.key)
	for what, read := range map[string]func() error{
		"another run": func() error {
			put(s.file(Digest{8}, first), raw)
			_, err := s.Read(Digest{8}, first)
			return err
		},
		"a later step": func() error {
			put(s.file(run, Step{3, first.Digest}), raw)
			_, err := s.Read(run, Step{3, first.Digest})
			return err
		},
		"another form of the step": func() error {
			d := first.Digest
			d[31]++
			put(name, raw)
			_, err := s.Read(run, Step{1, d})
			return err
		},
		"another node": func() error { _, err := elsewhere.Read(run, first); return err },
	} {
		if err := read(); !errors.Is(err, atrest.ErrSealed) || !strings.Contains(err.Error(), "the app's state after step") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Read(run, Step{Seq: 4}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a state that nobody wrote: %v", err)
	}
}

// TestRemove: the states go, and the run's directory stays for the bundle that the node
// may be about to write there.
func TestRemove(t *testing.T) {
	fsys := faultfs.New()
	s := newStore(t, fsys)
	for seq := uint64(1); seq <= 2; seq++ {
		if err := s.Write(run, Step{Seq: seq}, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(run); err != nil {
		t.Fatal(err)
	}
	if left := files(t, fsys, run); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if err := durable.WriteFile(fsys, filepath.Join(s.runDir(run), "bundle.cbor"), []byte("b"), 0o600); err != nil {
		t.Errorf("the bundle is not written: %v", err)
	}
}

// TestLimits: nothing larger than Max is written, or read into memory.
func TestLimits(t *testing.T) {
	fsys := faultfs.New()
	s := newStore(t, fsys)
	if err := s.Write(run, first, make([]byte, Max+1)); err == nil {
		t.Error("a state that is too large was written")
	}
	if err := s.Write(run, Step{}, nil); err == nil {
		t.Error("a state of no step was written")
	}
	if err := s.Write(run, first, nil); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(fsys, s.file(run, first), make([]byte, Max+atrest.Overhead+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(run, first); !errors.Is(err, durable.ErrTooLarge) {
		t.Errorf("a file that is too large: %v", err)
	}
}

// TestSweep: what is left of a run that ended, or that nobody knows, goes at the start;
// bundles, models and what a run that goes on may need stay.
func TestSweep(t *testing.T) {
	fsys := faultfs.New()
	s := newStore(t, fsys)
	if err := s.Sweep(nil); err != nil {
		t.Fatalf("before the first run: %v", err)
	}
	live, ended, bare := Digest{1}, Digest{2}, Digest{3}
	for _, r := range []Digest{live, ended, bare} {
		for seq := range uint64(3) {
			if err := s.Write(r, Step{Seq: seq + 1}, []byte{1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{s.runDir(live) + "/.tmp-1", s.runDir(ended) + "/.tmp-1", s.runDir(ended) + "/bundle.cbor", s.runDir(live) + "/state.oops"} {
		if err := durable.WriteFile(fsys, name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.MkdirAll(fsys, "/node/runs/notes", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(map[Digest]uint64{live: 2, {4}: 1}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(files(t, fsys, live), " "); got != "state.2.00000000 state.3.00000000" {
		t.Errorf("of a run that goes on: %s", got)
	}
	if got := strings.Join(files(t, fsys, ended), " "); got != "bundle.cbor" {
		t.Errorf("of a run that ended: %s", got)
	}
	if _, err := fsys.Stat(s.runDir(bare)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a run that left nothing: %v", err)
	}
	if _, err := fsys.Stat("/node/runs/notes"); err != nil {
		t.Errorf("what is no run's: %v", err)
	}
}

// steps is how many steps the run of [counting] has.
const steps = 4

// counting is a node whose app counts its answers in its state. It starts on what is on
// the disk, answers what the journal does not show answered, and says with every
// contribution what the state was then.
func counting(fsys durable.FS, k *cose.Signer) error {
	s, key, err := open(fsys)
	if err != nil {
		return err
	}
	j, err := journal.Open(fsys, "/node", key)
	if err != nil {
		return err
	}
	defer j.Close()
	offer := &session.RunOffer{Statement: []byte("run")}
	run := cose.Sum(offer.Statement)
	var last, before Step // newest contributions
	next := receipt.NewChain(Digest{})
	known := false
	j.View(func(st *journal.State) {
		r := st.Runs[run]
		if known = r != nil; !known {
			return
		}
		for i := range r.Contributions {
			before, last = last, stepOf(uint64(i+1))
		}
		if st.Seq > 0 {
			next = receipt.ResumeChain(st.Seq, st.Last)
		}
	})
	live := map[Digest]uint64{}
	if known {
		live[run] = before.Seq
	}
	if err := s.Sweep(live); err != nil {
		return err
	}
	if !known {
		if err := j.Accepted(offer, [32]byte{}); err != nil {
			return err
		}
	}
	for last.Seq < steps {
		count, err := s.Read(run, last)
		if err != nil {
			return err
		}
		step := stepOf(last.Seq + 1)
		count = append(count, 'x')
		if err := s.Write(run, step, count); err != nil {
			return err
		}
		seq, prev := next.Next()
		c := &receipt.Statement{Kind: receipt.KindContribution, Federation: Digest{1}, Run: run, Seq: seq, Prev: prev, Policy: Digest{2},
			Issuer: receipt.NodeIssuer(k.Public().ID()), Body: &receipt.Contribution{Seq: step.Seq, Step: step.Digest, Manifest: Digest{5}, ChunkRoot: Digest{6}, Count: 1}}
		if _, err := receipt.Sign(c, k); err != nil {
			return err
		}
		if err := next.Extend(c); err != nil {
			return err
		}
		if err := j.Contributed(c, &session.Contribution{Statement: c.Raw(), Manifest: session.ManifestRef{Size: uint64(len(count))}}); err != nil {
			return err
		}
		before, last = last, step
		if err := s.Forget(run, before.Seq); err != nil {
			return err
		}
	}
	return nil
}

func stepOf(seq uint64) Step { return Step{Seq: seq, Digest: Digest{byte(seq)}} }

// counted demands that every step was answered once, from the state that the one before
// left.
func counted(t *testing.T, fsys durable.FS, when string) {
	t.Helper()
	s, key, err := open(fsys)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	j, err := journal.Open(fsys, "/node", key)
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	defer j.Close()
	run := cose.Sum([]byte("run"))
	j.View(func(st *journal.State) {
		list := st.Runs[run].Contributions
		if len(list) != steps {
			t.Errorf("%s: %d contributions", when, len(list))
		}
		for i, c := range list {
			if c.Manifest.Size != uint64(i+1) {
				t.Errorf("%s: step %d was answered in state %d", when, i+1, c.Manifest.Size)
			}
		}
	})
	if got, err := s.Read(run, stepOf(steps)); err != nil || len(got) != steps {
		t.Errorf("%s: the app knows of %d answers: %v", when, len(got), err)
	}
}

// TestCrash loses power at every operation of the disk: the run goes on with no answer
// counted twice, and none forgotten.
func TestCrash(t *testing.T) {
	k, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		fsys := faultfs.New()
		fsys.CrashAt(n)
		if err := counting(fsys, k); err == nil {
			fsys.CrashAt(1 << 30)
			counted(t, fsys, "no crash")
			if n < 50 {
				t.Errorf("%d operations", n)
			}
			return
		}
		for _, keep := range faultfs.Keeps {
			disk := fsys.Recover(keep)
			when := fmt.Sprintf("crash at operation %d, %s", n, keep)
			if err := counting(disk, k); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			counted(t, disk, when)
			if got := files(t, disk, cose.Sum([]byte("run"))); len(got) != 2 {
				t.Errorf("%s: files %q", when, got)
			}
		}
	}
}

// TestFaults has every operation of the disk fail once: the node says so, and a restart
// goes on.
func TestFaults(t *testing.T) {
	k, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		fsys := faultfs.New()
		fsys.FailAt(n, errors.New("bad sector"))
		if err := counting(fsys, k); err != nil {
			if err := counting(fsys, k); err != nil {
				t.Fatalf("after a fault at operation %d: %v", n, err)
			}
		}
		if fsys.Ops() < n {
			return // every operation was reached
		}
		counted(t, fsys, fmt.Sprintf("fault at operation %d", n))
	}
}
