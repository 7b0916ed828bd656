package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/crosscheck"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

// enclave is the one that the node has joined.
type enclave struct {
	receipt.Enclave // Evidence is the instance's first evidence statement
	address         relay.Address
	key             cose.Key
	session         *session.Session
	result          *verifier.Result
	evidence        *attestation.Evidence
	endorsements    *attestation.Endorsements
	joined          time.Time
}

// knockAgain is how long an unanswered hello stands.
const knockAgain = 15 * time.Second

// knock challenges whichever enclave there is, unless one is joined.
func (n *Node) knock() {
	if n.enclave == nil {
		n.ask()
	}
}

// presence takes the link's word that another enclave is there now. It proves
// nothing: the enclave is asked, and joined only if it passes.
func (n *Node) presence(instance string) {
	if n.enclave == nil || n.enclave.address.ID == instance {
		return
	}
	// What the enclave before signed, and this node saw, goes into the log before the
	// evidence of the next: after it, it would be void (protocol F14), and a successor
	// begins at what the log has.
	unlogged := n.unlogged()
	n.loop.Job(func(ctx context.Context) func() {
		for _, s := range unlogged {
			if _, err := n.peer.Append(ctx, s); err != nil {
				n.log.WarnContext(ctx, "statement of the enclave before not logged", "reason", err.Error())
			}
		}
		return n.ask
	})
}

// unlogged returns the statements of running runs that the mirror lacks, in order.
func (n *Node) unlogged() (list [][]byte) {
	for _, r := range n.runs {
		for _, s := range append([][]byte{r.statement}, r.recent...) {
			if _, ok := n.history.published[cose.Sum(s)]; !ok {
				list = append(list, s)
			}
		}
	}
	return list
}

// ask sends a challenge, unless one is open.
func (n *Node) ask() {
	if n.challenge != nil || n.appraising || n.joining != nil {
		return
	}
	c, err := session.NewChallenge(n.fed, n.id, time.Now())
	if err != nil {
		n.loop.Stop(err)
		return
	}
	n.challenge = c
	if err := n.peer.Send(relay.AnyEnclave, c.Hello()); err != nil {
		n.loop.Stop(err)
		return
	}
	n.loop.After(knockAgain, func() {
		if n.challenge == c {
			n.challenge = nil
			n.ask()
		}
	})
}

// offer takes an enclave's answer: it is appraised against the policy, with no one's
// help, and only a pass is joined. Anything short of it pulls no task.
func (n *Node) offer(from relay.Address, frame []byte) error {
	c := n.challenge
	if c == nil || n.appraising {
		return fmt.Errorf("%w: no challenge is open", session.ErrBinding)
	}
	o, err := c.Offer(frame, time.Now())
	if err != nil {
		return err
	}
	n.challenge, n.appraising = nil, true
	n.loop.Job(func(ctx context.Context) func() {
		passed, ends, err := n.appraise(ctx, o)
		return func() {
			n.appraising = false
			if err != nil {
				n.refuse(from, err)
				return
			}
			if err := n.joinEnclave(from, c, o, passed, ends); err != nil {
				n.refuse(from, err)
			}
		}
	})
	return nil
}

// refuse logs in words why an enclave is not joined. The node asks again after a
// while: another enclave may answer.
func (n *Node) refuse(from relay.Address, err error) {
	n.log.WarnContext(n.ctx, "enclave refused", "instance", fmt.Sprintf("%x", from.ID), "reason", err.Error())
	n.tell(Event{Kind: "refused", Instance: fmt.Sprintf("%x", from.ID), Reason: err.Error()})
	n.loop.After(knockAfterRefusal, n.knock)
}

const knockAfterRefusal = 2 * time.Second

// appraise verifies evidence and endorsements, which the link only carried.
func (n *Node) appraise(ctx context.Context, o *session.Offer) (verifier.Passed, *attestation.Endorsements, error) {
	ends := new(attestation.Endorsements)
	for _, it := range o.Evidence.Items {
		for _, d := range it.Endorsements {
			b, err := n.peer.Blob(ctx, d)
			if err != nil {
				return verifier.Passed{}, nil, fmt.Errorf("endorsement %s is not to be had: %w", d.Short(), err)
			}
			e, err := attestation.ParseEndorsement(b)
			if err != nil {
				return verifier.Passed{}, nil, err
			}
			ends.Add(e)
		}
	}
	at := n.cfg.Now().Truncate(time.Second) // what a kept result can say, and an officer repeat
	r, err := verifier.Appraise(o.Evidence, ends, n.policy, &o.Nonce, at)
	if err != nil {
		return verifier.Passed{}, nil, err
	}
	passed, err := r.Passed()
	if err != nil {
		return verifier.Passed{}, nil, err
	}
	// The vendors' own libraries are the second opinion: a pass needs both.
	if err := crosscheck.Evidence(o.Evidence, ends, n.policy, at).Agrees(r); err != nil {
		return verifier.Passed{}, nil, err
	}
	return passed, ends, nil
}

// joinEnclave checks what only this node's history can say, and joins.
func (n *Node) joinEnclave(from relay.Address, c *session.Challenge, o *session.Offer, passed verifier.Passed, ends *attestation.Endorsements) error {
	claims := passed.Claims()
	if from != relay.Enclave(claims.Instance) {
		return fmt.Errorf("the offer came from %x, its claims are of instance %s", from.ID, claims.Instance)
	}
	if err := verifier.Denied(o.Evidence, ends, &n.history.denials); err != nil {
		return err
	}
	if err := n.notRolledBack(passed); err != nil {
		return err
	}
	if n.enclave != nil && n.enclave.Instance == claims.Instance {
		n.renewed(passed) // the session goes on, under fresh evidence
		return nil
	}
	cp, _, err := tlog.Open(o.LogProof.Checkpoint, n.history.trust)
	if err != nil {
		return fmt.Errorf("log proof: %w", err)
	}
	// The mirror replays every entry up to that checkpoint, so it extends whatever this
	// node saw before, and the evidence statement is found in it, not believed.
	n.catchUp(o.LogProof.Checkpoint, cp, func(err error) {
		if err == nil {
			err = n.joinListed(from, c, o, passed, ends)
		}
		if err != nil {
			n.refuse(from, err)
		}
	})
	return nil
}

// notRolledBack refuses endorsements older than any that this node has seen
// (protocol F18), and remembers the newest.
func (n *Node) notRolledBack(passed verifier.Passed) error {
	for _, s := range passed.Result().Seen() {
		var highest uint64
		n.journal.View(func(st *journal.State) { highest = st.Collateral[s.Issuer] })
		switch {
		case s.Number < highest:
			return fmt.Errorf("endorsement %s has number %d, this node has seen %d: somebody shows old collateral", s.Issuer, s.Number, highest)
		case s.Number > highest:
			if err := n.journal.Seen(s.Issuer, s.Number); err != nil {
				n.loop.Stop(err)
				return err
			}
		}
	}
	return nil
}

// joinListed joins once the evidence statement was found in the log.
func (n *Node) joinListed(from relay.Address, c *session.Challenge, o *session.Offer, passed verifier.Passed, ends *attestation.Endorsements) error {
	claims := passed.Claims()
	entry, ok := n.history.entry(o.LogProof.Index)
	if !ok || cose.Sum(entry) != cose.Sum(o.LogProof.Statement) {
		return errors.New("log proof: the log has another entry in that place")
	}
	u, err := receipt.Parse(entry)
	if err != nil {
		return fmt.Errorf("log proof: %w", err)
	}
	if logged, err := receipt.SelfSigned(u); err != nil || cose.Sum(logged.Encode()) != cose.Sum(o.Claims) || u.Envelope() != o.Evidence.Digest() {
		return errors.New("log proof: the logged evidence is of other claims")
	}
	holder, ok := n.history.epochs.Holder()
	if !ok || holder.Instance != claims.Instance || holder.Epoch != claims.Epoch {
		return fmt.Errorf("epoch %d of instance %s is superseded: the log gives epoch %d to %s", claims.Epoch, claims.Instance, holder.Epoch, holder.Instance)
	}
	var highest uint64
	var before attestation.ID
	n.journal.View(func(s *journal.State) { highest, before = s.Epoch, s.Instance })
	if claims.Epoch < highest || claims.Epoch == highest && before != claims.Instance {
		return fmt.Errorf("epoch %d of instance %s: this node has joined epoch %d of %s", claims.Epoch, claims.Instance, highest, before)
	}
	if err := n.journal.Joined(claims.Epoch, claims.Instance); err != nil {
		n.loop.Stop(err)
		return err
	}
	j, frame, err := c.Join(passed, o, n.cfg.Signer, n.cfg.Credential, n.heads())
	if err != nil {
		return err
	}
	n.joining = j
	n.pending = &enclave{Enclave: holder, address: from, key: claims.SignPub, result: passed.Result(), evidence: o.Evidence, endorsements: ends}
	n.loop.After(knockAgain, func() {
		if n.joining == j {
			n.joining, n.pending = nil, nil
			n.refuse(from, errors.New("the enclave did not accept the join: see its log; a credential that its policy does not know is the usual reason"))
		}
	})
	return n.peer.Send(from, frame)
}

// accept finishes the join: the node has a session, and counts as joined.
func (n *Node) accept(frame []byte) error {
	if n.joining == nil {
		return fmt.Errorf("%w: no join is open", session.ErrBinding)
	}
	s, heads, confirm, err := n.joining.Finish(frame)
	if err != nil {
		return err
	}
	e := n.pending
	n.joining, n.pending = nil, nil
	if heads.Policy != n.policy.Digest() {
		return fmt.Errorf("the enclave follows policy %s, this node %s", heads.Policy.Short(), n.policy.Digest().Short())
	}
	e.session, e.joined = s, time.Now()
	if err := n.keepResult(e.result); err != nil {
		n.loop.Stop(err)
		return err
	}
	if err := n.peer.Send(e.address, confirm); err != nil {
		return err
	}
	n.enclave = e
	n.joined.Store(true)
	n.renewLater()
	n.log.InfoContext(n.ctx, "joined enclave", "instance", e.Instance.String(), "epoch", e.Epoch, "verdict", e.result.Verdict().String())
	n.tell(Event{Kind: "joined", Instance: e.Instance.String(), Simulated: n.policy.Simulated})
	n.resume()
	n.sendRequests()
	n.sendStops()
	return nil
}

// renewed takes fresh evidence of the joined enclave.
func (n *Node) renewed(passed verifier.Passed) {
	n.enclave.result = passed.Result()
	if err := n.keepResult(n.enclave.result); err != nil {
		n.loop.Stop(err)
		return
	}
	n.log.InfoContext(n.ctx, "evidence renewed", "instance", n.enclave.Instance.String())
	n.renewLater()
}

// renewLater asks for fresh evidence before the policy calls it too old, off the
// path of any round (protocol F18).
func (n *Node) renewLater() {
	e := n.enclave
	n.loop.After(n.policy.Evidence.MaxAge.Duration()/2, func() {
		if n.enclave == e {
			n.ask()
		}
	})
}

// heads is the newest history that this node knows.
func (n *Node) heads() session.Heads {
	return session.Heads{Checkpoint: n.history.note, PolicyVersion: n.policy.Version, Policy: n.policy.Digest(), Denials: n.history.denials.Digest()}
}

// leave forgets the enclave; the node challenges anew.
func (n *Node) leave(reason string) {
	if n.enclave == nil {
		return
	}
	n.log.InfoContext(n.ctx, "session ended", "instance", n.enclave.Instance.String(), "reason", reason)
	n.tell(Event{Kind: "left", Instance: n.enclave.Instance.String(), Reason: reason})
	n.enclave = nil
	n.joined.Store(false)
	n.knock()
}

// send seals m for the joined enclave.
func (n *Node) send(m session.Message) error {
	if n.enclave == nil {
		return errors.New("no enclave is joined")
	}
	frame, err := n.enclave.session.Seal(session.EncodeMessage(m))
	if err != nil {
		return err
	}
	return n.peer.Send(n.enclave.address, frame)
}

// record opens what the enclave sent.
func (n *Node) record(frame []byte) error {
	id, err := session.SessionOf(frame)
	if err != nil {
		return err
	}
	if n.enclave == nil || n.enclave.session.ID() != id {
		return fmt.Errorf("%w: record of no session", session.ErrBinding)
	}
	plain, err := n.enclave.session.Open(frame)
	switch {
	case errors.Is(err, session.ErrReplay):
		return nil
	case errors.Is(err, session.ErrOrder):
		n.leave("a record is missing") // for good: the node joins anew, and resumes
		return err
	case err != nil:
		return err // somebody made it up: the session does not change
	}
	m, err := session.ParseMessage(plain)
	if err != nil {
		n.leave("a record was malformed")
		return err
	}
	return n.message(m)
}
