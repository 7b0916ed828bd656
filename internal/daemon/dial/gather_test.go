package dial

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
)

// counting counts the writes that reach the network.
type counting struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
	err    error
}

func (c *counting) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.writes = append(c.writes, bytes.Clone(p))
	return len(p), nil
}

// records stands for TLS: it cuts what it is given into small writes.
type records struct {
	net.Conn
	size int
}

func (r records) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		k := min(r.size, len(p)-n)
		_, err = r.Conn.Write(p[n : n+k])
		n += k
	}
	return n, err
}

// The records of one write leave at once, in order, and nothing stays behind.
func TestGathering(t *testing.T) {
	t.Parallel()
	raw := &counting{}
	under := newGathering(raw)
	c := &gatheringTLS{records{under, 1000}, under}
	var sent []byte
	for i, n := range []int{1, 10_000, 100_000, 0, 999} {
		p := bytes.Repeat([]byte{byte(i)}, n)
		if got, err := c.Write(p); got != n || err != nil {
			t.Fatalf("wrote %d of %d, %v", got, n, err)
		}
		sent = append(sent, p...)
		if got := bytes.Join(raw.writes, nil); !bytes.Equal(got, sent) {
			t.Fatalf("after a write of %d bytes, %d of %d are out", n, len(got), len(sent))
		}
	}
	if len(raw.writes) > 6 {
		t.Errorf("%d writes, want one for each and one more where it is larger than the buffer", len(raw.writes))
	}
	// What TLS writes by itself, an alert say, leaves at once too.
	if _, err := under.Write([]byte("alert")); err != nil || !bytes.Equal(raw.writes[len(raw.writes)-1], []byte("alert")) {
		t.Errorf("alert: %v", err)
	}
}

func TestGatheringFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	raw := &counting{err: broken}
	under := newGathering(raw)
	c := &gatheringTLS{records{under, 10}, under}
	for range 2 {
		if n, err := c.Write(make([]byte, 100)); n != 0 && !errors.Is(err, broken) || err == nil {
			t.Errorf("wrote %d bytes, %v", n, err)
		}
	}
}

// Writers at once lose nothing and mix no records.
func TestGatheringWritersAtOnce(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	under := newGathering(client)
	const each, writers = 200, 4
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range each {
				if w == 0 {
					under.hold()
				}
				if _, err := under.Write(bytes.Repeat([]byte{byte(w)}, 50)); err != nil {
					t.Error(err)
				}
				if w == 0 {
					if err := under.release(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	go func() { wg.Wait(); client.Close() }()
	got, err := io.ReadAll(newGathering(server))
	if err != nil || len(got) != 50*each*writers {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	for i := 0; i < len(got); i += 50 {
		if bytes.Count(got[i:i+50], got[i:i+1]) != 50 {
			t.Fatal("two writes are mixed")
		}
	}
}
