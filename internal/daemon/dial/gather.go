package dial

import (
	"bufio"
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/experimental"
)

// Bytes that a connection gathers, of one write of gRPC's and for one read, and what
// gRPC itself buffers before it writes. TLS cuts both into records of 16 KiB, and Go
// makes a system call of each: half of what moving bytes costs on a fast network. gRPC
// reads nothing ahead, since TLS has whole records in memory.
const (
	gatherBytes = 64 << 10
	writeBuffer = 128 << 10
	readBuffer  = 0
)

// ServerOptions are those of a server that [Dial] connects to, without its TLS
// credentials, which are [Gathered].
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.WriteBufferSize(writeBuffer), grpc.ReadBufferSize(readBuffer), experimental.BufferPool(&frames),
		grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage)}
}

// Gathered returns TLS credentials whose connections write the records of one Write at
// once, and read several. What is on the wire is the same.
func Gathered(c credentials.TransportCredentials) credentials.TransportCredentials {
	return gathered{c}
}

type gathered struct {
	credentials.TransportCredentials
}

func (c gathered) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	under := newGathering(raw)
	tls, info, err := c.TransportCredentials.ClientHandshake(ctx, authority, under)
	if err != nil {
		return nil, nil, err
	}
	return &gatheringTLS{tls, under}, info, nil
}

func (c gathered) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	under := newGathering(raw)
	tls, info, err := c.TransportCredentials.ServerHandshake(under)
	if err != nil {
		return nil, nil, err
	}
	return &gatheringTLS{tls, under}, info, nil
}

func (c gathered) Clone() credentials.TransportCredentials {
	return gathered{c.TransportCredentials.Clone()}
}

// gatheringTLS is a TLS connection over a gathering one.
type gatheringTLS struct {
	net.Conn
	under *gathering
}

func (c *gatheringTLS) Write(p []byte) (int, error) {
	c.under.hold()
	n, err := c.Conn.Write(p)
	if rerr := c.under.release(); err == nil && rerr != nil {
		return 0, rerr
	}
	return n, err
}

// gathering is the connection under TLS.
type gathering struct {
	net.Conn
	in *bufio.Reader // owned by whoever reads

	mu   sync.Mutex
	held int    // writes of the connection above that are going on
	out  []byte // written meanwhile
	err  error  // of a write of out: the connection is of no more use
}

func newGathering(raw net.Conn) *gathering {
	return &gathering{Conn: raw, in: bufio.NewReaderSize(raw, gatherBytes)}
}

func (g *gathering) Read(p []byte) (int, error) { return g.in.Read(p) }

func (g *gathering) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	if g.held == 0 {
		return g.Conn.Write(p)
	}
	g.out = append(g.out, p...)
	if len(g.out) >= gatherBytes {
		g.flush()
	}
	return len(p), g.err
}

// flush is called with mu held.
func (g *gathering) flush() {
	if len(g.out) > 0 && g.err == nil {
		_, g.err = g.Conn.Write(g.out)
	}
	g.out = g.out[:0]
}

func (g *gathering) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held++
}

// release writes what was gathered if nobody else goes on.
func (g *gathering) release() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held--; g.held == 0 {
		g.flush()
	}
	return g.err
}
