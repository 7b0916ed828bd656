package receipt

import (
	"errors"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

// sim is a run that enclaves sign by hand, statement by statement.
type sim struct {
	t      testing.TB
	cohort Cohort
	rules  Rules
	run    *Statement
	chain  *StepChain
}

type simEnclave struct {
	Enclave
	key *cose.Signer
	seq uint64
}

func newEnclave(t testing.TB, n byte) *simEnclave {
	return &simEnclave{Enclave: Enclave{Instance: ID{n}, Epoch: uint64(n), Policy: policyHead}, key: enclaveKey(t, n)}
}

func (e *simEnclave) sign(t testing.TB, kind Kind, run Digest, b any) *Statement {
	t.Helper()
	e.seq++
	s := &Statement{Kind: kind, Federation: federation, Run: run, Seq: e.seq, Prev: Digest{0xcc}, Policy: e.Policy, Issuer: EnclaveIssuer(e.Instance), Body: b}
	if _, err := Sign(s, e.key); err != nil {
		t.Fatal(err)
	}
	return s
}

func newSim(t testing.TB, e *simEnclave, change ...func(*Run, *Rules)) *sim {
	t.Helper()
	var list []Participant
	for i, m := range []string{"a", "b", "c", "v"} {
		list = append(list, Participant{Member: m, Node: Digest{byte(i + 1)}})
	}
	c, err := NewCohort(list)
	if err != nil {
		t.Fatal(err)
	}
	s := &sim{t: t, cohort: c, rules: Rules{MinContributors: 2, Dropouts: "allow", Opens: []string{OpensTrain, OpensEvaluate}, StepsPerEpoch: 10}}
	b := &Run{
		Request: Digest{1}, Requester: Digest{1}, App: Digest{2}, Config: Digest{3}, Strategy: "fedavg", Class: ClassMixing, Exposure: "aggregate", Rounds: 3,
		Cohort: c.Digest(), Nodes: 4, Members: 4, DownlinkCommit: Digest{4}, Dropouts: "allow", Numeric: "f32", Evidence: Digest{5}, RunID: 1,
	}
	for _, f := range change {
		f(b, &s.rules)
	}
	s.run = e.sign(t, KindRun, Digest{}, b)
	s.chain, err = NewStepChain(s.run, c, s.rules, e.Enclave)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// step is a good step that follows prev; inputs is who is in it, as a root.
func (s *sim) step(e *simEnclave, prev *Statement, seq, attempt uint64, inputs byte, change ...func(*Step)) *Statement {
	s.t.Helper()
	r := s.run.Body.(*Run)
	b := &Step{
		Seq: seq, Prev: prev.Digest(), Attempt: attempt, Opens: OpensTrain, Round: min(seq, 3), OutputsRoot: Digest{byte(seq), 0xaa}, OutputsCount: 1,
		Cohort: r.Cohort, Nodes: r.Nodes, App: r.App, Evidence: Digest{5}, Numeric: r.Numeric, DownlinkCommit: r.DownlinkCommit,
	}
	if inputs != 0 {
		b.InputsRoot, b.InputsCount, b.Members = Digest{inputs}, 3, 3
		b.ExcludedRoot, b.ExcludedCount, b.ExcludedCodes.Late = Digest{inputs, 1}, 1, 1
	}
	for _, f := range change {
		f(b)
	}
	return e.sign(s.t, KindStep, s.run.Digest(), b)
}

func (s *sim) releaseOf(e *simEnclave, step *Statement, change ...func(*Release)) *Statement {
	s.t.Helper()
	b := step.Body.(*Step)
	rel := &Release{Seq: b.Seq, Attempt: b.Attempt, Step: step.Digest(), AcksRoot: Digest{7}, AcksCount: b.InputsCount}
	for _, f := range change {
		f(rel)
	}
	return e.sign(s.t, KindRelease, s.run.Digest(), rel)
}

func (s *sim) endOf(e *simEnclave, seq uint64, last *Statement, outcome string) *Statement {
	s.t.Helper()
	b := &End{Seq: seq, Step: last.Digest(), Outcome: outcome}
	if outcome != Completed {
		b.Code = "test"
	}
	return e.sign(s.t, KindEnd, s.run.Digest(), b)
}

func (s *sim) extend(list ...*Statement) {
	s.t.Helper()
	for _, x := range list {
		if err := s.chain.Extend(x); err != nil {
			s.t.Fatal(err)
		}
	}
}

// refused checks that err is a refusal whose words hold want.
func refused(t testing.TB, err error, want string) {
	t.Helper()
	if !errors.Is(err, ErrStep) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want a refusal with %q", err, want)
	}
}

func TestStepChain(t *testing.T) {
	e := newEnclave(t, 1)
	s := newSim(t, e)
	refused(t, s.chain.MayOpen(Digest{1, 0xaa}), "nothing is released")
	refused(t, s.chain.MayContribute(1, Digest{1}), "no step is released")
	one := s.step(e, s.run, 1, 1, 0)
	s.extend(one)
	if err := s.chain.MayOpen(Digest{1, 0xaa}); err != nil {
		t.Error(err)
	}
	if err := s.chain.MayContribute(1, one.Digest()); err != nil {
		t.Error(err)
	}
	two := s.step(e, one, 2, 1, 9)
	s.extend(two)
	refused(t, s.chain.MayOpen(Digest{2, 0xaa}), "nothing is released")
	refused(t, s.chain.MayOpen(Digest{1, 0xaa}), "nothing is released")
	refused(t, s.chain.MayContribute(1, one.Digest()), "no step is released")
	s.extend(s.releaseOf(e, two))
	if err := s.chain.MayOpen(Digest{2, 0xaa}); err != nil {
		t.Error(err)
	}
	refused(t, s.chain.MayOpen(Digest{1, 0xaa}), "not those of step 2")
	refused(t, s.chain.MayOpen(Digest{}), "not those")
	refused(t, s.chain.MayContribute(1, one.Digest()), "want step 2")
	refused(t, s.chain.MayContribute(2, one.Digest()), "want step 2")
	last := s.step(e, two, 3, 1, 9, func(b *Step) { b.Opens, b.OutputsRoot, b.OutputsCount = OpensNone, Digest{}, 0 })
	s.extend(last, s.releaseOf(e, last))
	refused(t, s.chain.MayContribute(3, last.Digest()), "opens nothing")
	refused(t, s.chain.MayOpen(Digest{}), "not those")
	refused(t, s.chain.Extend(s.step(e, last, 4, 1, 9)), "opens nothing")
	s.extend(s.endOf(e, 3, last, Completed))
	if !s.chain.Ended() {
		t.Error("run has not ended")
	}
	refused(t, s.chain.Extend(s.endOf(e, 3, last, Completed)), "ended")
	refused(t, s.chain.MayContribute(3, last.Digest()), "ended")
}

// TestStepRefused changes a good second step in every way that a rule forbids.
func TestStepRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Step)
		want   string
	}{
		"seq skipped":         {func(b *Step) { b.Seq = 3 }, "step 3 after step 1"},
		"another predecessor": {func(b *Step) { b.Prev = Digest{1} }, "follows"},
		"another cohort":      {func(b *Step) { b.Cohort = Digest{1} }, "has cohort"},
		"smaller cohort": {func(b *Step) {
			b.Nodes, b.ExcludedCount, b.ExcludedRoot, b.ExcludedCodes = 3, 0, Digest{}, ExcludedCounts{}
		}, "has cohort"},
		"another app":              {func(b *Step) { b.App = Digest{1} }, "of app"},
		"another profile":          {func(b *Step) { b.Numeric = "f16" }, "numeric profile"},
		"not allowed":              {func(b *Step) { b.Opens = OpensQuery }, "opens query"},
		"round backwards":          {func(b *Step) { b.Round = 0 }, "of round 0"},
		"round skipped":            {func(b *Step) { b.Round = 3 }, "of round 3"},
		"another downlink key":     {func(b *Step) { b.DownlinkCommit = Digest{1} }, "another downlink key"},
		"generation skipped":       {func(b *Step) { b.Generation, b.DownlinkCommit = 2, Digest{1} }, "generation 2"},
		"generation without a key": {func(b *Step) { b.Generation = 1 }, "generation 1"},
		"node lost":                {func(b *Step) { b.InputsCount, b.Members = 2, 2 }, "2 inputs and 1 excluded"},
		"node gained":              {func(b *Step) { b.InputsCount = 4 }, "4 inputs and 1 excluded"},
		"one member":               {func(b *Step) { b.Members = 1 }, "1 contributing members"},
		"no inputs": {func(b *Step) {
			b.InputsRoot, b.InputsCount, b.Members, b.ExcludedCount, b.ExcludedCodes.Late = Digest{}, 0, 0, 4, 4
		}, "no inputs"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnclave(t, 1)
			s := newSim(t, e)
			one := s.step(e, s.run, 1, 1, 0)
			s.extend(one)
			refused(t, s.chain.Extend(s.step(e, one, 2, 1, 9, c.change)), c.want)
			// A refusal changes nothing: the good one still fits.
			s.extend(s.step(e, one, 2, 1, 9))
		})
	}
}

func TestStepRules(t *testing.T) {
	e := newEnclave(t, 1)
	t.Run("new generation", func(t *testing.T) {
		s := newSim(t, e)
		one := s.step(e, s.run, 1, 1, 0)
		s.extend(one, s.step(e, one, 2, 1, 9, func(b *Step) { b.Generation, b.DownlinkCommit = 1, Digest{44} }))
	})
	t.Run("collusion", func(t *testing.T) {
		s := newSim(t, e, func(_ *Run, r *Rules) { r.Collusion = 2 })
		one := s.step(e, s.run, 1, 1, 0)
		s.extend(one)
		refused(t, s.chain.Extend(s.step(e, one, 2, 1, 9)), "the policy wants 4")
	})
	t.Run("no dropouts", func(t *testing.T) {
		s := newSim(t, e, func(b *Run, r *Rules) { b.Dropouts, r.Dropouts = "refuse", "refuse" })
		one := s.step(e, s.run, 1, 1, 0)
		s.extend(one)
		refused(t, s.chain.Extend(s.step(e, one, 2, 1, 9)), "no dropouts")
	})
	t.Run("sampled", func(t *testing.T) {
		unasked := func(b *Step) { b.ExcludedCodes.Late, b.Unasked = 0, 1 }
		for name, c := range map[string]struct {
			class   string
			sampled bool
			want    string
		}{
			"":           {ClassCustom, true, ""},
			"by policy":  {ClassCustom, false, "is to ask all"},
			"a strategy": {ClassMixing, true, "is to ask all"},
		} {
			s := newSim(t, e, func(b *Run, r *Rules) { b.Class, r.Sampled = c.class, c.sampled })
			one := s.step(e, s.run, 1, 1, 0)
			s.extend(one)
			two := s.step(e, one, 2, 1, 9, unasked)
			if c.want == "" {
				s.extend(two)
				continue
			}
			if err := s.chain.Extend(two); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("inputs in step 1", func(t *testing.T) {
		s := newSim(t, e)
		refused(t, s.chain.Extend(s.step(e, s.run, 1, 1, 9)), "step 1 has 3 inputs")
	})
	t.Run("budget falls", func(t *testing.T) {
		s := newSim(t, e)
		one := s.step(e, s.run, 1, 1, 0, func(b *Step) { b.EpsilonMicro = 5 })
		s.extend(one)
		refused(t, s.chain.Extend(s.step(e, one, 2, 1, 9)), "falls from 5")
	})
	t.Run("steps per epoch", func(t *testing.T) {
		s := newSim(t, e, func(_ *Run, r *Rules) { r.StepsPerEpoch = 1 })
		one := s.step(e, s.run, 1, 1, 0)
		s.extend(one)
		refused(t, s.chain.Extend(s.step(e, one, 2, 1, 9)), "the policy allows 1")
	})
	t.Run("not released", func(t *testing.T) {
		s := newSim(t, e)
		one := s.step(e, s.run, 1, 1, 0)
		two := s.step(e, one, 2, 1, 9)
		s.extend(one, two)
		refused(t, s.chain.Extend(s.step(e, two, 3, 1, 9)), "was not released")
	})
	t.Run("attempts", func(t *testing.T) {
		s := newSim(t, e)
		one := s.step(e, s.run, 1, 1, 0)
		two := s.step(e, one, 2, 1, 9)
		again := s.step(e, one, 2, 3, 8) // a reader may have missed attempt 2
		s.extend(one, two, again)
		refused(t, s.chain.Extend(s.step(e, one, 2, 3, 7)), "attempt 3 of step 2 after attempt 3")
		refused(t, s.chain.Extend(s.releaseOf(e, two)), "want step 2, attempt 3")
		s.extend(s.releaseOf(e, again))
		refused(t, s.chain.Extend(s.step(e, one, 2, 4, 8)), "was released by the same instance")
	})
	t.Run("release", func(t *testing.T) {
		s := newSim(t, e)
		one := s.step(e, s.run, 1, 1, 0)
		two := s.step(e, one, 2, 1, 9)
		refused(t, s.chain.Extend(s.releaseOf(e, two)), "no step waits")
		s.extend(one)
		refused(t, s.chain.Extend(s.releaseOf(e, one, func(b *Release) { b.AcksCount = 1 })), "no step waits")
		s.extend(two)
		refused(t, s.chain.Extend(s.releaseOf(e, two, func(b *Release) { b.AcksCount = 2 })), "2 acks of 3 inputs")
		s.extend(s.releaseOf(e, two))
		refused(t, s.chain.Extend(s.releaseOf(e, two)), "no step waits")
	})
	t.Run("end", func(t *testing.T) {
		s := newSim(t, e)
		refused(t, s.chain.Extend(s.endOf(e, 1, s.run, Failed)), "want step 0")
		one := s.step(e, s.run, 1, 1, 0)
		two := s.step(e, one, 2, 1, 9)
		s.extend(one, two)
		refused(t, s.chain.Extend(s.endOf(e, 2, two, Failed)), "want step 1") // never released
		refused(t, s.chain.Extend(s.endOf(e, 1, one, Completed)), "called completed")
		s.extend(s.endOf(e, 1, one, Stopped))
	})
	t.Run("strangers", func(t *testing.T) {
		s := newSim(t, e)
		refused(t, s.chain.Extend(s.step(newEnclave(t, 2), s.run, 1, 1, 0)), "the run is with instance")
		other := newSim(t, e, func(b *Run, _ *Rules) { b.RunID = 2 })
		refused(t, s.chain.Extend(other.step(e, other.run, 1, 1, 0)), "is of run")
		refused(t, s.chain.Extend(s.run), "")
		unsigned := *s.step(e, s.run, 1, 1, 0)
		unsigned.raw = nil
		refused(t, s.chain.Extend(&unsigned), "not signed")
		newer := *e
		newer.Policy = Digest{0x71}
		refused(t, s.chain.Extend(s.step(&newer, s.run, 1, 1, 0)), "under policy")
	})
}

func TestNewStepChainRefuses(t *testing.T) {
	e := newEnclave(t, 1)
	s := newSim(t, e)
	for name, f := range map[string]func() error{
		"no run": func() error {
			_, err := NewStepChain(s.step(e, s.run, 1, 1, 0), s.cohort, s.rules, e.Enclave)
			return err
		},
		"another cohort":  func() error { _, err := NewStepChain(s.run, s.cohort[:3], s.rules, e.Enclave); return err },
		"another enclave": func() error { _, err := NewStepChain(s.run, s.cohort, s.rules, newEnclave(t, 2).Enclave); return err },
		"other evidence": func() error {
			x := e.Enclave
			x.Evidence = Digest{9}
			_, err := NewStepChain(s.run, s.cohort, s.rules, x)
			return err
		},
		"other dropouts": func() error {
			r := s.rules
			r.Dropouts = "refuse"
			_, err := NewStepChain(s.run, s.cohort, r, e.Enclave)
			return err
		},
		"too few members": func() error {
			r := s.rules
			r.MinContributors = 5
			_, err := NewStepChain(s.run, s.cohort, r, e.Enclave)
			return err
		},
	} {
		if err := f(); !errors.Is(err, ErrStep) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSuccession(t *testing.T) {
	a, b := newEnclave(t, 1), newEnclave(t, 2)
	start := func() (*sim, *Statement, *Statement) {
		s := newSim(t, a)
		one := s.step(a, s.run, 1, 1, 0)
		two := s.step(a, one, 2, 1, 9)
		s.extend(one, two)
		return s, one, two
	}
	t.Run("repeats", func(t *testing.T) {
		s, one, two := start()
		if err := s.chain.Succeed(b.Enclave, s.rules); err != nil {
			t.Fatal(err)
		}
		refused(t, s.chain.Extend(s.releaseOf(a, two)), "the run is with instance") // the zombie
		refused(t, s.chain.Extend(s.releaseOf(b, two)), "another instance signed")
		again := s.step(b, one, 2, 1, 8)
		s.extend(again, s.releaseOf(b, again), s.step(b, again, 3, 1, 8))
	})
	t.Run("repeats what was released", func(t *testing.T) {
		s, one, two := start()
		s.extend(s.releaseOf(a, two))
		if err := s.chain.Succeed(b.Enclave, s.rules); err != nil {
			t.Fatal(err)
		}
		refused(t, s.chain.Extend(s.step(b, one, 2, 1, 8)), "a successor repeats it with")
		again := s.step(b, one, 2, 1, 9)
		s.extend(again)
		refused(t, s.chain.MayContribute(2, two.Digest()), "no step is released")
		s.extend(s.endOf(b, 2, two, Failed)) // what is out is A's
	})
	t.Run("goes on", func(t *testing.T) {
		s, _, two := start()
		s.extend(s.releaseOf(a, two))
		if err := s.chain.Succeed(b.Enclave, s.rules); err != nil {
			t.Fatal(err)
		}
		s.extend(s.step(b, two, 3, 1, 8))
	})
	t.Run("epochs grow", func(t *testing.T) {
		s, _, _ := start()
		same := b.Enclave
		same.Epoch = 1
		refused(t, s.chain.Succeed(same, s.rules), "does not follow epoch 1")
		back := a.Enclave
		back.Epoch = 5
		refused(t, s.chain.Succeed(back, s.rules), "was here before")
	})
}
