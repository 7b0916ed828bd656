package hostile

import (
	"context"
	"sync"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// stream is one call of PutChunks or GetChunks.
type stream struct {
	grpc.ClientStream
	c       *conn
	method  string
	mu      sync.Mutex // owns the two below
	request proto.Message
	queue   []Message // answers that a rule made more of
}

// SendMsg passes one message up.
func (s *stream) SendMsg(m any) error {
	body := m.(proto.Message)
	s.mu.Lock()
	if s.request == nil {
		s.request = proto.Clone(body)
	}
	s.mu.Unlock()
	// The sender may use its message again while a rule's replacement is on its way.
	out := s.c.l.pass(Message{Party: s.c.party, Up: true, Method: s.method, Body: body})
	if len(out) == 0 {
		return errDropped
	}
	for _, x := range out {
		if err := s.ClientStream.SendMsg(x.Body); err != nil {
			return err
		}
	}
	return nil
}

// RecvMsg passes one message down.
func (s *stream) RecvMsg(m any) error {
	body := m.(proto.Message)
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) == 0 {
		if err := s.ClientStream.RecvMsg(body); err != nil {
			return err
		}
		s.queue = s.c.l.pass(Message{Party: s.c.party, Method: s.method, Body: proto.Clone(body), Request: s.request})
		if len(s.queue) == 0 {
			return errDropped
		}
	}
	proto.Reset(body)
	proto.Merge(body, s.queue[0].Body)
	s.queue = s.queue[1:]
	return nil
}

// attachStream is a party's Attach stream. Messages can be put into it at both ends.
type attachStream struct {
	grpc.ClientStream
	c      *conn
	ctx    context.Context
	cancel context.CancelFunc

	sending sync.Mutex // gRPC allows one SendMsg at a time

	mu    sync.Mutex // owns all below
	queue []proto.Message
	err   error         // of the stream, after the queue
	more  chan struct{} // has one element if the queue or err changed
}

func (c *conn) attach(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	under, err := c.under.NewStream(ctx, desc, method, opts...)
	if err != nil {
		cancel()
		return nil, err
	}
	s := &attachStream{ClientStream: under, c: c, ctx: ctx, cancel: cancel, more: make(chan struct{}, 1)}
	c.l.mu.Lock()
	c.l.streams[c.party] = s
	c.l.mu.Unlock()
	go s.pump()
	return s, nil
}

// pump reads the honest link's messages until the stream ends.
func (s *attachStream) pump() {
	defer s.cancel()
	for {
		body := new(concordatv1.AttachResponse)
		if err := s.ClientStream.RecvMsg(body); err != nil {
			s.c.l.mu.Lock()
			if s.c.l.streams[s.c.party] == s {
				delete(s.c.l.streams, s.c.party)
			}
			broken := s.ctx.Err() != nil
			s.c.l.mu.Unlock()
			if broken {
				err = errDropped // as a connection that breaks
			}
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
			s.signal()
			return
		}
		for _, x := range s.c.l.pass(Message{Party: s.c.party, Method: "Attach", Body: body}) {
			s.deliver(x.Body)
		}
	}
}

func (s *attachStream) deliver(body proto.Message) {
	s.mu.Lock()
	s.queue = append(s.queue, body)
	s.mu.Unlock()
	s.signal()
}

func (s *attachStream) signal() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *attachStream) send(body proto.Message) error {
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.ClientStream.SendMsg(body)
}

// SendMsg passes one message up.
func (s *attachStream) SendMsg(m any) error {
	for _, x := range s.c.l.pass(Message{Party: s.c.party, Up: true, Method: "Attach", Body: m.(proto.Message)}) {
		if err := s.send(x.Body); err != nil {
			return err
		}
	}
	return nil
}

// RecvMsg passes one message down.
func (s *attachStream) RecvMsg(m any) error {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			body := m.(proto.Message)
			proto.Reset(body)
			proto.Merge(body, s.queue[0])
			s.queue = s.queue[1:]
			s.mu.Unlock()
			return nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return err
		}
		<-s.more // the pump ends with the stream, and signals
	}
}
