package node

import (
	"errors"
	"strings"
	"testing"

	flowercontrol "github.com/concordat/concordat/internal/flower/control"
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
		"stopped":        {append(begun, Event{Kind: "ended", Run: runID, Outcome: receipt.Stopped, Reason: "stopped"}), closed, "started with 3 nodes", "stopped by its user"},
		"refused":        {[]Event{{Kind: "refused", Request: request, Reason: "the enclave refused it: policy"}}, nil, "", "refused it: policy"},
		"taken back":     {[]Event{{Kind: "refused", Request: request, Reason: "taken back by its user"}}, closed, "", "stopped by its user"},
		"declined":       {[]Event{{Kind: "declined", Run: runID, Request: request, Reason: "app is not installed"}}, nil, "", "takes no part: app is not installed"},
		"own app failed": {append(begun, Event{Kind: "failed", Run: runID, Reason: "ValueError"}, Event{Kind: "ended", Run: runID, Outcome: receipt.Failed, Reason: "late"}), nil, "this node: ValueError", "late: ValueError"},
		"other failed":   {append(begun, Event{Kind: "ended", Run: runID, Outcome: receipt.Failed, Reason: "late"}), nil, "", "ended as failed: late"},
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
