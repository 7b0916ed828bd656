package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// Signals returns a context that ends at the first SIGINT or SIGTERM: the daemon
// drains. A second signal kills the process, as it would without this call. Stop
// releases what Signals took and is to be called once.
func Signals(ctx context.Context) (_ context.Context, stop func()) {
	ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Part is one part of a daemon. Run works until its context ends and then
// returns after a clean drain: nil, or the context's error, which counts as nil.
type Part struct {
	Name string
	Run  func(context.Context) error
}

// Run starts all parts and waits for ctx to end or for a part to return. Then it
// ends them one after the other, the last first, each having returned before the
// next one's context ends: list what others lean on first. It returns the first
// error, with the name of its part. A part that returns early without an error
// is an end as well.
func Run(ctx context.Context, parts ...Part) error {
	base := context.WithoutCancel(ctx)
	type running struct {
		cancel context.CancelFunc
		done   chan struct{}
	}
	var (
		group errgroup.Group
		all   = make([]running, len(parts))
		ended = make(chan struct{}, len(parts))
	)
	for i, p := range parts {
		pctx, cancel := context.WithCancel(base)
		r := running{cancel, make(chan struct{})}
		all[i] = r
		group.Go(func() error {
			defer func() {
				close(r.done)
				ended <- struct{}{}
			}()
			err := p.Run(pctx)
			if err == nil || pctx.Err() != nil && errors.Is(err, context.Canceled) {
				return nil
			}
			return fmt.Errorf("%s: %w", p.Name, err)
		})
	}
	if len(parts) > 0 {
		select {
		case <-ctx.Done():
		case <-ended:
		}
	}
	for i := len(all) - 1; i >= 0; i-- {
		all[i].cancel()
		<-all[i].done
	}
	return group.Wait()
}
