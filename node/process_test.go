package node

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/clientapp"
	"github.com/concordat/concordat/internal/loop"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/node/atrest"
	"github.com/concordat/concordat/node/state"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// TestMain runs the tests or, where a node has started this binary as an app, answers
// with the number of the process, and how many messages of the run were answered before.
func TestMain(m *testing.M) {
	sandbox.Init()
	i := slices.Index(os.Args, "--clientappio-api-address")
	if i < 0 {
		os.Exit(m.Run())
	}
	if os.Args[1] == "crash" {
		os.Exit(3)
	}
	err := clientapp.Run(context.Background(), clientapp.Config{Address: os.Args[i+1], Token: os.Args[i+3], Once: true}, func(_ context.Context, in clientapp.Message) (object.RecordDict, error) {
		before := len(in.State.GetItems())
		in.State.Items = append(in.State.Items, &flwr.RecordDict_Item{Key: "answered", Value: &flwr.RecordDict_Item_MetricRecord{MetricRecord: &flwr.MetricRecord{}}})
		if os.Args[1] == "large" {
			in.State.Items[before].Key = strings.Repeat("x", state.Max)
		}
		return object.RecordDict{{Name: "metrics", Record: object.MetricRecord{{Key: "pid", Value: object.Sint(os.Getpid())}, {Key: "before", Value: object.Sint(before)}}}}, nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// newStates is a store of states in dir.
func newStates(t *testing.T, dir string) *state.Store {
	t.Helper()
	key, err := atrest.Open(durable.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	return state.New(durable.OS{}, dir, Digest{7}, key)
}

// appWorld is apps with this binary as the only one, and a run of it.
type appWorld struct {
	apps *apps
	run  *run
	loop *loop.Loop
	dir  string // of the states
	stop func() // ends the loop and waits for its jobs
}

func newAppWorld(t *testing.T, argument string) *appWorld {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	digest := Digest(sha256.Sum256(b))
	dir := t.TempDir()
	installed, err := newApps(Config{Apps: []App{{Digest: digest, Command: []string{self, argument}}}, Isolation: string(sandbox.None), Log: slog.New(slog.DiscardHandler)}, t.TempDir(), newStates(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	w := &appWorld{
		apps: installed,
		dir:  dir,
		run:  &run{n: &Node{id: Digest{7}}, digest: Digest{1}, body: &receipt.Run{App: digest}, config: cose.Marshal(map[string]any{})},
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.loop = loop.New(ctx)
	done := make(chan error, 1)
	go func() { done <- loop.Run(w.loop, (chan struct{})(nil), func(struct{}) {}) }()
	stopped := false
	w.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(w.stop)
	return w
}

// waiting returns the process that waits for the run's next instruction.
func (w *appWorld) waiting(t *testing.T) *worker {
	t.Helper()
	w.apps.mu.Lock()
	s := w.apps.standby[w.run.digest]
	w.apps.mu.Unlock()
	if s == nil {
		t.Fatal("no process waits")
	}
	<-s.made
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.worker
}

// instruction asks for nothing in particular.
func instruction(t *testing.T) flower.Instruction {
	t.Helper()
	in, err := object.Objects(object.RecordDict{})
	if err != nil {
		t.Fatal(err)
	}
	return flower.Instruction{Type: receipt.OpensEvaluate, Round: 1, Content: in[0].ID, Get: func(object.ID) ([]byte, error) { return in[0].Raw, nil }}
}

// pid has the run's app answer, and returns which process did.
func (w *appWorld) pid(t *testing.T) int {
	t.Helper()
	reply, _, err := w.apps.do(t.Context(), w.run, state.Step{}, instruction(t))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := reply.Content.Get("metrics").(object.MetricRecord)
	if !ok || len(m) != 2 {
		t.Fatalf("reply %+v", reply.Content)
	}
	return int(m[0].Value.(object.Sint))
}

// left returns the homes of apps that were not removed.
func (w *appWorld) left(t *testing.T) []fs.DirEntry {
	t.Helper()
	d, err := os.ReadDir(w.apps.dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return d
}

// TestStandby: the process that was started ahead takes the next instruction, and one
// instruction only.
func TestStandby(t *testing.T) {
	t.Parallel()
	w := newAppWorld(t, "answer")
	w.apps.prepare(w.loop, w.run, state.Step{})
	w.apps.prepare(w.loop, w.run, state.Step{}) // one is enough
	ahead := w.waiting(t)
	if n := len(w.left(t)); n != 1 {
		t.Errorf("%d processes wait, want 1", n)
	}
	first := w.pid(t)
	if first == os.Getpid() || first != ahead.box.PID() {
		t.Errorf("process %d answered, %d was ahead", first, ahead.box.PID())
	}
	if second := w.pid(t); second == first {
		t.Error("one process took two instructions")
	}
	w.stop()
	if d := w.left(t); len(d) != 0 {
		t.Errorf("left: %v", d)
	}
}

// TestStandbyEnds: a process that nobody needs any more ends, with the run or the node.
func TestStandbyEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*appWorld){
		"the run ends":  func(w *appWorld) { w.apps.finish(w.run.digest) },
		"the node ends": func(w *appWorld) { w.stop() },
	} {
		w := newAppWorld(t, "answer")
		w.apps.prepare(w.loop, w.run, state.Step{})
		p := w.waiting(t)
		end(w)
		<-p.box.Done()
		w.stop()
		if d := w.left(t); len(d) != 0 {
			t.Errorf("%s: left: %v", name, d)
		}
	}
}

// TestStandbyCrashed: an app that ended while it waited is started again, and says
// itself what is wrong.
func TestStandbyCrashed(t *testing.T) {
	t.Parallel()
	w := newAppWorld(t, "crash")
	w.apps.prepare(w.loop, w.run, state.Step{})
	<-w.waiting(t).box.Done()
	_, _, err := w.apps.do(t.Context(), w.run, state.Step{}, instruction(t))
	if err == nil || !strings.Contains(err.Error(), "app process ended") {
		t.Errorf("an app that crashes: %v", err)
	}
	// A program that is another than the policy's is not started, ahead or not.
	other := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(other, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.apps.installedApps[0].Command = []string{other}
	w.apps.prepare(w.loop, w.run, state.Step{})
	if _, _, err := w.apps.do(t.Context(), w.run, state.Step{}, flower.Instruction{}); err == nil || !strings.Contains(err.Error(), "the policy lists") {
		t.Errorf("another program: %v", err)
	}
	w.stop()
	if d := w.left(t); len(d) != 0 {
		t.Errorf("left: %v", d)
	}
}

// After what is last in a run, no process is started ahead.
func TestLast(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		types []string
		opens string
		round uint64
		want  bool
	}{
		"training of an early round":              {[]string{"evaluate", "train"}, receipt.OpensTrain, 1, false},
		"evaluation of an early round":            {[]string{"evaluate", "train"}, receipt.OpensEvaluate, 1, false},
		"training that is evaluated":              {[]string{"evaluate", "train"}, receipt.OpensTrain, 2, false},
		"the last evaluation":                     {[]string{"evaluate", "train"}, receipt.OpensEvaluate, 2, true},
		"an early training that nobody evaluates": {[]string{"train"}, receipt.OpensTrain, 1, false},
		"the last training that nobody evaluates": {[]string{"train"}, receipt.OpensTrain, 2, true},
	} {
		n := &Node{policy: &policy.Policy{Nodes: policy.NodeRules{MessageTypes: c.types}}}
		r := &run{body: &receipt.Run{Rounds: 2}}
		if got := n.last(r, &receipt.Step{Opens: c.opens, Round: c.round}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestAppState: an app finds what its answer to the step before has left, whatever process
// was made ahead; what is not there, or too large, is no empty state.
func TestAppState(t *testing.T) {
	t.Parallel()
	w := newAppWorld(t, "answer")
	first, second := state.Step{Seq: 1, Digest: Digest{1}}, state.Step{Seq: 2, Digest: Digest{2}}
	answer := func(before, step state.Step, want int) {
		t.Helper()
		reply, left, err := w.apps.do(t.Context(), w.run, before, instruction(t))
		if err != nil {
			t.Fatal(err)
		}
		if got := reply.Content.Get("metrics").(object.MetricRecord)[1].Value; got != object.Sint(want) {
			t.Errorf("step %d: the app knows of %d answers, want %d", step.Seq, got, want)
		}
		if err := w.apps.states.Write(w.run.digest, step, left); err != nil {
			t.Fatal(err)
		}
	}
	answer(state.Step{}, first, 0)
	answer(first, second, 1)
	w.apps.prepare(w.loop, w.run, second)
	ahead := w.waiting(t)
	answer(first, second, 1) // a successor of the enclave repeats the step
	<-ahead.box.Done()
	answer(second, state.Step{Seq: 3}, 2)
	for _, f := range w.states(t, "state.2.*") {
		if err := os.Truncate(f, 40); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.apps.do(t.Context(), w.run, second, instruction(t)); err == nil || !strings.Contains(err.Error(), "the app's state after step 2") {
		t.Errorf("a state that was cut: %v", err)
	}
	w.apps.finish(w.run.digest)
	if _, _, err := w.apps.do(t.Context(), w.run, first, instruction(t)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a state that is gone: %v", err)
	}
	if left := w.states(t, "*"); len(left) != 0 {
		t.Errorf("left of a run that ended: %q", left)
	}

	w = newAppWorld(t, "large")
	if _, _, err := w.apps.do(t.Context(), w.run, state.Step{}, instruction(t)); !errors.Is(err, flower.ErrRefused) {
		t.Errorf("a state that is too large: %v", err)
	}
}

// states are the files of the run's directory.
func (w *appWorld) states(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(w.dir, w.run.digest.String(), pattern))
	if err != nil {
		t.Fatal(err)
	}
	return list
}
