package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	flowercontrol "github.com/concordat/concordat/internal/flower/control"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/atrest"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/verifier/receipt"
)

// TestTeller: what the flwr command's users read of a run, and how its end is told.
func TestTeller(t *testing.T) {
	t.Parallel()
	request, runID := Digest{1}, Digest{2}
	begun := []Event{
		{Kind: "started", Run: Digest{9}, Request: Digest{8}, Inputs: 7}, // another run
		{Kind: "requested", Request: request},
		{Kind: "started", Run: runID, Request: request, Inputs: 3},
		{Kind: "step", Run: runID, Seq: 1, Round: 1, Opens: receipt.OpensTrain},
	}
	trained := append(begun[:len(begun):len(begun)],
		Event{Kind: "step", Run: runID, Seq: 2, Round: 1, Opens: receipt.OpensEvaluate, Inputs: 3, Metrics: map[string]float64{"b": 0.5, "a": 2}},
		Event{Kind: "step", Run: Digest{9}, Seq: 2, Round: 1, Opens: receipt.OpensEvaluate, Inputs: 3},
		Event{Kind: "step", Run: runID, Seq: 3, Round: 2, Opens: receipt.OpensTrain, Inputs: 2, Excluded: 1},
		Event{Kind: "step", Run: runID, Seq: 4, Round: 2, Opens: receipt.OpensNone, Inputs: 3})
	closed := make(chan struct{})
	close(closed)
	for what, c := range map[string]struct {
		events []Event
		stop   chan struct{}
		lines  string // what must be among those printed
		err    string // empty: the run completed
	}{
		"completed": {append(trained, Event{Kind: "ended", Run: runID, Outcome: receipt.Completed}), nil,
			"[ROUND 1/2] train: 3 contributions  a 2  b 0.5\n[ROUND 1/2] evaluate: 2 contributions (1 excluded)\n[ROUND 2/2] train: 3 contributions\n[concordat] at the node: concordat run model 02000000", ""},
		"after a restart": {[]Event{begun[0], {Kind: "step", Run: runID, Request: request, Seq: 4, Round: 2, Opens: receipt.OpensTrain, Inputs: 3}, {Kind: "ended", Run: runID, Outcome: receipt.Completed}}, nil,
			"[ROUND 1/2] a step: 3 contributions\n", ""},
		"stopped":        {append(begun, Event{Kind: "ended", Run: runID, Outcome: receipt.Stopped, Reason: "stopped"}), closed, "started with 3 nodes", "stopped by its user"},
		"refused":        {[]Event{{Kind: "refused", Request: request, Reason: "the enclave refused it: policy"}}, nil, "", "refused it: policy"},
		"taken back":     {[]Event{{Kind: "refused", Request: request, Reason: "taken back by its user"}}, closed, "", "stopped by its user"},
		"declined":       {[]Event{{Kind: "declined", Run: runID, Request: request, Reason: "app is not installed"}}, nil, "", "takes no part: app is not installed"},
		"own app failed": {append(begun, Event{Kind: "failed", Run: runID, Reason: "ValueError"}, Event{Kind: "ended", Run: runID, Outcome: receipt.Failed, Reason: "late"}), nil, "this node: ValueError", "late: ValueError"},
		"other failed":   {append(begun, Event{Kind: "ended", Run: runID, Outcome: receipt.Failed, Reason: "late"}), nil, "", "ended as failed: late: a node did not answer in time"},
		"a ServerApp":    {append(begun, Event{Kind: "ended", Run: runID, Outcome: receipt.Failed, Reason: "app"}), nil, "", "app: the ServerApp broke a rule"},
		"no hint":        {append(begun, Event{Kind: "ended", Run: runID, Outcome: "lost", Reason: "lost"}), nil, "", "ended as lost: lost"},
		"no ack":         {append(begun, Event{Kind: "ack-refused", Run: runID, Reason: "not among the inputs"}, Event{Kind: "ended", Run: runID, Outcome: receipt.Failed, Reason: "ack_late"}), nil, "does not agree", "not among the inputs"},
	} {
		var out []string
		running := 0
		x := teller{print: func(s string) { out = append(out, s) }, running: func() { running++ }, stop: c.stop, rounds: 2, request: request}
		for i, e := range c.events {
			over, err := x.take(e)
			if last := i == len(c.events)-1; over != last {
				t.Errorf("%s: event %d (%s): over %v", what, i, e.Kind, over)
			} else if last && (c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err))) {
				t.Errorf("%s: %v, want %q", what, err, c.err)
			} else if last && (c.stop != nil) != errors.Is(err, flowercontrol.ErrStopped) {
				t.Errorf("%s: %v is told as stopped, or is not", what, err)
			}
		}
		if !strings.Contains(strings.Join(out, "\n"), c.lines) {
			t.Errorf("%s: printed\n%s\nwant\n%s", what, strings.Join(out, "\n"), c.lines)
		}
		if want := len(c.events) >= len(begun); want != (running == 1) {
			t.Errorf("%s: told %d times that it runs", what, running)
		}
	}
}

// TestRequestedBefore: after a restart the journal says how a run ended that the flwr
// command asked for; of what it does not know, nothing is made up.
func TestRequestedBefore(t *testing.T) {
	t.Parallel()
	key, err := atrest.Open(durable.OS{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	j, err := journal.Open(durable.OS{}, t.TempDir(), key)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	k, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	fed, instance := Digest{1}, attestation.ID{2}
	chain := receipt.NewChain(Digest{})
	sign := func(kind receipt.Kind, run Digest, body any) []byte {
		t.Helper()
		s := &receipt.Statement{Kind: kind, Federation: fed, Run: run, Policy: Digest{3}, Issuer: receipt.EnclaveIssuer(instance), Body: body}
		s.Seq, s.Prev = chain.Next()
		raw, err := receipt.Sign(s, k)
		if err == nil {
			err = chain.Extend(s)
		}
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	n := &Node{journal: j}
	claims := attestation.Claims{Federation: fed, Policy: Digest{3}, PolicyVersion: 1, Instance: instance, Role: attestation.RoleAggregator, Epoch: 1,
		SignPub: k.Public(), KEMPub: make([]byte, attestation.KEMKeySize), Image: Digest{4}, Config: Digest{5}, NonceRoot: Digest{6}, NonceCount: 1, Simulated: true, IssuedAt: 1}
	u, err := receipt.Parse(sign(receipt.KindEvidence, Digest{}, &receipt.Evidence{Claims: claims.Encode(), Envelope: Digest{9}}))
	if err == nil {
		_, err = n.history.epochs.Evidence(u, fed, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, outcome := range []string{receipt.Completed, receipt.Failed} {
		offer := &session.RunOffer{Statement: []byte("run " + outcome), Request: []byte("request " + outcome)}
		if err := j.Accepted(offer, [32]byte{}); err != nil {
			t.Fatal(err)
		}
		request, runID := cose.Sum(offer.Request), cose.Sum(offer.Statement)
		if _, _, err := n.requested(request); !errors.Is(err, errUnknownRun) {
			t.Errorf("a run that did not end, and does not go on: %v", err)
		}
		end := &receipt.End{Seq: 3, Step: Digest{7}, Outcome: outcome}
		if outcome != receipt.Completed {
			end.Code = "late"
		}
		if err := j.Ended(runID, sign(receipt.KindEnd, runID, end)); err != nil {
			t.Fatal(err)
		}
		found, over, err := n.requested(request)
		if err != nil || found != runID || over.Kind != "ended" || over.Outcome != outcome || over.Reason != end.Code {
			t.Errorf("%s: run %s, %+v, %v", outcome, found.Short(), over, err)
		}
	}
	if _, _, err := n.requested(Digest{42}); !errors.Is(err, errUnknownRun) {
		t.Errorf("a request that nobody took: %v", err)
	}
	if len(n.requests) != 0 {
		t.Error("a run that is over may be stopped")
	}
}

func TestPieces(t *testing.T) {
	t.Parallel()
	var out []string
	p := &pieces{print: func(s string) { out = append(out, s) }}
	for _, s := range []string{"a", " b", "\n", "", "c\nd\ne", strings.Repeat("x", maxLine), "\n", "f"} {
		p.add(s)
	}
	p.flush()
	if got := strings.Join(out, "|"); got != "a b|c|d|e"+strings.Repeat("x", maxLine)+"||f" {
		t.Errorf("%.60q", got)
	}
}
