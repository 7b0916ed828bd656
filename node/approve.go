package node

import (
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/state"
)

// offered is a run that waits for the owner's word (approve: each_run).
type offered struct {
	run *run
	msg *session.RunOffer
}

// ErrNotOffered is returned for a run that does not wait for the owner.
var ErrNotOffered = errors.New("node: no such run waits for approval")

// Approve says yes to a run that waits for this node's owner, or no. It may be called
// while Run runs, from any goroutine.
func (n *Node) Approve(run Digest, yes bool) error {
	return n.onLoop(func() error { return n.decide(run, yes) })
}

func (n *Node) decide(digest Digest, yes bool) error {
	o := n.offers[digest]
	if o == nil {
		return fmt.Errorf("%w: %s", ErrNotOffered, digest.Short())
	}
	delete(n.offers, digest)
	if !yes {
		return n.decline(digest, errors.New("this node's owner said no"))
	}
	// What was true when it was offered may have changed since.
	if n.enclave == nil || n.enclave.Instance != o.run.chain.Enclave().Instance {
		return fmt.Errorf("%w: the enclave that offered %s is gone", ErrNotOffered, digest.Short())
	}
	if err := n.approves(o.run); err != nil {
		return errors.Join(err, n.decline(digest, err))
	}
	return n.acceptRun(o.run, o.msg)
}

// acceptRun takes part: the uplink secret is durable before it is handed over.
func (n *Node) acceptRun(r *run, m *session.RunOffer) error {
	if _, err := rand.Read(r.uplink[:]); err != nil {
		return err
	}
	if err := n.journal.Accepted(m, r.uplink); err != nil {
		n.loop.Stop(err)
		return err
	}
	n.runs[r.digest] = r
	n.tell(Event{Kind: "started", Run: r.digest, Request: r.request, Inputs: uint64(len(r.cohort))})
	n.log.InfoContext(n.ctx, "run accepted", "run", r.digest.Short(), "app", r.body.App.Short(), "rounds", r.body.Rounds, "nodes", len(r.cohort))
	n.apps.prepare(n.loop, r, state.Step{})
	return n.send(&session.RunAccept{Run: r.digest, Uplink: r.uplink[:]})
}

func (n *Node) decline(run Digest, reason error) error {
	n.tell(Event{Kind: "declined", Run: run, Reason: reason.Error()})
	n.log.WarnContext(n.ctx, "run declined", "run", run.Short(), "reason", reason.Error())
	return n.send(&session.RunDecline{Run: run, Code: "policy"})
}
