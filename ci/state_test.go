package ci_test

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/node"
)

// stateKey names the records in which the app counts its answers.
const stateKey = "answered by the test app"

var counting = map[string]any{"count": true}

// counts demands that a run of three rounds completed in which the app at every node has
// counted each of its answers once: it adds 1, 2 and 3, and the mean of all nodes is that.
func counts(t *testing.T, f *ci.Federation, request ci.Digest) {
	t.Helper()
	for _, n := range f.Nodes {
		model := completed(t, f, n, request)
		z, err := zip.NewReader(strings.NewReader(model), int64(len(model)))
		if err != nil {
			t.Fatal(err)
		}
		w, err := z.Open("w.npy")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(w)
		if err != nil {
			t.Fatal(err)
		}
		var got []float64
		for b = b[len(b)-24:]; len(b) > 0; b = b[8:] {
			got = append(got, math.Round(1e6*math.Float64frombits(binary.LittleEndian.Uint64(b)))/1e6) // the mean is rounded
		}
		if want := []float64{7, 8, 9}; !slices.Equal(got, want) {
			t.Errorf("%s: the model is %v, want %v", n.Name, got, want)
		}
		if left := states(t, f, n); len(left) != 0 {
			t.Errorf("%s: left of the app's state: %q", n.Name, left)
		}
	}
}

// states are the files in which a node keeps the state of its apps.
func states(t *testing.T, f *ci.Federation, n *ci.Node) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(n.Dir, f.Chain.Federation().String(), "runs", "*", "state.*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestStateSurvivesNode stops a node at every moment of a run and starts it again: its app
// finds the state that its last answer left, and no answer counts twice.
func TestStateSurvivesNode(t *testing.T) {
	t.Parallel()
	for _, at := range []node.Event{{Kind: "step", Seq: 1}, {Kind: "contributed", Seq: 1}, {Kind: "step", Seq: 2}, {Kind: "contributed", Seq: 2}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			f := ci.StartFederation(t, ci.Policy(trainOnly))
			joined(t, f.Nodes...)
			b := f.Nodes[1]
			req := start(t, f, f.Nodes[0], 3, counting)
			b.Await(t, at.Kind, func(e node.Event) bool { return e.Kind == at.Kind && e.Seq == at.Seq })
			f.Restart(b)
			counts(t, f, req)
		})
	}
}

// TestStateSurvivesEnclave stops the enclave in the middle: where its successor repeats a
// step, the app answers it from the state that it had before.
func TestStateSurvivesEnclave(t *testing.T) {
	t.Parallel()
	for _, at := range []enclave.Event{{Kind: "released", Seq: 2}, {Kind: "acked", Seq: 3}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			m := newMoments()
			f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Observe(m.observe))
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 3, counting)
			m.await(t, at.Kind, at.Seq)
			if err := f.Enclave.Stop(); err != nil {
				t.Fatal(err)
			}
			f.StartEnclave(f.Machine, nil, nil)
			counts(t, f, req)
		})
	}
}

// TestStateChanged: a state that somebody changed on the disk is no state. The node says
// so, and the run ends.
func TestStateChanged(t *testing.T) {
	t.Parallel()
	f := ci.StartFederation(t, ci.Policy(trainOnly))
	joined(t, f.Nodes...)
	b := f.Nodes[1]
	req := start(t, f, f.Nodes[0], 50, counting)
	b.Await(t, "a contribution", func(e node.Event) bool { return e.Kind == "contributed" && e.Seq == 2 })
	if err := b.Stop(); err != nil {
		t.Fatal(err)
	}
	kept := states(t, f, b)
	if len(kept) == 0 || len(kept) > 3 {
		t.Errorf("states in the middle of a run: %q", kept)
	}
	for _, name := range kept {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), stateKey) {
			t.Errorf("%s shows the state", name)
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.Restart(b)
	e := b.AwaitKind(t, "failed")
	if !strings.Contains(e.Reason, "the app's state after step") || !strings.Contains(e.Reason, "does not open") {
		t.Errorf("failed because %s", e.Reason)
	}
	for _, n := range f.Nodes {
		if e := ended(t, n, req); e.Outcome != "failed" {
			t.Errorf("%s: run ended %s", n.Name, e.Outcome)
		}
		if left := states(t, f, n); len(left) != 0 {
			t.Errorf("%s: left of the app's state: %q", n.Name, left)
		}
	}
}
