package interop

import (
	"bytes"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/enclave/apps"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// TestServerApp runs apps whose own ServerApp aggregates, in the enclave, with each version
// of Flower there: a strategy of the app's own, which also asks a question; a wrapper of
// Flower's that adds noise; a strategy of Flower's that evaluates at some nodes; and a
// NumPyClient with one from before the Message API. The second node has another version.
func TestServerApp(t *testing.T) {
	envs := environments(t)
	for i, env := range envs {
		other := envs[(i+1)%len(envs)]
		t.Run(filepath.Base(env), func(t *testing.T) {
			// Each round adds the median of 1, 2 and 3.
			own := newOwner(t, env, other, "testdata/own", map[string]any{"num-server-rounds": int64(2), "mode": "median"}, map[string]any{"num-server-rounds": int64(2), "mode": "private"},
				map[string]any{"num-server-rounds": int64(2), "mode": "sampled"})
			own.refused("does not list this run config", "run", own.app, "my-node", "-c", `mode="other"`)
			own.run(nil, "its own ServerApp aggregates", "[ROUND 1/2] train: 3 contributions  loss 0.611111", "[ROUND 2/2] evaluate: 3 contributions  accuracy 4", "query: 3 contributions")
			// What follows is Flower's own code on both sides of the same calls: one version each
			// will do.
			if i == len(envs)-1 {
				own.run([]string{"-c", `mode="private"`}, "[ROUND 2/2] evaluate: 3 contributions  accuracy ")
				own.run([]string{"-c", `mode="sampled"`}, "[ROUND 2/2] train: 3 contributions", "[ROUND 2/2] evaluate: 2 contributions (1 excluded)  accuracy ")
			}
			if i == 0 {
				newOwner(t, env, other, "testdata/legacy", map[string]any{"num-server-rounds": int64(2)}).run(nil, "[ROUND 2/2] evaluate: 3 contributions")
			}
		})
	}
}

// TestSecAgg runs Flower's SecAgg+ with its four messages a round, of which each node gets
// its own, with the first and the last version of Flower there; the second node has the
// other. Nobody but the nodes sees an update that is not masked, and the model is the
// weighted mean all the same, but for what quantization costs.
func TestSecAgg(t *testing.T) {
	envs := environments(t)
	first, last := envs[0], envs[len(envs)-1]
	for _, pair := range [][2]string{{first, last}, {last, first}} {
		t.Run(filepath.Base(pair[0]), func(t *testing.T) {
			own := newOwnerWith(t, pair[0], pair[1], "testdata/secagg", func(p *policy.Policy, app *policy.App) {
				app.Addressed = true
				p.Release.Cohort, p.Release.Dropouts = policy.CohortFixed, policy.DropoutsRefuse
				p.Release.MaxMetricBytes = 16 << 10 // shares of keys, and the masked model
			}, map[string]any{"num-server-rounds": int64(2)})
			out := own.run(nil, "[ROUND 1/2] train: 3 contributions", "[ROUND 2/2] evaluate: 3 contributions")
			if n := strings.Count(out, "[ROUND 2/2] train: 3 contributions"); n != 4 {
				t.Errorf("%d trainings in the second round, want the four of SecAgg+", n)
			}
			// Each round adds the mean of 1, 2 and 3, weighted 10, 20 and 30.
			model := own.model(own.f, out)
			if len(model) != 2 {
				t.Fatalf("a model of %d arrays", len(model))
			}
			for name, npy := range model {
				values, err := ci.Values(&object.Array{Chunks: []object.Chunk{{Data: npy}}})
				if err != nil || len(values) == 0 {
					t.Fatalf("array %q: %v, %v", name, values, err)
				}
				for _, x := range values {
					if math.Abs(x-2*14.0/6) > 1e-3 {
						t.Errorf("array %q: %v", name, values)
					}
				}
			}
		})
	}
}

// owner is a user in a federation whose policy has one app that aggregates by itself.
type owner struct {
	*user
	f       *ci.Federation
	app     string
	enclave *ci.Daemon
}

func newOwner(t *testing.T, env, other, dir string, configs ...map[string]any) *owner {
	t.Helper()
	return newOwnerWith(t, env, other, dir, func(*policy.Policy, *policy.App) {}, configs...)
}

// newOwnerWith is newOwner with another policy.
func newOwnerWith(t *testing.T, env, other, dir string, change func(*policy.Policy, *policy.App), configs ...map[string]any) *owner {
	t.Helper()
	u := newUser(t, env)
	o := &owner{user: u}
	var err error
	if o.app, err = filepath.Abs(dir); err != nil {
		t.Fatal(err)
	}
	file, digest := u.build(o.app)
	changed := ci.Policy(func(p *policy.Policy) { change(p, p.App(digest, nil)) })
	f, approve := u.federation(digest, [3]string{env, other, env}, nil, append(u.aggregates(digest, configs...), changed)...)
	approve(file)
	o.f, o.enclave = f, f.Enclave
	return o
}

// aggregates has the enclaves run the app's ServerApp in the user's environment, and the
// policy let it with these run configs.
func (u *user) aggregates(digest [32]byte, configs ...map[string]any) []ci.Option {
	u.t.Helper()
	a, err := apps.Open(apps.Config{Environment: u.env, Isolation: sandbox.Isolation(isolation(u.t))})
	if err != nil {
		u.t.Fatal(err)
	}
	return []ci.Option{ci.ServerApps(a), ci.Policy(func(p *policy.Policy) {
		x := p.App(digest, nil)
		x.Exposure, x.Strategies = policy.ExposureIndividual, []string{policy.StrategyCustom}
		for _, c := range configs {
			x.Configs = append(x.Configs, policy.ConfigDigest(c))
		}
		slices.SortFunc(x.Configs, func(a, b policy.Digest) int { return bytes.Compare(a[:], b[:]) })
		p.Nodes.MessageTypes = []string{"evaluate", "query", "train"}
		p.Nodes.MetricKeys = nil
		p.Release.Cohort, p.Release.Dropouts = policy.CohortSampled, policy.DropoutsAllow
	})}
}

// run runs the app, wants words in its log, and has the next instance of the enclave take
// the place of the one that it used. It returns the log.
func (o *owner) run(args []string, want ...string) string {
	t := o.t
	t.Helper()
	begin := time.Now()
	out := o.flwr(append([]string{"run", o.app, "my-node", "--stream"}, args...)...)
	t.Logf("a run of 2 rounds took %.1f s:\n%s", time.Since(begin).Seconds(), out)
	for _, w := range append(want, "Run completed.") {
		if !strings.Contains(out, w) {
			t.Errorf("no %q in the log", w)
		}
	}
	if strings.Contains(out, "saw") {
		t.Error("what the ServerApp printed left the enclave")
	}
	for _, n := range o.f.Nodes {
		n.Await(t, "the run's end as completed", func(e node.Event) bool { return e.Kind == "ended" && e.Outcome == "completed" })
	}
	<-o.enclave.Done()
	o.enclave = o.f.StartEnclave(o.f.Machine, nil, nil)
	return out
}
