package link

import (
	"context"
	"sync"
	"time"
)

// bucket is a token bucket: rate tokens a second, at most burst seconds' worth of
// them at once. Who takes more waits: a party that sends too fast is slowed down,
// by its own stream's flow control in the end, and loses nothing.
type bucket struct {
	rate float64

	mu    sync.Mutex
	free  float64
	since time.Time
}

const burst = 4 // seconds

func newBucket(rate float64) *bucket { return &bucket{rate: rate, free: rate * burst} }

// take waits until n tokens are free and takes them. The error is ctx's.
func (b *bucket) take(ctx context.Context, n int) error {
	wait := b.reserve(float64(n), time.Now())
	if wait <= 0 {
		return nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *bucket) reserve(n float64, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.since.IsZero() {
		b.free = min(b.free+b.rate*now.Sub(b.since).Seconds(), b.rate*burst)
	}
	b.since = now
	b.free -= n
	return time.Duration(-b.free / b.rate * float64(time.Second))
}
