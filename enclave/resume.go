package enclave

import (
	"errors"
	"fmt"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/session"
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
		if r, err = e.revive(digest, m); err != nil {
			return fmt.Errorf("run %s not resumed: %w", digest.Short(), err)
		}
		if r == nil {
			return nil // it has ended; the node's mirror will show the end
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
	if r.open == nil && !r.started {
		if r.accepted() == len(r.cohort) {
			r.begin()
		}
		return nil
	}
	return r.catchUp(n, m)
}

// catchUp gives a node that came back what it missed, and takes what it has answered.
func (r *run) catchUp(n *node, m *session.Resume) error {
	if r.open == nil {
		return nil
	}
	open := r.open.statement.Digest()
	has := false
	for _, t := range m.Tasks {
		has = has || cose.Sum(t.Step) == open
	}
	if !has && r.task != nil {
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
func (e *Enclave) revive(digest Digest, m *session.Resume) (*run, error) {
	logged := e.history.runs[digest]
	switch {
	case logged == nil:
		return nil, errors.New("the log does not have it")
	case logged.ended:
		return nil, nil
	case logged.statement.Policy != e.policy.Digest():
		return nil, fmt.Errorf("it began under policy %s, in force is %s", logged.statement.Policy.Short(), e.policy.Digest().Short())
	case len(m.Downlink) != 32:
		return nil, errors.New("the node has no downlink secret; another will")
	}
	body := logged.statement.Body.(*receipt.Run)
	cohort, err := receipt.ParseCohort(m.Offer.Cohort)
	if err != nil {
		return nil, err
	}
	down := [32]byte(m.Downlink)
	switch {
	case cohort.Digest() != body.Cohort:
		return nil, errors.New("cohort is not the one that the run statement names")
	case cose.Sum(m.Offer.Config) != body.Config || cose.Sum(m.Offer.Request) != body.Request:
		return nil, errors.New("config or request is not the one that the run statement names")
	case chunkstore.DownlinkCommit(down) != body.DownlinkCommit:
		return nil, errors.New("downlink secret is not the one that the run statement commits to")
	}
	r := &run{e: e, digest: digest, statement: logged.statement, body: body, request: m.Offer.Request, config: m.Offer.Config,
		credentials: m.Offer.Credentials, cohort: cohort, participants: map[Digest]*participant{}, downlink: down, started: true}
	for _, c := range cohort {
		r.participants[c.Node] = &participant{member: c.Member}
	}
	if r.chain, err = receipt.NewStepChain(logged.statement, cohort, verifier.StepRules(e.policy), logged.by); err != nil {
		return nil, err
	}
	last, err := r.replay(logged.steps)
	if err != nil {
		return nil, err
	}
	if err := r.chain.Succeed(e.self(), verifier.StepRules(e.policy)); err != nil {
		return nil, err
	}
	e.runs[digest] = r
	if last == nil {
		// Nothing was released: the run has no model that could be resumed.
		r.fail("other", "the enclave before was lost before it released the first step")
		return nil, nil
	}
	task := findTask(m.Tasks, last.Digest())
	if task == nil {
		delete(e.runs, digest)
		return nil, fmt.Errorf("the node does not have step %d, the last that the log shows released", last.Body.(*receipt.Step).Seq)
	}
	r.reopen(last, task)
	e.log.InfoContext(e.ctx, "run resumed", "run", digest.Short(), "step", r.open.body.Seq)
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

// replay takes the steps that the log has and returns the last that was released.
// Whatever came after it is done again, with the same inputs: nodes that acked it ack
// nothing else.
func (r *run) replay(steps []loggedStep) (last *receipt.Statement, err error) {
	for _, s := range steps {
		if s.by.Epoch > r.chain.Enclave().Epoch {
			if err := r.chain.Succeed(s.by, verifier.StepRules(r.e.policy)); err != nil {
				return nil, err
			}
		}
		if err := r.chain.Extend(s.statement); err != nil {
			return nil, err
		}
		if step, released := r.chain.Last(); step != nil && released {
			last = step
		}
	}
	return last, nil
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
