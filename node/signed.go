package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/loop"
	"github.com/concordat/concordat/policy"
)

// app returns the app with the digest that the policy lists, or lets in by its signers, as
// far as this node's mirror of the log has them; nil if it does neither. The loop alone
// calls it.
func (n *Node) app(digest Digest) *policy.App { return n.policy.App(digest, &n.history.signed) }

// allowed is app for other goroutines. It is nil too once the node has ended.
func (n *Node) allowed(digest Digest) *policy.App {
	app, _ := loop.Ask(n.ctx, n.loop, func() (*policy.App, error) { return n.app(digest), nil })
	return app
}

// signatureLogged tells the users of an app's signature that counts under the policy.
func (n *Node) signatureLogged(raw []byte) {
	a, key, err := n.policy.VerifyAppSignature(raw)
	if err != nil {
		return // the link may log what it likes
	}
	have, want := n.policy.Signed(a, key, &n.history.signed)
	n.tell(Event{Kind: "signed", Reason: fmt.Sprintf("%s %s, digest %s, is signed by %d of its signers, the policy wants %d", a.App, a.Version, a.Digest.Short(), have, want)})
}

// Published says what became of a signature of an app.
type Published struct {
	policy.AppSignature
	Statement Digest // of the signature
	Signer    Digest // id of the key
	Signed    uint64 // signers of the bundle in the log, this one counted
	Threshold uint64 // that the policy wants
	Logged    bool   // the log showed it before
}

// ErrSignature is returned for bytes that are no signature of an app by one of the signers
// that the policy names.
var ErrSignature = errors.New("node: no signature of an app")

// PublishApp puts a signature of an app into the federation's log, where nodes, enclaves
// and officers find it. It returns once the link has it durably; others see it with the
// next checkpoint. It may be called while Run runs, from any goroutine.
func (n *Node) PublishApp(ctx context.Context, raw []byte) (Published, error) {
	p, err := loop.Ask(ctx, n.loop, func() (Published, error) {
		a, key, err := n.policy.VerifyAppSignature(raw)
		if err != nil {
			return Published{}, fmt.Errorf("%w: %w", ErrSignature, err)
		}
		p := Published{AppSignature: *a, Statement: cose.Sum(raw), Signer: key}
		_, p.Logged = n.history.published[p.Statement]
		p.Signed, p.Threshold = n.policy.Signed(a, key, &n.history.signed)
		return p, nil
	})
	if err != nil || p.Logged {
		return p, err
	}
	if _, err := n.peer.Append(ctx, raw); err != nil {
		return p, fmt.Errorf("signature of %s: %w", p.App, err)
	}
	n.log.InfoContext(ctx, "signature of an app put into the log", "app", p.App, "version", p.Version, "digest", p.Digest.Short(), "signer", p.Signer.Short())
	return p, nil
}
