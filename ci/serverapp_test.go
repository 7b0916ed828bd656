package ci_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// own is a ServerApp that takes the mean over two rounds, evaluates after each, and asks a
// question at the end. What else it does, its config says.
func own(ctx context.Context, g *ci.Grid) error {
	mode, _ := g.Config["mode"].(string)
	w, b := []float64{1, 2, 3}, []float64{0}
	content := func() (object.RecordDict, error) {
		aw, err := ci.Vector(w)
		if err != nil {
			return nil, err
		}
		ab, err := ci.Vector(b)
		d := object.RecordDict{{Name: "arrays", Record: object.ArrayRecord{{Name: "w", Array: aw}, {Name: "b", Array: ab}}},
			{Name: "config", Record: object.ConfigRecord{{Key: "lr", Value: object.Double(0.1)}}}}
		return d, err
	}
	// tells is what one node is told, and no other, where modes say so.
	tells := func(node uint64, d object.RecordDict) object.RecordDict {
		if mode == "addressed" {
			d = append(slices.Clone(d[:len(d)-1]), object.RecordItem{Name: "config", Record: object.ConfigRecord{{Key: "add", Value: object.Double(addOf(g, node))}}})
		}
		return d
	}
	ask := func(kind, group string, d object.RecordDict, to ...uint64) ([]ci.Answer, error) {
		ids, err := g.SendEach(ctx, kind, group, func(node uint64) object.RecordDict { return tells(node, d) }, to...)
		if err != nil {
			return nil, err
		}
		return g.Receive(ctx, ids)
	}
	switch mode {
	case "silent":
		<-ctx.Done()
	case "floods":
		for range 1 << 8 {
			fmt.Println(strings.Repeat("secret-", 8<<10))
		}
		for range 16 {
			if err := g.Print(ctx, slices.Repeat([]string{strings.Repeat("secret-", 1<<10)}, 100)...); err != nil {
				return err
			}
		}
	}
	rounds := 2
	if mode == "endless" {
		rounds = 100
	}
	if mode == "addressed" { // the model comes when nodes have answered
		if _, err := ask("query.count", "begin", object.RecordDict{{Name: "config", Record: object.ConfigRecord{}}}, g.Nodes...); err != nil {
			return err
		}
	}
	for round := 1; round <= rounds; round++ {
		d, err := content()
		if err != nil {
			return err
		}
		answers, err := ask("train", fmt.Sprint("round ", round), d, g.Nodes...)
		if err != nil {
			return err
		}
		sum := make([]float64, len(w)+len(b))
		count := 0.0
		for i, a := range answers {
			if i > 0 && answers[i-1].Node >= a.Node {
				return errors.New("answers are not in the order of nodes")
			}
			if strings.Contains(a.Failed, "4711") {
				return errors.New("hears an app's words")
			}
			if a.Failed != "" {
				continue
			}
			count++
			arrays := a.Content.Get("arrays").(object.ArrayRecord)
			if got := must(ci.Values(arrays[0].Array)); mode == "addressed" && got[0] != w[0]+addOf(g, a.Node) {
				return fmt.Errorf("node %d was told to add %v, and made %v of %v", a.Node, addOf(g, a.Node), got, w)
			}
			for j, x := range slices.Concat(must(ci.Values(arrays[0].Array)), must(ci.Values(arrays[1].Array))) {
				sum[j] += x
			}
		}
		for j := range sum {
			sum[j] /= count
		}
		w, b = sum[:len(w)], sum[len(w):]
		switch mode {
		case "raises":
			return fmt.Errorf("saw secret-%v", w)
		case "exits":
			os.Exit(3)
		case "killed":
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		if d, err = content(); err != nil {
			return err
		}
		to := g.Nodes
		switch mode {
		case "sampled":
			to = to[:2]
		case "claims": // another shape than it has
			a := *d[0].Record.(object.ArrayRecord)[0].Array
			a.Shape = []int{3}
			longer, err := ci.Vector(append(w, 4711))
			if err != nil {
				return err
			}
			a.Chunks = longer.Chunks
			d[0].Record.(object.ArrayRecord)[0].Array = &a
		}
		if mode == "trains" {
			continue
		}
		if _, err := ask("evaluate", fmt.Sprint("round ", round), d, to...); err != nil {
			return err
		}
	}
	if mode == "trains" || mode == "addressed" {
		return nil
	}
	_, err := ask("query.count", "end", object.RecordDict{}, g.Nodes...)
	return err
}

// addOf is what a node is told to add where each is told something of its own.
func addOf(g *ci.Grid, node uint64) float64 { return float64(slices.Index(g.Nodes, node) + 1) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// ownRun asks for a run of the app that aggregates by itself.
func ownRun(t *testing.T, n *ci.Node, app ci.Digest, initial [][]byte, rounds uint64, mode string) ci.Digest {
	t.Helper()
	req, err := n.Node.StartRun(t.Context(), node.RunRequest{App: app, Strategy: policy.StrategyCustom, Rounds: rounds, Config: map[string]any{"mode": mode}, Initial: initial})
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func modes(list ...string) (out []map[string]any) {
	for _, m := range list {
		out = append(out, map[string]any{"mode": m})
	}
	return out
}

// TestServerApp: an app's own ServerApp aggregates in the enclave; every node has its
// model, an officer verifies the run and is told what it does not prove, and the instance
// serves no second run.
func TestServerApp(t *testing.T) {
	t.Parallel()
	opts, app, begin := ci.OwnServerApp(t, modes("", "trains")...)
	f := ci.StartFederation(t, opts...)
	joined(t, f.Nodes...)
	req := ownRun(t, f.Nodes[0], app, begin, 2, "")
	for _, n := range f.Nodes {
		completed(t, f, n, req)
		run := ended(t, n, req).Run
		if report := verifies(t, f, n, run); !slices.ContainsFunc(report.NotProven, func(s string) bool { return strings.Contains(s, "sees single updates") }) {
			t.Errorf("an officer is not told what the run does not prove: %q", report.NotProven)
		}
		model := filepath.Join(filepath.Dir(f.BundleOf(n, run)), "model.npz")
		if got := append(readArray(t, model, "w"), readArray(t, model, "b")...); !slices.Equal(got, []float64{3, 4, 5, 2}) {
			t.Errorf("%s: model %v", n.Name, got)
		}
		var opened []string
		for _, e := range n.Events() {
			if e.Kind == "step" {
				opened = append(opened, fmt.Sprint(e.Opens, e.Round))
			}
		}
		if want := []string{"train1", "evaluate1", "train2", "evaluate2", "query2", "none2"}; !slices.Equal(opened, want) {
			t.Errorf("%s: steps %v, want %v", n.Name, opened, want)
		}
	}
	<-f.Enclave.Done()
	if err := f.Enclave.Stop(); !errors.Is(err, enclave.ErrSpent) {
		t.Errorf("the instance ended with %v", err)
	}

	// A native run in the next; and then, while that instance is used, another of the app.
	next := f.StartEnclave(f.Machine, nil, nil)
	native := start(t, f, f.Nodes[0], 1, nil)
	completed(t, f, f.Nodes[0], native)
	again := ownRun(t, f.Nodes[0], app, begin, 2, "trains")
	f.Nodes[0].Await(t, "its request's deferral", func(e node.Event) bool { return e.Kind == "deferred" && e.Request == again })
	<-next.Done()
	f.StartEnclave(f.Machine, nil, nil)
	e := ended(t, f.Nodes[0], again)
	if e.Outcome != "completed" {
		t.Fatalf("run ended %s: %s", e.Outcome, e.Reason)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(f.BundleOf(f.Nodes[0], e.Run)), "model.npz")); !os.IsNotExist(err) {
		t.Errorf("a model, though the ServerApp did not say what became of its last training: %v", err)
	}
}

// TestServerAppRefused: what a ServerApp sends in a way that could carry more than a model
// ends the run before it leaves the enclave, and so does an app that fails. No word of the
// app gets out. TestCustomContent of package enclave has more of what it may not send.
func TestServerAppRefused(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"sampled", "addressed", "claims", "raises", "exits", "killed", "endless", "silent"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			opts, app, begin := ci.OwnServerApp(t, modes(mode)...)
			log := new(output)
			f := ci.StartFederation(t, append(opts, ci.LogTo(log), ci.Policy(func(p *policy.Policy) {
				if mode == "silent" {
					p.Release.StepDeadline = 3
				}
			}))...)
			joined(t, f.Nodes...)
			req := ownRun(t, f.Nodes[0], app, begin, 2, mode)
			want := "app"
			if mode == "endless" {
				want = "policy"
			}
			e := ended(t, f.Nodes[0], req)
			if e.Outcome != "failed" || e.Reason != want {
				t.Errorf("ended %s: %s, want failed: %s", e.Outcome, e.Reason, want)
			}
			for _, e := range f.Nodes[0].Events() {
				if e.Kind == "step" && e.Opens == "evaluate" && mode != "endless" {
					t.Error("what was to be refused was released")
				}
			}
			<-f.Enclave.Done()
			if s := log.String(); strings.Contains(s, "secret-") {
				t.Error("the log has the app's words")
			}
		})
	}
}

// TestServerAppLost: with the enclave its ServerApp is lost, at whatever moment, and no
// other gets to see the contributions: the run ends so, and is started anew.
func TestServerAppLost(t *testing.T) {
	t.Parallel()
	for _, at := range []enclave.Event{{Kind: "released", Seq: 1}, {Kind: "acked", Seq: 2}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			m := newMoments()
			opts, app, begin := ci.OwnServerApp(t, modes("")...)
			f := ci.StartFederation(t, append(opts, ci.Observe(m.observe))...)
			joined(t, f.Nodes...)
			req := ownRun(t, f.Nodes[0], app, begin, 2, "")
			m.await(t, at.Kind, at.Seq)
			if err := f.Enclave.Stop(); err != nil {
				t.Fatal(err)
			}
			f.StartEnclave(f.Machine, nil, nil)
			for _, n := range f.Nodes {
				e := ended(t, n, req)
				if e.Outcome != "failed" || e.Reason != "lost" {
					t.Errorf("%s: ended %s: %s", n.Name, e.Outcome, e.Reason)
				}
			}
			again := ownRun(t, f.Nodes[0], app, begin, 2, "")
			completed(t, f, f.Nodes[0], again)
		})
	}
}

// TestServerAppOthersRestart: a node or the link is killed and started again at any moment
// of such a run, the last acks included, after which the enclave does not stay: the run
// completes all the same, everywhere.
func TestServerAppOthersRestart(t *testing.T) {
	t.Parallel()
	for _, at := range []node.Event{{Kind: "contributed", Seq: 1}, {Kind: "acked", Seq: 3}, {Kind: "acked", Seq: 6}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			opts, app, begin := ci.OwnServerApp(t, modes("")...)
			f := ci.StartFederation(t, append(opts, ci.LinkProcess())...)
			joined(t, f.Nodes...)
			req := ownRun(t, f.Nodes[0], app, begin, 2, "")
			b := f.Nodes[1]
			b.Await(t, at.Kind, func(e node.Event) bool { return e.Kind == at.Kind && e.Seq == at.Seq })
			f.KillLink()
			f.Restart(b)
			for _, n := range f.Nodes {
				completed(t, f, n, req)
				run := ended(t, n, req).Run
				verifies(t, f, n, run)
				if got := readArray(t, filepath.Join(filepath.Dir(f.BundleOf(n, run)), "model.npz"), "w"); !slices.Equal(got, []float64{3, 4, 5}) {
					t.Errorf("%s: model %v", n.Name, got)
				}
			}
		})
	}
}

// TestServerAppDropout: where a run allows dropouts, its ServerApp gets the failure of a
// node's app by its type, and goes on with the others.
func TestServerAppDropout(t *testing.T) {
	t.Parallel()
	config := map[string]any{"mode": "", "raise member-c": "patient 4711"}
	opts, app, begin := ci.OwnServerApp(t, config)
	named := ci.NodeConfig(func(name string, c *node.Config) { c.Flower.NodeConfig = map[string]any{"node": name} })
	f := ci.StartFederation(t, append(opts, named, ci.Policy(dropouts(60)))...)
	joined(t, f.Nodes...)
	req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: app, Strategy: policy.StrategyCustom, Rounds: 2, Config: config, Initial: begin})
	if err != nil {
		t.Fatal(err)
	}
	completed(t, f, f.Nodes[0], req)
	for _, e := range f.Nodes[0].Events() {
		if e.Kind == "step" && e.Seq > 1 && (e.Inputs != 2 || e.Excluded != 1) {
			t.Errorf("step %d has %d inputs and %d excluded nodes", e.Seq, e.Inputs, e.Excluded)
		}
	}
}

// TestServerAppSampled: where the policy lets a ServerApp ask some of the members, the others
// wait: they fetch no model, are in no result, and have the next one. An officer is told.
func TestServerAppSampled(t *testing.T) {
	t.Parallel()
	opts, app, begin := ci.OwnServerApp(t, modes("sampled")...)
	sampled := func(p *policy.Policy) { p.Release.Cohort = policy.CohortSampled }
	f := ci.StartFederation(t, append(opts, ci.Policy(dropouts(60)), ci.Policy(sampled))...)
	joined(t, f.Nodes...)
	req := ownRun(t, f.Nodes[0], app, begin, 2, "sampled")
	asked := map[uint64]int{} // nodes, by step
	for _, n := range f.Nodes {
		completed(t, f, n, req)
		run := ended(t, n, req).Run
		report := verifies(t, f, n, run)
		// An evaluation by two and a training by three begin with one model.
		if r := report.Runs[0]; r.Unasked != 2 || r.Excluded != 2 || r.SmallestDifference != 1 {
			t.Errorf("%s: %d times not asked, %d left out, least difference %d", n.Name, r.Unasked, r.Excluded, r.SmallestDifference)
		}
		if !slices.ContainsFunc(report.Warnings, func(s string) bool { return strings.Contains(s, "may ask some of the members") }) {
			t.Errorf("an officer is not told that the app chooses: %q", report.Warnings)
		}
		model := filepath.Join(filepath.Dir(f.BundleOf(n, run)), "model.npz")
		if got := append(readArray(t, model, "w"), readArray(t, model, "b")...); !slices.Equal(got, []float64{3, 4, 5, 2}) {
			t.Errorf("%s: model %v", n.Name, got)
		}
		for _, e := range n.Events() {
			if e.Kind == "contributed" {
				asked[e.Seq]++
			}
		}
	}
	// Training, evaluation, twice; the question at the end is for all again.
	if want := map[uint64]int{1: 3, 2: 2, 3: 3, 4: 2, 5: 3}; !maps.Equal(asked, want) {
		t.Errorf("contributions by step: %v, want %v", asked, want)
	}
}

// TestServerAppAddressed: where the policy lets a ServerApp tell each node something of its
// own, each app hears its part and no other, the model is one all the same, and may come
// when nodes have answered. An officer is told.
func TestServerAppAddressed(t *testing.T) {
	t.Parallel()
	opts, app, begin := ci.OwnServerApp(t, modes("addressed")...)
	f := ci.StartFederation(t, append(opts, ci.Policy(func(p *policy.Policy) { p.App(app, nil).Addressed = true }))...)
	joined(t, f.Nodes...)
	req := ownRun(t, f.Nodes[0], app, begin, 2, "addressed")
	for _, n := range f.Nodes {
		completed(t, f, n, req)
		run := ended(t, n, req).Run
		report := verifies(t, f, n, run)
		if !slices.ContainsFunc(report.Warnings, func(s string) bool { return strings.Contains(s, "tells each node something of its own") }) {
			t.Errorf("an officer is not told that nodes are told different things: %q", report.Warnings)
		}
		model := filepath.Join(filepath.Dir(f.BundleOf(n, run)), "model.npz")
		if got := append(readArray(t, model, "w"), readArray(t, model, "b")...); !slices.Equal(got, []float64{5, 6, 7, 4}) {
			t.Errorf("%s: model %v", n.Name, got)
		}
	}
}

// TestServerAppFloods: what a ServerApp prints goes nowhere, however much it is, on its own
// output and as what Flower calls logs: the run completes.
func TestServerAppFloods(t *testing.T) {
	t.Parallel()
	opts, app, begin := ci.OwnServerApp(t, modes("floods")...)
	log := new(output)
	f := ci.StartFederation(t, append(opts, ci.LogTo(log))...)
	joined(t, f.Nodes...)
	req := ownRun(t, f.Nodes[0], app, begin, 2, "floods")
	completed(t, f, f.Nodes[0], req)
	if strings.Contains(log.String(), "secret-") {
		t.Error("the log has the app's words")
	}
}

// TestServerAppNeedsApproval: without its digest, its config and exposure individual in
// the policy no ServerApp starts, whoever asks.
func TestServerAppNeedsApproval(t *testing.T) {
	t.Parallel()
	opts, app, begin := ci.OwnServerApp(t, modes("")...)
	f := ci.StartFederation(t, opts...)
	joined(t, f.Nodes...)
	other, err := ci.Arrays(map[string][]float64{"w": {1}})
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, q node.RunRequest) {
		t.Helper()
		q.Strategy, q.Rounds = policy.StrategyCustom, 2
		req, err := f.Nodes[0].Node.StartRun(t.Context(), q)
		if err != nil {
			return // refused here already
		}
		f.Nodes[0].Await(t, "the refusal of "+what, func(e node.Event) bool { return e.Kind == "refused" && e.Request == req })
	}
	disallowed := map[string]node.RunRequest{
		"another config":  {App: app, Config: map[string]any{"mode": "other"}, Initial: begin},
		"another app":     {App: f.App(), Config: map[string]any{"mode": ""}, Initial: begin},
		"native settings": {App: app, Config: map[string]any{"mode": "", "concordat.x": int64(1)}, Initial: begin},
	}
	for what, q := range disallowed {
		refused(what, q)
	}
	refused("no bundle", node.RunRequest{App: app, Config: map[string]any{"mode": ""}, Initial: other})
	// An instance that has served a run ends to make room for a ServerApp, but not for one that
	// the policy does not allow.
	completed(t, f, f.Nodes[0], start(t, f, f.Nodes[0], 1, nil))
	for what, q := range disallowed {
		refused(what+", later", q)
	}
}
