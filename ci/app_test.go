package ci_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// TestAppDies: a ClientApp's process is killed, or never answers, at each step of a round.
// Where the run allows no dropouts it ends everywhere and says why; where it does, the
// others complete it.
func TestAppDies(t *testing.T) {
	t.Parallel()
	for _, how := range []struct{ word, code, says string }{
		{"dies", "invalid", "app crashed"},
		{"hangs", "late", "went on"},
	} {
		for _, step := range []string{"train", "evaluate"} {
			for _, dropout := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s at %s, dropouts %v", how.word, step, dropout), func(t *testing.T) {
					t.Parallel()
					f := ci.StartFederation(t, ci.Policy(func(p *policy.Policy) {
						p.Release.StepDeadline = 60
						if how.word == "hangs" {
							p.Release.StepDeadline = 10
						}
						if dropout {
							p.Release.Dropouts = policy.DropoutsAllow
						}
					}))
					joined(t, f.Nodes...)
					req := start(t, f, f.Nodes[0], 1, map[string]any{step + " member-c": how.word})
					if dropout {
						model := completed(t, f, f.Nodes[0], req)
						if other := completed(t, f, f.Nodes[1], req); model != other {
							t.Error("two nodes have two models")
						}
						e := f.Nodes[0].Await(t, "the step without it", func(e node.Event) bool { return e.Kind == "step" && e.Excluded == 1 })
						if e.Inputs != 2 {
							t.Errorf("%d contributions", e.Inputs)
						}
					} else {
						for _, n := range f.Nodes {
							if e := ended(t, n, req); e.Outcome != "failed" || e.Reason != how.code {
								t.Errorf("%s: ended %s: %s, want failed: %s", n.Name, e.Outcome, e.Reason, how.code)
							}
						}
					}
					if e := f.Nodes[2].AwaitKind(t, "failed"); !strings.Contains(e.Reason, how.says) {
						t.Errorf("its node says %q, want %q", e.Reason, how.says)
					}
				})
			}
		}
	}
}
