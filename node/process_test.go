package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/clientapp"
	"github.com/concordat/concordat/internal/loop"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// TestMain runs the tests or, where a node has started this binary as an app, answers
// with the number of the process.
func TestMain(m *testing.M) {
	sandbox.Init()
	i := slices.Index(os.Args, "--clientappio-api-address")
	if i < 0 {
		os.Exit(m.Run())
	}
	if os.Args[1] == "crash" {
		os.Exit(3)
	}
	err := clientapp.Run(context.Background(), clientapp.Config{Address: os.Args[i+1], Token: os.Args[i+3], Once: true}, func(context.Context, clientapp.Message) (object.RecordDict, error) {
		return object.RecordDict{{Name: "metrics", Record: object.MetricRecord{{Key: "pid", Value: object.Sint(os.Getpid())}}}}, nil
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// appWorld is apps with this binary as the only one, and a run of it.
type appWorld struct {
	apps *apps
	run  *run
	loop *loop.Loop
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
	installed, err := newApps(Config{Apps: []App{{Digest: digest, Command: []string{self, argument}}}, Isolation: string(sandbox.None), Log: slog.New(slog.DiscardHandler)}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &appWorld{
		apps: installed,
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
	reply, err := w.apps.do(t.Context(), w.run, instruction(t))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := reply.Content.Get("metrics").(object.MetricRecord)
	if !ok || len(m) != 1 {
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
	w.apps.prepare(w.loop, w.run)
	w.apps.prepare(w.loop, w.run) // one is enough
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
		w.apps.prepare(w.loop, w.run)
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
	w.apps.prepare(w.loop, w.run)
	<-w.waiting(t).box.Done()
	_, err := w.apps.do(t.Context(), w.run, instruction(t))
	if err == nil || !strings.Contains(err.Error(), "app process ended") {
		t.Errorf("an app that crashes: %v", err)
	}
	// A program that is another than the policy's is not started, ahead or not.
	other := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(other, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	w.apps.installedApps[0].Command = []string{other}
	w.apps.prepare(w.loop, w.run)
	if _, err := w.apps.do(t.Context(), w.run, flower.Instruction{}); err == nil || !strings.Contains(err.Error(), "the policy lists") {
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
