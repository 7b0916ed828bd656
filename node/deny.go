package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/loop"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

// Denied says what became of a denial that was taken by hand.
type Denied struct {
	Digest Digest // of the statement
	Member policy.MemberID
	Denial policy.Denial
	Logged bool // in the log already, for every party to see
}

// ErrDenial is returned for bytes that are no denial by a member of the federation.
var ErrDenial = errors.New("node: no denial")

// Deny takes a member's denial by hand. It holds here from now on, by whatever path it
// came (protocol F13), also after a restart, and the node puts it into the log for
// everybody else. It may be called while Run runs, from any goroutine.
func (n *Node) Deny(raw []byte) (Denied, error) {
	return loop.Ask(n.ctx, n.loop, func() (Denied, error) { return n.deny(raw) })
}

func (n *Node) deny(raw []byte) (Denied, error) {
	d, member, err := n.policy.VerifyDenial(raw)
	if err != nil {
		return Denied{}, fmt.Errorf("%w: %w", ErrDenial, err)
	}
	digest := cose.Sum(raw)
	v := Denied{Digest: digest, Member: member, Denial: *d, Logged: n.history.denied[digest]}
	if v.Logged || slices.ContainsFunc(n.denials, func(t journal.Denial) bool { return bytes.Equal(t.Statement, raw) }) {
		return v, nil // again
	}
	// Durable first: what the owner was told is denied stays denied.
	t := journal.Denial{Statement: bytes.Clone(raw), Taken: uint64(max(0, n.cfg.Now().Unix()))}
	if err := n.journal.Denied(t); err != nil {
		n.loop.Stop(err)
		return Denied{}, err
	}
	if err := n.takeDenial(t); err != nil {
		return Denied{}, err
	}
	n.log.WarnContext(n.ctx, "denial taken by hand", "member", string(member), "kind", string(d.Kind), "digest", digest.Short())
	n.heedDenials()
	n.publishDenial(t)
	return v, nil
}

// takeDenial puts a denial into the set, and among those that the log has to show.
func (n *Node) takeDenial(t journal.Denial) error {
	if _, err := n.history.denials.Add(n.policy, t.Statement); err != nil {
		return err
	}
	n.denials = append(n.denials, t)
	return nil
}

// restoreDenials takes what was denied by hand before a restart and the mirror of the
// log does not show.
func (n *Node) restoreDenials() {
	var all []journal.Denial
	n.journal.View(func(s *journal.State) { all = slices.Clone(s.Denials) })
	for _, t := range all {
		if n.history.denied[cose.Sum(t.Statement)] {
			continue
		}
		if err := n.takeDenial(t); err != nil {
			// By a member of a policy that is no longer in force.
			n.log.Warn("a denial taken by hand holds no more", "reason", err.Error())
		}
	}
}

// publishDenials asks the link, which was away, for a place in the log once more.
func (n *Node) publishDenials() {
	for _, t := range n.denials {
		n.publishDenial(t)
	}
}

func (n *Node) publishDenial(t journal.Denial) {
	n.loop.Job(func(ctx context.Context) func() {
		_, err := n.peer.Append(ctx, t.Statement)
		return func() {
			if err != nil && n.ctx.Err() == nil {
				n.log.ErrorContext(n.ctx, "denial not put into the log; tried again when the link is back", "reason", err.Error())
			}
		}
	})
}

// heedDenials has a new denial take effect on what is going on.
func (n *Node) heedDenials() {
	if n.enclave != nil && verifier.Denied(n.enclave.evidence, n.enclave.endorsements, &n.history.denials) != nil {
		n.leave("a member has denied it")
	}
}

// denialLogged notes that the log shows a denial.
func (n *Node) denialLogged(digest Digest, d *policy.Denial) {
	if n.history.denied[digest] {
		return
	}
	n.history.denied[digest] = true
	n.tell(Event{Kind: "denied", Reason: fmt.Sprintf("%s %x is denied by a member", d.Kind, []byte(d.Value))})
	n.denials = slices.DeleteFunc(n.denials, func(t journal.Denial) bool { return cose.Sum(t.Statement) == digest })
}

// suppressed says which denial the log does not show for longer than the policy allows:
// somebody keeps it from the others, and nothing is acked any more (protocol F13).
func (n *Node) suppressed() error {
	lag := n.policy.Log.DenialLag.Duration()
	for _, t := range n.denials {
		if age := n.cfg.Now().Sub(time.Unix(int64(t.Taken), 0)); age > lag {
			return fmt.Errorf("denial %s was handed over %s ago and is not in the log, the policy allows %s: somebody keeps it from the others", cose.Sum(t.Statement).Short(), age.Round(time.Second), lag)
		}
	}
	return nil
}

// appDenied says that a member has denied the run's app, or keys of those who signed it.
func (n *Node) appDenied(r *run) error {
	switch {
	case n.history.denials.Contains(policy.DenyApp, r.body.App[:]):
		return fmt.Errorf("app %s is denied by a member", r.body.App.Short())
	case n.app(r.body.App) == nil:
		return fmt.Errorf("app %s is let in by nobody any more: keys of its signers are denied by a member", r.body.App.Short())
	}
	return nil
}
