package interop

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/enclave/apps"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// TestOwnServerApp runs an app whose ServerApp aggregates, in the enclave, with each
// version of Flower: its own strategy, and a query.
func TestOwnServerApp(t *testing.T) {
	for _, env := range environments(t) {
		t.Run(filepath.Base(env), func(t *testing.T) { ownServerApp(t, env) })
	}
}

func ownServerApp(t *testing.T, env string) {
	u := newUser(t, env)
	app, err := filepath.Abs("testdata/own")
	if err != nil {
		t.Fatal(err)
	}
	file, digest := u.build(app)
	a, err := apps.Open(apps.Config{Environment: env, Isolation: sandbox.Isolation(isolation(t))})
	if err != nil {
		t.Fatal(err)
	}
	config := func(mode string) policy.Digest {
		return policy.ConfigDigest(map[string]any{"num-server-rounds": int64(2), "mode": mode})
	}
	f, approve := u.federation(digest, [3]string{env, env, env}, ci.ServerApps(a), ci.Policy(func(p *policy.Policy) {
		x := p.App(digest)
		x.Exposure, x.Strategies = policy.ExposureIndividual, []string{policy.StrategyCustom}
		for _, mode := range []string{"median", "asks", "grown", "sampled", "raises"} {
			x.Configs = append(x.Configs, config(mode))
		}
		sortDigests(x.Configs)
		p.Nodes.MessageTypes = []string{"evaluate", "query", "train"}
		p.Nodes.MetricKeys = []string{"accuracy", "loss", "num-examples", "rows"}
	}))
	approve(file)
	u.refused("does not list this run config", "run", app, "my-node", "-c", `mode="other"`)

	begin := time.Now()
	out := u.flwr("run", app, "my-node", "--stream", "-c", `mode="asks"`)
	t.Logf("a run took %.1f s:\n%s", time.Since(begin).Seconds(), out)
	// Each round adds the median of 1, 2 and 3.
	for _, want := range []string{"its own ServerApp aggregates", "[ROUND 2/2] evaluate: 3 contributions  accuracy 4", "query: 3 contributions", "Run completed."} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the log", want)
		}
	}
	if strings.Contains(out, "saw") {
		t.Error("what the ServerApp printed left the enclave")
	}
	_ = f
	_ = node.Event{}
	_ = net.Listen
	_ = fmt.Sprint
}

func sortDigests(list []policy.Digest) {
	slices.SortFunc(list, func(a, b policy.Digest) int { return bytes.Compare(a[:], b[:]) })
}
