package link

import (
	"context"
	"net"
	"slices"
	"sync"

	"github.com/concordat/concordat/internal/cose"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// conn is one TLS connection, and who has attached on it. gRPC hands it to every
// call of the connection as its AuthInfo.
type conn struct {
	credentials.AuthInfo
	remote net.Addr

	mu       sync.Mutex
	sessions []*session
	pending  int // streams that have not attached yet
}

// maxPending bounds the streams of one connection that have not attached yet.
const maxPending = 8

func (c *conn) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending >= maxPending {
		return status.Error(codes.ResourceExhausted, "too many streams that have not attached")
	}
	c.pending++
	return nil
}

func (c *conn) begun() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending--
}

// connCredentials makes every connection's AuthInfo a *conn of its own.
type connCredentials struct {
	credentials.TransportCredentials
}

func (c connCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	tls, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return tls, &conn{AuthInfo: info, remote: raw.RemoteAddr()}, nil
}

func (c connCredentials) Clone() credentials.TransportCredentials {
	return connCredentials{c.TransportCredentials.Clone()}
}

func connOf(ctx context.Context) (*conn, error) {
	if p, ok := peer.FromContext(ctx); ok {
		if c, ok := p.AuthInfo.(*conn); ok {
			return c, nil
		}
	}
	return nil, status.Error(codes.Internal, "connection is not known")
}

func (c *conn) add(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions = append(c.sessions, s)
}

func (c *conn) remove(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.sessions, s); i >= 0 {
		c.sessions = slices.Delete(c.sessions, i, i+1)
	}
}

// session returns the party of the federation that is attached on c, the one that
// attached last if there are several, or nil.
func (c *conn) session(federation cose.Digest) *session {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range slices.Backward(c.sessions) {
		if s.fed.id == federation {
			return s
		}
	}
	return nil
}

// caller returns who makes a call about the federation: a party that is attached on
// the same connection. There is no other way into a federation.
func (r *service) caller(ctx context.Context, federation []byte) (*session, error) {
	f, err := r.federation(federation)
	if err != nil {
		return nil, err
	}
	c, err := connOf(ctx)
	if err != nil {
		return nil, err
	}
	s := c.session(f.id)
	if s == nil {
		return nil, status.Error(codes.Unavailable, "nobody of this federation is attached on this connection")
	}
	if err := s.bucket.take(ctx, 1); err != nil {
		return nil, status.FromContextError(err).Err()
	}
	return s, nil
}
