package ci_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// layers is a model of so many arrays of so many values each, layer.00 and on.
func layers(t *testing.T, arrays, values int) func(add func([]byte) error) error {
	t.Helper()
	m := map[string][]float64{}
	for i := range arrays {
		v := make([]float64, values)
		for j := range v {
			v[j] = float64(i*values + j) // each chunk another
		}
		m[fmt.Sprintf("layer.%02d", i)] = v
	}
	objects, err := ci.Arrays(m)
	if err != nil {
		t.Fatal(err)
	}
	return func(add func([]byte) error) error {
		for _, raw := range objects {
			if err := add(raw); err != nil {
				return err
			}
		}
		return nil
	}
}

// TestFrozen: arrays that the config freezes are as they began at every node, though the
// apps changed them; all others are what they are without that, whatever the strategy keeps,
// and at whatever moment the enclave is lost. An officer reads what was frozen.
func TestFrozen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		strategy string
		at       enclave.Event // when the enclave is lost; or not
	}{{"fedavg", enclave.Event{}}, {"fedadam", enclave.Event{Kind: "released", Seq: 3}}, {"fedadam", enclave.Event{Kind: "acked", Seq: 4}}, {"dpfedavg", enclave.Event{}}} {
		strategy, at, config := c.strategy, c.at, map[string]any{}
		if strategy == "dpfedavg" { // a survey; what is frozen counts for no length
			config = map[string]any{"concordat.noise_multiplier": int64(0), "concordat.clipping_norm": int64(1)}
		}
		t.Run(fmt.Sprint(strategy, " ", at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			m := newMoments()
			f := ci.StartFederation(t, ci.Observe(m.observe), ci.Policy(func(p *policy.Policy) { p.Apps[0].Strategies = []string{strategy} }))
			joined(t, f.Nodes...)
			run := func(model map[string][]float64, frozen string) ci.Digest {
				objects, err := ci.Arrays(model)
				if err != nil {
					t.Fatal(err)
				}
				c := maps.Clone(config)
				c[policy.KeyFrozen] = frozen
				req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: strategy, Rounds: 3, Config: c, Initial: objects})
				if err != nil {
					t.Fatal(err)
				}
				return req
			}
			alone := ended(t, f.Nodes[0], run(map[string][]float64{"b": {0}, "w": {1, 2, 3}}, "")).Run
			want := filepath.Join(filepath.Dir(f.BundleOf(f.Nodes[0], alone)), "model.npz")
			for len(m) > 0 {
				<-m
			}
			req := run(map[string][]float64{"a.0": {4, 5}, "a.1": {6}, "b": {0}, "w": {1, 2, 3}, "z": {7}}, "z,a.*")
			if at.Kind != "" {
				m.await(t, at.Kind, at.Seq)
				if err := f.Enclave.Stop(); err != nil {
					t.Fatal(err)
				}
				f.StartEnclave(f.Machine, nil, nil)
			}
			for _, n := range f.Nodes {
				completed(t, f, n, req)
				id := ended(t, n, req).Run
				verifies(t, f, n, id)
				got := filepath.Join(filepath.Dir(f.BundleOf(n, id)), "model.npz")
				for name, v := range map[string][]float64{"a.0": {4, 5}, "a.1": {6}, "z": {7}, "b": readArray(t, want, "b"), "w": readArray(t, want, "w")} {
					if x := readArray(t, got, name); !slices.Equal(x, v) {
						t.Errorf("%s: %s is %v, want %v", n.Name, name, x, v)
					}
				}
				if w := readArray(t, got, "w"); slices.Equal(w, []float64{1, 2, 3}) {
					t.Errorf("%s: nothing was trained", n.Name)
				}
			}
			if r := report(t, f, f.Nodes[1], ended(t, f.Nodes[1], req).Run); !slices.Equal(r.Runs[0].Frozen, []string{"a.0", "a.1", "z"}) || !strings.Contains(r.Text(), `frozen       3 arrays: "a.0" "a.1" "z"`) {
				t.Errorf("the report has %q frozen:\n%s", r.Runs[0].Frozen, r.Text())
			}
		})
	}
}

// report is what the bundle of a run says to its node's member.
func report(t *testing.T, f *ci.Federation, n *ci.Node, run ci.Digest) *verifier.Report {
	t.Helper()
	b, err := os.ReadFile(f.BundleOf(n, run))
	if err != nil {
		t.Fatal(err)
	}
	trust := &verifier.Trust{Federation: f.Chain.Federation(), Member: n.Member.ID, Witness: n.Member.Witness, Simulated: true}
	r, err := verifier.VerifyBundle(t.Context(), bytes.NewReader(b), trust, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFrozenContributions: whoever sends a frozen array all the same, or leaves out another,
// is out of the step, and the run goes on as the config says.
func TestFrozenContributions(t *testing.T) {
	t.Parallel()
	only := func(names ...string) object.RecordDict {
		d := trained(t, 1)
		d[0].Record = slices.DeleteFunc(d[0].Record.(object.ArrayRecord), func(a object.ArrayItem) bool { return !slices.Contains(names, a.Name) })
		return d
	}
	for name, d := range map[string]object.RecordDict{
		"the whole model":        only("b", "w"),
		"the frozen array alone": only("w"),
		"no array":               only(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			badContribution(t, map[string]any{policy.KeyFrozen: "w"}, nil, d)
		})
	}
}

// TestFrozenRefused: what cannot be frozen, a user hears from the own node, in words.
func TestFrozenRefused(t *testing.T) {
	t.Parallel()
	f := ci.StartFederation(t, ci.Policy(trainOnly))
	joined(t, f.Nodes...)
	for _, c := range []struct {
		strategy string
		setting  any
		reason   string
	}{
		{"fedavg", "embedding", `no array "embedding"`},
		{"fedavg", "w,b", "nothing to train"},
		{"fedavg", int64(1), "no string"},
		{"custom", "w", "is for native strategies"},
	} {
		_, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: c.strategy, Rounds: 1, Config: map[string]any{policy.KeyFrozen: c.setting}, Initial: initial(t)})
		if err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%s, %v: %v, want %q", c.strategy, c.setting, err, c.reason)
		}
	}
}

// TestUploadSizeIndependentOfData is finding F7: what a node sends has the same size
// whatever its data did to the model: also if it changed nothing at all, and if what it
// changed is frozen.
func TestUploadSizeIndependentOfData(t *testing.T) {
	t.Parallel()
	f := ci.StartFederation(t, ci.Policy(trainOnly))
	joined(t, f.Nodes...)
	req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: 2, Objects: layers(t, 3, 1<<10),
		Config: map[string]any{"add member-a": 0.0, "add member-b": 1e6, "examples member-c": int64(1), policy.KeyFrozen: "layer.00"}})
	if err != nil {
		t.Fatal(err)
	}
	var sizes []uint64
	for _, n := range f.Nodes {
		completed(t, f, n, req)
		for _, e := range events(n, "contributed") {
			sizes = append(sizes, e.Moved, e.Moved+e.Saved)
		}
	}
	slices.Sort(sizes)
	if len(sizes) < 6 || len(slices.Compact(slices.Clone(sizes))) != 1 {
		t.Errorf("uploads of %d bytes", sizes)
	}
}

// TestFrozenTraffic says what a node moves in a round, with and without frozen arrays:
// docs/scale.md has its figures.
func TestFrozenTraffic(t *testing.T) {
	t.Parallel()
	const arrays, values, rounds = 20, 1 << 15, 2
	f := ci.StartFederation(t)
	joined(t, f.Nodes...)
	type traffic struct{ up, down, saved uint64 }
	measure := func(frozen string) (first, later traffic) {
		req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: rounds, Objects: layers(t, arrays, values), Config: map[string]any{policy.KeyFrozen: frozen}})
		if err != nil {
			t.Fatal(err)
		}
		n := f.Nodes[1]
		completed(t, f, n, req)
		run := ended(t, n, req).Run
		// A round hands a model out to be trained and one to be evaluated; the first
		// fetches the initial model before.
		for _, e := range n.Events() {
			switch {
			case e.Run != run:
			case e.Kind == "contributed" && e.Seq <= 2:
				first.up += e.Moved
			case e.Kind == "contributed":
				later.up += e.Moved
			case e.Kind == "step" && e.Seq <= 2:
				first.down, first.saved = first.down+e.Moved, first.saved+e.Saved
			case e.Kind == "step" && e.Opens != receipt.OpensNone:
				later.down, later.saved = later.down+e.Moved, later.saved+e.Saved
			}
		}
		t.Logf("frozen %q: round 1 up %d, down %d, saved %d; round 2 up %d, down %d, saved %d", frozen, first.up, first.down, first.saved, later.up, later.down, later.saved)
		return first, later
	}
	const size = 8 * values // bytes of one array
	if _, all := measure(""); all.up < arrays*size || all.down < arrays*size || all.saved < arrays*size {
		t.Errorf("nothing is frozen, and a node moves %+v", all)
	}
	const little = size + size/4 // with the manifest
	first, frozen := measure("layer.0*,layer.10,layer.11,layer.12,layer.13,layer.14,layer.15,layer.16,layer.17,layer.18")
	if first.up > little || frozen.up > little || frozen.down > little || frozen.saved < (2*arrays-1)*size {
		t.Errorf("19 of 20 arrays are frozen, and a node moves %+v, then %+v", first, frozen)
	}
}
