package verifier

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

func TestSuccessor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.boot()
	r := first.begin()
	one := r.step(first, receipt.OpensTrain, 1, nil, true)
	r.step(first, receipt.OpensTrain, 2, w.nodes, false)
	second := w.boot()
	r.repeat(second, one, receipt.OpensTrain, 2, w.nodes, true)
	r.step(second, receipt.OpensNone, 2, w.nodes, true)
	r.end(second)
	rep := verify(t, w)
	expect(t, rep, PassSimulated, "")
	if len(rep.Evidence) != 2 || rep.Runs[0].Released != 3 {
		t.Errorf("%d enclaves, %+v", len(rep.Evidence), rep.Runs[0])
	}
}

func TestTwoEnclavesInLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(p *policy.Policy) { p.Release.Dropouts = policy.DropoutsAllow })
	first := w.boot()
	r := first.begin()
	one := r.step(first, receipt.OpensTrain, 1, nil, true)
	r.step(first, receipt.OpensTrain, 2, w.nodes, true)
	second := w.boot()
	r.repeat(second, one, receipt.OpensTrain, 2, w.nodes[:2], true)
	w.checkpoint("a", "b")
	expect(t, verify(t, w), Fail, ".steps")
}

// TestSampled: nodes that a ServerApp did not ask are told from those that dropped out,
// and only a ServerApp may leave nodes out, where the policy says so.
func TestSampled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cohort, class string
		want          Verdict
	}{
		"allowed":    {policy.CohortSampled, receipt.ClassCustom, PassSimulated},
		"fixed":      {policy.CohortFixed, receipt.ClassCustom, Fail},
		"a strategy": {policy.CohortSampled, receipt.ClassMixing, Fail},
	} {
		w := newWorld(t, func(p *policy.Policy) {
			p.Release.Dropouts, p.Release.Cohort = policy.DropoutsAllow, c.cohort
			if c.class == receipt.ClassCustom {
				a := &p.Apps[0]
				a.Exposure, a.Strategies, a.Configs = policy.ExposureIndividual, []string{policy.StrategyCustom}, []policy.Digest{{9}}
			}
		})
		e := w.boot()
		r := e.begin(func(b *receipt.Run) {
			if c.class == receipt.ClassCustom {
				b.Strategy, b.Class, b.Exposure = policy.StrategyCustom, c.class, "individual"
			}
		})
		r.left = receipt.Unasked
		r.step(e, receipt.OpensTrain, 1, nil, true)
		r.step(e, receipt.OpensNone, 1, w.nodes[1:], true)
		r.end(e)
		rep := verify(t, w)
		if name != "allowed" {
			expect(t, rep, Fail, ".steps")
			continue
		}
		expect(t, rep, PassSimulated, "")
		if x := rep.Runs[0]; x.Excluded != 1 || x.Unasked != 1 || !strings.Contains(rep.Text(), "1 of them because the ServerApp asked others") {
			t.Errorf("%+v\n%s", x, rep.Text())
		}
		for k := range w.blobs {
			if k.role == receipt.RoleExcluded { // another reason than the step says
				w.blobs[k] = receipt.Excluded{{Node: w.nodes[0].key.Public().ID(), Code: receipt.Late}}.Encode()
			}
		}
		expect(t, verify(t, w), Fail, ".step[2]")
	}
}

func TestDropouts(t *testing.T) {
	t.Parallel()
	allow := func(p *policy.Policy) { p.Release.Dropouts = policy.DropoutsAllow }
	run := func(w *world) {
		e := w.boot()
		r := e.begin()
		r.step(e, receipt.OpensTrain, 1, nil, true)
		r.step(e, receipt.OpensNone, 1, w.nodes[1:], true)
		r.end(e)
	}
	w := newWorld(t, allow)
	run(w)
	rep := verify(t, w)
	expect(t, rep, PassSimulated, "")
	if rep.Runs[0].Excluded != 1 || rep.Runs[0].SmallestDifference != 0 {
		t.Errorf("%+v", rep.Runs[0])
	}
	for k := range w.blobs {
		if k.role == receipt.RoleExcluded {
			delete(w.blobs, k)
		}
	}
	expect(t, verify(t, w), Incomplete, ".step[2]")
	for k := range w.blobs {
		if k.role == receipt.RoleInputs { // name a contributor instead
			w.blobs[blobKey{receipt.RoleExcluded, k.subject}] = receipt.Excluded{{Node: w.nodes[1].key.Public().ID(), Code: receipt.Late}}.Encode()
		}
	}
	expect(t, verify(t, w), Fail, ".step[2]")

	w = newWorld(t) // dropouts: refuse
	run(w)
	expect(t, verify(t, w), Fail, ".steps")
}

// TestSmallestDifference: an evaluation and the training after it are answered on the same
// model. Where other members answered them, verify says by how many they differ (F17).
func TestSmallestDifference(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		evaluate, train func(w *world) []*testNode
		want            uint64
	}{
		"the same":    {func(w *world) []*testNode { return w.nodes[:2] }, func(w *world) []*testNode { return w.nodes[:2] }, 0},
		"one":         {func(w *world) []*testNode { return w.nodes }, func(w *world) []*testNode { return w.nodes[1:] }, 1},
		"two":         {func(w *world) []*testNode { return w.nodes[:2] }, func(w *world) []*testNode { return w.nodes[1:] }, 2},
		"other model": {func(w *world) []*testNode { return w.nodes[:2] }, nil, 0},
	} {
		w := newWorld(t, func(p *policy.Policy) {
			p.Release.Dropouts, p.Nodes.MessageTypes = policy.DropoutsAllow, []string{"evaluate", "train"}
		})
		e := w.boot()
		r := e.begin()
		r.step(e, receipt.OpensTrain, 1, nil, true)
		if c.train == nil { // trained twice on different models
			r.step(e, receipt.OpensTrain, 2, c.evaluate(w), true)
			r.step(e, receipt.OpensNone, 2, w.nodes, true)
		} else {
			r.step(e, receipt.OpensEvaluate, 1, w.nodes, true)
			r.step(e, receipt.OpensTrain, 2, c.evaluate(w), true)
			r.step(e, receipt.OpensNone, 2, c.train(w), true)
		}
		r.end(e)
		rep := verify(t, w)
		expect(t, rep, PassSimulated, "")
		warned := slices.ContainsFunc(rep.Warnings, func(s string) bool { return strings.Contains(s, "share a model and differ") })
		if got := rep.Runs[0].SmallestDifference; got != c.want || warned != (c.want > 0 && c.want < w.policy.Release.MinContributors) {
			t.Errorf("%s: smallest difference %d, want %d; warned: %t", name, got, c.want, warned)
		}
	}
}

func TestSybilNodesCountOnce(t *testing.T) {
	t.Parallel()
	for claimed, check := range map[uint64]string{10: ".steps", 2: ".step[2]", 1: ".steps"} {
		w := newWorld(t, func(p *policy.Policy) { p.Release.Dropouts = policy.DropoutsAllow })
		for range 9 {
			w.addNode("a")
		}
		e := w.boot()
		r := e.begin()
		r.step(e, receipt.OpensTrain, 1, nil, true)
		sybils := append([]*testNode{w.nodes[0]}, w.nodes[3:]...)
		r.step(e, receipt.OpensNone, 1, sybils, true, func(b *receipt.Step) { b.Members = claimed })
		r.end(e)
		expect(t, verify(t, w), Fail, check)
	}
}

func TestRunAgainstPolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*receipt.Run)
		check  string
	}{
		"app":       {func(b *receipt.Run) { b.App = cose.Digest{8} }, ".policy"},
		"rounds":    {func(b *receipt.Run) { b.Rounds = 99 }, ".policy"},
		"class":     {func(b *receipt.Run) { b.Class = receipt.ClassSelecting }, ".policy"},
		"strategy":  {func(b *receipt.Run) { b.Strategy = "krum" }, ".policy"},
		"exposure":  {func(b *receipt.Run) { b.Exposure = "individual" }, ".policy"},
		"dropouts":  {func(b *receipt.Run) { b.Dropouts = "allow" }, ".steps"},
		"config":    {func(b *receipt.Run) { b.Config = cose.Digest{8} }, ".request"},
		"requester": {func(b *receipt.Run) { b.Requester = b.Cohort }, ""},
		"members":   {func(b *receipt.Run) { b.Members = 2 }, ".steps"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			e := w.boot()
			r := e.begin(c.change)
			r.step(e, receipt.OpensNone, 0, nil, false)
			r.end(e)
			if rep := verify(t, w); c.check != "" {
				expect(t, rep, Fail, c.check)
			} else if rep.Verdict == PassSimulated {
				t.Error("verifies")
			}
		})
	}
}

func TestStatementLeftOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.boot()
	e.statement(receipt.KindRefusal, cose.Digest{}, &receipt.Refusal{Subject: cose.Digest{1}, Code: "policy"}) // signed, never logged
	r := e.begin()
	r.step(e, receipt.OpensTrain, 1, nil, true)
	r.step(e, receipt.OpensNone, 1, w.nodes, true)
	r.end(e)
	expect(t, verify(t, w), Incomplete, ".statements")
}

// TestSignedApp: an app that the policy does not list counts by the signatures that stood in
// the log before the run, by keys that nobody had denied then.
func TestSignedApp(t *testing.T) {
	t.Parallel()
	ada, bob, bundle := key("app ada"), key("app bob"), cose.Digest{0xab}
	sign := func(w *world, s *cose.Signer) {
		raw, err := policy.SignApp(s, policy.AppSignature{Federation: w.policy.FederationID(), App: "lab/app", Version: "1", Digest: bundle})
		if err != nil {
			t.Fatal(err)
		}
		w.log(raw)
	}
	deny := func(w *world, s *cose.Signer) {
		id := s.Public().ID()
		raw, err := policy.SignDenial(key("b policy"), "b", policy.Denial{Federation: w.policy.FederationID(), Kind: policy.DenyKey, Value: id[:]})
		if err != nil {
			t.Fatal(err)
		}
		w.log(raw)
	}
	for name, c := range map[string]struct {
		before, after func(w *world)
		good          bool
	}{
		"nobody":             {func(*world) {}, nil, false},
		"one":                {func(w *world) { sign(w, ada) }, nil, true},
		"afterwards":         {func(*world) {}, func(w *world) { sign(w, ada) }, false},
		"a stranger":         {func(w *world) { sign(w, key("mallory")) }, nil, false},
		"denied":             {func(w *world) { sign(w, ada); deny(w, ada) }, nil, false},
		"denied, and others": {func(w *world) { deny(w, ada); sign(w, ada); sign(w, bob) }, nil, true},
		"denied afterwards":  {func(w *world) { sign(w, ada) }, func(w *world) { deny(w, ada) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, func(p *policy.Policy) {
				a := policy.SignedApp{App: "lab/app", Signers: []cose.Key{ada.Public(), bob.Public()}, Threshold: 1, Strategies: []string{"fedavg"}, MaxRounds: 5}
				slices.SortFunc(a.Signers, func(x, y cose.Key) int { return bytes.Compare(x.Encode(), y.Encode()) })
				p.SignedApps = []policy.SignedApp{a}
			})
			w.app = bundle
			c.before(w)
			e := w.boot()
			r := e.begin()
			r.step(e, receipt.OpensTrain, 1, nil, true)
			r.step(e, receipt.OpensNone, 1, w.nodes, true)
			r.end(e)
			if c.after != nil {
				c.after(w)
				w.checkpoint("a", "b")
			}
			rep := verify(t, w)
			if !c.good {
				expect(t, rep, Fail, ".policy")
				return
			}
			expect(t, rep, PassSimulated, "")
			if x := rep.Runs[0]; x.AppName != "lab/app" || len(x.Signers) != 1 || !strings.Contains(rep.Text(), "signed by    key "+x.Signers[0].String()) {
				t.Errorf("%+v\n%s", x, rep.Text())
			}
			if since := name == "denied afterwards"; since != (len(rep.DeniedSince) == 1) {
				t.Errorf("denied since: %q", rep.DeniedSince)
			}
		})
	}
}

func TestDenials(t *testing.T) {
	t.Parallel()
	deny := func(w *world, by policy.MemberID, d policy.Denial) []byte {
		d.Federation = w.policy.FederationID()
		raw, err := policy.SignDenial(key(string(by)+" policy"), by, d)
		if err != nil {
			t.Fatal(err)
		}
		w.log(raw)
		return raw
	}
	app := func(w *world) policy.Denial {
		return policy.Denial{Kind: policy.DenyApp, Value: w.policy.Apps[0].Digest[:]}
	}
	finish := func(w *world) *Report {
		e := w.boot()
		r := e.begin()
		r.step(e, receipt.OpensTrain, 1, nil, true)
		r.step(e, receipt.OpensNone, 1, w.nodes, true)
		r.end(e)
		return verify(t, w)
	}
	t.Run("before", func(t *testing.T) {
		w := newWorld(t)
		deny(w, "b", app(w))
		expect(t, finish(w), Fail, ".denials")
	})
	t.Run("chip", func(t *testing.T) {
		w := newWorld(t)
		deny(w, "b", policy.Denial{Kind: policy.DenyChip, Value: w.policy.Platforms.SNP.Chips[0]})
		expect(t, finish(w), Fail, ".denials")
	})
	t.Run("measurement", func(t *testing.T) {
		w := newWorld(t)
		deny(w, "b", policy.Denial{Kind: policy.DenyMeasurement, Value: w.policy.Platforms.SNP.Measurements[0]})
		expect(t, finish(w), Fail, ".denials")
	})
	t.Run("node", func(t *testing.T) {
		w := newWorld(t)
		id := w.nodes[2].key.Public().ID()
		deny(w, "c", policy.Denial{Kind: policy.DenyKey, Value: id[:]})
		expect(t, finish(w), Fail, ".denials")
	})
	t.Run("something else", func(t *testing.T) {
		w := newWorld(t)
		deny(w, "b", policy.Denial{Kind: policy.DenyApp, Value: bytes.Repeat([]byte{7}, 32)})
		r := finish(w)
		expect(t, r, PassSimulated, "")
		if len(r.DeniedSince) != 0 {
			t.Errorf("denied since: %q", r.DeniedSince)
		}
	})
	t.Run("since", func(t *testing.T) {
		w, _, _ := good(t)
		deny(w, "b", app(w))
		w.checkpoint("a", "b")
		r := verify(t, w)
		expect(t, r, PassSimulated, "")
		if len(r.DeniedSince) != 1 || !strings.Contains(r.DeniedSince[0], "by b at entry 11") {
			t.Errorf("denied since: %q", r.DeniedSince)
		}
	})
	t.Run("lifted", func(t *testing.T) {
		w := newWorld(t)
		id := cose.Sum(deny(w, "b", app(w)))
		vote := func(m policy.MemberID) {
			raw, err := policy.SignLift(key(string(m)+" policy"), m, w.policy.FederationID(), id)
			if err != nil {
				t.Fatal(err)
			}
			w.log(raw)
		}
		vote("a")
		vote("a") // counts once
		expect(t, finish(w), Fail, ".denials")
		w = newWorld(t)
		id = cose.Sum(deny(w, "b", app(w)))
		vote("a")
		vote("c")
		expect(t, finish(w), PassSimulated, "")
	})
}

func TestPolicyVersions(t *testing.T) {
	t.Parallel()
	next := func(w *world, logged bool) {
		p := *w.policy
		p.Version, p.Federation, p.Previous, p.Name = 2, w.policy.FederationID(), w.policy.Digest(), "second"
		var approvals [][]byte
		for _, m := range []policy.MemberID{"a", "b"} {
			raw, err := policy.Approve(key(string(m)+" policy"), m, &p)
			if err != nil {
				t.Fatal(err)
			}
			approvals = append(approvals, raw)
			if logged {
				w.log(raw)
			}
		}
		if err := w.chain.Adopt(p.Encode(), approvals); err != nil {
			t.Fatal(err)
		}
	}
	run := func(e *testEnclave) {
		r := e.begin()
		r.step(e, receipt.OpensTrain, 1, nil, true)
		r.step(e, receipt.OpensNone, 1, e.w.nodes, true)
		r.end(e)
	}
	w := newWorld(t)
	next(w, true)
	run(w.boot())
	expect(t, verify(t, w), PassSimulated, "policy.logged")

	w = newWorld(t)
	next(w, false)
	run(w.boot())
	expect(t, verify(t, w), Incomplete, "policy.logged")

	w = newWorld(t)
	old := w.chain.Head()
	next(w, true)
	e := w.boot(func(c *attestation.Claims) { c.Policy, c.PolicyVersion = old.Digest(), 1 })
	run(e)
	expect(t, verify(t, w), Fail, ".statement")
}
