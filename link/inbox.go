package link

import (
	"context"
	"slices"
	"sync"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/link/log"
	"github.com/concordat/concordat/link/mailbox"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Limits of what is read ahead of one stream: requests that come while the disk
// is busy are stored together.
const (
	maxAhead      = 128
	maxAheadBytes = 4 << 20 // one more message may exceed it
	maxHandles    = 1 << 12 // of one Received
)

// inbox reads a stream ahead, within bounds; beyond them gRPC's flow control holds
// the sender back. Of somebody who has not attached yet it reads one message.
type inbox struct {
	mu    sync.Mutex
	queue []*concordatv1.AttachRequest
	bytes int
	limit int           // of queue
	err   error         // of the stream, after the last request
	more  chan struct{} // has one element if the queue or err changed
	space chan struct{} // has one element if the queue was emptied
}

func newInbox(stream attachStream) *inbox {
	in := &inbox{limit: 1, more: make(chan struct{}, 1), space: make(chan struct{}, 1)}
	go in.read(stream) // ends with the stream, whose context ends when the handler returns
	return in
}

func (in *inbox) read(stream attachStream) {
	for {
		m, err := stream.Recv()
		in.mu.Lock()
		if err == nil {
			in.queue = append(in.queue, m)
			in.bytes += proto.Size(m)
		}
		in.err = err
		full := in.full()
		in.mu.Unlock()
		signal(in.more)
		if err != nil {
			return
		}
		for full {
			select {
			case <-in.space:
			case <-stream.Context().Done():
				return
			}
			in.mu.Lock()
			full = in.full()
			in.mu.Unlock()
		}
	}
}

// full is called with the mutex held.
func (in *inbox) full() bool { return len(in.queue) >= in.limit || in.bytes >= maxAheadBytes }

// open lets the inbox read ahead: the party has attached. The first message was
// taken.
func (in *inbox) open() {
	in.mu.Lock()
	in.queue, in.bytes, in.limit = nil, 0, maxAhead
	in.mu.Unlock()
	signal(in.space)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take waits for requests and returns all that are there, or the stream's error.
func (in *inbox) take(ctx context.Context) ([]*concordatv1.AttachRequest, error) {
	for {
		in.mu.Lock()
		all, err := in.queue, in.err
		in.queue, in.bytes = nil, 0
		in.mu.Unlock()
		if len(all) > 0 {
			signal(in.space)
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-in.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// first waits for the first request, until timeout or drain.
func (in *inbox) first(timeout <-chan time.Time, drain <-chan struct{}) (*concordatv1.AttachRequest, error) {
	for {
		in.mu.Lock()
		if len(in.queue) > 0 {
			m := in.queue[0] // the only one; it counts until open
			in.mu.Unlock()
			return m, nil
		}
		err := in.err
		in.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-in.more:
		case <-timeout:
			return nil, status.Error(codes.DeadlineExceeded, "no attach came")
		case <-drain:
			return nil, status.Error(codes.Unavailable, errDrain.Error())
		}
	}
}

// take serves the requests of a stream in their order. Those of one kind in a row
// go to the disk together.
func (s *session) take(ctx context.Context, in *inbox, w *log.Witness) error {
	for {
		all, err := in.take(ctx)
		if err != nil {
			return err
		}
		if err := s.bucket.take(ctx, len(all)); err != nil {
			return err
		}
		for len(all) > 0 {
			n := 1
			switch k := all[0].Kind.(type) {
			case *concordatv1.AttachRequest_Send:
				n = run(all, func(m *concordatv1.AttachRequest) bool { return m.GetSend() != nil })
				err = s.post(ctx, all[:n])
			case *concordatv1.AttachRequest_Received:
				n = run(all, func(m *concordatv1.AttachRequest) bool { return m.GetReceived() != nil })
				err = s.received(ctx, all[:n])
			case *concordatv1.AttachRequest_Cosign:
				if w == nil {
					return status.Error(codes.PermissionDenied, "cosign: this stream attached no witness")
				}
				w.Answer(k.Cosign.GetCosignature(), k.Cosign.GetSize())
			default:
				return status.Error(codes.InvalidArgument, "request of an unknown kind, or a second attach")
			}
			if err != nil {
				return err
			}
			all = all[n:]
		}
	}
}

// run returns how many requests at the start are of a kind.
func run(all []*concordatv1.AttachRequest, kind func(*concordatv1.AttachRequest) bool) int {
	if n := slices.IndexFunc(all, func(m *concordatv1.AttachRequest) bool { return !kind(m) }); n >= 0 {
		return n
	}
	return len(all)
}

func (s *session) received(ctx context.Context, requests []*concordatv1.AttachRequest) error {
	var handles [][16]byte
	for _, m := range requests {
		if n := len(m.GetReceived().GetHandles()); n > maxHandles {
			return status.Errorf(codes.InvalidArgument, "received: %d handles, limit %d", n, maxHandles)
		}
		for _, h := range m.GetReceived().GetHandles() {
			if len(h) != 16 {
				return status.Errorf(codes.InvalidArgument, "received: handle of %d bytes, want 16", len(h))
			}
			handles = append(handles, [16]byte(h))
		}
	}
	return s.relay.fault(ctx, s.box.Received(ctx, handles))
}

// post stores payloads and confirms each, or says why not.
func (s *session) post(ctx context.Context, requests []*concordatv1.AttachRequest) error {
	letters := make([]mailbox.Letter, len(requests))
	for i, m := range requests {
		send := m.GetSend()
		to, err := addressOf(send.GetTo())
		if err != nil || len(send.GetHandle()) != 16 {
			return status.Error(codes.InvalidArgument, "send: malformed handle or address")
		}
		letters[i] = mailbox.Letter{Handle: [16]byte(send.GetHandle()), To: to, Payload: send.GetPayload()}
	}
	for i, err := range s.fed.mail.Post(ctx, s.address, letters...) {
		answer := &concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Sent{Sent: &concordatv1.Sent{Handle: letters[i].Handle[:]}}}
		if err != nil {
			f := status.Convert(s.relay.fault(ctx, err))
			if f.Code() == codes.Unavailable || f.Code() == codes.Canceled {
				return f.Err() // not this payload's fault: the caller sends again on its next stream
			}
			answer = &concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Refused{Refused: &concordatv1.Refused{
				Handle: letters[i].Handle[:], Code: uint32(f.Code()), Reason: f.Message()}}}
			s.relay.metrics.refused.Inc()
		} else {
			s.relay.metrics.sent.Inc()
		}
		if err := s.send(answer); err != nil {
			return err
		}
	}
	return nil
}
