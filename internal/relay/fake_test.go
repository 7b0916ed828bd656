package relay

import (
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
)

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

var federation = Digest{0xfe}

// fakeLink is a link in memory. Every stream that a peer attaches is handed to the
// test, which plays the link on it.
type fakeLink struct {
	concordatv1.UnimplementedRelayServer
	conn    *grpc.ClientConn
	streams chan *stream

	mu       sync.Mutex // guards all below
	greeting []*concordatv1.AttachResponse
	refusal  error
	calls    map[string]int
	answer   func(call string, n int, req any) (any, error)
}

// stream is one attached stream of a peer.
type stream struct {
	t      testing.TB
	grpc   concordatv1.Relay_AttachServer
	attach *concordatv1.Attach
	nonce  []byte
	in     chan *concordatv1.AttachRequest
	end    chan error
}

func newFakeLink(t testing.TB) *fakeLink {
	l := &fakeLink{streams: make(chan *stream, 16), calls: map[string]int{}}
	listener := bufconn.Listen(1 << 20)
	s := grpc.NewServer()
	concordatv1.RegisterRelayServer(s, l)
	served := make(chan struct{})
	go func() { defer close(served); s.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///link", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	l.conn = conn
	t.Cleanup(func() { conn.Close(); s.Stop(); <-served })
	return l
}

func (l *fakeLink) Attach(g concordatv1.Relay_AttachServer) error {
	l.mu.Lock()
	refusal, greeting := l.refusal, l.greeting
	l.mu.Unlock()
	if refusal != nil {
		return refusal
	}
	s := &stream{grpc: g, nonce: make([]byte, 32), in: make(chan *concordatv1.AttachRequest, 64), end: make(chan error, 1)}
	s.nonce[0] = 9
	if greeting == nil {
		greeting = []*concordatv1.AttachResponse{{Kind: &concordatv1.AttachResponse_Challenge{Challenge: &concordatv1.Challenge{Nonce: s.nonce}}}}
	}
	for _, m := range greeting {
		if err := g.Send(m); err != nil {
			return err
		}
	}
	first, err := g.Recv()
	if err != nil {
		return err
	}
	s.attach = first.GetAttach()
	go func() {
		defer close(s.in)
		for {
			m, err := g.Recv()
			if err != nil {
				return
			}
			s.in <- m
		}
	}()
	l.streams <- s
	select {
	case err := <-s.end:
		return err
	case <-g.Context().Done():
		return nil
	}
}

// next returns the next stream that a peer attaches, not yet welcomed.
func (l *fakeLink) next(t testing.TB) *stream {
	t.Helper()
	select {
	case s := <-l.streams:
		s.t = t
		return s
	case <-time.After(patience):
		t.Fatal("no stream was attached")
		return nil
	}
}

func (s *stream) send(m *concordatv1.AttachResponse) {
	s.t.Helper()
	if err := s.grpc.Send(m); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stream) welcome(checkpoint string) {
	s.t.Helper()
	s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Attached{Attached: &concordatv1.Attached{Checkpoint: []byte(checkpoint)}}})
}

func (s *stream) sent(handle []byte) {
	s.t.Helper()
	s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Sent{Sent: &concordatv1.Sent{Handle: handle}}})
}

func (s *stream) refuse(handle []byte, code codes.Code) {
	s.t.Helper()
	s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Refused{Refused: &concordatv1.Refused{Handle: handle, Code: uint32(code), Reason: "test"}}})
}

// recv returns what the peer sent next.
func (s *stream) recv() *concordatv1.AttachRequest {
	s.t.Helper()
	select {
	case m, ok := <-s.in:
		if !ok {
			s.t.Fatal("the peer ended the stream")
		}
		return m
	case <-time.After(patience):
		s.t.Fatal("the peer sent nothing")
		return nil
	}
}

// recvSend returns what the peer sent next, which must be the payload.
func (s *stream) recvSend(payload string) *concordatv1.Send {
	s.t.Helper()
	m := s.recv().GetSend()
	if m == nil || string(m.GetPayload()) != payload || len(m.GetHandle()) != 16 {
		s.t.Fatalf("the peer sent %v, want payload %q", m, payload)
	}
	return m
}

// call counts a unary call and asks the test for its answer.
func call[T any](l *fakeLink, name string, req any) (*T, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls[name]++
	if l.answer == nil {
		return nil, status.Error(codes.Unimplemented, name)
	}
	v, err := l.answer(name, l.calls[name], req)
	if err != nil {
		return nil, err
	}
	return v.(*T), nil
}

func (l *fakeLink) Append(_ context.Context, r *concordatv1.AppendRequest) (*concordatv1.AppendResponse, error) {
	return call[concordatv1.AppendResponse](l, "append", r)
}
func (l *fakeLink) PutBlob(_ context.Context, r *concordatv1.PutBlobRequest) (*concordatv1.PutBlobResponse, error) {
	return call[concordatv1.PutBlobResponse](l, "put", r)
}
func (l *fakeLink) GetBlob(_ context.Context, r *concordatv1.GetBlobRequest) (*concordatv1.GetBlobResponse, error) {
	return call[concordatv1.GetBlobResponse](l, "get", r)
}
func (l *fakeLink) GetTile(_ context.Context, r *concordatv1.GetTileRequest) (*concordatv1.GetTileResponse, error) {
	return call[concordatv1.GetTileResponse](l, "tile", r)
}
func (l *fakeLink) GetReceipt(_ context.Context, r *concordatv1.GetReceiptRequest) (*concordatv1.GetReceiptResponse, error) {
	return call[concordatv1.GetReceiptResponse](l, "receipt", r)
}

func nodeKey() *cose.Signer {
	s, err := cose.NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	if err != nil {
		panic(err)
	}
	return s
}

// peer returns a node's peer of the link. Nothing runs yet.
func (l *fakeLink) peer() *Peer {
	k := nodeKey()
	return New(Config{
		Conn: l.conn, Federation: federation, Self: Node(k.Public().ID()), Signer: k, Credential: []byte("credential"),
		Witness: "witness.example+00000000+AAAA", Witnessed: func() uint64 { return 7 }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
}

// run runs p until the test ends, and returns what stops it earlier. The events are
// read by the returned function.
func run(t testing.TB, p *Peer) (stop func() error, event func() Event) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() {
			cancel()
			select {
			case err = <-done:
			case <-time.After(patience):
				t.Error("Run did not return")
			}
		})
		return err
	}
	t.Cleanup(func() { stop() })
	return stop, func() Event {
		t.Helper()
		select {
		case e, ok := <-p.Events():
			if !ok {
				return nil
			}
			return e
		case <-time.After(patience):
			t.Fatal("no event")
			return nil
		}
	}
}
