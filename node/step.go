package node

import (
	"errors"
	"fmt"
	"slices"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// task is a released step.
type task struct {
	msg     session.Task
	step    *receipt.Statement
	body    *receipt.Step
	working chan struct{} // closed when the job that answers it has ended; nil before
	giveUp  func(error)   // ends that job, unless it writes the final model; nil before
}

// errMovedOn is why a job that answers a step is ended before it has.
var errMovedOn = errors.New("the run went on without this node's answer")

// abandon ends what still works on a step whose answer nobody waits for: an app may take
// for ever.
func (t *task) abandon() {
	if t != nil && t.giveUp != nil && t.body.Opens != receipt.OpensNone {
		t.giveUp(errMovedOn)
	}
}

// extend takes a statement of the enclave into the run's chain; the chain has the
// rules. A repeated one changes nothing.
func (r *run) extend(raw []byte) (*receipt.Statement, error) {
	u, err := receipt.Parse(raw)
	if err != nil {
		return nil, err
	}
	key, by, ok := r.n.history.epochs.KeyOf(u.Issuer())
	if !ok {
		return nil, errors.New("signed by an enclave that the log does not know")
	}
	s, err := u.Verify(key)
	if err != nil {
		return nil, err
	}
	if last, released := r.chain.Last(); last != nil && last.Digest() == s.Digest() {
		return s, nil
	} else if b, ok := s.Body.(*receipt.Release); ok && released && last != nil && b.Step == last.Digest() {
		return s, nil
	}
	if by.Epoch > r.chain.Enclave().Epoch {
		if err := r.chain.Succeed(by, verifier.StepRules(r.n.policy)); err != nil {
			return nil, err
		}
	}
	if err := r.chain.Extend(s); err != nil {
		return nil, err
	}
	if r.recent = append(r.recent, raw); len(r.recent) > maxRecent {
		r.recent = r.recent[1:]
	}
	return s, nil
}

// maxRecent is more statements than an enclave may have unpublished: two a step.
const maxRecent = 2 * session.MaxResume

// take follows a released step: its statement and its release.
func (r *run) take(t *session.Task) error {
	s, err := r.extend(t.Step)
	if err != nil {
		return err
	}
	body, ok := s.Body.(*receipt.Step)
	if !ok {
		return fmt.Errorf("task is a %s", s.Kind)
	}
	if body.InputsCount > 0 {
		if _, err := r.extend(t.Release); err != nil {
			return err
		}
	}
	if err := r.chain.MayOpen(body.OutputsRoot); err != nil {
		return err
	}
	if r.task == nil || r.task.step.Digest() != s.Digest() {
		r.task = &task{msg: *t, step: s, body: body}
	}
	return nil
}

// newTask takes a released step, durably, and has the app answer it.
func (n *Node) newTask(m *session.Task) error {
	u, err := receipt.Parse(m.Step)
	if err != nil {
		return err
	}
	r := n.runs[u.Run()]
	if r == nil {
		return fmt.Errorf("task of unknown run %s", u.Run().Short())
	}
	if r.down == nil {
		return fmt.Errorf("task of run %s before its key", r.digest.Short())
	}
	before := r.task
	if err := r.take(m); err != nil {
		n.log.WarnContext(n.ctx, "task refused", "run", r.digest.Short(), "reason", err.Error())
		n.tell(Event{Kind: "refused", Run: r.digest, Reason: err.Error()})
		return err
	}
	if before == r.task {
		return nil // again
	}
	before.abandon()
	if err := n.journal.Task(r.digest, m); err != nil {
		n.loop.Stop(err)
		return err
	}
	n.answer(r)
	if r.ending != nil {
		return n.runEnded(r.ending)
	}
	return nil
}

// mayServe asks the ledger of tasks (protocol F17): a task on a model that this node
// has answered before, with a cohort that differs by few members, would show their
// difference. The model is told by its plain arrays: what seals it is new in every run.
func (n *Node) mayServe(r *run, model object.ID) error {
	if err := n.appDenied(r); err != nil {
		return err
	}
	var members []string
	for _, p := range r.cohort {
		members = append(members, p.Member)
	}
	members = slices.Compact(members)
	line := journal.Served{App: r.body.App, Config: r.body.Config, Model: Digest(model), Members: members}
	var err error
	known := false
	n.journal.View(func(s *journal.State) {
		for _, l := range s.Ledger {
			if l.App != line.App || l.Config != line.Config || l.Model != line.Model {
				continue
			}
			d := difference(l.Members, members)
			known = known || d == 0
			if d > 0 && uint64(d) < n.policy.Release.MinContributors {
				err = fmt.Errorf("this node answered a task on the same model with a cohort that differs by %d members; the difference would show them", d)
			}
		}
	})
	if err != nil || known {
		return err
	}
	return n.journal.Serve(line)
}

// difference counts the members that are in one of two sorted lists only.
func difference(a, b []string) (count int) {
	for _, x := range a {
		if !slices.Contains(b, x) {
			count++
		}
	}
	for _, x := range b {
		if !slices.Contains(a, x) {
			count++
		}
	}
	return count
}

func (n *Node) admitted(m *session.Admitted) error {
	for _, r := range n.runs {
		if r.task == nil {
			continue
		}
		sent := r.sent[r.task.step.Digest()]
		if sent == nil || sent.Digest() != m.Contribution {
			continue
		}
		c := sent.Body.(*receipt.Contribution)
		if err := receipt.VerifyReceipt(merkle.ChunkEntry(c.Manifest), m.Receipt, n.enclave.key, receipt.Own(receipt.ReceiptHeader{
			Issuer: receipt.EnclaveIssuer(n.enclave.Instance), Subject: n.fed.String(),
			Origin: receipt.ContributionOrigin(m.Contribution), Size: c.Count,
		}).ForRoot(c.ChunkRoot)); err != nil {
			return fmt.Errorf("receipt of the contribution: %w", err)
		}
		n.tell(Event{Kind: "admitted", Run: r.digest, Seq: c.Seq})
		return nil
	}
	return nil
}

// ackRequest signs for a step that this node is in, once and for ever.
func (n *Node) ackRequest(m *session.AckRequest) error {
	u, err := receipt.Parse(m.Step)
	if err != nil {
		return err
	}
	r := n.runs[u.Run()]
	if r == nil {
		return fmt.Errorf("step of unknown run %s", u.Run().Short())
	}
	if err := n.ackStep(r, m); err != nil {
		n.log.WarnContext(n.ctx, "ack refused", "run", r.digest.Short(), "reason", err.Error())
		e := Event{Kind: "ack-refused", Run: r.digest, Reason: err.Error()}
		n.tell(e)
		return errors.Join(err, n.send(&session.AckRefused{Run: r.digest, Step: u.Digest(), Code: "policy"}))
	}
	return nil
}

func (n *Node) ackStep(r *run, m *session.AckRequest) error {
	var acked []receipt.Acked
	var epoch uint64
	n.journal.View(func(s *journal.State) { acked, epoch = slices.Clone(s.Acked), s.Epoch })
	step, err := r.extend(m.Step)
	if err != nil {
		return err
	}
	body, ok := step.Body.(*receipt.Step)
	if !ok {
		return fmt.Errorf("ack asked for a %s", step.Kind)
	}
	if step.Policy != n.policy.Digest() {
		return fmt.Errorf("step under policy %s, this node follows %s", step.Policy.Short(), n.policy.Digest().Short())
	}
	if err := errors.Join(r.isInput(body, m), n.suppressed(), n.appDenied(r)); err != nil {
		return err
	}
	record, err := r.chain.MayAck(acked, step, epoch)
	if err != nil {
		return err
	}
	instance, _ := step.Instance()
	ack := &receipt.Ack{Seq: body.Seq, Attempt: body.Attempt, Step: step.Digest(), Instance: instance, Denials: n.history.denials.Digest()}
	if h := n.history.head; h != nil {
		ack.Checkpoint = receipt.Checkpoint{Size: h.Size, Root: h.Root}
	}
	s, err := n.sign(receipt.KindAck, r.digest, ack)
	if err != nil {
		return err
	}
	if err := n.journal.Acked(s, record); err != nil {
		n.loop.Stop(err)
		return err
	}
	n.tell(Event{Kind: "acked", Run: r.digest, Seq: body.Seq, Inputs: body.InputsCount, Excluded: body.ExcludedCount})
	return n.send(&session.Ack{Statement: s.Raw()})
}

// isInput checks that this node's own contribution is among the step's inputs, and
// that the excluded are those that the statement counts.
func (r *run) isInput(body *receipt.Step, m *session.AckRequest) error {
	excluded, err := receipt.ParseExcluded(m.Excluded)
	if err != nil {
		return err
	}
	if excluded.Root() != body.ExcludedRoot || uint64(len(excluded)) != body.ExcludedCount {
		return errors.New("the excluded nodes are not those of the step statement")
	}
	sent := r.sent[body.Prev]
	if sent == nil {
		return errors.New("this node has no contribution that could be in the step")
	}
	proof := receipt.Proof{Index: m.Index, Size: body.InputsCount, Path: m.Path}
	if err := proof.Verify(merkle.InputEntry(sent.Digest()), body.InputsCount, body.InputsRoot); err != nil {
		return fmt.Errorf("this node's contribution is not among the inputs: %w", err)
	}
	return nil
}
