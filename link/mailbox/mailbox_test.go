package mailbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/concordat/concordat/internal/cose"
)

// memory is a Store in memory.
type memory struct {
	mu   sync.Mutex
	seq  int64
	rows []row
}

type row struct {
	seq               int64
	federation        cose.Digest
	handle            [16]byte
	sender, recipient string
	payload           []byte
}

func (m *memory) Enqueue(_ context.Context, f cose.Digest, sender string, n int, at func(int) ([16]byte, string, []byte)) []error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range n {
		h, recipient, payload := at(i)
		if !slices.ContainsFunc(m.rows, func(r row) bool {
			return r.federation == f && r.handle == h && r.sender == sender && r.recipient == recipient
		}) {
			m.seq++
			m.rows = append(m.rows, row{m.seq, f, h, sender, recipient, payload})
		}
	}
	return make([]error, n)
}

func (m *memory) Pending(_ context.Context, f cose.Digest, recipient string, after int64, each func(int64, [16]byte, string, []byte) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows {
		if r.federation == f && r.recipient == recipient && r.seq > after && !each(r.seq, r.handle, r.sender, r.payload) {
			break
		}
	}
	return nil
}

func (m *memory) Remove(_ context.Context, f cose.Digest, handles [][16]byte, recipients ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows = slices.DeleteFunc(m.rows, func(r row) bool {
		return r.federation == f && slices.Contains(recipients, r.recipient) && slices.Contains(handles, r.handle)
	})
	return nil
}

func node(c string) Address    { return Address{Node, strings.Repeat(c, 32)} }
func enclave(c string) Address { return Address{Enclave, strings.Repeat(c, 16)} }

func open(t *testing.T, x *Exchange, a Address, rank int64) *Box {
	t.Helper()
	b, err := x.Open(a, rank)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func post(t *testing.T, x *Exchange, from, to Address, h byte, payload string) {
	t.Helper()
	if err := errors.Join(x.Post(t.Context(), from, Letter{[16]byte{h}, to, []byte(payload)})...); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, b *Box, payloads ...string) {
	t.Helper()
	for _, p := range payloads {
		m, err := b.Next(t.Context())
		if err != nil || string(m.Payload) != p {
			t.Fatalf("got %q, %v, want %q", m.Payload, err, p)
		}
	}
}

func wantNothing(t *testing.T, b *Box) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := b.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %q, %v, want nothing", m.Payload, err)
	}
}

func TestDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := New(new(memory), cose.Digest{1})
		post(t, x, enclave("e"), node("n"), 1, "before")
		b := open(t, x, node("n"), 0)
		want(t, b, "before")
		got := make(chan string)
		go func() {
			m, err := b.Next(t.Context())
			got <- fmt.Sprint(string(m.Payload), " from ", m.From == enclave("e"), " ", err)
		}()
		synctest.Wait() // Next waits
		post(t, x, enclave("e"), node("n"), 2, "while")
		if g := <-got; g != "while from true <nil>" {
			t.Error(g)
		}
		wantNothing(t, b)
		// Not received: both come again, in order. Received: only the rest.
		again := open(t, x, node("n"), 0)
		if _, err := b.Next(t.Context()); !errors.Is(err, ErrEnded) {
			t.Errorf("the first box goes on: %v", err)
		}
		want(t, again, "before", "while")
		if err := again.Received(t.Context(), [][16]byte{{1}}); err != nil {
			t.Fatal(err)
		}
		b.Close() // an old box's close must not detach the new one
		if x.Attached() != 1 {
			t.Errorf("%d attached", x.Attached())
		}
		want(t, open(t, x, node("n"), 0), "while")
	})
}

// TestNewestEnclave sends to nobody in particular before, between and after
// enclaves.
func TestNewestEnclave(t *testing.T) {
	x := New(new(memory), cose.Digest{1})
	post(t, x, node("n"), NewestEnclave, 1, "one")
	old := open(t, x, enclave("a"), 10)
	want(t, old, "one")
	young := open(t, x, enclave("b"), 11)
	want(t, young, "one") // it was not received
	post(t, x, node("n"), NewestEnclave, 2, "two")
	post(t, x, node("n"), enclave("a"), 3, "to a")
	want(t, young, "two")
	want(t, old, "to a")
	wantNothing(t, old)
	// The older one can no longer take from the newest one's queue.
	if err := old.Received(t.Context(), [][16]byte{{1}, {2}, {3}}); err != nil {
		t.Fatal(err)
	}
	if err := young.Received(t.Context(), [][16]byte{{1}}); err != nil {
		t.Fatal(err)
	}
	reattached := open(t, x, enclave("a"), 10) // an old one that comes back is still old
	wantNothing(t, reattached)
	young.Close()
	want(t, reattached, "two")
}

func TestFederationsShareNothing(t *testing.T) {
	s := new(memory)
	a, b := New(s, cose.Digest{1}), New(s, cose.Digest{2})
	post(t, a, enclave("e"), node("n"), 1, "secret")
	thief := open(t, b, node("n"), 0)
	wantNothing(t, thief)
	if err := thief.Received(t.Context(), [][16]byte{{1}}); err != nil {
		t.Fatal(err)
	}
	want(t, open(t, a, node("n"), 0), "secret")
}

func TestAddresses(t *testing.T) {
	x := New(new(memory), cose.Digest{1})
	for _, c := range []struct {
		from, to Address
		payload  int
		ok       bool
	}{
		{node("n"), enclave("e"), 1, true},
		{node("n"), NewestEnclave, MaxPayload, true},
		{node("n"), node("m"), 1, true},
		{node("n"), enclave("e"), 0, false},
		{node("n"), enclave("e"), MaxPayload + 1, false},
		{NewestEnclave, node("n"), 1, false},
		{node("n"), Address{Node, "short"}, 1, false},
		{node("n"), Address{3, strings.Repeat("x", 32)}, 1, false},
		{Address{}, node("n"), 1, false},
	} {
		good := Letter{To: node("m"), Payload: []byte("good")}
		errs := x.Post(t.Context(), c.from, good, Letter{To: c.to, Payload: make([]byte, c.payload)}, good)
		if (errs[1] == nil) != c.ok || c.from == node("n") && (errs[0] != nil || errs[2] != nil) {
			t.Errorf("%v to %v, %d bytes: %v", c.from, c.to, c.payload, errs)
		}
	}
	if _, err := x.Open(NewestEnclave, 1); err == nil {
		t.Error("the newest enclave's box was opened by name")
	}
	for _, a := range []Address{node("n"), enclave("\xff"), NewestEnclave} {
		if got, err := parse(a.String()); got != a || err != nil {
			t.Errorf("%q: %v, %v", a.String(), got, err)
		}
	}
}

// TestOrder has many senders; each pair's payloads arrive in the order of sending.
func TestOrder(t *testing.T) {
	x := New(new(memory), cose.Digest{1})
	b := open(t, x, enclave("e"), 1)
	const senders, each = 8, 50
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				if err := errors.Join(x.Post(context.Background(), node(string(rune('a'+s))), Letter{[16]byte{byte(s), byte(i)}, NewestEnclave, []byte{byte(i)}})...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := map[Address]byte{}
	for range senders * each {
		m, err := b.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Payload[0] != next[m.From] {
			t.Fatalf("got %d, want %d", m.Payload[0], next[m.From])
		}
		next[m.From]++
		if err := b.Received(t.Context(), [][16]byte{m.Handle}); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
}
