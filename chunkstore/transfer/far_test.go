package transfer

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// far is a network on which every byte takes a while, and as many as want have room.
type far struct {
	delay   time.Duration // each way
	accepts chan net.Conn
	closed  chan struct{}
}

func newFar(delay time.Duration) *far {
	return &far{delay, make(chan net.Conn), make(chan struct{})}
}

func (f *far) Accept() (net.Conn, error) {
	select {
	case c := <-f.accepts:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

func (f *far) Close() error   { close(f.closed); return nil }
func (f *far) Addr() net.Addr { return farAddr{} }

func (f *far) dial(ctx context.Context, _ string) (net.Conn, error) {
	up, down := newWay(f.delay), newWay(f.delay)
	select {
	case f.accepts <- &farConn{in: up, out: down}:
		return &farConn{in: down, out: up}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

type farAddr struct{}

func (farAddr) Network() string { return "far" }
func (farAddr) String() string  { return "far" }

// way is one direction of a connection.
type way struct {
	delay time.Duration

	mu     sync.Mutex
	more   sync.Cond
	pieces []piece
	closed bool
}

type piece struct {
	b  []byte
	at time.Time // of arrival
}

func newWay(delay time.Duration) *way {
	w := &way{delay: delay}
	w.more.L = &w.mu
	return w
}

func (w *way) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.more.Broadcast()
}

func (w *way) write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, net.ErrClosed
	}
	w.pieces = append(w.pieces, piece{append([]byte(nil), p...), time.Now().Add(w.delay)})
	w.more.Broadcast()
	return len(p), nil
}

func (w *way) read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case w.closed:
			return 0, io.EOF
		case len(w.pieces) == 0:
			w.more.Wait()
		case time.Until(w.pieces[0].at) > 0:
			at := w.pieces[0].at
			w.mu.Unlock()
			time.Sleep(time.Until(at))
			w.mu.Lock()
		default:
			n := copy(p, w.pieces[0].b)
			if w.pieces[0].b = w.pieces[0].b[n:]; len(w.pieces[0].b) == 0 {
				w.pieces = w.pieces[1:]
			}
			return n, nil
		}
	}
}

// farConn has no deadlines: nothing here sets one that ends.
type farConn struct{ in, out *way }

func (c *farConn) Read(p []byte) (int, error)       { return c.in.read(p) }
func (c *farConn) Write(p []byte) (int, error)      { return c.out.write(p) }
func (c *farConn) Close() error                     { c.in.close(); c.out.close(); return nil }
func (c *farConn) LocalAddr() net.Addr              { return farAddr{} }
func (c *farConn) RemoteAddr() net.Addr             { return farAddr{} }
func (c *farConn) SetDeadline(time.Time) error      { return nil }
func (c *farConn) SetReadDeadline(time.Time) error  { return nil }
func (c *farConn) SetWriteDeadline(time.Time) error { return nil }
