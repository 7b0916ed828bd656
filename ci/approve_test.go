package ci_test

import (
	"strings"
	"testing"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/node"
)

// TestOwnerApproves: a node that approves each run (the default; F17) takes part in
// nothing that another member asked for until its owner has said so.
func TestOwnerApproves(t *testing.T) {
	t.Parallel()
	for name, yes := range map[string]bool{"approved": true, "declined": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := ci.StartFederation(t, ci.ApproveEachRun())
			for _, n := range f.Nodes {
				n.AwaitKind(t, "joined")
			}
			req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: 1, Initial: initial(t)})
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range f.Nodes[1:] {
				offer := n.AwaitKind(t, "offered")
				if want := "member-a asks for test ("; !strings.HasPrefix(offer.Reason, want) || !strings.HasSuffix(offer.Reason, "rounds, strategy fedavg") {
					t.Errorf("the owner is asked about %q, want %q and so on", offer.Reason, want)
				}
				if offer.Request != req {
					t.Fatalf("offered request %s, want %s", offer.Request.Short(), req.Short())
				}
				for _, e := range n.Events() {
					if e.Kind == "started" || e.Kind == "step" {
						t.Fatalf("node of %s took part before its owner said so: %s", n.Member.ID, e.Kind)
					}
				}
				if err := n.Node.Approve(offer.Run, yes); err != nil {
					t.Fatal(err)
				}
			}
			want := "completed"
			if !yes {
				want = "failed"
			}
			end := f.Nodes[0].Await(t, "end of the run", func(e node.Event) bool { return e.Kind == "ended" })
			if end.Outcome != want {
				t.Errorf("run ended %s (%s), want %s", end.Outcome, end.Reason, want)
			}
			if err := f.Nodes[1].Node.Approve(end.Run, true); err == nil {
				t.Error("a run was approved twice")
			}
		})
	}
}
