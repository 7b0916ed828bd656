// Package dial makes the one connection that a node or an enclave has: to its
// link. Start with [Dial].
//
// The connection keeps strangers on the network out and nothing more: the link
// itself is not trusted, and all that matters is sealed and signed inside. TLS is
// 1.3 only. A link with a self-signed certificate is named by a pin in its
// address, so that no certificate authority is needed.
package dial

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
)

// MaxMessage bounds one gRPC message, both ways: Flower's chunks of 5 MiB and a
// blob of 4 MiB fit with their framing.
const MaxMessage = 8 << 20

// Options of [Dial]. The zero value uses the system's roots and no proxy: the
// environment is never read, since the enclave's belongs to its host.
type Options struct {
	// Proxy is the URL of an HTTP proxy that is asked to CONNECT,
	// "http://[user:password@]host:port"; empty: none.
	Proxy string
	// Roots replaces the system's for an address without a pin.
	Roots *x509.CertPool
	// KeepAlive is the time without traffic after which the peer is probed, at
	// least 10 s; zero: 30 s. A peer that does not answer within 20 s is gone.
	KeepAlive time.Duration
	// Window is how many bytes of each call the link may send ahead of what is read; they
	// lie in memory. Zero: it grows with the network's speed and delay, to 16 MiB.
	Window int32
}

// Dial returns a connection to the link at addr (see [ParseAddress]). It does
// not wait: the connection is made when first used, and again whenever it breaks.
// An error means that addr or o is malformed. See [WaitReady] for the rest. The
// caller closes the connection.
func Dial(addr string, o Options) (*grpc.ClientConn, error) {
	a, err := ParseAddress(addr)
	if err != nil {
		return nil, err
	}
	dialer, err := dialerOf(o.Proxy)
	if err != nil {
		return nil, err
	}
	t, err := tlsConfig(a, o.Roots)
	if err != nil {
		return nil, err
	}
	idle := o.KeepAlive
	if idle == 0 {
		idle = 30 * time.Second
	}
	var windows []grpc.DialOption
	if o.Window > 0 {
		windows = append(windows, grpc.WithInitialWindowSize(o.Window), grpc.WithInitialConnWindowSize(16*o.Window))
	}
	// passthrough: names are resolved by the dialer, or by the proxy.
	return grpc.NewClient("passthrough:///"+a.HostPort, append(windows,
		grpc.WithTransportCredentials(Gathered(credentials.NewTLS(t))),
		grpc.WithWriteBufferSize(writeBuffer),
		grpc.WithReadBufferSize(readBuffer),
		experimental.WithBufferPool(&frames),
		grpc.WithContextDialer(dialer),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: max(idle, 10*time.Second), Timeout: 20 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 10 * time.Second, Backoff: backoff.Config{
			BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second}}),
		grpc.WithIdleTimeout(0),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)),
	)...)
}

// ErrPin is wrapped by the error of a link that proves another key than the one
// pinned. It ends up in the text of a gRPC status.
var ErrPin = errors.New("dial: the link has another key than its address pins")

func tlsConfig(a Address, roots *x509.CertPool) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(a.HostPort)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: host, RootCAs: roots, DynamicRecordSizingDisabled: true}
	if a.Pin != nil {
		want := *a.Pin
		// The key is the whole identity: name, dates and issuer of the certificate
		// say nothing more. TLS 1.3 proves possession of it (RFC 8446 4.4.3).
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return ErrPin
			}
			got := PinOf(s.PeerCertificates[0])
			if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
				return fmt.Errorf("%w: got %v, want %v", ErrPin, got, want)
			}
			return nil
		}
	}
	return c, nil
}

// WaitReady connects and returns nil when the connection stands. It fails only
// when ctx ends.
func WaitReady(ctx context.Context, c *grpc.ClientConn) error {
	for {
		s := c.GetState()
		if s == connectivity.Ready {
			return nil
		}
		c.Connect()
		if !c.WaitForStateChange(ctx, s) {
			return fmt.Errorf("dial: %s is not reached: %w", c.Target(), ctx.Err())
		}
	}
}
