package enclave

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

// node is one joined node: its identity is proven by a member's credential and a
// signature inside the join. The loop owns it.
type node struct {
	id         Digest
	member     policy.MemberID
	key        cose.Key
	credential []byte
	session    *session.Session
	confirmed  bool
}

// join answers a join under whichever window it belongs to.
func (e *Enclave) join(from relay.Address, frame []byte) error {
	for _, w := range e.windows {
		if accept := w.Answered(frame); accept != nil {
			return e.peer.Send(from, accept)
		}
	}
	for _, w := range e.windows {
		joined, accept, err := w.Accept(frame, e.policy, e.denied, e.cfg.Now(), e.heads())
		if errors.Is(err, session.ErrOtherWindow) {
			continue
		}
		if err != nil {
			return fmt.Errorf("join: %w", err)
		}
		return e.greet(joined, accept)
	}
	return fmt.Errorf("join: %w: no window of this enclave", session.ErrBinding)
}

// denied reports whether a member has denied the key: one denial in the log is enough.
func (e *Enclave) denied(key Digest) bool {
	return e.history.denials.Contains(policy.DenyKey, key[:])
}

// greet compares the node's heads with ours (protocol F12) and sends the accept
// once we are at least as far: a fresh enclave learns the newest history from the
// members, not from the link.
func (e *Enclave) greet(j *session.Joined, accept []byte) error {
	if j.Heads.PolicyVersion > e.policy.Version {
		return fmt.Errorf("join: node %s follows policy version %d, this enclave %d: start it with the newer chain", j.Node.Short(), j.Heads.PolicyVersion, e.policy.Version)
	}
	if credential := cose.Sum(j.Credential); e.history.denials.Contains(policy.DenyCredential, credential[:]) {
		return fmt.Errorf("join: the credential of node %s is denied", j.Node.Short())
	}
	if j.Heads.Policy != e.policy.Digest() {
		return fmt.Errorf("join: node %s follows policy %s, this enclave %s", j.Node.Short(), j.Heads.Policy.Short(), e.policy.Digest().Short())
	}
	n := &node{id: j.Node, member: j.Member, key: j.Key, credential: j.Credential, session: j.Session}
	finish := func() error {
		for id, old := range e.sessions {
			if old.id == n.id && !old.confirmed {
				delete(e.sessions, id) // one unconfirmed session a node
			}
		}
		e.sessions[n.session.ID()] = n
		return e.peer.Send(relay.Node(n.id), accept)
	}
	if len(j.Heads.Checkpoint) == 0 {
		return finish()
	}
	cp, _, err := tlog.Open(j.Heads.Checkpoint, e.history.trust)
	if err != nil {
		return fmt.Errorf("join: node %s's checkpoint: %w", n.id.Short(), err)
	}
	if e.history.head != nil && cp.Size <= e.history.head.Size {
		head := e.history.head
		e.loop.Job(func(ctx context.Context) func() {
			err := extends(ctx, e.peer, cp, head)
			return func() { e.greeted(n, err, finish) }
		})
		return nil
	}
	e.catchUp(j.Heads.Checkpoint, cp, func(err error) { e.greeted(n, err, finish) })
	return nil
}

func (e *Enclave) greeted(n *node, err error, finish func() error) {
	if err == nil {
		err = finish()
	}
	if err != nil {
		e.log.WarnContext(e.ctx, "join refused", "node", n.id.Short(), "reason", err.Error())
	}
}

// catchUp advances the history to a checkpoint that a node showed; the link may
// have withheld it.
func (e *Enclave) catchUp(note []byte, cp *tlog.Checkpoint, then func(error)) {
	if e.history.reading {
		e.history.waiting = append(e.history.waiting, func() { e.catchUp(note, cp, then) })
		return
	}
	if head := e.history.head; head != nil && cp.Size <= head.Size {
		e.loop.Job(func(ctx context.Context) func() {
			err := extends(ctx, e.peer, cp, head)
			return func() { then(err) }
		})
		return
	}
	e.history.reading = true
	e.advance(note, cp, then)
}

func (e *Enclave) heads() session.Heads {
	return session.Heads{Checkpoint: e.history.note, PolicyVersion: e.policy.Version, Policy: e.policy.Digest(), Denials: e.history.denials.Digest()}
}

// record opens a sealed record and acts on it.
func (e *Enclave) record(frame []byte) error {
	id, err := session.SessionOf(frame)
	if err != nil {
		return err
	}
	n := e.sessions[id]
	if n == nil {
		return fmt.Errorf("%w: record of no session", session.ErrBinding)
	}
	if !n.confirmed {
		if err := session.Confirm(n.session, frame); err != nil {
			return err
		}
		n.confirmed = true
		if old := e.nodes[n.id]; old != nil {
			delete(e.sessions, old.session.ID())
		}
		e.nodes[n.id] = n
		e.log.InfoContext(e.ctx, "node joined", "node", n.id.Short(), "member", n.member, "nodes", len(e.nodes))
		e.observe("joined", uint64(len(e.nodes)))
		for _, r := range e.runs {
			// An offer that a session before took with it is made again.
			if p := r.participants[n.id]; p != nil && p.uplink == nil && !r.started && !r.ended {
				r.offer(n)
			}
		}
		e.startWaiting()
		return nil
	}
	plain, err := n.session.Open(frame)
	switch {
	case errors.Is(err, session.ErrReplay):
		return nil
	case errors.Is(err, session.ErrOrder):
		// What came between is lost for good: the node joins anew, and resumes.
		err = errors.Join(err, e.send(n, &session.Leave{Code: "other"}))
		e.forget(n)
		return err
	case err != nil:
		return err // somebody made it up: the session does not change
	}
	m, err := session.ParseMessage(plain)
	if err != nil {
		e.forget(n)
		return err
	}
	return e.message(n, m)
}

func (e *Enclave) message(n *node, m session.Message) error {
	switch m := m.(type) {
	case *session.RunRequest:
		return e.refuse(n, cose.Sum(m.Statement), e.runRequest(n, m))
	case *session.StoredRunRequest:
		return e.refuse(n, cose.Sum(m.Statement), e.storedRunRequest(n, m))
	case *session.StopRun:
		return e.stopRun(n, m)
	case *session.Resume:
		return e.resume(n, m)
	case *session.RunAccept:
		return e.withRun(m.Run, func(r *run) error { return r.accept(n, m) })
	case *session.RunDecline:
		return e.withRun(m.Run, func(r *run) error { return r.decline(n, m) })
	case *session.Contribution:
		return e.refuse(n, cose.Sum(m.Statement), e.contribution(n, m))
	case *session.Failed:
		return e.withRun(m.Run, func(r *run) error { return r.appFailed(n, m) })
	case *session.Ack:
		return e.refuse(n, cose.Sum(m.Statement), e.ack(n, m))
	case *session.AckRefused:
		return e.withRun(m.Run, func(r *run) error { return r.ackRefused(n, m) })
	case *session.Leave:
		e.log.InfoContext(e.ctx, "node left", "node", n.id.Short(), "code", coarse(m.Code))
		e.forget(n)
		return nil
	}
	return fmt.Errorf("%w: an enclave takes no %T", session.ErrFrame, m)
}

func (e *Enclave) withRun(run Digest, f func(*run) error) error {
	r := e.runs[run]
	if r == nil {
		return fmt.Errorf("run %s is not here", run.Short())
	}
	return f(r)
}

// refuse tells a node, in a coarse code, that its statement was refused, and
// returns the reason for our own log.
func (e *Enclave) refuse(n *node, subject Digest, err error) error {
	if err == nil {
		return nil
	}
	var r *refusal
	code := "invalid"
	if errors.As(err, &r) {
		code = r.code
	}
	if sendErr := e.send(n, &session.Refused{Subject: subject, Code: code}); sendErr != nil {
		return errors.Join(err, sendErr)
	}
	return fmt.Errorf("node %s: %w", n.id.Short(), err)
}

// refusal is a reason with the code that leaves the enclave.
type refusal struct {
	code string
	err  error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func refused(code, format string, args ...any) error {
	return &refusal{code, fmt.Errorf(format, args...)}
}

// codes are the refusals that a node may be told.
var codes = []string{"late", "invalid", "policy", "stopped", "replaced", "leaving"}

func coarse(code string) string {
	if slices.Contains(codes, code) {
		return code
	}
	return "other"
}

func (e *Enclave) forget(n *node) {
	delete(e.sessions, n.session.ID())
	if e.nodes[n.id] == n {
		delete(e.nodes, n.id)
	}
}

// send seals m for n. The link stores it until the node takes it.
func (e *Enclave) send(n *node, m session.Message) error {
	frame, err := n.session.Seal(session.EncodeMessage(m))
	if err != nil {
		return err
	}
	return e.peer.Send(relay.Node(n.id), frame)
}

// members returns how many distinct members the joined nodes belong to.
func (e *Enclave) members() int {
	seen := map[policy.MemberID]bool{}
	for _, n := range e.nodes {
		seen[n.member] = true
	}
	return len(seen)
}

// cohort returns the joined nodes of the given members, all if none is given.
func (e *Enclave) cohort(members []string) (receipt.Cohort, map[Digest]*node, error) {
	nodes := map[Digest]*node{}
	var c []receipt.Participant
	for _, n := range e.nodes {
		if len(members) == 0 || slices.Contains(members, string(n.member)) {
			nodes[n.id] = n
			c = append(c, receipt.Participant{Member: string(n.member), Node: n.id})
		}
	}
	cohort, err := receipt.NewCohort(c)
	return cohort, nodes, err
}

// extends checks that head extends cp.
func extends(ctx context.Context, tiles tlog.Tiles, cp, head *tlog.Checkpoint) error {
	if cp.Size == 0 {
		return nil
	}
	_, err := tlog.ConsistencyFromTiles(ctx, tiles, cp.Size, cp.Root, head)
	return err
}

// denial takes effect at once: a denied node is no longer joined, a run of a denied app
// ends (protocol F13).
func (e *Enclave) denial(d *policy.Denial) {
	e.log.WarnContext(e.ctx, "denial", "kind", string(d.Kind))
	for id, n := range e.nodes {
		credential := cose.Sum(n.credential)
		if e.denied(id) || e.history.denials.Contains(policy.DenyCredential, credential[:]) {
			e.log.WarnContext(e.ctx, "node is denied", "node", id.Short(), "member", n.member)
			e.forget(n)
		}
	}
	for _, r := range e.runs {
		if !r.ended && d.Kind == policy.DenyApp && string(d.Value) == string(r.body.App[:]) {
			r.fail("policy", "its app is denied by a member")
		} else if !r.ended && e.policy.App(r.body.App, &e.history.signed) == nil {
			r.fail("policy", "keys of its app's signers are denied by a member")
		}
	}
}
