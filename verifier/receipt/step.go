package receipt

import (
	"errors"
	"fmt"
	"slices"
)

// ErrStep is wrapped by every refusal of a [StepChain]. The text says which rule.
var ErrStep = errors.New("step refused")

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrStep, fmt.Errorf(format, args...))
}

// Rules is what a StepChain needs to know of the policy, as plain values.
type Rules struct {
	MinContributors uint64   // distinct members with weight above 0 in every release
	Collusion       uint64   // t: at least t+2 members are demanded
	Dropouts        string   // "refuse": inputs must be the whole cohort; "allow"
	Sampled         bool     // a ServerApp may ask some of the cohort
	Opens           []string // what a step may open, beside [OpensNone]
	StepsPerEpoch   uint64   // steps that one enclave epoch may sign in this run
}

func (r Rules) contributors() uint64 { return max(r.MinContributors, r.Collusion+2, 2) }

// Enclave is one enclave instance as its appraised evidence and the log give it.
type Enclave struct {
	Instance ID
	Epoch    uint64
	Policy   Digest // policy head in its claims: a new version needs a new epoch
	// Evidence is the digest of the evidence STATEMENT that its run and step
	// statements must name. None leaves that out: an enclave has an evidence
	// statement for every nonce window, and a node knows only that of its own.
	Evidence Digest
}

// speaksUnder reports whether a statement that names evidence may be the
// enclave's.
func (e Enclave) speaksUnder(evidence Digest) bool {
	return e.Evidence.IsZero() || e.Evidence == evidence
}

// StepChain is the rules that the steps of one run obey, in one place: the enclave
// asks it before it signs, the node before it opens, contributes and acks, the
// verifier when it replays the log. It is pure and holds the run's state; the
// statements that it takes must come out of [Unverified.Verify]. A refused
// statement leaves it unchanged. It is not safe for concurrent use.
//
// The life of a step: [StepChain.Extend] takes it, every node in it acks it
// ([StepChain.MayAck]), the release statement makes it final (Extend again), and
// only then may a node open what it names ([StepChain.MayOpen]) and answer it
// ([StepChain.MayContribute]). Step 1 has no inputs, so nobody acks it and it is
// final at once.
//
// One step (run, seq) may have several attempts: of one instance, when a
// contributor did not ack in time, and of a successor, when an enclave was lost.
// Attempts of one instance grow; a reader that was left out of one does not see
// it, so gaps are no fault.
type StepChain struct {
	run       *Statement
	body      *Run
	rules     Rules
	enclaves  map[ID]Enclave
	current   Enclave // whose statements count
	signed    uint64  // steps of current
	last      *Statement
	step      *Step      // body of last; nil before step 1
	released  bool       // last is final
	base      *Statement // what last follows: a released step or the run statement
	baseRound uint64
	baseGen   generation
	final     final
	ended     bool
}

// final is the newest step that was released, or the run.
type final struct {
	statement *Statement
	seq       uint64
	opens     string
}

type generation struct {
	number uint32
	commit Digest
}

// NewStepChain begins the chain of a run. enclave is the one that signed run,
// whose evidence was appraised.
func NewStepChain(run *Statement, cohort Cohort, rules Rules, enclave Enclave) (*StepChain, error) {
	b, ok := run.Body.(*Run)
	if !ok || run.raw == nil {
		return nil, refuse("%s is no signed run statement", run.Kind)
	}
	instance, _ := run.Instance()
	switch {
	case instance != enclave.Instance || !enclave.speaksUnder(b.Evidence):
		return nil, refuse("run is signed by instance %s under evidence %s, want %s under %s",
			instance, b.Evidence.Short(), enclave.Instance, enclave.Evidence.Short())
	case b.Cohort != cohort.Digest() || b.Nodes != uint64(len(cohort)) || b.Members != cohort.Members():
		return nil, refuse("run names a cohort of %d nodes of %d members, %s; this one has %d of %d, %s",
			b.Nodes, b.Members, b.Cohort.Short(), len(cohort), cohort.Members(), cohort.Digest().Short())
	case b.Members < rules.contributors():
		return nil, refuse("cohort of %d members, the policy wants %d", b.Members, rules.contributors())
	case b.Dropouts != rules.Dropouts || b.Dropouts != "refuse" && b.Dropouts != "allow":
		return nil, refuse("run says dropouts %q, the policy %q", b.Dropouts, rules.Dropouts)
	case run.Policy != enclave.Policy:
		return nil, refuse("run is under policy %s, its enclave under %s", run.Policy.Short(), enclave.Policy.Short())
	case enclave.Epoch == 0:
		return nil, refuse("enclave of epoch 0")
	}
	return &StepChain{
		run: run, body: b, rules: rules, current: enclave, enclaves: map[ID]Enclave{enclave.Instance: enclave},
		base: run, baseGen: generation{b.Generation, b.DownlinkCommit}, final: final{statement: run},
	}, nil
}

// Succeed says that enclave goes on with the run: its evidence was appraised, it
// is in the log, and its epoch is higher than that of every instance before
// (protocol F11, F14). rules are those of its policy. Statements of the instances
// before are refused from now on.
func (c *StepChain) Succeed(enclave Enclave, rules Rules) error {
	if c.ended {
		return refuse("run has ended")
	}
	if enclave.Epoch <= c.current.Epoch {
		return refuse("epoch %d of instance %s does not follow epoch %d", enclave.Epoch, enclave.Instance, c.current.Epoch)
	}
	if _, ok := c.enclaves[enclave.Instance]; ok {
		return refuse("instance %s was here before", enclave.Instance)
	}
	c.enclaves[enclave.Instance] = enclave
	c.current, c.rules, c.signed = enclave, rules, 0
	return nil
}

// Extend takes the next statement of kind step, release or end.
func (c *StepChain) Extend(s *Statement) error {
	if err := c.checkIssuer(s); err != nil {
		return err
	}
	switch b := s.Body.(type) {
	case *Step:
		return c.extendStep(s, b)
	case *Release:
		return c.release(b)
	case *End:
		return c.end(b)
	}
	return refuse("%s is no step, release or end", s.Kind)
}

func (c *StepChain) checkIssuer(s *Statement) error {
	instance, _ := s.Instance()
	switch {
	case s.raw == nil:
		return refuse("%s is not signed", s.Kind)
	case c.ended:
		return refuse("run has ended")
	case s.Federation != c.run.Federation:
		return refuse("%s is of federation %s, the run of %s", s.Kind, s.Federation.Short(), c.run.Federation.Short())
	case s.Run != c.run.Digest():
		return refuse("%s is of run %s, want %s", s.Kind, s.Run.Short(), c.run.Digest().Short())
	case instance != c.current.Instance:
		return refuse("%s is signed by %s, the run is with instance %s", s.Kind, s.Issuer, c.current.Instance)
	case s.Policy != c.current.Policy:
		return refuse("%s is under policy %s, its enclave under %s", s.Kind, s.Policy.Short(), c.current.Policy.Short())
	}
	return nil
}

func (c *StepChain) extendStep(s *Statement, b *Step) error {
	base, round, gen := c.base, c.baseRound, c.baseGen
	switch seq := c.seq(); {
	case c.step == nil && b.Seq == 1, c.step != nil && b.Seq == seq:
		if err := c.checkRepeat(s, b); err != nil {
			return err
		}
	case c.step != nil && b.Seq == seq+1:
		if !c.released {
			return refuse("step %d follows step %d, which was not released", b.Seq, seq)
		}
		if c.step.Opens == OpensNone {
			return refuse("step %d follows step %d, which opens nothing", b.Seq, seq)
		}
		base, round, gen = c.last, c.step.Round, generation{c.step.Generation, c.step.DownlinkCommit}
	default:
		return refuse("step %d after step %d", b.Seq, seq)
	}
	if b.Prev != base.Digest() {
		return refuse("step %d follows %s, want %s", b.Seq, b.Prev.Short(), base.Digest().Short())
	}
	if err := c.checkTerms(b, round, gen); err != nil {
		return err
	}
	if err := c.checkInputs(b); err != nil {
		return err
	}
	c.base, c.baseRound, c.baseGen = base, round, gen
	c.last, c.step, c.released = s, b, false
	c.signed++
	if b.InputsCount == 0 { // nobody's data is in it: nobody acks it
		c.setReleased()
	}
	return nil
}

// checkRepeat judges another attempt of the last step.
func (c *StepChain) checkRepeat(s *Statement, b *Step) error {
	if c.step == nil {
		return nil
	}
	instance, _ := s.Instance()
	before, _ := c.last.Instance()
	switch {
	case instance == before && c.released:
		return refuse("step %d was released by the same instance", b.Seq)
	case instance == before && b.Attempt <= c.step.Attempt:
		return refuse("attempt %d of step %d after attempt %d", b.Attempt, b.Seq, c.step.Attempt)
	case instance != before && c.released && !sameInputs(inputsOf(b), inputsOf(c.step)):
		return refuse("step %d was released with inputs %s, a successor repeats it with %s", b.Seq, c.step.InputsRoot.Short(), b.InputsRoot.Short())
	case b.EpsilonMicro < c.step.EpsilonMicro:
		return refuse("privacy spent falls from %d to %d", c.step.EpsilonMicro, b.EpsilonMicro)
	}
	return nil
}

// checkTerms judges what a step must have in common with the run and with the
// step that it follows.
func (c *StepChain) checkTerms(b *Step, round uint64, gen generation) error {
	r := c.body
	switch {
	case b.Cohort != r.Cohort || b.Nodes != r.Nodes:
		return refuse("step %d has cohort %s of %d nodes, the run %s of %d", b.Seq, b.Cohort.Short(), b.Nodes, r.Cohort.Short(), r.Nodes)
	case b.App != r.App:
		return refuse("step %d is of app %s, the run of %s", b.Seq, b.App.Short(), r.App.Short())
	case b.Numeric != r.Numeric:
		return refuse("step %d has numeric profile %q, the run %q", b.Seq, b.Numeric, r.Numeric)
	case !c.current.speaksUnder(b.Evidence):
		return refuse("step %d names evidence %s, its enclave has %s", b.Seq, b.Evidence.Short(), c.current.Evidence.Short())
	case c.signed >= c.rules.StepsPerEpoch:
		return refuse("step %d is number %d of epoch %d, the policy allows %d", b.Seq, c.signed+1, c.current.Epoch, c.rules.StepsPerEpoch)
	case b.Opens != OpensNone && !slices.Contains(c.rules.Opens, b.Opens):
		return refuse("step %d opens %s, the policy allows %q", b.Seq, b.Opens, c.rules.Opens)
	case b.Round < round || b.Round > round+1 || b.Round > r.Rounds:
		return refuse("step %d is of round %d after round %d of %d", b.Seq, b.Round, round, r.Rounds)
	case b.Generation == gen.number && b.DownlinkCommit != gen.commit:
		return refuse("step %d has another downlink key in generation %d", b.Seq, b.Generation)
	case b.Generation != gen.number && b.Generation != gen.number+1:
		return refuse("step %d has downlink generation %d after %d", b.Seq, b.Generation, gen.number)
	case b.Generation == gen.number+1 && b.DownlinkCommit == gen.commit:
		return refuse("step %d has the downlink key of generation %d in generation %d", b.Seq, gen.number, b.Generation)
	case c.step != nil && b.EpsilonMicro < c.step.EpsilonMicro:
		return refuse("privacy spent falls from %d to %d", c.step.EpsilonMicro, b.EpsilonMicro)
	}
	return nil
}

// checkInputs judges who is in a step: nobody in step 1, and in every other step
// each node of the cohort either contributed or is excluded.
func (c *StepChain) checkInputs(b *Step) error {
	if b.Seq == 1 {
		if b.InputsCount != 0 || b.ExcludedCount != 0 || b.Members != 0 { // nor Unasked, a part of ExcludedCount
			return refuse("step 1 has %d inputs and %d excluded nodes", b.InputsCount, b.ExcludedCount)
		}
		return nil
	}
	switch want := c.rules.contributors(); {
	case b.InputsCount == 0:
		return refuse("step %d has no inputs", b.Seq)
	case b.InputsCount+b.ExcludedCount != b.Nodes:
		return refuse("step %d has %d inputs and %d excluded nodes, the cohort %d", b.Seq, b.InputsCount, b.ExcludedCount, b.Nodes)
	case b.Members < want:
		return refuse("step %d counts %d contributing members, the policy wants %d", b.Seq, b.Members, want)
	case b.Members > c.body.Members:
		return refuse("step %d counts %d contributing members, the cohort has %d", b.Seq, b.Members, c.body.Members)
	case c.body.Dropouts == "refuse" && b.ExcludedCount != 0:
		return refuse("step %d excludes %d nodes, the run allows no dropouts", b.Seq, b.ExcludedCount)
	case b.Unasked > 0 && (c.body.Class != ClassCustom || !c.rules.Sampled):
		return refuse("step %d asked %d nodes less than the cohort has, and is to ask all", b.Seq, b.Unasked)
	}
	return nil
}

func (c *StepChain) release(b *Release) error {
	switch {
	case c.step == nil || c.released:
		return refuse("release of step %d: no step waits for one", b.Seq)
	case b.Step != c.last.Digest() || b.Seq != c.step.Seq || b.Attempt != c.step.Attempt:
		return refuse("release of step %d, attempt %d (%s), want step %d, attempt %d (%s)",
			b.Seq, b.Attempt, b.Step.Short(), c.step.Seq, c.step.Attempt, c.last.Digest().Short())
	case b.AcksCount != c.step.InputsCount:
		return refuse("step %d is released with %d acks of %d inputs", b.Seq, b.AcksCount, c.step.InputsCount)
	}
	// A successor cannot release what it did not sign: it repeats the step.
	if instance, _ := c.last.Instance(); instance != c.current.Instance {
		return refuse("release of step %d, which another instance signed", b.Seq)
	}
	c.setReleased()
	return nil
}

func (c *StepChain) end(b *End) error {
	last := c.final
	switch {
	case b.Seq != last.seq || b.Step != last.statement.Digest():
		return refuse("end after step %d (%s), want step %d (%s)", b.Seq, b.Step.Short(), last.seq, last.statement.Digest().Short())
	case b.Outcome == Completed && last.opens != OpensNone:
		return refuse("run is called completed, but step %d opens %q", last.seq, last.opens)
	}
	c.ended = true
	return nil
}

func (c *StepChain) setReleased() {
	c.released = true
	c.final = final{c.last, c.step.Seq, c.step.Opens}
}

func (c *StepChain) seq() uint64 {
	if c.step == nil {
		return 0
	}
	return c.step.Seq
}

// Enclave returns the instance whose statements count now.
func (c *StepChain) Enclave() Enclave { return c.current }

// Ended reports whether the run has an end statement.
func (c *StepChain) Ended() bool { return c.ended }

// Last returns the newest step that [StepChain.Extend] took and whether it is
// final; nil before step 1.
func (c *StepChain) Last() (step *Statement, released bool) { return c.last, c.released }

// Final returns the newest step that is final, with its sequence number; before step 1
// that is the run statement, number 0. It is what an end statement names.
func (c *StepChain) Final() (seq uint64, step *Statement) { return c.final.seq, c.final.statement }

// MayOpen says whether a node may open chunks under outputsRoot: only the outputs
// of the newest step, once it is final (protocol F1).
func (c *StepChain) MayOpen(outputsRoot Digest) error {
	switch {
	case c.step == nil || !c.released:
		return refuse("nothing is released that could be opened")
	case c.step.OutputsRoot.IsZero() || c.step.OutputsRoot != outputsRoot:
		return refuse("outputs %s are not those of step %d, %s", outputsRoot.Short(), c.step.Seq, c.step.OutputsRoot.Short())
	}
	return nil
}

// MayContribute says whether a contribution that answers step seq with this
// digest may be made, and accepted: only the newest step, once it is final. Where an
// enclave was lost before it released the newest step, its successor does that step
// again, from answers to the last that was released.
func (c *StepChain) MayContribute(seq uint64, step Digest) error {
	open := c.final
	switch {
	case c.ended:
		return refuse("run has ended")
	case open.seq == 0 || !c.released && !c.orphaned():
		return refuse("no step is released that could be answered")
	case open.opens == OpensNone:
		return refuse("step %d opens nothing", open.seq)
	case seq != open.seq || step != open.statement.Digest():
		return refuse("answers step %d (%s), want step %d (%s)", seq, step.Short(), open.seq, open.statement.Digest().Short())
	}
	return nil
}

// orphaned reports whether the newest step is of an instance that was succeeded.
func (c *StepChain) orphaned() bool {
	instance, _ := c.last.Instance()
	return instance != c.current.Instance
}
