package ci_test

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"testing"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
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

// exact runs a strategy on the app that adds one to every value, and demands that every
// node has the model w = {1, 2, 3} + grown, b = grown, and a bundle that verifies.
func exact(t *testing.T, f *ci.Federation, req ci.Digest, grown float64) {
	t.Helper()
	for _, n := range f.Nodes {
		completed(t, f, n, req)
		run := ended(t, n, req).Run
		verifies(t, f, n, run)
		model := filepath.Join(filepath.Dir(f.BundleOf(n, run)), "model.npz")
		w, b := readArray(t, model, "w"), readArray(t, model, "b")
		if !slices.Equal(append(w, b...), []float64{1 + grown, 2 + grown, 3 + grown, grown}) {
			t.Errorf("%s: model is %v and %v, want {1, 2, 3} and 0 grown by %v", n.Name, w, b, grown)
		}
	}
}

// TestServerState: what a strategy keeps from round to round survives the enclave, at
// whatever moment it is lost, and no app sees it. FedAvgM halves its steps and keeps half
// of the last: the model grows by 1/2, 3/4 and 7/8.
func TestServerState(t *testing.T) {
	t.Parallel()
	for _, at := range []enclave.Event{{}, {Kind: "released", Seq: 3}, {Kind: "acked", Seq: 4}, {Kind: "released", Seq: 5}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			m := newMoments()
			f := ci.StartFederation(t, ci.Observe(m.observe), ci.Policy(func(p *policy.Policy) { p.Apps[0].Strategies = []string{"fedavgm"} }))
			joined(t, f.Nodes...)
			req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "fedavgm", Rounds: 3, Initial: initial(t),
				Config: map[string]any{"concordat.server_learning_rate": 0.5, "concordat.server_momentum": 0.5}})
			if err != nil {
				t.Fatal(err)
			}
			if at.Kind != "" {
				m.await(t, at.Kind, at.Seq)
				if err := f.Enclave.Stop(); err != nil {
					t.Fatal(err)
				}
				f.StartEnclave(f.Machine, nil, nil)
			}
			exact(t, f, req, 0.5+0.75+0.875)
		})
	}
}

// TestSelectingStrategies need a policy that lets single updates out; the enclave then
// aggregates them natively all the same.
func TestSelectingStrategies(t *testing.T) {
	t.Parallel()
	config := map[string]any{"concordat.num_malicious_nodes": int64(0)}
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Policy(func(p *policy.Policy) {
		a := &p.Apps[0]
		a.Exposure, a.Strategies, a.Configs = policy.ExposureIndividual, []string{"bulyan", "krum"}, []policy.Digest{cose.Sum(cose.Marshal(config))}
		p.Release.MaxWeightShare = 1000 // Krum's choice has all of it
	}))
	joined(t, f.Nodes...)
	for _, strategy := range []string{"krum", "bulyan"} {
		req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: strategy, Rounds: 2, Initial: initial(t), Config: config})
		if err != nil {
			t.Fatal(err)
		}
		exact(t, f, req, 2)
	}
}

// TestKrumUnderWeightLimit: a choice of one member's update is too large a share where
// the policy bounds shares.
func TestKrumUnderWeightLimit(t *testing.T) {
	t.Parallel()
	config := map[string]any{}
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Policy(func(p *policy.Policy) {
		a := &p.Apps[0]
		a.Exposure, a.Strategies, a.Configs = policy.ExposureIndividual, []string{"krum"}, []policy.Digest{cose.Sum(cose.Marshal(config))}
	}))
	joined(t, f.Nodes...)
	req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "krum", Rounds: 1, Initial: initial(t), Config: config})
	if err != nil {
		t.Fatal(err)
	}
	if e := ended(t, f.Nodes[0], req); e.Outcome == "completed" {
		t.Error("one member's update left as the model")
	}
}

// TestNoiseOfSuccessor: an enclave that makes a lost one's last step again makes the same
// noise. Nodes ack a step with the same inputs again, whatever its outputs; with other
// noise, two results would show more than one.
func TestNoiseOfSuccessor(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Through(l), ci.Policy(trainOnly), ci.Policy(func(p *policy.Policy) { p.Apps[0].Strategies = []string{"dpfedavg"} }))
	joined(t, f.Nodes...)
	req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "dpfedavg", Rounds: 1, Initial: initial(t),
		Config: map[string]any{"concordat.noise_multiplier": 0.01, "concordat.clipping_norm": int64(1)}})
	if err != nil {
		t.Fatal(err)
	}
	isStep, steps := hostile.IsLogged(receipt.KindStep), map[string]bool{}
	l.Await(t, "the second step in the log", func(m hostile.Message) bool {
		if isStep(m) {
			steps[string(m.Body.(*concordatv1.AppendRequest).GetEntry())] = true
		}
		return len(steps) == 2
	})
	if err := f.Enclave.Stop(); err != nil {
		t.Fatal(err)
	}
	f.StartEnclave(f.Machine, nil, nil)
	var first []float64
	for _, n := range f.Nodes {
		completed(t, f, n, req)
		run := ended(t, n, req).Run
		verifies(t, f, n, run)
		w := readArray(t, filepath.Join(filepath.Dir(f.BundleOf(n, run)), "model.npz"), "w")
		if first == nil {
			first = w
		}
		// The app's update, one in each of four values, is clipped to a length of one.
		for i, x := range w {
			if d := x - float64(i+1) - 0.5; d == 0 || math.Abs(d) > 0.1 || w[i] != first[i] {
				t.Errorf("%s: value %d is %v, want about %v with noise, and the same at each node", n.Name, i, x, float64(i)+1.5)
			}
		}
	}
	var outputs []ci.Digest
	for _, x := range l.Logged() {
		if b, ok := x.Body.(*receipt.Step); ok && b.Seq == 2 {
			outputs = append(outputs, b.OutputsRoot)
		}
	}
	if len(outputs) != 2 || outputs[0] != outputs[1] {
		t.Errorf("outputs of the second step: %v, want those of two enclaves, which are the same", outputs)
	}
}

// TestStrategyArguments: what a strategy does not take starts no run.
func TestStrategyArguments(t *testing.T) {
	t.Parallel()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Policy(func(p *policy.Policy) { p.Apps[0].Strategies = []string{"fedadam", "fedavg"} }))
	joined(t, f.Nodes...)
	for strategy, config := range map[string]map[string]any{"fedavg": {"concordat.eta": 0.1}, "fedadam": {"concordat.beta_1": 1.5}} {
		req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: strategy, Rounds: 1, Initial: initial(t), Config: config})
		if err != nil {
			t.Fatal(err)
		}
		f.Nodes[0].Await(t, "refusal", func(e node.Event) bool { return e.Kind == "refused" && e.Request == req })
	}
}
