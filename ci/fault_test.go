package ci_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/node"
)

// undisturbed is the final model of a run of two rounds in which nothing fails.
var undisturbed = struct {
	sync.Once
	model string
}{}

func undisturbedModel(t *testing.T) string {
	undisturbed.Do(func() {
		f := ci.StartFederation(t, ci.Policy(trainOnly))
		joined(t, f.Nodes...)
		undisturbed.model = completed(t, f, f.Nodes[0], start(t, f, f.Nodes[0], 2, nil))
	})
	if undisturbed.model == "" {
		t.Fatal("the undisturbed run failed")
	}
	return undisturbed.model
}

// sameEverywhere demands that every node got the model of the undisturbed run.
func sameEverywhere(t *testing.T, f *ci.Federation, request ci.Digest) {
	t.Helper()
	want := undisturbedModel(t)
	for _, n := range f.Nodes {
		if got := completed(t, f, n, request); got != want {
			t.Errorf("%s has another final model than after a run that nothing disturbed", n.Name)
		}
	}
}

// TestLinkKilledAnywhere kills the link, as kill -9 does, in the middle of a run, again
// and again: what was acknowledged is not lost, and the run completes (P5).
func TestLinkKilledAnywhere(t *testing.T) {
	t.Parallel()
	m := newMoments()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.LinkProcess(), ci.Observe(m.observe))
	joined(t, f.Nodes...)
	req := start(t, f, f.Nodes[0], 2, nil)
	for _, at := range []enclave.Event{{Kind: "run"}, {Kind: "step", Seq: 1}, {Kind: "released", Seq: 1}, {Kind: "step", Seq: 2}, {Kind: "acked", Seq: 2}, {Kind: "released", Seq: 3}} {
		m.await(t, at.Kind, at.Seq)
		f.KillLink()
	}
	sameEverywhere(t, f, req)
}

// TestNodeRestart stops one node at every moment of a run and starts it again on its
// data: the run completes, though it allows no dropouts (P5).
func TestNodeRestart(t *testing.T) {
	t.Parallel()
	for _, at := range []node.Event{{Kind: "joined"}, {Kind: "started"}, {Kind: "step", Seq: 1}, {Kind: "contributed", Seq: 1}, {Kind: "admitted", Seq: 1}, {Kind: "acked", Seq: 2}, {Kind: "step", Seq: 2}, {Kind: "acked", Seq: 3}, {Kind: "step", Seq: 3}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			f := ci.StartFederation(t, ci.Policy(trainOnly))
			b := f.Nodes[1]
			if at.Kind == "joined" {
				joined(t, b)
				f.Restart(b)
			}
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 2, nil)
			if at.Kind != "joined" {
				b.Await(t, at.Kind, func(e node.Event) bool { return e.Kind == at.Kind && e.Seq == at.Seq })
				f.Restart(b)
			}
			sameEverywhere(t, f, req)
		})
	}
}

// TestEnclaveRestart stops the enclave at every moment of a run and starts another one:
// it resumes from ciphertext, with the keys that the nodes bring, and the final model is
// that of a run that nothing disturbed (protocol F11).
func TestEnclaveRestart(t *testing.T) {
	t.Parallel()
	for _, at := range []enclave.Event{{Kind: "step", Seq: 2}, {Kind: "acked", Seq: 2}, {Kind: "released", Seq: 2}, {Kind: "step", Seq: 3}, {Kind: "acked", Seq: 3}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			m := newMoments()
			f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Observe(m.observe))
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 2, nil)
			m.await(t, at.Kind, at.Seq)
			if err := f.Enclave.Stop(); err != nil {
				t.Fatal(err)
			}
			f.StartEnclave(f.Machine, nil, nil)
			sameEverywhere(t, f, req)
		})
	}
}

// TestEnclaveLostEarly stops the enclave before any node surely has a model: the run
// completes where somebody had one, and otherwise it ends at every node, or is refused;
// none waits for ever (protocol F11).
func TestEnclaveLostEarly(t *testing.T) {
	t.Parallel()
	for _, at := range []enclave.Event{{Kind: "run"}, {Kind: "step", Seq: 1}, {Kind: "released", Seq: 1}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			m := newMoments()
			f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Observe(m.observe))
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 2, nil)
			m.await(t, at.Kind, at.Seq)
			if err := f.Enclave.Stop(); err != nil {
				t.Fatal(err)
			}
			f.StartEnclave(f.Machine, nil, nil)
			told := f.Nodes[0].Await(t, "end or refusal", func(e node.Event) bool {
				return e.Request == req && (e.Kind == "ended" || e.Kind == "refused")
			})
			for _, n := range f.Nodes[1:] {
				if told.Kind == "refused" {
					break // the run was offered to nobody
				}
				if e := ended(t, n, req); e.Outcome != told.Outcome {
					t.Errorf("%s: run %s, elsewhere %s", n.Name, e.Outcome, told.Outcome)
				}
			}
			if told.Outcome == "completed" {
				sameEverywhere(t, f, req)
			}
		})
	}
}
