package ci_test

import (
	"testing"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// TestFedProx: the apps get proximal-mu, as Flower's do; the enclave's part is FedAvg's
// mean, so that apps which ignore it reach the same model.
func TestFedProx(t *testing.T) {
	t.Parallel()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Policy(func(p *policy.Policy) { p.Apps[0].Strategies = []string{"fedavg", "fedprox"} }))
	joined(t, f.Nodes...)
	run := func(strategy string) string {
		req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: strategy, Rounds: 2, Config: map[string]any{"proximal-mu": 0.1}, Initial: initial(t)})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range f.Nodes {
			verifies(t, f, n, ended(t, n, req).Run)
		}
		return completed(t, f, f.Nodes[0], req)
	}
	if run("fedprox") != run("fedavg") {
		t.Error("another model than FedAvg's")
	}
}
