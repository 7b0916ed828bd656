package ci_test

import (
	"errors"
	"testing"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/node"
)

// TestStop: the node that asked for a run ends it, in a round or before it exists; no
// other does, and a bundle of what was released verifies.
func TestStop(t *testing.T) {
	t.Parallel()
	f := ci.StartFederation(t)
	for _, n := range f.Nodes {
		n.AwaitKind(t, "joined")
	}
	ask := func(rounds uint64) node.RunRequest {
		return node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: rounds, Initial: initial(t)}
	}
	request, err := f.Nodes[0].Node.StartRun(t.Context(), ask(100))
	if err != nil {
		t.Fatal(err)
	}
	f.Nodes[0].Await(t, "a step with inputs", func(e node.Event) bool { return e.Kind == "step" && e.Inputs > 0 })
	if err := f.Nodes[1].Node.StopRun(request); !errors.Is(err, node.ErrNotRequested) {
		t.Errorf("another node stops the run: %v", err)
	}
	if err := f.Nodes[0].Node.StopRun(request); err != nil {
		t.Fatal(err)
	}
	for _, n := range f.Nodes {
		end := n.AwaitKind(t, "ended")
		if end.Outcome != "stopped" {
			t.Errorf("%s: run ended %s (%s), want stopped", n.Name, end.Outcome, end.Reason)
		}
	}
	verifies(t, f, f.Nodes[0], f.Nodes[0].AwaitKind(t, "ended").Run)

	// At once: the request is taken back, or its run ends before it has begun.
	hasty := ask(1)
	hasty.Config = map[string]any{"other": true}
	if request, err = f.Nodes[0].Node.StartRun(t.Context(), hasty); err != nil {
		t.Fatal(err)
	}
	if err := f.Nodes[0].Node.StopRun(request); err != nil {
		t.Fatal(err)
	}
	f.Nodes[0].Await(t, "the request's or the run's end", func(e node.Event) bool {
		return e.Request == request && (e.Kind == "refused" || e.Kind == "ended" && e.Outcome == "stopped")
	})
}
