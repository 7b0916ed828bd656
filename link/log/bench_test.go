package log

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// BenchmarkPublish measures from Append to the cosigned checkpoint, with three
// witnesses in the process, of which two are needed: entries that come one after
// the other, and (pause) entries that come when the log has been idle.
func BenchmarkPublish(b *testing.B) {
	for name, interval := range map[string]time.Duration{"steady": 100 * time.Millisecond, "pause": time.Nanosecond} {
		b.Run(name, func(b *testing.B) {
			s := newStageAt(b, 3, 2, interval)
			for i := range 3 {
				s.attach(b, i, 0)
			}
			var appended time.Duration
			i := 0
			for b.Loop() {
				start := time.Now()
				n, err := s.Append(context.Background(), fmt.Append(nil, "entry ", i))
				if err != nil {
					b.Fatal(err)
				}
				appended += time.Since(start)
				s.await(b, n+1, 2)
				i++
			}
			b.ReportMetric(float64(appended.Microseconds())/1000/float64(i), "ms/append")
		})
	}
}

// BenchmarkAppend measures entries per second from 256 writers at once.
func BenchmarkAppend(b *testing.B) {
	s := newStage(b, 1, 1)
	s.attach(b, 0, 0)
	var wg sync.WaitGroup
	entry := make([]byte, 600)
	for w := range 256 {
		wg.Go(func() {
			for i := w; i < b.N; i += 256 {
				if _, err := s.Append(context.Background(), fmt.Append(entry[:len(entry):len(entry)], i)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
