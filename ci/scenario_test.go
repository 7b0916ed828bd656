package ci_test

import (
	"encoding/hex"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// trainOnly leaves evaluation out: a run of n rounds has n+1 steps.
func trainOnly(p *policy.Policy) { p.Nodes.MessageTypes = []string{"train"} }

// dropouts lets a run go on without nodes that do not answer within seconds. An ack has
// a minute.
func dropouts(seconds policy.Seconds) func(*policy.Policy) {
	return func(p *policy.Policy) {
		p.Release.Dropouts = policy.DropoutsAllow
		p.Release.StepDeadline, p.Release.AckDeadline = seconds, 60
	}
}

// joined waits until every node has joined an enclave.
func joined(t *testing.T, nodes ...*ci.Node) {
	t.Helper()
	for _, n := range nodes {
		n.AwaitKind(t, "joined")
	}
}

// start asks n for a run of the whole federation.
func start(t *testing.T, f *ci.Federation, n *ci.Node, rounds uint64, config map[string]any) ci.Digest {
	t.Helper()
	req, err := n.Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: rounds, Config: config, Initial: initial(t)})
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// ended waits until n tells the end of the run that a request asked for.
func ended(t *testing.T, n *ci.Node, request ci.Digest) node.Event {
	t.Helper()
	return n.Await(t, "end of the run", func(e node.Event) bool { return e.Kind == "ended" && e.Request == request })
}

// completed demands that the run completed, and returns its final model as n wrote it.
func completed(t *testing.T, f *ci.Federation, n *ci.Node, request ci.Digest) string {
	t.Helper()
	e := ended(t, n, request)
	if e.Outcome != "completed" {
		t.Fatalf("%s: run ended %s: %s", n.Name, e.Outcome, e.Reason)
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(f.BundleOf(n, e.Run)), "model.npz"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// moments hands the events of an enclave to a test.
type moments chan enclave.Event

func newMoments() moments { return make(moments, 1024) }

// observe is for ci.Observe.
func (m moments) observe(e enclave.Event) { m <- e }

// await waits for an event.
func (m moments) await(t *testing.T, kind string, seq uint64) {
	t.Helper()
	for {
		select {
		case e := <-m:
			if e.Kind == kind && (seq == 0 || e.Seq == seq) {
				return
			}
		case <-t.Context().Done():
			t.Fatalf("enclave did not tell %s %d", kind, seq)
		}
	}
}

func hexOf(s string) string { return hex.EncodeToString([]byte(s)) }

func nan() float64 { return math.NaN() }

// withArray is a reply whose array w has these values.
func withArray(t *testing.T, w []float64) object.RecordDict {
	t.Helper()
	d := trained(t, 1)
	v, err := ci.Vector(w)
	if err != nil {
		t.Fatal(err)
	}
	d[0].Record.(object.ArrayRecord)[1].Array = v
	return d
}

// withExamples is a reply of so many examples.
func withExamples(t *testing.T, n int64) object.RecordDict {
	t.Helper()
	d := trained(t, 1)
	d[1].Record.(object.MetricRecord)[0].Value = object.Sint(n)
	return d
}

// withMetrics is a reply with n bytes of metrics, and more.
func withMetrics(t *testing.T, n int) object.RecordDict {
	t.Helper()
	d := trained(t, 1)
	d[1].Record = append(d[1].Record.(object.MetricRecord), object.ValueItem{Key: "text", Value: object.Doubles(make([]float64, n/8))})
	return d
}
