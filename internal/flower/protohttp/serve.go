package protohttp

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Serve serves h on l until ctx is done or the listener fails, and closes l. Calls in
// flight are cut off then. It returns nil when ctx ended it.
func Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	err := s.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
