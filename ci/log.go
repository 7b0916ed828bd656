package ci

import (
	"bytes"
	"sync"
	"testing"
)

// logWriter writes to a test's output as it comes.
type logWriter struct{ t testing.TB }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b[:len(b)-1])
	return len(b), nil
}

// keptLog holds the newest lines of a test's daemons, for the case that it fails.
type keptLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const maxKept = 1 << 20

func (k *keptLog) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.buf.Len() > maxKept {
		k.buf.Next(maxKept / 2)
	}
	return k.buf.Write(b)
}

// kept returns a log that is shown if the test fails.
func kept(t testing.TB) *keptLog {
	k := new(keptLog)
	t.Cleanup(func() {
		if t.Failed() {
			k.mu.Lock()
			defer k.mu.Unlock()
			t.Logf("logs of the daemons:\n%s", k.buf.Bytes())
		}
	})
	return k
}
