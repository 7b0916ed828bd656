package control

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/durable/faultfs"
	"github.com/concordat/concordat/internal/flower/control/auth"
	"github.com/concordat/concordat/node/atrest"
	"google.golang.org/grpc/codes"
)

var update = flag.Bool("update", false, "rewrite golden files")

// newStore is a store in "/flwr", whose key lies beside it.
func newStore(t *testing.T, fsys durable.FS) *Store {
	t.Helper()
	key, err := atrest.Open(fsys, "/")
	if err != nil {
		t.Fatal(err)
	}
	return &Store{FS: fsys, Dir: "/flwr", Sealer: key}
}

// example is a run with something in every field.
func example() *run {
	at := time.UnixMicro(1790000000123456)
	return &run{
		id: 7, account: auth.Recall("https://login.hospital.example", "ada"), fabID: "concordat/quickstart", fabVersion: "1.0.0", fabHash: strings.Repeat("ab", 32),
		overrides: map[string]any{"epochs": int64(7), "below": int64(-1), "rate": 0.5, "name": "x", "yes": true},
		pending:   at, starting: at.Add(1e6), running: at.Add(2e6), finished: at.Add(3e6), outcome: "failed", details: "late", mark: []byte("mark"), full: true,
		log: []entry{{1.5, "one\n"}, {2.25, "patient 4711\n"}}, logSize: sizeOf("one\n") + sizeOf("patient 4711\n"),
	}
}

// TestGolden: a file that an earlier version wrote is found, and opens.
func TestGolden(t *testing.T) {
	fsys := faultfs.New()
	if err := durable.WriteFile(fsys, "/"+atrest.File, bytes.Repeat([]byte{0xA5}, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, fsys)
	if _, _, err := s.read(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "run-7.hex")
	if *update {
		if err := s.write(7, example().record()); err != nil {
			t.Fatal(err)
		}
		raw, err := durable.ReadFile(fsys, "/flwr/7", maxFile)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(hex.EncodeToString(raw)+"\n"), 0o644); err != nil {
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
	if err := durable.WriteFile(fsys, "/flwr/7", raw, 0o600); err != nil {
		t.Fatal(err)
	}
	runs, faults, err := s.read()
	if err != nil || len(faults) != 0 || len(runs) != 1 {
		t.Fatalf("%d runs, %v, %v", len(runs), faults, err)
	}
	want := example()
	runs[0].stop, runs[0].changed = nil, nil
	if !reflect.DeepEqual(runs[0], want) {
		t.Errorf("read\n%+v, want\n%+v", runs[0], want)
	}
}

// TestDamagedRuns: what does not open is named, is left, and is not shown; the others are.
func TestDamagedRuns(t *testing.T) {
	fsys := faultfs.New()
	s := newStore(t, fsys)
	if _, _, err := s.read(); err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint64{7, 8} {
		if err := s.write(id, example().record()); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := durable.ReadFile(fsys, "/flwr/7", maxFile)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, []byte("patient")) || bytes.Contains(raw, []byte("ada")) {
		t.Error("the file shows what the app printed, or whose run it is")
	}
	put := func(name string, b []byte) {
		t.Helper()
		if err := durable.WriteFile(fsys, "/flwr/"+name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string) {
		t.Helper()
		runs, faults, err := s.read()
		if err != nil || len(runs) != 1 || runs[0].id != 8 || len(faults) != 1 || !strings.Contains(faults[0].Error(), "/flwr/7") {
			t.Fatalf("%s: %d runs, %v, %v", what, len(runs), faults, err)
		}
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1 << (i % 8)
		put("7", changed)
		refused(fmt.Sprintf("byte %d flipped", i))
	}
	for _, n := range []int{0, 1, atrest.Overhead, len(raw) - 1} {
		put("7", raw[:n])
		refused(fmt.Sprintf("%d bytes of it", n))
	}
	other, err := durable.ReadFile(fsys, "/flwr/8", maxFile)
	if err != nil {
		t.Fatal(err)
	}
	put("7", other)
	refused("another run's")
	put("7", make([]byte, maxFile+1))
	refused("too large")
	put("7", s.Sealer.Seal(domain, binding(7), []byte{0x80}))
	refused("no record")
	put("07", raw)
	put("notes", raw)
	put(".tmp-1", raw)
	refused("names of no run")
	if _, err := fsys.Stat("/flwr/7"); err != nil {
		t.Errorf("a damaged file is gone: %v", err)
	}
	if _, err := fsys.Stat("/flwr/.tmp-1"); err == nil {
		t.Error("a half-written file is left")
	}
}

// TestRestart: the runs are there again after a restart, with what they printed; those
// that go on are followed, and those of which nobody knows more have failed.
func TestRestart(t *testing.T) {
	t.Parallel()
	fsys := faultfs.New()
	s := &script{jobs: make(chan *Job, 100), end: make(chan error)}
	config := Config{Runner: s, Now: time.Now, Store: newStore(t, fsys), Log: slog.New(slog.DiscardHandler)}
	c, _, stop := serveOn(t, newServer(t, config))
	q := request(t)
	q.OverrideConfig = flwr.Scalars(map[string]any{"epochs": int64(7), "learning-rate": 0.5})
	begin := func() (uint64, *Job) {
		t.Helper()
		r, err := c.StartRun(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return r.GetRunId(), <-s.jobs
	}
	over, j := begin()
	j.Print("one\ntwo")
	s.end <- nil
	logOf(t, c, over, 0)
	opening, _ := begin()
	going, j := begin()
	j.Began([]byte("mark"))
	j.Running()
	j.Print("round 1")
	list := func() map[uint64]*flwr.Run {
		t.Helper()
		r, err := c.ListRuns(t.Context(), &flwr.ListRunsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return r.RunDict
	}
	before := list()
	stop()

	c, _, stop = serveOn(t, newServer(t, config))
	followed := <-s.jobs
	if text, _ := logOf(t, c, over, 0); text != "one\ntwo\nRun completed.\n" {
		t.Errorf("log of a run that was over: %q", text)
	}
	if text, _ := logOf(t, c, opening, 0); !strings.Contains(text, "Run failed: the node stopped") {
		t.Errorf("log of a run that was lost: %q", text)
	}
	after := list()
	if a, b := after[over].String(), before[over].String(); a != b {
		t.Errorf("the run that was over is %s, was %s", a, b)
	}
	if r := after[going]; r.GetStatus().GetStatus() != "running" || r.RunningAt != before[going].RunningAt || r.OverrideConfig["epochs"].GetSint64() != 7 || r.OverrideConfig["learning-rate"].GetDouble() != 0.5 {
		t.Errorf("the run that goes on: %v", r)
	}
	followed.Print("round 2")
	followed.Running() // again
	s.end <- nil
	text, _ := logOf(t, c, going, 0)
	if text != "round 1\n[concordat] the node stopped\n[concordat] this node restarted\nround 2\nRun completed.\n" {
		t.Errorf("log of the run that went on: %q", text)
	}
	_, err := c.StopRun(t.Context(), &flwr.StopRunRequest{RunId: over})
	want(t, "stop of a run that was over", err, codes.FailedPrecondition, "already finished")
	stop()
	server := newServer(t, config)
	for id, outcome := range map[uint64]string{over: "completed", opening: "failed", going: "completed"} {
		if r := server.find(auth.Local(), id); r == nil || r.outcome != outcome {
			t.Errorf("run %d: %+v, want %s", id, r, outcome)
		}
	}
}

// TestCrashedRuns loses power at every operation of the disk: a run whose start was told
// is there, and one that had begun is followed.
func TestCrashedRuns(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		fsys := faultfs.New()
		store := newStore(t, fsys)
		fsys.CrashAt(n)
		known := map[uint64][]byte{} // what is told to be on disk
		err := func() error {
			if _, _, err := store.read(); err != nil {
				return err
			}
			r := example()
			for id := range uint64(2) {
				r.mark = nil
				if err := store.write(id, r.record()); err != nil {
					return err
				}
				known[id] = nil
				r.mark = []byte("mark")
				if err := store.write(id, r.record()); err != nil {
					return err
				}
				known[id] = r.mark
			}
			delete(known, 0)
			return store.remove(0)
		}()
		for _, keep := range faultfs.Keeps {
			disk := fsys.Recover(keep)
			runs, faults, e := newStore(t, disk).read()
			if e != nil || len(faults) != 0 {
				t.Fatalf("crash at operation %d, %s: %v, %v", n, keep, faults, e)
			}
			there := map[uint64][]byte{}
			for _, r := range runs {
				there[r.id] = r.mark
			}
			for id, mark := range maps.All(known) {
				if got, ok := there[id]; !ok || mark != nil && got == nil {
					t.Fatalf("crash at operation %d, %s: run %d is %q, there: %v", n, keep, id, got, ok)
				}
			}
		}
		if err == nil {
			return
		}
	}
}

// TestFullDisk: a run that cannot be kept is not begun; what goes on goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	fsys := faultfs.New()
	s := &script{jobs: make(chan *Job, 100), end: make(chan error)}
	c, _, _ := serveOn(t, newServer(t, Config{Runner: s, Now: time.Now, Store: newStore(t, fsys), Log: slog.New(slog.DiscardHandler)}))
	r, err := c.StartRun(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	fsys.Fill(0)
	(<-s.jobs).Began([]byte("mark"))
	_, err = c.StartRun(t.Context(), request(t))
	want(t, "a run on a full disk", err, codes.Unavailable, "the run is not begun")
	s.end <- nil
	if text, _ := logOf(t, c, r.GetRunId(), 0); text != "Run completed.\n" {
		t.Errorf("log %q", text)
	}
}

// TestForgottenFile: what is pushed out goes from the disk too, and does not come back.
func TestForgottenFile(t *testing.T) {
	t.Parallel()
	fsys := faultfs.New()
	s := newServer(t, Config{Now: time.Now, Store: newStore(t, fsys), Log: slog.New(slog.DiscardHandler)})
	for id := range uint64(maxKept) {
		r := example()
		r.id, r.pending = id, r.pending.Add(time.Duration(id))
		s.runs[id] = r
		s.save(r)
	}
	first := s.runs[0]
	s.forget()
	s.save(first)
	if _, err := fsys.Stat("/flwr/0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a forgotten run is on disk: %v", err)
	}
	if _, err := fsys.Stat("/flwr/" + strconv.Itoa(maxKept-1)); err != nil {
		t.Error(err)
	}
}
