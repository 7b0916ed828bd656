package hostile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
	"google.golang.org/grpc"
)

// Node is a member's node in the enemy's hands: it has the keys of a node and speaks
// the protocol by hand. It keeps no journal and asks no rules. Its methods are for one
// goroutine.
type Node struct {
	Policy     *policy.Policy
	Signer     *cose.Signer
	Credential []byte
	Peer       *relay.Peer
	Chunks     *transfer.Client
	Session    *session.Session // after Join
	Enclave    attestation.ID   // joined

	key    cose.Key // of the enclave
	place  *receipt.Chain
	cancel context.CancelFunc
	done   chan struct{} // closed when err is set
	err    error
	frames chan relay.Delivered
	at     relay.Address
}

// Attach dials as a node and returns at once.
func Attach(conn grpc.ClientConnInterface, p *policy.Policy, signer *cose.Signer, credential []byte) *Node {
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{Policy: p, Signer: signer, Credential: credential, Chunks: transfer.NewClient(conn), place: receipt.NewChain(cose.Digest{}),
		cancel: cancel, done: make(chan struct{}), frames: make(chan relay.Delivered, 1024)}
	n.Peer = relay.New(relay.Config{Conn: conn, Federation: p.FederationID(), Self: relay.Node(n.ID()), Signer: signer, Credential: credential, Log: slog.New(slog.DiscardHandler)})
	go n.read(ctx)
	return n
}

// ID is the node id.
func (n *Node) ID() cose.Digest { return n.Signer.Public().ID() }

// Close ends it and returns why the link refused it, if it did.
func (n *Node) Close() error {
	n.cancel()
	return n.Wait()
}

// Wait waits until the link has refused it, or it was closed, and returns why.
func (n *Node) Wait() error {
	<-n.done
	return n.err
}

func (n *Node) read(ctx context.Context) {
	defer close(n.done)
	ended := make(chan error, 1)
	go func() { ended <- n.Peer.Run(ctx) }()
	for ev := range n.Peer.Events() {
		if d, ok := ev.(relay.Delivered); ok {
			n.frames <- d
			_ = n.Peer.Received(d.Handle)
		}
	}
	n.err = <-ended
}

// Frame returns the next frame of a kind; others are forgotten.
func (n *Node) Frame(ctx context.Context, kind session.FrameKind) (relay.Delivered, error) {
	for {
		select {
		case f := <-n.frames:
			if k, err := session.KindOf(f.Payload); err == nil && k == kind {
				return f, nil
			}
		case <-n.done:
			return relay.Delivered{}, fmt.Errorf("hostile: no %s, the stream ended: %w", kind, errors.Join(errors.New("closed"), n.err))
		case <-ctx.Done():
			return relay.Delivered{}, fmt.Errorf("hostile: no %s: %w", kind, ctx.Err())
		}
	}
}

// Appraise passes evidence as an honest node does.
func (n *Node) Appraise(ctx context.Context, o *session.Offer) (verifier.Passed, error) {
	ends := new(attestation.Endorsements)
	for _, it := range o.Evidence.Items {
		for _, d := range it.Endorsements {
			b, err := n.Peer.Blob(ctx, d)
			if err != nil {
				return verifier.Passed{}, err
			}
			e, err := attestation.ParseEndorsement(b)
			if err != nil {
				return verifier.Passed{}, err
			}
			if _, err := ends.Add(e); err != nil {
				return verifier.Passed{}, err
			}
		}
	}
	r, err := verifier.Appraise(o.Evidence, ends, n.Policy, &o.Nonce, time.Now())
	if err != nil {
		return verifier.Passed{}, err
	}
	return r.Passed()
}

// Ask challenges the newest enclave and returns the challenge and its answer.
func (n *Node) Ask(ctx context.Context) (*session.Challenge, *session.Offer, error) {
	c, err := session.NewChallenge(n.Policy.FederationID(), n.ID(), time.Now())
	if err != nil {
		return nil, nil, err
	}
	if err := n.Peer.Send(relay.AnyEnclave, c.Hello()); err != nil {
		return nil, nil, err
	}
	f, err := n.Frame(ctx, session.FrameOffer)
	if err != nil {
		return nil, nil, err
	}
	n.at = f.From
	o, err := c.Offer(f.Payload, time.Now())
	return c, o, err
}

// Heads are what an honest node with nothing to show would say.
func (n *Node) Heads() session.Heads {
	return session.Heads{PolicyVersion: n.Policy.Version, Policy: n.Policy.Digest()}
}

// Join joins the newest enclave.
func (n *Node) Join(ctx context.Context) error {
	j, claims, err := n.knock(ctx, n.Heads())
	if err != nil {
		return err
	}
	f, err := n.Frame(ctx, session.FrameAccept)
	if err != nil {
		return err
	}
	s, _, confirm, err := j.Finish(f.Payload)
	if err != nil {
		return err
	}
	n.Session, n.Enclave, n.key = s, claims.Instance, claims.SignPub
	return n.Peer.Send(n.at, confirm)
}

// JoinWith sends a join with other heads, and waits for no answer.
func (n *Node) JoinWith(ctx context.Context, heads session.Heads) error {
	_, _, err := n.knock(ctx, heads)
	return err
}

// knock challenges the newest enclave and sends it a join.
func (n *Node) knock(ctx context.Context, heads session.Heads) (*session.Joining, *attestation.Claims, error) {
	c, o, err := n.Ask(ctx)
	if err != nil {
		return nil, nil, err
	}
	passed, err := n.Appraise(ctx, o)
	if err != nil {
		return nil, nil, err
	}
	j, frame, err := c.Join(passed, o, n.Signer, n.Credential, heads)
	if err != nil {
		return nil, nil, err
	}
	return j, passed.Claims(), n.Peer.Send(n.at, frame)
}

// Say seals a message for the joined enclave.
func (n *Node) Say(m session.Message) error {
	frame, err := n.Session.Seal(session.EncodeMessage(m))
	if err != nil {
		return err
	}
	return n.Peer.Send(n.at, frame)
}

// Hear returns the next message of type M of the joined enclave; others are forgotten.
func Hear[M session.Message](ctx context.Context, n *Node) (M, error) {
	var none M
	for {
		f, err := n.Frame(ctx, session.FrameRecord)
		if err != nil {
			return none, fmt.Errorf("waiting for %T: %w", none, err)
		}
		plain, err := n.Session.Open(f.Payload)
		if err != nil {
			continue // of a session before
		}
		m, err := session.ParseMessage(plain)
		if err != nil {
			return none, err
		}
		if m, ok := m.(M); ok {
			return m, nil
		}
	}
}

// Sign makes the node's next statement.
func (n *Node) Sign(kind receipt.Kind, run cose.Digest, body any) (*receipt.Statement, error) {
	seq, prev := n.place.Next()
	s := &receipt.Statement{Kind: kind, Federation: n.Policy.FederationID(), Run: run, Seq: seq, Prev: prev,
		Policy: n.Policy.Digest(), Issuer: receipt.NodeIssuer(n.ID()), Body: body}
	if _, err := receipt.Sign(s, n.Signer); err != nil {
		return nil, err
	}
	return s, n.place.Extend(s)
}

// Secrets are the keys of a run.
type Secrets struct {
	Run              cose.Digest
	Statement        *receipt.Run
	Offer            session.RunOffer
	Uplink, Downlink [32]byte
}

// Accept takes part in the next run that is offered.
func (n *Node) Accept(ctx context.Context) (*Secrets, error) {
	o, err := Hear[*session.RunOffer](ctx, n)
	if err != nil {
		return nil, err
	}
	s := &Secrets{Run: cose.Sum(o.Statement), Offer: *o, Uplink: cose.Sum([]byte("hostile uplink"))}
	if s.Statement, err = body[*receipt.Run](n, o.Statement); err != nil {
		return nil, err
	}
	if err := n.Say(&session.RunAccept{Run: s.Run, Uplink: s.Uplink[:]}); err != nil {
		return nil, err
	}
	k, err := Hear[*session.RunKey](ctx, n)
	if err != nil {
		return nil, err
	}
	s.Downlink = [32]byte(k.Downlink)
	return s, nil
}

// body reads a statement of the joined enclave.
func body[B any](n *Node, raw []byte) (B, error) {
	var none B
	u, err := receipt.Parse(raw)
	if err != nil {
		return none, err
	}
	s, err := u.Verify(n.key)
	if err != nil {
		return none, err
	}
	b, ok := s.Body.(B)
	if !ok {
		return none, fmt.Errorf("hostile: statement is a %s", s.Kind)
	}
	return b, nil
}

// Step reads a task's step statement.
func (n *Node) Step(t *session.Task) (*receipt.Step, error) { return body[*receipt.Step](n, t.Step) }

// Seal seals a reply as an honest node would, and uploads it.
func (n *Node) Seal(ctx context.Context, s *Secrets, seq uint64, d object.RecordDict) (chunkstore.Sealed, error) {
	up := n.Chunks.Upload(ctx, chunkstore.Scope{Federation: n.Policy.FederationID(), Run: s.Run, Owner: n.ID()})
	w := chunkstore.NewParcelWriter(chunkstore.NewUplink(s.Uplink, s.Run, seq), up.Add)
	if _, err := object.Flatten(d, func(o object.Object) error { return w.Add(o.Raw) }); err != nil {
		return chunkstore.Sealed{}, err
	}
	sealed, err := w.Close()
	return sealed, errors.Join(err, up.Close())
}

// Contribute signs a contribution and sends it.
func (n *Node) Contribute(run cose.Digest, body *receipt.Contribution, manifest chunkstore.Ref) (*session.Contribution, error) {
	s, err := n.Sign(receipt.KindContribution, run, body)
	if err != nil {
		return nil, err
	}
	m := &session.Contribution{Statement: s.Raw(), Manifest: session.ManifestRef{OID: cose.Digest(manifest.OID), ID: cose.Digest(manifest.ID), Size: manifest.Size}}
	return m, n.Say(m)
}

// Answer contributes d to a task as an honest node would.
func (n *Node) Answer(ctx context.Context, s *Secrets, t *session.Task, d object.RecordDict) (*session.Contribution, error) {
	step, err := n.Step(t)
	if err != nil {
		return nil, err
	}
	sealed, err := n.Seal(ctx, s, step.Seq, d)
	if err != nil {
		return nil, err
	}
	return n.Contribute(s.Run, &receipt.Contribution{Seq: step.Seq, Step: cose.Sum(t.Step), Manifest: cose.Digest(sealed.Manifest.ID), ChunkRoot: sealed.Root, Count: sealed.Count}, sealed.Manifest)
}

// Ack signs whatever step of a run it is asked to.
func (n *Node) Ack(run cose.Digest, q *session.AckRequest) error {
	step, err := body[*receipt.Step](n, q.Step)
	if err != nil {
		return err
	}
	s, err := n.Sign(receipt.KindAck, run, &receipt.Ack{Seq: step.Seq, Attempt: step.Attempt, Step: cose.Sum(q.Step), Instance: n.Enclave})
	if err != nil {
		return err
	}
	return n.Say(&session.Ack{Statement: s.Raw()})
}

// Open opens what a task hands out, from the link.
func (n *Node) Open(ctx context.Context, s *Secrets, t *session.Task) (*chunkstore.Parcel, error) {
	step, err := n.Step(t)
	if err != nil {
		return nil, err
	}
	r := transfer.NewReader(n.Chunks, chunkstore.Scope{Federation: n.Policy.FederationID(), Run: s.Run})
	return chunkstore.OpenParcel(ctx, chunkstore.NewDownlink(s.Downlink, s.Run, step.Generation),
		chunkstore.Ref{OID: object.ID(t.Manifest.OID), ID: chunkstore.ID(t.Manifest.ID), Size: t.Manifest.Size}, step.OutputsRoot, step.OutputsCount, r)
}
