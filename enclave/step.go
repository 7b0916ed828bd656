package enclave

import (
	"context"
	"errors"
	"fmt"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/verifier/receipt"
)

// openStep is the last released step, with the contributions that answer it.
type openStep struct {
	statement     *receipt.Statement
	body          *receipt.Step
	outputs       chunkstore.Sealed
	contributions map[Digest]*contribution // by node
	excluded      map[Digest]receipt.Code
}

// contribution is one node's answer, admitted or being read.
type contribution struct {
	node      Digest
	member    string
	statement *receipt.Statement
	update    *update // nil until admitted
	receipt   []byte
}

// contribution takes a node's answer to the open step. It is admitted, for good,
// once every byte of it was read and checked.
func (e *Enclave) contribution(n *node, m *session.Contribution) error {
	s, err := e.nodeStatement(n, m.Statement, receipt.KindContribution)
	if err != nil {
		return err
	}
	r := e.runs[s.Run]
	if r == nil || r.participants[n.id] == nil || r.participants[n.id].uplink == nil {
		return refused("policy", "contribution to run %s, in which the node has no part", s.Run.Short())
	}
	body := s.Body.(*receipt.Contribution)
	switch {
	case r.ended || r.closing != nil || r.open == nil:
		return refused("late", "step %d is closed", body.Seq)
	case body.Seq != r.open.body.Seq || body.Step != r.open.statement.Digest():
		return refused("late", "answers step %d (%s), open is step %d (%s)", body.Seq, body.Step.Short(), r.open.body.Seq, r.open.statement.Digest().Short())
	}
	if before := r.open.contributions[n.id]; before != nil {
		if before.statement.Digest() != s.Digest() {
			return refused("invalid", "node has answered step %d before, with another contribution", body.Seq)
		}
		if before.receipt != nil {
			r.send(n, &session.Admitted{Contribution: s.Digest(), Receipt: before.receipt})
		}
		return nil
	}
	if code, out := r.open.excluded[n.id]; out {
		return refused("late", "node is excluded from step %d: %s", body.Seq, code)
	}
	if r.model == nil {
		r.held = append(r.held, func() { _ = e.refuse(n, s.Digest(), e.contribution(n, m)) })
		return nil
	}
	c := &contribution{node: n.id, member: string(n.member), statement: s}
	r.open.contributions[n.id] = c
	open, uplink, opens, current := r.open, *r.participants[n.id].uplink, r.open.body.Opens, r.model
	e.loop.Job(func(ctx context.Context) func() {
		u, err := r.read(ctx, c, m.Manifest, uplink, opens, current, e.policy)
		return func() {
			if r.open != open || r.closing != nil || r.ended || open.contributions[n.id] != c {
				return
			}
			if err != nil {
				e.log.WarnContext(ctx, "contribution refused", "run", r.digest.Short(), "node", n.id.Short(), "step", body.Seq, "reason", err.Error())
				delete(open.contributions, n.id)
				r.send(n, &session.Refused{Subject: s.Digest(), Code: "invalid"})
				r.exclude(n.id, receipt.Invalid)
				return
			}
			r.admit(n, c, u)
		}
	})
	return nil
}

// appFailed takes a node's word that it has no answer.
func (r *run) appFailed(n *node, m *session.Failed) error {
	if r.open == nil || r.closing != nil || r.ended || m.Step != r.open.statement.Digest() || r.participants[n.id] == nil || r.open.contributions[n.id] != nil {
		return errors.New("failure of a step that does not wait for this node")
	}
	if _, out := r.open.excluded[n.id]; out {
		return nil
	}
	r.e.log.WarnContext(r.e.ctx, "app failed at node", "run", r.digest.Short(), "node", n.id.Short(), "member", n.member, "error_code", m.Code)
	if r.custom != nil {
		r.custom.noteFailure(n.id, m)
	}
	r.exclude(n.id, receipt.Invalid)
	return nil
}

// admit makes a contribution final; the receipt says so.
func (r *run) admit(n *node, c *contribution, u *update) {
	body := c.statement.Body.(*receipt.Contribution)
	var err error
	c.receipt, err = receipt.IssueReceipt(receipt.ReceiptHeader{Issuer: receipt.EnclaveIssuer(r.e.instance), Subject: r.e.fed.String(), Origin: receipt.ContributionOrigin(c.statement.Digest()), Size: body.Count},
		merkle.ChunkEntry(body.Manifest), u.proof, body.ChunkRoot, r.e.signer)
	if err != nil {
		r.fail("other", "receipt not issued: "+err.Error())
		return
	}
	c.update = u
	r.send(n, &session.Admitted{Contribution: c.statement.Digest(), Receipt: c.receipt})
	r.e.log.InfoContext(r.e.ctx, "contribution admitted", "run", r.digest.Short(), "step", body.Seq, "node", n.id.Short(), "chunks", body.Count)
	r.closeIfComplete()
}

// exclude takes a node out of the open step. Where the run allows no dropouts the
// run ends: its cohort is fixed.
func (r *run) exclude(node Digest, code receipt.Code) {
	if r.body.Dropouts == "refuse" {
		r.fail(codeName(code), fmt.Sprintf("node %s is out of step %d (%s), and the run allows no dropouts", node.Short(), r.open.body.Seq, code))
		return
	}
	r.open.excluded[node] = code
	r.closeIfComplete()
}

func codeName(c receipt.Code) string {
	if c == receipt.ByPolicy {
		return "policy"
	}
	return c.String()
}

func (r *run) closeIfComplete() {
	n := len(r.open.excluded)
	for _, c := range r.open.contributions {
		if c.update != nil {
			n++
		}
	}
	if n == len(r.cohort) {
		r.close()
	}
}

// late closes the open step without those who have not answered.
func (r *run) late() {
	if r.closing != nil || r.open == nil {
		return
	}
	for _, c := range r.cohort {
		if x := r.open.contributions[c.Node]; (x == nil || x.update == nil) && !r.ended {
			delete(r.open.contributions, c.Node)
			if _, out := r.open.excluded[c.Node]; !out {
				r.exclude(c.Node, receipt.Late)
			}
		}
	}
}
