// Package loop is one goroutine that owns a daemon's state. Events, timers and the
// results of jobs run on it one after another, so that the state needs no lock and
// every change has one writer. Work that waits runs in jobs, beside it.
//
// Start with [New], hand [Loop.Run] the daemon's events and the goroutines that it
// owns, and change state only in functions that the loop runs. Everything that the
// loop started has ended when Run returns.
package loop

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Loop runs functions one at a time. Its methods may be called from any goroutine
// until Run has returned, and before it was called.
type Loop struct {
	calls chan func()
	jobs  sync.WaitGroup
	ctx   context.Context
	stop  context.CancelCauseFunc
}

// New returns a loop that ends with ctx at the latest.
func New(ctx context.Context) *Loop {
	l := &Loop{calls: make(chan func(), 64)}
	l.ctx, l.stop = context.WithCancelCause(ctx)
	return l
}

// Context ends when the loop does. Log lines and jobs use it.
func (l *Loop) Context() context.Context { return l.ctx }

// Stop ends the loop; Run returns err. Only the first call counts.
func (l *Loop) Stop(err error) { l.stop(err) }

// Post runs f on the loop, unless the loop ends before.
func (l *Loop) Post(f func()) {
	select {
	case l.calls <- f:
	case <-l.ctx.Done():
	}
}

// ErrEnded is returned by [Ask] when the loop has ended.
var ErrEnded = errors.New("loop: ended")

// Ask runs f on the loop and returns what it returns. It must not be called on the loop,
// which would wait for itself. When ctx ends first, f may still run.
func Ask[T any](ctx context.Context, l *Loop, f func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	done := make(chan answer, 1)
	l.Post(func() {
		v, err := f()
		done <- answer{v, err}
	})
	select {
	case a := <-done:
		return a.value, a.err
	case <-l.ctx.Done():
		return none, ErrEnded
	case <-ctx.Done():
		return none, ctx.Err()
	}
}

// Job runs work off the loop and what it returns, if anything, on the loop.
func (l *Loop) Job(work func(ctx context.Context) func()) {
	l.jobs.Go(func() {
		if then := work(l.ctx); then != nil {
			l.Post(then)
		}
	})
}

// After runs f on the loop when d has passed, unless cancel is called on the loop
// before that.
func (l *Loop) After(d time.Duration, f func()) (cancel func()) {
	stopped := make(chan struct{})
	var once sync.Once
	l.jobs.Go(func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			l.Post(func() {
				select {
				case <-stopped:
				default:
					f()
				}
			})
		case <-stopped:
		case <-l.ctx.Done():
		}
	})
	return func() { once.Do(func() { close(stopped) }) }
}

// Run handles events, and what was posted, until the loop's context ends, Stop is
// called or one of the parts fails. Each part is a goroutine that the loop owns; an
// error of one stops the loop. Run returns what was given to Stop, or nil where the
// context ended.
func Run[E any](l *Loop, events <-chan E, handle func(E), parts ...func(context.Context) error) error {
	var owned sync.WaitGroup
	for _, p := range parts {
		owned.Go(func() {
			if err := p(l.ctx); err != nil {
				l.stop(err)
			}
		})
	}
	for l.ctx.Err() == nil {
		select {
		case f := <-l.calls:
			f()
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			handle(e)
		case <-l.ctx.Done():
		}
	}
	l.jobs.Wait()
	owned.Wait()
	if err := context.Cause(l.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
