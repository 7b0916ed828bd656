package link

import (
	"context"
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
)

// inbox reads a stream ahead, within bounds; beyond them gRPC's flow control holds
// the sender back.
type inbox struct {
	mu    sync.Mutex
	queue []*concordatv1.AttachRequest
	bytes int
	err   error         // of the stream, after the last request
	more  chan struct{} // has one element if the queue or err changed
	space chan struct{} // has one element if the queue was emptied
}

func newInbox(stream attachStream) *inbox {
	in := &inbox{more: make(chan struct{}, 1), space: make(chan struct{}, 1)}
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
		full := len(in.queue) >= maxAhead || in.bytes >= maxAheadBytes
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
			full = len(in.queue) >= maxAhead || in.bytes >= maxAheadBytes
			in.mu.Unlock()
		}
	}
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
			m := in.queue[0]
			in.queue = in.queue[1:]
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

// take serves the requests of a stream in their order. Sends in a row are stored
// together.
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
			n := 0
			for n < len(all) && all[n].GetSend() != nil {
				n++
			}
			if n > 0 {
				err = s.post(ctx, all[:n])
			} else {
				n, err = 1, s.serve(ctx, all[0], w)
			}
			if err != nil {
				return err
			}
			all = all[n:]
		}
	}
}

func (s *session) serve(ctx context.Context, m *concordatv1.AttachRequest, w *log.Witness) error {
	switch k := m.Kind.(type) {
	case *concordatv1.AttachRequest_Received:
		handles := make([][16]byte, len(k.Received.GetHandles()))
		for i, h := range k.Received.GetHandles() {
			if len(h) != len(handles[i]) {
				return status.Errorf(codes.InvalidArgument, "received: handle of %d bytes, want 16", len(h))
			}
			handles[i] = [16]byte(h)
		}
		return s.relay.fault(ctx, s.box.Received(ctx, handles))
	case *concordatv1.AttachRequest_Cosign:
		if w == nil {
			return status.Error(codes.PermissionDenied, "cosign: this stream attached no witness")
		}
		w.Answer(k.Cosign.GetCosignature(), k.Cosign.GetSize())
		return nil
	}
	return status.Error(codes.InvalidArgument, "request of an unknown kind, or a second attach")
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
