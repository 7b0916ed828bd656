package ci_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/internal/flower/clientapp"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/verifier"
)

func TestMain(m *testing.M) { ci.Main(m, app, own) }

// app adds one to every value and says that it saw ten examples. The run's config may
// have it add or say another number on a node ("add member-a", "examples member-a"), as the
// message's config may ("add"), fail with a text there ("raise member-a"), be killed or never
// answer at a step there ("train member-a": "dies" or "hangs"), or add how often it has
// answered in the run
// ("count").
func app(ctx context.Context, in clientapp.Message) (object.RecordDict, error) {
	if text, ok := in.RunConfig[fmt.Sprint("raise ", in.NodeConfig["node"])].(string); ok {
		return nil, errors.New(text)
	}
	if text, ok := in.RunConfig[fmt.Sprint("raise reversed ", in.NodeConfig["node"])].(string); ok {
		return nil, errors.New(reverse(text))
	}
	switch in.RunConfig[fmt.Sprint(in.Type, " ", in.NodeConfig["node"])] {
	case "dies":
		return nil, syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "hangs":
		<-ctx.Done()
	}
	for _, it := range in.Content {
		if strings.HasPrefix(it.Name, "concordat.") {
			return nil, fmt.Errorf("sees the enclave's record %s", it.Name)
		}
	}
	examples := object.Sint(10)
	if n, ok := in.RunConfig[fmt.Sprint("examples ", in.NodeConfig["node"])].(int64); ok {
		examples = object.Sint(n)
	}
	if strings.HasPrefix(in.Type, "query") {
		return object.RecordDict{{Name: "m", Record: object.MetricRecord{{Key: "count", Value: examples}}}}, nil
	}
	arrays, ok := in.Content.Get("arrays").(object.ArrayRecord)
	if !ok {
		return nil, fmt.Errorf("no arrays")
	}
	metrics := object.MetricRecord{{Key: "num-examples", Value: examples}, {Key: "loss", Value: object.Double(0.5)}}
	if in.Type == "evaluate" {
		return object.RecordDict{{Name: "metrics", Record: metrics}}, nil
	}
	add := 1.0
	if x, ok := in.RunConfig[fmt.Sprint("add ", in.NodeConfig["node"])].(float64); ok {
		add = x
	}
	told, _ := in.Content.Get("config").(object.ConfigRecord)
	if x, ok := told.Get("add").(object.Double); ok {
		add = float64(x)
	}
	if in.RunConfig["count"] == true {
		in.State.Items = append(in.State.Items, &flwr.RecordDict_Item{Key: stateKey, Value: &flwr.RecordDict_Item_MetricRecord{MetricRecord: &flwr.MetricRecord{}}})
		add = float64(len(in.State.Items))
	}
	var out object.ArrayRecord
	for _, a := range arrays {
		v, err := ci.Values(a.Array)
		if err != nil {
			return nil, err
		}
		for i := range v {
			v[i] += add
		}
		b, err := ci.Vector(v)
		if err != nil {
			return nil, err
		}
		out = append(out, object.ArrayItem{Name: a.Name, Array: b})
	}
	return object.RecordDict{{Name: "arrays", Record: out}, {Name: "metrics", Record: metrics}}, nil
}

func initial(t *testing.T) [][]byte {
	t.Helper()
	objects, err := ci.Arrays(map[string][]float64{"w": {1, 2, 3}, "b": {0}})
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// TestWholePath is the spine: signed policy, attested enclave, three members, a run of
// three rounds, and a bundle that an officer verifies.
func TestWholePath(t *testing.T) {
	f := ci.StartFederation(t, ci.GPUs(1))
	for _, n := range f.Nodes {
		n.AwaitKind(t, "joined")
	}
	req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: 3, Initial: initial(t)})
	if err != nil {
		t.Fatal(err)
	}
	end := f.Nodes[0].Await(t, "end of the run", func(e node.Event) bool { return e.Kind == "ended" && e.Request == req })
	if end.Outcome != "completed" {
		t.Fatalf("run ended %s: %s", end.Outcome, end.Reason)
	}
	for _, n := range f.Nodes {
		e := n.Await(t, "its bundle", func(e node.Event) bool { return e.Kind == "ended" && e.Run == end.Run })
		b, err := os.Open(f.BundleOf(n, e.Run))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		trust := &verifier.Trust{Federation: f.Chain.Federation(), Member: n.Member.ID, Witness: n.Member.Witness, Simulated: true}
		results, err := filepath.Glob(filepath.Join(n.Dir, f.Chain.Federation().String(), "results", "*.ear"))
		if err != nil || len(results) != 1 {
			t.Fatalf("attestation results of %s: %q, %v", n.Name, results, err)
		}
		result, err := os.ReadFile(results[0])
		if err != nil {
			t.Fatal(err)
		}
		report, err := verifier.VerifyBundle(t.Context(), b, trust, time.Now(), nil, result)
		if err != nil {
			t.Fatal(err)
		}
		if len(report.Results) != 1 || !report.Results[0].Same {
			t.Errorf("what %s found does not come out again: %+v", n.Name, report.Results)
		}
		if report.Verdict != verifier.PassSimulated {
			t.Errorf("bundle of %s: %s", n.Member.ID, report.Text())
		}
	}
}
