package control

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/concordat/concordat/internal/flower/control/auth"
)

// Listener is where the flwr command connects, together with what tells its users apart:
// there is none on an address that others reach without TLS and a login. [Listen] and
// [ListenTLS] make one; [Server.Serve] closes it.
type Listener struct {
	at    net.Listener
	login *auth.Login // nil: whoever reaches it is the local account
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.at.Addr() }

// Close closes it, where it came to no Serve.
func (l *Listener) Close() error { return l.at.Close() }

// Listen opens a listener without a login, on an address of this machine alone.
func Listen(address string) (*Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("%q is no address like 127.0.0.1:9093", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%q is not of this machine alone, and there is no login: whoever reaches it could start runs; use 127.0.0.1:9093, or configure a login", address)
	}
	at, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return &Listener{at: at}, nil
}

// ListenTLS opens a listener where accounts log in, on any address.
func ListenTLS(address string, certificate tls.Certificate, login *auth.Login) (*Listener, error) {
	if login == nil || len(certificate.Certificate) == 0 {
		return nil, errors.New("a login needs both a provider and a certificate")
	}
	at, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return &Listener{login: login, at: tls.NewListener(bounded(at, maxConnections), &tls.Config{
		Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}})}, nil
}

// bounded closes connections beyond a number at once, which bounds what strangers can have
// the node hold for them.
func bounded(l net.Listener, n int) net.Listener {
	return &boundedListener{Listener: l, places: make(chan struct{}, n)}
}

type boundedListener struct {
	net.Listener
	places chan struct{} // an open connection holds one
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
			return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.places })}, nil
		default:
			_ = c.Close() // the caller sees a connection that breaks, and comes again
		}
	}
}

type boundedConn struct {
	net.Conn
	leave func()
}

func (c *boundedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
