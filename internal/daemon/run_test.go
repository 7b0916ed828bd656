package daemon

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

// TestRunEndsInReverse checks that a part still has a live context while those
// listed after it drain.
func TestRunEndsInReverse(t *testing.T) {
	t.Parallel()
	var (
		mu    sync.Mutex
		ended []string
	)
	part := func(name string) Part {
		return Part{name, func(ctx context.Context) error {
			<-ctx.Done()
			mu.Lock()
			defer mu.Unlock()
			ended = append(ended, name)
			return ctx.Err()
		}}
	}
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		fail error
		stop bool
	}{"stopped": {stop: true}, "failed part": {fail: boom}, "part that returns": {}} {
		ended = nil
		ctx, cancel := context.WithCancel(t.Context())
		if c.stop {
			cancel()
		}
		err := Run(ctx, part("store"), part("server"), Part{"worker", func(ctx context.Context) error {
			if c.stop {
				<-ctx.Done()
			}
			return c.fail
		}}, part("listener"))
		cancel()
		if !errors.Is(err, c.fail) || (err == nil) != (c.fail == nil) {
			t.Errorf("%s: error %v, want %v", name, err, c.fail)
		}
		if want := []string{"listener", "server", "store"}; !slices.Equal(ended, want) {
			t.Errorf("%s: ended in order %v, want %v", name, ended, want)
		}
	}
}
