package main

import (
	"context"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/concordat/concordat/verifier/receipt"
)

// TestNodeKilled kills the process of a node, as kill -9 does, at each step of a round, app
// and all, and starts it again on what it left on the disk. The run, which allows no
// dropouts, completes, and verifies for an officer (P5).
func TestNodeKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short: builds the programs")
	}
	bin := t.TempDir()
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", bin, ".", "../concordat-enclave-sim", "../../examples/breast-cancer")
	c.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build: the cache has it
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, fail := context.WithCancelCause(t.Context())
	defer fail(nil)
	const kills = 6
	d := demo{nodes: minDemoNodes, rounds: kills, platform: "snp", dir: t.TempDir(), out: newTranscript(nil), deadline: 60}
	if err := d.places(bin); err != nil {
		t.Fatal(err)
	}
	sockets, err := os.MkdirTemp("", "concordat-kill-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(sockets)
	d.self, d.sockets = filepath.Join(bin, "concordat"), sockets
	d.ctx, d.procs.fail, d.events = ctx, fail, newFeed[nodeEvent]()
	defer d.procs.stop()
	if err := d.setUp(); err != nil {
		t.Fatal(err, context.Cause(ctx))
	}
	from := d.events.len()
	request, err := d.request(d.rounds)
	if err != nil {
		t.Fatal(err)
	}
	victim := d.members[1]
	seq := uint64(1) // of the step that it works on, at least
	for i, kind := range []string{"started", "step", "contributed", "admitted", "acked", "step"} {
		err := d.await("an event to kill it at", func(ctx context.Context) error {
			return d.events.await(ctx, from, func(e nodeEvent) bool {
				return e.node == victim && e.GetEvent() == kind && (kind == "started" || e.GetSeq() >= seq)
			})
		})
		if err != nil {
			t.Fatalf("kill %d, at %q: %v", i+1, kind, err)
		}
		from = d.events.len()
		victim.node.leave()
		victim.node.signal(syscall.SIGKILL)
		<-victim.node.done
		if err := d.startNode(victim); err != nil {
			t.Fatal(err, context.Cause(ctx))
		}
		seq++
	}
	var run string
	ended := map[*hospital]bool{}
	err = d.await("the run's end at every node", func(ctx context.Context) error {
		return d.events.await(ctx, 0, func(e nodeEvent) bool {
			if hex.EncodeToString(e.GetRequest()) == request && e.GetEvent() == "ended" {
				if run, ended[e.node] = hex.EncodeToString(e.GetRun()), true; e.GetOutcome() != receipt.Completed {
					t.Errorf("%s: ended %s: %s", e.node.id, e.GetOutcome(), e.GetReason())
				}
			}
			return len(ended) == d.nodes
		})
	})
	if err != nil {
		t.Fatal(err, context.Cause(ctx))
	}
	if err := d.verify(run); err != nil {
		t.Error(err)
	}
}
