package protohttp

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve serves h on l until ctx is done or the listener fails, closes l, and returns when
// every call has returned: those in flight are cut off, and their contexts end. It returns
// nil when ctx ended it. More than maxCalls calls at once are told to come again. With
// http2, clients that begin with HTTP/2, as gRPC's do, are served too; their calls are
// bounded by connection. A listener of crypto/tls that is to serve those names "h2" in its
// NextProtos.
func Serve(ctx context.Context, l net.Listener, h http.Handler, maxCalls int, http2 bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &calls{h: h, places: make(chan struct{}, maxCalls)}
	s := &http.Server{
		Handler: c, Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxCalls},
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0), // what clients do wrong, in words of net/http
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(http2)
	s.Protocols.SetHTTP2(http2)
	stop := context.AfterFunc(ctx, func() { s.Close() })
	err := s.Serve(l)
	ended := ctx.Err() != nil
	stop()
	cancel()
	s.Close()
	c.close()
	if ended {
		return nil
	}
	return err
}

// calls bounds and counts the calls that are going on.
type calls struct {
	h      http.Handler
	places chan struct{} // a call of HTTP/1 holds one

	mu     sync.Mutex // owns closed, and that nothing is added to all after that
	closed bool
	all    sync.WaitGroup
}

func (c *calls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 {
		select {
		case c.places <- struct{}{}:
			defer func() { <-c.places }()
		default:
			http.Error(w, "too many calls at once", http.StatusServiceUnavailable)
			return
		}
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
	c.all.Add(1)
	c.mu.Unlock()
	defer c.all.Done()
	c.h.ServeHTTP(w, r)
}

// close waits for the calls. None begins after that.
func (c *calls) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.all.Wait()
}
