package enclave

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// resume takes what a node brings of a run (protocol F11): of a run that an enclave
// before this one began, or of one of its own whose session with the node was lost.
// The log says what the run is and how far it came; the node brings the keys.
func (e *Enclave) resume(n *node, m *session.Resume) error {
	digest := cose.Sum(m.Offer.Statement)
	if len(m.Uplink) != 32 || len(m.Tasks) > session.MaxResume || len(m.Contributions) > session.MaxResume {
		return errors.New("malformed resume")
	}
	r := e.runs[digest]
	if r == nil {
		var err error
		if logged := e.history.runs[digest]; logged != nil && logged.ended != nil {
			return e.send(n, &session.Ended{Statement: logged.ended.Raw()})
		}
		if r, err = e.revive(n, digest, m); err != nil {
			return fmt.Errorf("run %s not resumed: %w", digest.Short(), err)
		}
		defer e.resumeOthers(n, digest)
		if r.ended {
			return r.tellEnd(n, m)
		}
	}
	p := r.participants[n.id]
	if p == nil {
		return errors.New("node is not of the cohort")
	}
	u := [32]byte(m.Uplink)
	if p.uplink != nil && *p.uplink != u {
		return errors.New("node accepted before with another secret")
	}
	p.uplink = &u
	if len(m.Downlink) == 0 {
		r.send(n, &session.RunKey{Run: r.digest, Downlink: r.downlink[:], Generation: r.body.Generation})
	}
	switch {
	case r.ended:
		return r.tellEnd(n, m)
	case r.open == nil && !r.started:
		if r.accepted() == len(r.cohort) {
			r.begin()
		}
		return nil
	}
	return r.catchUp(n, m)
}

// resumeOthers takes what those nodes brought who came before the run could be revived,
// and had none of its newest steps: they have a part in it all the same.
func (e *Enclave) resumeOthers(n *node, digest Digest) {
	logged := e.history.runs[digest]
	before := logged.without
	logged.without = nil
	if e.runs[digest].ended {
		return // everybody is told
	}
	for _, id := range slices.SortedFunc(maps.Keys(before), func(a, b Digest) int { return bytes.Compare(a[:], b[:]) }) {
		other := e.nodes[id]
		if other == nil || other == n {
			continue // it brings all of it when it comes again
		}
		if err := e.resume(other, before[id]); err != nil {
			e.log.WarnContext(e.ctx, "run not resumed", "run", digest.Short(), "node", id.Short(), "reason", err.Error())
		}
	}
}

// tellEnd gives a node that came back the end of the run, and the last step if it
// missed it.
func (r *run) tellEnd(n *node, m *session.Resume) error {
	if r.ending == nil {
		return nil // it could not be signed
	}
	r.e.whenPublished(r.ending.Digest(), func() {
		if r.task != nil && findTask(m.Tasks, cose.Sum(r.task.Step)) == nil {
			r.send(n, r.task)
		}
		r.send(n, &session.Ended{Statement: r.ending.Raw()})
	})
	return nil
}

// catchUp gives a node that came back what it missed, and takes what it has answered.
func (r *run) catchUp(n *node, m *session.Resume) error {
	if r.open == nil {
		return nil
	}
	open := r.open.statement.Digest()
	if r.task != nil && findTask(m.Tasks, open) == nil {
		r.send(n, r.task)
	}
	for i := range m.Contributions {
		u, err := receipt.Parse(m.Contributions[i].Statement)
		if err != nil {
			return err
		}
		s, err := u.Verify(n.key)
		if err != nil {
			return err
		}
		if b, ok := s.Body.(*receipt.Contribution); ok && b.Step == open && r.closing == nil {
			if err := r.e.refuse(n, s.Digest(), r.e.contribution(n, &m.Contributions[i])); err != nil {
				return err
			}
		}
	}
	if c := r.closing; c != nil && c.statement != nil && c.acks[n.id] == nil {
		for i, x := range c.inputs {
			if x.node == n.id {
				r.askAck(c, i, x)
			}
		}
	}
	return nil
}

// revive rebuilds a run from the log and a node's word about its context; every word
// is checked against the run statement, which the log has.
func (e *Enclave) revive(n *node, digest Digest, m *session.Resume) (*run, error) {
	logged := e.history.runs[digest]
	switch {
	case logged == nil:
		return nil, errors.New("the log does not have it")
	case e.spent || e.retiring:
		return nil, errors.New("this instance has run a ServerApp, or makes room for one: the next one resumes it")
	case logged.statement.Policy != e.policy.Digest():
		return nil, fmt.Errorf("it began under policy %s, in force is %s", logged.statement.Policy.Short(), e.policy.Digest().Short())
	}
	body := logged.statement.Body.(*receipt.Run)
	cohort, err := receipt.ParseCohort(m.Offer.Cohort)
	if err != nil {
		return nil, err
	}
	if _, ok := cohort.Member(n.id); !ok {
		return nil, errors.New("node is not of the cohort")
	}
	switch {
	case cohort.Digest() != body.Cohort:
		return nil, errors.New("cohort is not the one that the run statement names")
	case cose.Sum(m.Offer.Config) != body.Config || cose.Sum(m.Offer.Request) != body.Request:
		return nil, errors.New("config or request is not the one that the run statement names")
	}
	r := &run{e: e, digest: digest, statement: logged.statement, body: body, request: m.Offer.Request, config: m.Offer.Config,
		credentials: m.Offer.Credentials, cohort: cohort, participants: map[Digest]*participant{}, started: true}
	for _, c := range cohort {
		r.participants[c.Node] = &participant{member: c.Member}
	}
	isCustom := body.Strategy == policy.StrategyCustom
	if !isCustom {
		if r.strategy, err = strategyOf(body.Strategy, m.Offer.Config); err != nil {
			return nil, err
		}
	}
	if r.chain, err = receipt.NewStepChain(logged.statement, cohort, verifier.StepRules(e.policy), logged.by); err != nil {
		return nil, err
	}
	released, err := r.replay(logged.steps)
	if err != nil {
		return nil, err
	}
	if err := r.chain.Succeed(e.self(), verifier.StepRules(e.policy)); err != nil {
		return nil, err
	}
	if isCustom {
		// What the ServerApp had in memory is gone, and what it saw, no other may see.
		e.runs[digest] = r
		r.fail(codeLost, "the enclave before was lost, and the ServerApp with it")
		return r, nil
	}
	e.served = true
	if len(released) == 0 {
		// Nothing was released: the run has no model that could be resumed.
		e.runs[digest] = r
		r.fail("other", "the enclave before was lost before it released the first step")
		return r, nil
	}
	// A node without the downlink secret has no step either: the secret comes first.
	if len(m.Downlink) == 32 && chunkstore.DownlinkCommit([32]byte(m.Downlink)) == body.DownlinkCommit {
		r.downlink = [32]byte(m.Downlink)
		// The newest released step that the node knows how to open. The log may show one
		// more, whose task was lost with its enclave: it is done again, with the same inputs.
		newest, _ := r.chain.Last()
		for _, step := range slices.Backward(released) {
			task := findTask(m.Tasks, step.Digest())
			if task != nil && step.Body.(*receipt.Step).Seq+1 >= newest.Body.(*receipt.Step).Seq {
				e.runs[digest] = r
				r.reopen(step, task)
				e.log.InfoContext(e.ctx, "run resumed", "run", digest.Short(), "step", r.open.body.Seq)
				return r, nil
			}
		}
	}
	return e.cannotRevive(n, r, logged, m)
}

// cannotRevive counts a node that has none of the newest steps of a run. When no other
// node of the cohort is left to ask, or none came in time, the run fails.
func (e *Enclave) cannotRevive(n *node, r *run, logged *loggedRun, m *session.Resume) (*run, error) {
	if logged.without == nil {
		logged.without = map[Digest]*session.Resume{}
		e.loop.After(e.policy.Release.StepDeadline.Duration(), func() {
			if e.runs[r.digest] == nil {
				e.runs[r.digest] = r
				r.fail("late", "no node came back in time that has the last step")
			}
		})
	}
	if logged.without[n.id] = m; len(logged.without) < len(r.cohort) {
		return nil, errors.New("the node has none of the newest steps that the log shows released; another may")
	}
	e.runs[r.digest] = r
	r.fail("other", "the enclave before was lost before any node had the last step")
	return r, nil
}

func findTask(tasks []session.Task, step Digest) *session.Task {
	for i := range tasks {
		if cose.Sum(tasks[i].Step) == step {
			return &tasks[i]
		}
	}
	return nil
}

// replay takes the steps that the log has and returns those that were released.
// Whatever came after the last is done again, with the same inputs: nodes that acked it
// ack nothing else.
func (r *run) replay(steps []loggedStep) (released []*receipt.Statement, err error) {
	for _, s := range steps {
		if s.by.Epoch > r.chain.Enclave().Epoch {
			if err := r.chain.Succeed(s.by, verifier.StepRules(r.e.policy)); err != nil {
				return nil, err
			}
		}
		if err := r.chain.Extend(s.statement); err != nil {
			return nil, err
		}
		if step, final := r.chain.Last(); final && (len(released) == 0 || released[len(released)-1] != step) {
			released = append(released, step)
		}
	}
	return released, nil
}

// reopen makes a released step the open one again; its outputs lie at the link.
func (r *run) reopen(step *receipt.Statement, task *session.Task) {
	body := step.Body.(*receipt.Step)
	r.task = task
	r.open = &openStep{statement: step, body: body, contributions: map[Digest]*contribution{}, excluded: map[Digest]receipt.Code{},
		outputs: chunkstore.Sealed{Manifest: chunkstore.Ref{OID: object.ID(task.Manifest.OID), ID: chunkstore.ID(task.Manifest.ID), Size: task.Manifest.Size}, Root: body.OutputsRoot, Count: body.OutputsCount}}
	if body.Opens == receipt.OpensNone {
		r.end(receipt.Completed, "")
		return
	}
	r.deadline(r.e.policy.Release.StepDeadline.Duration(), r.late)
	r.load()
}
