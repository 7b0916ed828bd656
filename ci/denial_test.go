package ci_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// denial is member m's word that a value must not be relied on.
func denial(t *testing.T, f *ci.Federation, m *ci.Member, kind policy.DenialKind, value []byte) []byte {
	t.Helper()
	raw, err := policy.SignDenial(m.PolicyKey, m.ID, policy.Denial{Federation: f.Chain.Federation(), Kind: kind, Value: value})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestSuppressedDenialStopsAcks is finding F13: the link keeps a member's denial out of
// the log, so that the others go on with what was denied. The node that it was handed to
// acks nothing once the policy's lag is over, after a restart too; when the link lets the
// denial through, it acks again.
func TestSuppressedDenialStopsAcks(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Policy(func(p *policy.Policy) { p.Log.DenialLag = 1 }), ci.Through(l))
	joined(t, f.Nodes...)
	raw := denial(t, f, f.Members[0], policy.DenyChip, bytes.Repeat([]byte{0xEE}, 64)) // nothing here runs on it
	let := l.Drop(func(m hostile.Message) bool {
		q, ok := m.Body.(*concordatv1.AppendRequest)
		return ok && m.Up && bytes.Equal(q.GetEntry(), raw)
	})
	a := f.Nodes[0]
	if d, err := a.Node.Deny(raw); err != nil || d.Logged || d.Member != f.Members[0].ID {
		t.Fatalf("%+v, %v", d, err)
	}
	l.Await(t, "the denial on its way to the log", func(m hostile.Message) bool {
		q, ok := m.Body.(*concordatv1.AppendRequest)
		return ok && bytes.Equal(q.GetEntry(), raw)
	})
	f.Restart(a) // what was denied stays denied
	joined(t, a)
	for tries := 1; ; tries++ { // until the lag is over
		refused := false
		e := ended(t, a, start(t, f, a, 1, nil))
		for _, e := range a.Events() {
			refused = refused || e.Kind == "ack-refused" && strings.Contains(e.Reason, "not in the log")
		}
		if refused {
			if e.Outcome != "failed" {
				t.Errorf("a run that the node did not ack ended %s", e.Outcome)
			}
			break
		}
		if tries == 100 {
			t.Fatal("acked again and again")
		}
	}
	let()
	l.Break(a.Name) // back at the link, it asks for a place in the log again
	a.AwaitKind(t, "denied")
	if d, err := a.Node.Deny(raw); err != nil || !d.Logged {
		t.Errorf("the denial again: %+v, %v", d, err)
	}
	completed(t, f, a, start(t, f, a, 1, nil))
}

// TestDenialByHand: what a member denies at its own node reaches everybody through the
// log and takes effect on what is going on.
func TestDenialByHand(t *testing.T) {
	t.Parallel()
	t.Run("measurement", func(t *testing.T) {
		t.Parallel()
		f := ci.StartFederation(t)
		joined(t, f.Nodes...)
		image := f.Policy.Platforms.SNP.Measurements[0]
		if _, err := f.Nodes[1].Node.Deny(denial(t, f, f.Members[1], policy.DenyMeasurement, image)); err != nil {
			t.Fatal(err)
		}
		for _, n := range f.Nodes {
			n.AwaitKind(t, "left")
		}
	})
	t.Run("app of a run", func(t *testing.T) {
		t.Parallel()
		m := newMoments()
		f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Observe(m.observe))
		joined(t, f.Nodes...)
		app := f.App()
		req := start(t, f, f.Nodes[0], 50, nil)
		m.await(t, "released", 2)
		if _, err := f.Nodes[2].Node.Deny(denial(t, f, f.Members[2], policy.DenyApp, app[:])); err != nil {
			t.Fatal(err)
		}
		for _, n := range f.Nodes {
			if e := ended(t, n, req); e.Outcome != "failed" {
				t.Errorf("%s: run of a denied app ended %s", n.Name, e.Outcome)
			}
		}
		if _, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: app, Strategy: "fedavg", Rounds: 1, Initial: initial(t)}); err == nil {
			t.Error("a run of a denied app was asked for")
		}
	})
	t.Run("not a denial", func(t *testing.T) {
		t.Parallel()
		f := ci.StartFederation(t)
		joined(t, f.Nodes[0]) // it runs
		raw := denial(t, f, f.Members[0], policy.DenyKey, make([]byte, 32))
		raw[len(raw)-1] ^= 1
		for name, b := range map[string][]byte{"flipped": raw, "empty": nil, "large": make([]byte, cose.MaxMessage+1)} {
			if _, err := f.Nodes[0].Node.Deny(b); !errors.Is(err, node.ErrDenial) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}
