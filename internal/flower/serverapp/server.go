package serverapp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower/fab"
)

// Errors of [Server.Next].
var (
	// ErrRefused is wrapped by every error about what the process did.
	ErrRefused = errors.New("the ServerApp is refused")
	// ErrFinished: the process has ended well, and sends nothing more.
	ErrFinished = errors.New("the ServerApp has finished")
)

// refusal says what the process did, as a rule and with the process's own words in it.
type refusal struct {
	rule string // a format
	args []any
}

func (r *refusal) Error() string { return ErrRefused.Error() + ": " + fmt.Sprintf(r.rule, r.args...) }
func (r *refusal) Unwrap() error { return ErrRefused }

func refusef(rule string, args ...any) error { return &refusal{rule, args} }

// Refuse returns an error that wraps [ErrRefused], about what the process did; rule is a
// format.
func Refuse(rule string, args ...any) error { return refusef(rule, args...) }

// verbs of formats.
var verbs = regexp.MustCompile(`%[.0-9]*[a-z]`)

// Rule returns what may be told of an error about a process whose words may quote what
// members sent: the rule, with dots where those words were, or nothing.
func Rule(err error) string {
	var r *refusal
	if errors.As(err, &r) {
		return verbs.ReplaceAllString(r.rule, "…")
	}
	return ""
}

// Config says what is run. It is not changed after [New].
type Config struct {
	Bundle    *fab.Bundle
	Overrides map[string]any // of the run config, as [fab.Project.Fuse] took them
	RunID     uint64         // Flower's; 0: one is made of the bundle's digest
	Nodes     []uint64       // that the process is told of; none below 2, Flower's own
	MaxBytes  int64          // of the objects of one batch
	// All says that every message goes to all nodes. A batch from a pool of fewer threads
	// than there are nodes is handed out as one to all of them then, and the messages that
	// its threads send after their replies are answered at once.
	All bool
	// Addressed says that messages to nodes may differ.
	Addressed bool
	Settle    time.Duration // how long a batch waits for messages to nodes that have none; 0 is 3 s
	Print     func(string)  // takes what the app prints, piece by piece, by one goroutine at a time; nil drops it
	Now       func() time.Time
}

// Server is what one ServerApp process talks to. It is safe for concurrent use; batches
// are taken and answered by one goroutine.
type Server struct {
	config Config
	token  string
	done   chan struct{} // closed when the process sends nothing more

	mu    sync.Mutex // owns all below
	batch *batch     // the newest; nil before the first
	ready chan *Batch
	err   error // why done is closed
	ended bool
}

// New returns a Server with a new token.
func New(c Config) *Server {
	b := make([]byte, 128)
	rand.Read(b) // never fails: Go crashes the program instead
	if c.RunID == 0 {
		// What the process calls its run matters to nobody else.
		c.RunID = binary.LittleEndian.Uint64(c.Bundle.Digest[:8]) | 1
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Settle == 0 {
		c.Settle = 3 * time.Second
	}
	return &Server{config: c, token: hex.EncodeToString(b), done: make(chan struct{}), ready: make(chan *Batch, 1)}
}

// Token is what the process shows. It is never logged.
func (s *Server) Token() string { return s.token }

// Next waits for the next batch of messages. The one before must have been answered. It
// returns [ErrFinished] when the process has ended well, and otherwise why it sends no
// more.
func (s *Server) Next(ctx context.Context) (*Batch, error) {
	select {
	case b := <-s.ready:
		return b, nil
	default:
	}
	select {
	case b := <-s.ready:
		return b, nil
	case <-s.done:
		select {
		case b := <-s.ready: // it came before the end
			return b, nil
		default:
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return nil, s.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Fail ends the process's part, unless it has ended: it is gone, for example.
func (s *Server) Fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(err)
}

// end is called with s.mu held.
func (s *Server) end(err error) {
	if s.ended {
		return
	}
	s.ended, s.err = true, err
	if s.batch != nil && s.batch.settle != nil {
		s.batch.settle.Stop()
	}
	close(s.done)
}

// finish takes the process's word that it has ended, and how.
func (s *Server) finish(completed bool, how, details string) {
	s.mu.Lock()
	partly := s.batch != nil && len(s.batch.later) > 0
	s.mu.Unlock()
	switch {
	case completed && partly:
		s.Fail(refusef("it sent some of the nodes no message; all are to get the same"))
		return
	case completed:
		s.Fail(ErrFinished)
		return
	}
	s.Fail(refusef("it ended: %.40s %.500s", how, details))
}

func (s *Server) authentic(token string) bool {
	x, y := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.token))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// print takes what the app prints.
func (s *Server) print(pieces []string) error {
	if len(pieces) > maxLogs {
		return refusef("%d pieces of log in one call", len(pieces))
	}
	s.mu.Lock() // one piece after another
	defer s.mu.Unlock()
	if !s.ended && s.config.Print != nil {
		for _, p := range pieces {
			s.config.Print(p)
		}
	}
	return nil
}

// announce takes messages and returns the objects to push.
func (s *Server) announce(list []announced) ([]string, error) {
	if len(list) == 0 {
		return nil, refusef("0 messages")
	}
	for _, m := range list {
		if !slices.Contains(s.config.Nodes, m.metadata.DstNode) {
			return nil, refusef("it sends a message to node %d, which there is not", m.metadata.DstNode)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, refusef("it sends messages after its end")
	}
	b := s.batch
	if b != nil && len(b.later) > 0 {
		return nil, b.addLate(s.config.RunID, list, s.config.Now())
	}
	if b == nil || b.replies != nil {
		var err error
		if b, err = newBatch(list[0], s.config); err != nil {
			return nil, err
		}
	}
	if err := b.add(list); err != nil {
		return nil, err
	}
	s.batch = b
	s.consider(b)
	return b.missing(list), nil
}

// take takes one object of the batch.
func (s *Server) take(id object.ID, raw []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.batch == nil {
		return refusef("it pushes an object that it did not announce")
	}
	err := s.batch.take(id, raw)
	if err == nil {
		s.consider(s.batch)
	}
	return err
}

// consider hands out a batch whose objects are here: at once if every node has a message,
// and otherwise when no more have come for a while. s.mu is held.
func (s *Server) consider(b *batch) {
	switch {
	case b.ready || len(b.want) > 0:
	case len(b.To) >= len(s.config.Nodes):
		s.hand(b)
	case b.settle != nil:
		b.settle.Reset(s.config.Settle)
	default:
		b.settle = time.AfterFunc(s.config.Settle, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			switch {
			case b.ready || s.ended || len(b.want) > 0: // more was announced: it comes back here
				return
			case s.config.All && b.alone < len(b.messages): // some threads have not come to wait yet
				b.settle.Reset(s.config.Settle)
				return
			case s.config.All && len(b.messages) >= minPool && b.one():
				for _, n := range s.config.Nodes {
					if !slices.Contains(b.To, n) {
						b.To, b.Contents = append(b.To, n), append(b.Contents, b.Contents[0])
					}
				}
			}
			s.hand(b)
		})
	}
}

// hand hands out a batch; s.mu is held.
func (s *Server) hand(b *batch) {
	b.ready = true
	if b.settle != nil {
		b.settle.Stop()
	}
	s.ready <- &b.Batch // the one before was taken: it is answered
}

// Answer gives the process the replies to the batch that [Server.Next] returned last.
// They are in the order that the process gets them in, each of another node.
func (s *Server) Answer(replies []Reply) error {
	s.mu.Lock()
	b := s.batch
	s.mu.Unlock()
	if b == nil {
		return errors.New("serverapp: there is no batch to answer")
	}
	made, later, err := b.reply(s.config.RunID, replies, s.config.Now())
	if err != nil {
		return fmt.Errorf("serverapp: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.replies, b.later = made, later
	close(b.answered)
	return nil
}

// pull waits for the replies to messages of the newest batch, and returns those that the
// process does not have yet.
func (s *Server) pull(ctx context.Context, ids []string) ([]*reply, error) {
	s.mu.Lock()
	b := s.batch
	if b == nil {
		s.mu.Unlock()
		return nil, refusef("it asks for replies before it has sent a message")
	}
	if !s.ended && b.settle != nil && len(b.want) == 0 && b.asksForAll(ids) {
		s.hand(b)
	}
	alone := 0
	if len(ids) == 1 {
		alone = 1
	}
	b.alone += alone
	s.mu.Unlock()
	var err error
	select {
	case <-b.answered:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.alone -= alone
	if err != nil {
		return nil, err
	}
	return b.wanted(ids), nil
}

// object returns an object of the replies, or nil.
func (s *Server) object(id object.ID) ([]byte, error) {
	s.mu.Lock()
	b := s.batch
	var r *reply
	if b != nil {
		r = b.holder(id)
	}
	s.mu.Unlock()
	switch {
	case r == nil:
		return nil, nil
	case id == r.tree.ID:
		return r.envelope, nil
	}
	return r.get(id)
}

// confirm says that the process has all of a reply.
func (s *Server) confirm(id object.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.batch != nil {
		s.batch.confirm(id)
	}
}

// Gone is the error of a process that has ended without saying how; how is the system's
// word of it.
func Gone(how string) error { return refusef("its process ended: %.80s", how) }
