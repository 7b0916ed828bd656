package link

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/link/log"
	"github.com/concordat/concordat/link/mailbox"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// session is one attached stream. Three goroutines serve it: one takes requests,
// one delivers the mailbox, one tells of checkpoints and requests for cosignatures.
type session struct {
	*attached
	relay  *service
	bucket *bucket
	box    *mailbox.Box

	sending  sync.Mutex // gRPC allows one Send at a time
	fetching sync.Mutex // held by the call that asks vendors
	stream   attachStream

	mu      sync.Mutex // owns what follows; what is newer replaces what was not told yet
	note    []byte
	request *log.Request
	enclave string        // to be announced to a node
	news    chan struct{} // has one element if there is something to tell
}

// Attach implements the Relay service.
func (r *service) Attach(stream attachStream) error {
	ctx := stream.Context()
	c, err := connOf(ctx)
	if err != nil {
		return err
	}
	if err := c.begin(); err != nil {
		return err
	}
	in := newInbox(stream)
	p, err := r.challenge(stream, c, func() (*concordatv1.AttachRequest, error) {
		t := time.NewTimer(attachDeadline)
		defer t.Stop()
		m, err := in.first(t.C, r.draining)
		if err == io.EOF {
			err = status.Error(codes.Canceled, "closed before attach")
		}
		return m, err
	})
	c.begun()
	if err != nil {
		return err
	}
	in.open()
	rate := r.limits.NodeRate
	if p.address.Role == mailbox.Enclave {
		rate = r.limits.EnclaveRate
	}
	s := &session{attached: p, relay: r, bucket: newBucket(rate), stream: stream, news: make(chan struct{}, 1)}
	if s.box, err = p.fed.mail.Open(p.address, p.rank); err != nil {
		return r.fault(ctx, err)
	}
	defer s.box.Close()
	p.fed.join(s)
	defer p.fed.leave(s)
	c.add(s)
	defer c.remove(s)
	r.metrics.attached(p.address.Role, 1)
	defer r.metrics.attached(p.address.Role, -1)
	log := r.logger.With("federation", p.fed.id.Short(), "role", roleName(p.address.Role), "id", shortID(p.address.ID), "member", string(p.member))
	log.InfoContext(ctx, "attached")
	err = s.run(ctx, in)
	log.InfoContext(ctx, "detached", "reason", status.Convert(err).Message())
	return err
}

func (s *session) run(ctx context.Context, in *inbox) error {
	note, _ := s.fed.log.Published()
	if err := s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Attached{Attached: &concordatv1.Attached{Checkpoint: note}}}); err != nil {
		return err
	}
	var w *log.Witness
	if !s.witness.IsZero() {
		var err error
		if w, err = s.fed.log.AttachWitness(s.witness, s.size, s.ask); err != nil {
			return status.Errorf(codes.PermissionDenied, "%v", err)
		}
		defer w.Detach()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.take(ctx, in, w) })
	g.Go(func() error { return s.deliver(ctx) })
	g.Go(func() error { return s.tell(ctx) })
	g.Go(func() error {
		select {
		case <-s.relay.draining:
			return status.Error(codes.Unavailable, errDrain.Error())
		case <-s.box.Ended():
			return status.Error(codes.Aborted, "another stream of this address attached")
		case <-ctx.Done():
			return nil
		}
	})
	if err := g.Wait(); err != io.EOF {
		return err
	}
	return nil // the caller closed the stream
}

func (s *session) send(m *concordatv1.AttachResponse) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.stream.Send(m)
}

// deliver sends what is in the mailbox and what comes into it.
func (s *session) deliver(ctx context.Context) error {
	for {
		m, err := s.box.Next(ctx)
		if errors.Is(err, mailbox.ErrEnded) {
			return status.Error(codes.Aborted, "another stream of this address attached")
		}
		if err != nil {
			return s.relay.fault(ctx, err)
		}
		err = s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Deliver{Deliver: &concordatv1.Deliver{
			Handle: m.Handle[:], From: protoAddress(m.From), Payload: m.Payload}}})
		if err != nil {
			return err
		}
		s.relay.metrics.delivered.Inc()
	}
}

// checkpoint has the stream tell of a published checkpoint; it does not block.
func (s *session) checkpoint(note []byte) {
	s.mu.Lock()
	s.note = note
	s.mu.Unlock()
	s.wake()
}

// ask has the stream ask for a cosignature; it does not block.
func (s *session) ask(r log.Request) {
	s.mu.Lock()
	s.request = &r
	s.mu.Unlock()
	s.wake()
}

func (s *session) wake() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// tell sends checkpoints and requests for cosignatures, the newest only.
func (s *session) tell(ctx context.Context) error {
	for {
		select {
		case <-s.news:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
		note, request, enclave := s.note, s.request, s.enclave
		s.note, s.request, s.enclave = nil, nil, ""
		s.mu.Unlock()
		if note != nil {
			if err := s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Checkpoint{Checkpoint: &concordatv1.Checkpoint{Note: note}}}); err != nil {
				return err
			}
		}
		if enclave != "" {
			if err := s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Presence{Presence: &concordatv1.Presence{Instance: []byte(enclave)}}}); err != nil {
				return err
			}
		}
		if request != nil {
			if err := s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Witness{Witness: &concordatv1.WitnessRequest{
				Note: request.Note, OldSize: request.OldSize, Proof: request.Proof}}}); err != nil {
				return err
			}
		}
	}
}

// announce tells a node which enclave attached last.
func (s *session) announce(instance string) {
	if s.address.Role != mailbox.Node {
		return
	}
	s.mu.Lock()
	s.enclave = instance
	s.mu.Unlock()
	signal(s.news)
}
