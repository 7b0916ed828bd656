package enclave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/verifier/receipt"
)

// closing is the step that waits for its nodes' acks: what closes one batch and
// opens the next.
type closing struct {
	inputs    []*contribution // sorted by node id
	excluded  receipt.Excluded
	members   uint64
	opens     string
	round     uint64
	unasked   []Digest // nodes that what it opens is not for
	attempt   uint64
	produce   produce
	totals    object.MetricRecord // of the inputs, where a ServerApp aggregates
	next      *model
	outputs   chunkstore.Sealed
	statement *receipt.Statement
	tree      receipt.Tree
	acks      map[Digest][]byte // by node: the raw ack
}

// updates are what the inputs hold, in their order.
func (c *closing) updates() (list []*update) {
	for _, x := range c.inputs {
		list = append(list, x.update)
	}
	return list
}

// close ends the collecting: what was admitted is aggregated, and the step is
// proposed to those who are in it.
func (r *run) close() {
	r.cancelDeadline()
	c := &closing{attempt: 1, round: r.open.body.Round}
	for _, x := range r.open.contributions {
		c.inputs = append(c.inputs, x)
	}
	slices.SortFunc(c.inputs, func(a, b *contribution) int { return bytes.Compare(a.node[:], b.node[:]) })
	for node, code := range r.open.excluded {
		c.excluded = append(c.excluded, receipt.Exclusion{Node: node, Code: code})
	}
	c.excluded.Sort()
	r.aggregate(c)
}

// aggregate says what follows the open step, surveys its contributions if the strategy
// must know all of them first, and goes on.
func (r *run) aggregate(c *closing) {
	if len(c.inputs) == 0 {
		r.fail("late", "nobody is left in the step")
		return
	}
	if r.custom != nil {
		r.answer(c)
		return
	}
	r.closing = c
	open, train := r.open, r.open.body.Opens == receipt.OpensTrain
	if train && slices.Contains(r.e.policy.Nodes.MessageTypes, receipt.OpensEvaluate) {
		c.opens, c.round = receipt.OpensEvaluate, open.body.Round
	} else {
		c.opens, c.round = r.afterRound(open.body.Round)
	}
	if !train {
		r.planEvaluation(c)
		return
	}
	survey := r.strategy.Survey(len(c.inputs))
	if survey == nil {
		r.planTraining(c, nil)
		return
	}
	m := r.model
	r.e.loop.Job(func(ctx context.Context) func() {
		err := r.survey(ctx, survey, m, open, c.updates())
		return func() {
			switch {
			case r.ended || r.closing != c:
			case err != nil:
				r.fail("other", "survey of the contributions: "+err.Error())
			default:
				r.planTraining(c, survey)
			}
		}
	})
}

// afterRound says what follows the last step of a round.
func (r *run) afterRound(round uint64) (opens string, next uint64) {
	if round == r.body.Rounds {
		return receipt.OpensNone, round
	}
	return receipt.OpensTrain, round + 1
}

// propose computes the outputs' names, without keeping the outputs, and signs the
// step over them. Whatever it names is made again, and leaves, only after the acks. The
// outputs of step 1 are stored at once: nobody's contribution is in them.
func (r *run) propose(c *closing) {
	r.closing = c
	r.e.loop.Job(func(ctx context.Context) func() {
		outputs, next, err := r.produced(ctx, c, r.open == nil)
		return func() {
			if r.ended || r.closing != c {
				return
			}
			if err != nil {
				// What was admitted can be aggregated: this is a fault of the link or the
				// machine, never a reason to exclude anybody.
				r.fail("other", "outputs not made: "+err.Error())
				return
			}
			c.outputs, c.next = outputs, next
			r.whenNotAhead(func() { r.sign(c) })
		}
	})
}

// produced makes the outputs of a step, and stores them at the link if store is set.
func (r *run) produced(ctx context.Context, c *closing, store bool) (chunkstore.Sealed, *model, error) {
	if !store {
		return c.produce(ctx, nil)
	}
	put := r.e.chunks.Upload(ctx, chunkstore.Scope{Federation: r.e.fed, Run: r.digest})
	outputs, next, err := c.produce(ctx, put.Add)
	return outputs, next, errors.Join(err, put.Close())
}

// whenNotAhead waits until no more steps than the policy allows are unpublished.
func (r *run) whenNotAhead(f func()) {
	ahead := int(r.e.policy.Log.MaxUnpublishedSteps)
	if len(r.signed) <= ahead {
		f()
		return
	}
	r.e.whenPublished(r.signed[len(r.signed)-1-ahead], f)
}

// sign makes the step statement and asks everybody in it for an ack.
func (r *run) sign(c *closing) {
	if r.ended || r.closing != c {
		return
	}
	seq, prev := uint64(1), r.digest
	if r.open != nil {
		seq, prev = r.open.body.Seq+1, r.open.statement.Digest()
	}
	counts, unasked := c.excluded.Counts()
	body := &receipt.Step{
		Seq: seq, Prev: prev, Attempt: c.attempt, Opens: c.opens, Round: c.round,
		InputsCount: uint64(len(c.inputs)), Members: c.members,
		ExcludedRoot: c.excluded.Root(), ExcludedCount: uint64(len(c.excluded)), ExcludedCodes: counts, Unasked: unasked,
		OutputsRoot: c.outputs.Root, OutputsCount: c.outputs.Count,
		Cohort: r.body.Cohort, Nodes: r.body.Nodes, App: r.body.App, Evidence: r.e.evidence,
		Numeric: r.body.Numeric, Generation: r.body.Generation, DownlinkCommit: r.body.DownlinkCommit,
	}
	c.tree = receipt.Tree{}
	for _, x := range c.inputs {
		c.tree.Append(merkle.InputEntry(x.statement.Digest()))
	}
	body.InputsRoot = c.tree.Root()
	s, err := r.e.sign(receipt.KindStep, r.digest, body, r.chain.Extend)
	if err != nil {
		r.fail("policy", err.Error())
		return
	}
	c.statement, c.acks = s, map[Digest][]byte{}
	r.signed = append(r.signed, s.Digest())
	r.e.log.InfoContext(r.e.ctx, "step signed", "run", r.digest.Short(), "step", seq, "attempt", c.attempt, "inputs", len(c.inputs), "excluded", len(c.excluded), "opens", c.opens)
	r.e.observe("step", seq)
	if seq == 1 {
		r.released(c, &session.Task{})
		return
	}
	for i, x := range c.inputs {
		r.askAck(c, i, x)
	}
	r.deadline(r.e.policy.Release.AckDeadline.Duration(), func() { r.ackLate(c) })
}

func (r *run) askAck(c *closing, i int, x *contribution) {
	n := r.e.nodes[x.node]
	if n == nil {
		return // asked again when it resumes, excluded if it does not
	}
	proof := c.tree.Prove(uint64(i))
	raw, err := receipt.IssueReceipt(receipt.ReceiptHeader{Issuer: receipt.EnclaveIssuer(r.e.instance), Subject: r.e.fed.String(), Origin: receipt.StepOrigin(c.statement.Digest()), Size: proof.Size},
		merkle.InputEntry(x.statement.Digest()), proof, c.tree.Root(), r.e.signer)
	if err != nil {
		r.fail("other", "receipt not issued: "+err.Error())
		return
	}
	r.send(n, &session.AckRequest{Step: c.statement.Raw(), Index: proof.Index, Path: proof.Path, Receipt: raw, Excluded: c.excluded.Encode()})
}

// ack takes a node's ack of the closing step. When the last one is in, and only
// then, the step is released (protocol F2).
func (e *Enclave) ack(n *node, m *session.Ack) error {
	s, err := e.nodeStatement(n, m.Statement, receipt.KindAck)
	if err != nil {
		return err
	}
	r := e.runs[s.Run]
	if r == nil || r.closing == nil || r.closing.statement == nil || r.ended {
		return refused("late", "ack of a run or step that waits for none")
	}
	c, body := r.closing, s.Body.(*receipt.Ack)
	step := c.statement.Body.(*receipt.Step)
	if body.Step != c.statement.Digest() || body.Seq != step.Seq || body.Attempt != step.Attempt || body.Instance != e.instance {
		return refused("late", "ack of step %d, attempt %d (%s); step %d, attempt %d waits", body.Seq, body.Attempt, body.Step.Short(), step.Seq, step.Attempt)
	}
	if !slices.ContainsFunc(c.inputs, func(x *contribution) bool { return x.node == n.id }) {
		return refused("invalid", "ack by a node that is not in the step")
	}
	if c.acks[n.id] != nil {
		return nil // again
	}
	c.acks[n.id] = s.Raw()
	if len(c.acks) < len(c.inputs) {
		return nil
	}
	r.cancelDeadline()
	e.observe("acked", step.Seq)
	r.acked(c)
	return nil
}

// acked lets a step out. Its outputs are stored before its release is signed, so that
// what the log calls released is there to be had. The final model leaves only once its
// release is witnessed (docs/architecture.md).
func (r *run) acked(c *closing) {
	if c.opens != receipt.OpensNone {
		r.store(c, func() { r.signRelease(c, func(_ *receipt.Statement, task *session.Task) { r.released(c, task) }) })
		return
	}
	r.signRelease(c, func(s *receipt.Statement, task *session.Task) {
		r.e.whenPublished(s.Digest(), func() { r.store(c, func() { r.released(c, task) }) })
	})
}

// signRelease signs that every node of the step acked it, and goes on. The lists under
// the roots lie at the link before: whoever finds the release in the log finds them too,
// by name if this enclave is lost before it tells anybody their digests.
func (r *run) signRelease(c *closing, then func(*receipt.Statement, *session.Task)) {
	step := c.statement.Body.(*receipt.Step)
	var tree receipt.Tree
	var inputs, acks [][]byte
	for _, x := range c.inputs {
		raw := c.acks[x.node]
		tree.Append(merkle.AckEntry(cose.Sum(raw)))
		acks = append(acks, raw)
		inputs = append(inputs, x.statement.Raw())
	}
	lists := []struct {
		role string
		data []byte
	}{{receipt.RoleInputs, receipt.EncodeList(inputs)}, {receipt.RoleExcluded, c.excluded.Encode()}, {receipt.RoleAcks, receipt.EncodeList(acks)}}
	r.e.loop.Job(func(ctx context.Context) func() {
		var digests []Digest
		for _, l := range lists {
			d, err := r.e.peer.PutNamed(ctx, relay.Name{Instance: r.e.instance, Statement: c.statement.Digest(), Role: l.role}, l.data)
			if err != nil {
				return func() { r.fail("other", "lists of the step not stored: "+err.Error()) }
			}
			digests = append(digests, d)
		}
		return func() {
			if r.ended || r.closing != c {
				return
			}
			s, err := r.e.sign(receipt.KindRelease, r.digest, &receipt.Release{Seq: step.Seq, Attempt: step.Attempt, Step: c.statement.Digest(), AcksRoot: tree.Root(), AcksCount: tree.Size()}, r.chain.Extend)
			if err != nil {
				r.fail("other", err.Error())
				return
			}
			then(s, &session.Task{Release: s.Raw(), Inputs: digests[0], Excluded: digests[1], Acks: digests[2]})
		}
	})
}

// storeAgain is how long a final model waits that could not be stored.
const storeAgain = 2 * time.Second

// store makes the outputs again, now for the link, and goes on. A step whose outputs
// cannot be stored fails the run, unless its release is signed already: that one stands,
// and is tried again.
func (r *run) store(c *closing, then func()) {
	r.e.loop.Job(func(ctx context.Context) func() {
		outputs, _, err := r.produced(ctx, c, true)
		if err == nil && outputs != c.outputs {
			err = errors.New("outputs differ from those that were signed")
		}
		return func() {
			switch {
			case r.ended || r.closing != c:
			case err == nil:
				then()
			case c.opens == receipt.OpensNone:
				r.e.log.ErrorContext(r.e.ctx, "final outputs not stored; tried again", "run", r.digest.Short(), "reason", err.Error())
				r.e.loop.After(storeAgain, func() { r.store(c, then) })
			default:
				r.fail("other", "outputs not stored: "+err.Error())
			}
		}
	})
}

func (r *run) released(c *closing, task *session.Task) {
	body := c.statement.Body.(*receipt.Step)
	r.closing = nil
	r.open = &openStep{statement: c.statement, body: body, outputs: c.outputs, contributions: map[Digest]*contribution{}, excluded: map[Digest]receipt.Code{}}
	for _, n := range c.unasked {
		r.open.excluded[n] = receipt.Unasked
	}
	r.model = c.next
	if r.custom != nil {
		r.custom.released(body.Opens, c.next)
	}
	task.Step = c.statement.Raw()
	task.Manifest = session.ManifestRef{OID: Digest(c.outputs.Manifest.OID), ID: Digest(c.outputs.Manifest.ID), Size: c.outputs.Manifest.Size}
	r.task = task
	r.broadcast(task)
	r.e.log.InfoContext(r.e.ctx, "step released", "run", r.digest.Short(), "step", body.Seq, "round", body.Round, "opens", body.Opens)
	r.e.observe("released", body.Seq)
	if body.Opens == receipt.OpensNone {
		r.end(receipt.Completed, "")
		return
	}
	r.deadline(r.e.policy.Release.StepDeadline.Duration(), r.late)
}

// ackLate moves who did not ack to the excluded and tries again: the enclave never
// releases an earlier attempt.
func (r *run) ackLate(c *closing) {
	if r.ended || r.closing != c {
		return
	}
	var missing []Digest
	for _, x := range c.inputs {
		if c.acks[x.node] == nil {
			missing = append(missing, x.node)
		}
	}
	r.retry(c, missing, receipt.Late)
}

// ackRefused takes a node's word that it will not ack.
func (r *run) ackRefused(n *node, m *session.AckRefused) error {
	c := r.closing
	if c == nil || c.statement == nil || m.Step != c.statement.Digest() || c.acks[n.id] != nil ||
		!slices.ContainsFunc(c.inputs, func(x *contribution) bool { return x.node == n.id }) {
		return errors.New("refuses no step that waits for its ack")
	}
	r.e.log.WarnContext(r.e.ctx, "ack refused by node", "run", r.digest.Short(), "node", n.id.Short(), "code", coarse(m.Code))
	r.retry(c, []Digest{n.id}, receipt.ByPolicy)
	return nil
}

func (r *run) retry(c *closing, without []Digest, code receipt.Code) {
	r.cancelDeadline()
	if r.body.Dropouts == "refuse" {
		r.fail(codeName(code), fmt.Sprintf("%d nodes did not ack, and the run allows no dropouts", len(without)))
		return
	}
	next := &closing{attempt: c.attempt + 1, excluded: slices.Clone(c.excluded)}
	for _, x := range c.inputs {
		if slices.Contains(without, x.node) {
			next.excluded = append(next.excluded, receipt.Exclusion{Node: x.node, Code: code})
		} else {
			next.inputs = append(next.inputs, x)
		}
	}
	next.excluded.Sort()
	r.aggregate(next)
}
