package interop

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// oddOverride is of a key of testdata/odd.
const oddOverride = `"Größe"="überall 🌸"`

// TestOdd runs an app whose names, settings, arrays and metrics are what no example has.
// Natively, with the first version, its ClientApps check what they get; what comes out is
// what Flower makes of the same answers, and what no native strategy takes is refused in
// words. With its own ServerApp in the enclave and the last version, both sides check all
// that Flower's records can hold, and what comes out is the same once more.
func TestOdd(t *testing.T) {
	envs := environments(t)
	var native map[string][]byte
	t.Run("native/"+filepath.Base(envs[0]), func(t *testing.T) {
		u, f, app := oddFederation(t, envs[0])
		out := u.odd(app, "plain")
		native = u.model(f, out)
		for round := 1; round <= 2; round++ {
			for _, kind := range []string{"train", "evaluate"} {
				if want := fmt.Sprintf("[ROUND %d/2] %s: 3 contributions  %s\n", round, kind, u.flowersMean(app)); !strings.Contains(out, want) {
					t.Errorf("no %q", want)
				}
			}
		}
		u.refused(`"small" is no finite number`, "run", app, "my-node", "-c", "small=nan")
		u.refuses(app)
	})
	last := envs[len(envs)-1]
	t.Run("custom/"+filepath.Base(last), func(t *testing.T) {
		u, f, app := oddFederation(t, last, map[string]any{"num-server-rounds": int64(2), "mode": "own", "Größe": "überall 🌸",
			"small": int64(math.MinInt64), "süß.天気 🌧": "雨\n\t\"\\"})
		own := u.model(f, u.odd(app, "own", `concordat.strategy="custom"`))
		if a, b := slices.Sorted(maps.Keys(native)), slices.Sorted(maps.Keys(own)); len(b) != len(a)+5 || len(a) != 17 {
			t.Fatalf("arrays %q natively, %q with the ServerApp", a, b)
		}
		for name, npy := range native {
			if want := little(t, own[name]); !bytes.Equal(npy, want) {
				t.Errorf("array %q: %s; Flower has %s", name, described(npy), described(want))
			}
		}
	})
}

// oddFederation is one that runs testdata/odd, with its own ServerApp if a config is given.
func oddFederation(t *testing.T, env string, configs ...map[string]any) (*user, *ci.Federation, string) {
	t.Helper()
	u := newUser(t, env)
	app, err := filepath.Abs(filepath.Join("testdata", "odd"))
	if err != nil {
		t.Fatal(err)
	}
	file, digest := u.build(app)
	more := []ci.Option{ci.Policy(func(p *policy.Policy) {
		p.Nodes.MetricKeys = []string{"Größe 🌸", "list", "list.beyond", "list.empty", "loss", "num-examples", "small", "tiny"}
	}), ci.NodeConfig(func(_ string, c *node.Config) { c.Flower.NodeConfig["Ort"] = "Köln, 東京 🌸" })}
	if len(configs) > 0 {
		more = append(more, u.aggregates(digest, configs...)...)
	}
	f, approve := u.federation(digest, [3]string{env, env, env}, nil, more...)
	approve(file)
	return u, f, app
}

// odd runs the app in a mode, to its end.
func (u *user) odd(app, mode string, more ...string) (out string) {
	u.t.Helper()
	return u.timed(app, "-c", strings.Join(append(more, fmt.Sprintf("mode=%q", mode), oddOverride), " "))
}

// refuses runs the app in the modes that a native strategy does not take.
func (u *user) refuses(app string) {
	u.t.Helper()
	for mode, why := range map[string]string{
		"bytes-setting":   `train_config "raw" is no bool, integer, float or string`,
		"truth-array":     `array "truth": element type "|b1" cannot be aggregated`,
		"config-reply":    `a reply holds a ConfigRecord`,
		"nan-metric":      `metric "loss" is not finite`,
		"beyond-examples": `metric "num-examples" is no whole number from 0 to 2^53`,
	} {
		out, _ := u.run(filepath.Join(u.env, "bin", "flwr"), "run", app, "my-node", "--stream", "-c", fmt.Sprintf("mode=%q %s", mode, oddOverride))
		u.t.Logf("%s:\n%s", mode, out)
		if !strings.Contains(out, why) || strings.Contains(out, "Run completed.") {
			u.t.Errorf("mode %s: no %q, or the run completed", mode, why)
		}
	}
}

// flowersMean is what the log says of the metrics of all ClientApps, by Flower's own
// arithmetic.
func (u *user) flowersMean(app string) string {
	u.t.Helper()
	out, ok := u.run(filepath.Join(u.env, "bin", "python"), "-c", `import sys; sys.path.insert(0, sys.argv[1])
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from odd.größe import metrics
mean = aggregate_metricrecords([RecordDict({"m": MetricRecord(metrics("plain", p))}) for p in range(3)], "num-examples")
print("mean:", "  ".join(f"{k} {v:.6g}" for k, v in sorted(mean.items()) if not isinstance(v, list)))`, app)
	mean := regexp.MustCompile(`(?m)^mean: (.+)$`).FindStringSubmatch(out)
	if !ok || mean == nil {
		u.t.Fatalf("Flower's mean:\n%s", out)
	}
	return mean[1]
}

// model returns the .npy files of the model that a run ended with; out is its log.
func (u *user) model(f *ci.Federation, out string) map[string][]byte {
	u.t.Helper()
	return entries(u.t, u.modelFile(f, out))
}

// modelFile has the node's owner fetch it.
func (u *user) modelFile(f *ci.Federation, out string) string {
	u.t.Helper()
	id := regexp.MustCompile(`concordat run model ([0-9a-f]+)`).FindStringSubmatch(out)
	if id == nil {
		u.t.Fatalf("no model is spoken of in\n%s", out)
	}
	file := filepath.Join(u.home, "model.npz")
	if out, ok := u.run(u.program, "run", "model", id[1], "--control", u.control(f.Nodes[0]), "-o", file); !ok {
		u.t.Fatal(out)
	}
	return file
}

// little returns an .npy file with its elements in little-endian order.
func little(t *testing.T, npy []byte) []byte {
	t.Helper()
	h, err := object.ParseNPY(npy)
	if err != nil {
		t.Fatal(err)
	}
	descr, big := strings.CutPrefix(h.Descr, ">")
	if !big {
		return npy
	}
	elements := bytes.Clone(npy[h.HeaderSize:])
	for e := range slices.Chunk(elements, int(descr[1]-'0')) {
		slices.Reverse(e)
	}
	return append(object.NPY{Descr: "<" + descr, Fortran: h.Fortran, Shape: h.Shape}.Append(nil), elements...)
}
