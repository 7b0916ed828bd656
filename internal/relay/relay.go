// Package relay is the dialing side of a link: the one long-lived stream by which
// a node or an enclave sends and receives, and the small calls beside it. Both
// use it; neither listens.
//
// Start with [New], run [Peer.Run] in a goroutine that its caller waits for, and
// read [Peer.Events]. A Peer reconnects by itself and sends again what the link did
// not confirm; so everything arrives at least once, in order per destination, and
// the sealed records inside have counters. Nothing that a link answers is believed
// here: the readers verify.
package relay

import (
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Digest is a SHA-256 value.
type Digest = cose.Digest

// Address names a party of the federation.
type Address struct {
	Enclave bool
	ID      string // raw bytes: a node id (32), an instance (16), or empty for the newest enclave
}

// Node returns the address of a node.
func Node(id Digest) Address { return Address{ID: string(id[:])} }

// Enclave returns the address of an enclave's instance.
func Enclave(instance [16]byte) Address { return Address{Enclave: true, ID: string(instance[:])} }

// AnyEnclave is the newest attached enclave.
var AnyEnclave = Address{Enclave: true}

func (a Address) proto() *concordatv1.Address {
	role := concordatv1.Role_ROLE_NODE
	if a.Enclave {
		role = concordatv1.Role_ROLE_ENCLAVE
	}
	return &concordatv1.Address{Role: role, Id: []byte(a.ID)}
}

func addressOf(p *concordatv1.Address) Address {
	return Address{Enclave: p.GetRole() == concordatv1.Role_ROLE_ENCLAVE, ID: string(p.GetId())}
}

// Config says who dials. All fields but the witness's and Credential are required.
type Config struct {
	Conn       grpc.ClientConnInterface
	Federation Digest
	Self       Address
	Signer     *cose.Signer  // its key's ID is a node's id
	Credential []byte        // of a node
	Witness    string        // C2SP verifier key of a node that cosigns, or empty
	Witnessed  func() uint64 // size of the largest checkpoint that it cosigned
	Log        *slog.Logger
}

// Event is something that the stream brought: [Delivered], [Checkpoint],
// [WitnessRequest], [Presence] or [Attached].
type Event any

// Delivered is one payload. It comes again until [Peer.Received].
type Delivered struct {
	Handle  string
	From    Address // the link's word
	Payload []byte
}

// Checkpoint is the newest published checkpoint, unverified.
type Checkpoint struct{ Note []byte }

// WitnessRequest asks for a cosignature.
type WitnessRequest struct {
	Note    []byte
	OldSize uint64
	Proof   []Digest
}

// Presence says which enclave the federation has now: the link's word, a reason to
// challenge it and no more.
type Presence struct{ Instance string }

// Attached says that the stream is up, again or for the first time.
type Attached struct{}

// maxQueue bounds what waits to be sent; more is an error to the caller.
const maxQueue = 1 << 14

// Peer is one party's connection. Its methods are safe for concurrent use.
type Peer struct {
	cfg    Config
	rpc    concordatv1.RelayClient
	events chan Event

	mu    sync.Mutex // owns queue and wake
	queue []*concordatv1.AttachRequest
	sent  int           // of queue, how many this stream has sent
	wake  chan struct{} // closed when there is more to send
}

// New returns a Peer; nothing is dialled before Run.
func New(cfg Config) *Peer {
	return &Peer{cfg: cfg, rpc: concordatv1.NewRelayClient(cfg.Conn), events: make(chan Event, 64), wake: make(chan struct{})}
}

// Events returns what the stream brings, in order. The reader must keep reading
// until Run returns, which closes the channel.
func (p *Peer) Events() <-chan Event { return p.events }

// Send queues payload for to. It returns at once; the payload is sent again after
// every reconnect until the link has it durably.
func (p *Peer) Send(to Address, payload []byte) error {
	handle := make([]byte, 16)
	if _, err := cryptorand.Read(handle); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	return p.enqueue(&concordatv1.AttachRequest{Kind: &concordatv1.AttachRequest_Send{
		Send: &concordatv1.Send{Handle: handle, To: to.proto(), Payload: payload}}})
}

// Received lets the link forget a delivered payload.
func (p *Peer) Received(handle string) error {
	return p.enqueue(&concordatv1.AttachRequest{Kind: &concordatv1.AttachRequest_Received{
		Received: &concordatv1.Received{Handles: [][]byte{[]byte(handle)}}}})
}

// Cosign answers a WitnessRequest with cosignature lines, or, if there is none,
// with the size that the witness holds.
func (p *Peer) Cosign(cosignature []byte, size uint64) error {
	return p.enqueue(&concordatv1.AttachRequest{Kind: &concordatv1.AttachRequest_Cosign{
		Cosign: &concordatv1.Cosign{Cosignature: cosignature, Size: size}}})
}

func (p *Peer) enqueue(r *concordatv1.AttachRequest) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) >= maxQueue {
		return errors.New("relay: the link takes nothing; send queue is full")
	}
	p.queue = append(p.queue, r)
	close(p.wake)
	p.wake = make(chan struct{})
	return nil
}

// Run keeps the stream up until ctx ends, and then returns nil. Federations that
// the link does not host, and refused credentials, are returned as errors: to dial
// again would not help.
func (p *Peer) Run(ctx context.Context) error {
	defer close(p.events)
	backoff := 50 * time.Millisecond
	for {
		start := time.Now()
		err := p.attach(ctx)
		if ctx.Err() != nil {
			return nil
		}
		switch status.Code(err) {
		case codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument:
			return fmt.Errorf("relay: the link refuses this party: %w", err)
		}
		if time.Since(start) > 10*time.Second {
			backoff = 50 * time.Millisecond
		}
		p.cfg.Log.WarnContext(ctx, "stream to the link ended; dialling again", "error", err, "wait", backoff)
		select {
		case <-time.After(backoff/2 + rand.N(backoff)):
		case <-ctx.Done():
			return nil
		}
		backoff = min(2*backoff, 10*time.Second)
	}
}

// attach runs one stream to its end.
func (p *Peer) attach(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := p.rpc.Attach(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	nonce := first.GetChallenge().GetNonce()
	if len(nonce) != 32 {
		return errors.New("relay: the link sent no challenge")
	}
	a := &concordatv1.Attach{
		Federation: p.cfg.Federation[:], Address: p.cfg.Self.proto(), Key: p.cfg.Signer.Public().Encode(),
		Credential: p.cfg.Credential, Witness: p.cfg.Witness,
	}
	if p.cfg.Witness != "" {
		a.WitnessedSize = p.cfg.Witnessed()
	}
	if a.Signature, err = p.cfg.Signer.SignRaw(AttachSignatureInput(nonce, p.cfg.Federation, p.cfg.Self, p.cfg.Credential)); err != nil {
		return err
	}
	if err := stream.Send(&concordatv1.AttachRequest{Kind: &concordatv1.AttachRequest_Attach{Attach: a}}); err != nil {
		return err
	}
	// The sender starts when the link has attached us, and ends before attach returns.
	p.mu.Lock()
	p.sent = 0
	p.mu.Unlock()
	sender := make(chan struct{})
	started := false
	defer func() {
		cancel()
		if started {
			<-sender
		}
	}()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		var e Event
		switch k := m.Kind.(type) {
		case *concordatv1.AttachResponse_Attached:
			if started {
				return errors.New("relay: attached twice")
			}
			started = true
			go func() {
				defer close(sender)
				p.sendLoop(ctx, stream)
			}()
			e = Attached{}
			if note := k.Attached.GetCheckpoint(); len(note) > 0 {
				if !p.emit(ctx, Checkpoint{note}) {
					return ctx.Err()
				}
			}
		case *concordatv1.AttachResponse_Sent:
			p.confirmed(k.Sent.GetHandle())
			continue
		case *concordatv1.AttachResponse_Refused:
			if c := codes.Code(k.Refused.GetCode()); c == codes.ResourceExhausted {
				return status.Error(c, "relay: "+k.Refused.GetReason()) // all of it again, in order, after a while
			}
			p.cfg.Log.ErrorContext(ctx, "the link refuses a payload", "reason", k.Refused.GetReason())
			p.confirmed(k.Refused.GetHandle())
			continue
		case *concordatv1.AttachResponse_Deliver:
			e = Delivered{string(k.Deliver.GetHandle()), addressOf(k.Deliver.GetFrom()), k.Deliver.GetPayload()}
		case *concordatv1.AttachResponse_Checkpoint:
			e = Checkpoint{k.Checkpoint.GetNote()}
		case *concordatv1.AttachResponse_Witness:
			w := WitnessRequest{Note: k.Witness.GetNote(), OldSize: k.Witness.GetOldSize()}
			for _, h := range k.Witness.GetProof() {
				if len(h) != len(Digest{}) {
					return errors.New("relay: witness request with a malformed proof")
				}
				w.Proof = append(w.Proof, Digest(h))
			}
			e = w
		case *concordatv1.AttachResponse_Presence:
			e = Presence{string(k.Presence.GetInstance())}
		default:
			continue
		}
		if !p.emit(ctx, e) {
			return ctx.Err()
		}
	}
}

func (p *Peer) emit(ctx context.Context, e Event) bool {
	select {
	case p.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

// sendLoop sends the queue until the stream breaks. What needs no confirmation
// leaves the queue when it was sent.
func (p *Peer) sendLoop(ctx context.Context, stream grpc.BidiStreamingClient[concordatv1.AttachRequest, concordatv1.AttachResponse]) {
	for {
		p.mu.Lock()
		var next *concordatv1.AttachRequest
		if p.sent < len(p.queue) {
			next = p.queue[p.sent]
			if next.GetSend() != nil {
				p.sent++
			} else {
				p.queue = append(p.queue[:p.sent:p.sent], p.queue[p.sent+1:]...)
			}
		}
		wake := p.wake
		p.mu.Unlock()
		if next == nil {
			select {
			case <-wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if err := stream.Send(next); err != nil {
			if err != io.EOF {
				p.cfg.Log.DebugContext(ctx, "send to the link failed", "error", err)
			}
			return
		}
	}
}

func (p *Peer) confirmed(handle []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, r := range p.queue[:p.sent] {
		if s := r.GetSend(); s != nil && string(s.GetHandle()) == string(handle) {
			p.queue = append(p.queue[:i:i], p.queue[i+1:]...)
			p.sent--
			return
		}
	}
}

// Flush waits until the link has confirmed everything queued, or ctx ends.
func (p *Peer) Flush(ctx context.Context) error {
	for {
		p.mu.Lock()
		n := len(p.queue)
		p.mu.Unlock()
		if n == 0 {
			return nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// AttachSignatureInput is what an attaching party signs (docs/protocol.md, link).
func AttachSignatureInput(nonce []byte, federation Digest, self Address, credential []byte) []byte {
	h := cose.Hash("concordat/attach/1", nonce, federation[:], []byte{byte(self.proto().Role)}, []byte(self.ID), credential)
	return h[:]
}
