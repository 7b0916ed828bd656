package loop

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := New(ctx)
		events := make(chan int, 3)
		var got []string // owned by the loop: the race detector says so
		canceled := l.After(time.Second, func() { got = append(got, "canceled timer") })
		l.After(2*time.Second, func() { got = append(got, "timer") })
		l.Job(func(context.Context) func() { return func() { got = append(got, "job"); canceled() } })
		l.After(3*time.Second, cancel)
		events <- 1
		partDone := false
		err := Run(l, events, func(int) { got = append(got, "event") }, func(ctx context.Context) error {
			<-ctx.Done()
			partDone = true
			return nil
		})
		if err != nil || !partDone {
			t.Errorf("Run: %v, part done: %v", err, partDone)
		}
		if len(got) != 3 || got[2] != "timer" {
			t.Errorf("got %q, want job, event and then timer", got)
		}
		l.Post(func() { t.Error("ran after the end") })
	})
}

func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := New(ctx)
		ended := make(chan error, 1)
		go func() { ended <- Run(l, nil, func(int) {}) }()
		state := 41 // the loop's
		if v, err := Ask(t.Context(), l, func() (int, error) { state++; return state, nil }); v != 42 || err != nil {
			t.Errorf("%d, %v", v, err)
		}
		want := errors.New("no")
		if _, err := Ask(t.Context(), l, func() (int, error) { return 0, want }); err != want {
			t.Errorf("%v, want %v", err, want)
		}
		busy := make(chan struct{})
		asker, give := context.WithCancel(t.Context())
		l.Post(func() { <-busy })
		time.AfterFunc(time.Second, give)
		if _, err := Ask(asker, l, func() (int, error) { return 0, nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("an asker that gave up: %v", err)
		}
		close(busy)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if _, err := Ask(t.Context(), l, func() (int, error) { return 0, nil }); !errors.Is(err, ErrEnded) {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestStop(t *testing.T) {
	want := errors.New("part failed")
	l := New(t.Context())
	if err := Run(l, nil, func(int) {}, func(context.Context) error { return want }); !errors.Is(err, want) {
		t.Errorf("Run: %v, want %v", err, want)
	}
}
