package hostile

import (
	"context"
	"path"
	"slices"
	"sync"
	"testing"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Message is one message between a party and the link.
type Message struct {
	Party  string // as given to [Link.Conn]
	Up     bool   // from the party to the link
	Method string // of the Relay service: "Attach", "GetChunks", …
	Body   proto.Message
	// Request is what a call's answer answers; nil for requests and for Attach.
	Request proto.Message
}

// Send returns what the party puts into another's mailbox, or nil.
func (m Message) Send() *concordatv1.Send {
	a, _ := m.Body.(*concordatv1.AttachRequest)
	return a.GetSend()
}

// Deliver returns what comes out of the party's own mailbox, or nil.
func (m Message) Deliver() *concordatv1.Deliver {
	a, _ := m.Body.(*concordatv1.AttachResponse)
	return a.GetDeliver()
}

// Payload returns the frame that is sent or delivered, or nil.
func (m Message) Payload() []byte {
	if s := m.Send(); s != nil {
		return s.GetPayload()
	}
	return m.Deliver().GetPayload()
}

// Rule decides what becomes of a message: it returns what goes on in its place, which
// is nothing, the message itself (changed in place, if it likes), or several. A call
// whose message is dropped fails as unavailable. Rules are called one at a time.
type Rule func(m Message) []Message

// Match says which messages are meant.
type Match func(m Message) bool

// Link is the hostile link. It is safe for concurrent use.
type Link struct {
	mu      sync.Mutex // owns all below, and lets one rule run at a time
	rules   []*Rule
	seen    []Message
	wake    chan struct{} // closed when seen grows
	streams map[string]*attachStream
	cut     map[string]bool
}

// New returns a link that passes everything on.
func New() *Link {
	return &Link{wake: make(chan struct{}), streams: map[string]*attachStream{}, cut: map[string]bool{}}
}

// Add puts a rule after those that there are, and returns what removes it.
func (l *Link) Add(r Rule) (remove func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &r
	l.rules = append(l.rules, p)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.rules = slices.DeleteFunc(l.rules, func(x *Rule) bool { return x == p })
	}
}

// Drop drops what matches, until the returned function is called.
func (l *Link) Drop(match Match) (stop func()) {
	return l.Add(func(m Message) []Message {
		if match(m) {
			return nil
		}
		return []Message{m}
	})
}

// Repeat passes what matches on n more times.
func (l *Link) Repeat(n int, match Match) (stop func()) {
	return l.Add(func(m Message) []Message {
		out := []Message{m}
		for i := 0; i < n && match(m); i++ {
			out = append(out, m)
		}
		return out
	})
}

// Hold keeps what matches back until release is called, which lets it go on in the
// order that the order function leaves it in; nil: as it came. Only messages of Attach
// streams can be held.
func (l *Link) Hold(match Match) (release func(order func([]Message))) {
	var held []Message
	remove := l.Add(func(m Message) []Message {
		if m.Method == "Attach" && match(m) {
			held = append(held, m)
			return nil
		}
		return []Message{m}
	})
	return func(order func([]Message)) {
		remove()
		l.mu.Lock()
		all := held
		l.mu.Unlock()
		if order != nil {
			order(all)
		}
		for _, m := range all {
			l.Inject(m)
		}
	}
}

// Cut separates a party from the link until heal is called: its calls fail, and its
// stream breaks and does not come back.
func (l *Link) Cut(party string) (heal func()) {
	l.mu.Lock()
	l.cut[party] = true
	l.mu.Unlock()
	l.Break(party)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.cut, party)
	}
}

// Break ends a party's stream; it will dial again.
func (l *Link) Break(party string) {
	l.mu.Lock()
	s := l.streams[party]
	l.mu.Unlock()
	if s != nil {
		s.cancel()
	}
}

// Inject passes a message of an Attach stream on, past all rules: down to the party as
// if the link sent it, or up to the link as if the party did. It reports whether the
// party has a stream.
func (l *Link) Inject(m Message) bool {
	l.mu.Lock()
	s := l.streams[m.Party]
	l.mu.Unlock()
	if s == nil {
		return false
	}
	if m.Up {
		return s.send(m.Body) == nil
	}
	s.deliver(m.Body)
	return true
}

// Seen returns the messages so far that match, as they came, before any rule.
func (l *Link) Seen(match Match) []Message {
	l.mu.Lock()
	all := l.seen[:len(l.seen):len(l.seen)]
	l.mu.Unlock()
	var out []Message
	for _, m := range all {
		if match(m) {
			out = append(out, m)
		}
	}
	return out
}

// Await returns the first message that matches, of those seen and those to come. It
// fails the test if there is none within a minute.
func (l *Link) Await(t testing.TB, what string, match Match) Message {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for i := 0; ; {
		l.mu.Lock()
		all, wake := l.seen, l.wake
		l.mu.Unlock()
		for ; i < len(all); i++ {
			if match(all[i]) {
				return all[i]
			}
		}
		select {
		case <-wake:
		case <-limit.C:
			t.Fatalf("the link did not see: %s", what)
		}
	}
}

// pass records a message and applies the rules.
func (l *Link) pass(m Message) []Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := m
	kept.Body = proto.Clone(m.Body)
	l.seen = append(l.seen, kept)
	close(l.wake)
	l.wake = make(chan struct{})
	if l.cut[m.Party] {
		return nil
	}
	all := []Message{m}
	for _, r := range l.rules {
		var next []Message
		for _, x := range all {
			next = append(next, (*r)(x)...)
		}
		all = next
	}
	return all
}

// Conn returns party's connection, over one to the honest link.
func (l *Link) Conn(party string, under grpc.ClientConnInterface) grpc.ClientConnInterface {
	return &conn{l, party, under}
}

type conn struct {
	l     *Link
	party string
	under grpc.ClientConnInterface
}

var errDropped = status.Error(codes.Unavailable, "hostile: dropped")

// Invoke implements grpc.ClientConnInterface.
func (c *conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	m := Message{Party: c.party, Up: true, Method: path.Base(method), Body: args.(proto.Message)}
	out := c.l.pass(m)
	if len(out) == 0 {
		return errDropped
	}
	if err := c.under.Invoke(ctx, method, out[0].Body, reply, opts...); err != nil {
		return err
	}
	body := reply.(proto.Message)
	out = c.l.pass(Message{Party: c.party, Method: m.Method, Body: proto.Clone(body), Request: m.Body})
	if len(out) == 0 {
		return errDropped
	}
	proto.Reset(body)
	proto.Merge(body, out[0].Body)
	return nil
}

// NewStream implements grpc.ClientConnInterface.
func (c *conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	c.l.mu.Lock()
	cut := c.l.cut[c.party]
	c.l.mu.Unlock()
	if cut {
		return nil, errDropped
	}
	if path.Base(method) == "Attach" {
		return c.attach(ctx, desc, method, opts...)
	}
	under, err := c.under.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &stream{ClientStream: under, c: c, method: path.Base(method)}, nil
}
