package opening

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/fab"
)

// ErrRefused is wrapped by every error about what a ServerApp did that no run can
// begin with.
var ErrRefused = errors.New("the ServerApp cannot open a run with a native strategy")

func refusef(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}

// Config says what is run. It is not changed after [New].
type Config struct {
	Bundle    *fab.Bundle
	Overrides map[string]any // of the run config, as [fab.Project.Fuse] took them
	Nodes     int            // that the ServerApp is told of
	MaxBytes  int64          // of the objects that hold the arrays
	Print     func(string)   // takes what the app prints, piece by piece; called by one goroutine at a time
}

// Start is what the first message holds.
type Start struct {
	Arrays [][]byte       // objects of a RecordDict with the arrays alone, post-order, the root last
	Config map[string]any // of the message, without the round: bool, int64, float64 or string
}

// Opening is one ServerApp process on its way to the first message. It is safe for
// concurrent use.
type Opening struct {
	config Config
	token  string
	done   chan struct{}

	mu      sync.Mutex
	content object.ID            // of every message
	want    map[object.ID]bool   // announced and not here
	got     map[object.ID][]byte // arrived
	bytes   int64
	start   *Start
	err     error
	ended   bool
}

// New returns an Opening with a new token.
func New(c Config) *Opening {
	b := make([]byte, 128)
	rand.Read(b) // never fails: Go crashes the program instead
	return &Opening{config: c, token: hex.EncodeToString(b), done: make(chan struct{})}
}

// Token is what the process shows. It is never logged.
func (o *Opening) Token() string { return o.token }

// Wait returns the start once the process has sent it, or why it will not.
func (o *Opening) Wait(ctx context.Context) (*Start, error) {
	select {
	case <-o.done:
		o.mu.Lock()
		defer o.mu.Unlock()
		return o.start, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Fail ends the opening, unless it has ended: the process is gone, for example.
func (o *Opening) Fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.end(nil, err)
}

// end is called with o.mu held.
func (o *Opening) end(s *Start, err error) {
	if o.ended {
		return
	}
	o.ended, o.start, o.err = true, s, err
	close(o.done)
}

func (o *Opening) authentic(token string) bool {
	x, y := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(o.token))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// announce takes the first batch of messages and returns the objects to push.
func (o *Opening) announce(messages []*flwr.Message, trees []*flwr.ObjectTree) ([]string, error) {
	if len(messages) == 0 || len(messages) != len(trees) {
		return nil, refusef("%d messages with %d trees", len(messages), len(trees))
	}
	var contents []*flwr.ObjectTree
	for i, m := range messages {
		kind := m.GetMetadata().GetMessageType()
		if base, _, _ := strings.Cut(kind, "."); base != "train" || kind != "train" {
			return nil, refusef("its first message is %.40q, want \"train\": give the strategy initial arrays, and evaluate first on no node", kind)
		}
		if m.GetError() != nil || len(trees[i].GetChildren()) != 1 {
			return nil, refusef("message %d has no content", i)
		}
		contents = append(contents, trees[i].GetChildren()[0])
		if contents[i].GetObjectId() != contents[0].GetObjectId() {
			return nil, refusef("it sends nodes different messages; native strategies send all the same")
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.want != nil {
		return nil, refusef("it sends a second batch of messages before it has an answer")
	}
	want := map[object.ID]bool{}
	var order []string
	var walk func(t *flwr.ObjectTree, depth int) error
	walk = func(t *flwr.ObjectTree, depth int) error {
		id, err := object.ParseID(t.GetObjectId())
		if err != nil || depth == 0 || len(order) >= flower.MaxObjects {
			return refusef("a tree of objects that is too deep, too large or has a wrong id")
		}
		for _, c := range t.GetChildren() {
			if err := walk(c, depth-1); err != nil {
				return err
			}
		}
		if !want[id] {
			want[id] = true
			order = append(order, id.String())
		}
		return nil
	}
	if err := walk(contents[0], 4); err != nil { // RecordDict, record, Array, ArrayChunk
		return nil, err
	}
	o.content, _ = object.ParseID(contents[0].GetObjectId())
	o.want, o.got = want, map[object.ID][]byte{}
	return order, nil
}

// take takes one object; with the last one the opening ends.
func (o *Opening) take(id object.ID, raw []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.want[id] {
		if _, have := o.got[id]; have {
			return nil
		}
		return refusef("it pushes an object that it did not announce")
	}
	if object.Sum(raw) != id {
		return refusef("an object is not what its id says")
	}
	if o.bytes += int64(len(raw)); o.bytes > o.config.MaxBytes {
		return refusef("its arrays have more than %d bytes, which do not fit a run request", o.config.MaxBytes)
	}
	delete(o.want, id)
	o.got[id] = raw
	if len(o.want) > 0 {
		return nil
	}
	s, err := o.read()
	if err != nil {
		return err
	}
	o.end(s, nil)
	return nil
}

// read makes the start of the objects; o.mu is held.
func (o *Opening) read() (*Start, error) {
	get := func(id object.ID) ([]byte, error) {
		raw, ok := o.got[id]
		if !ok {
			return nil, errors.New("object is missing")
		}
		return raw, nil
	}
	n, err := object.Inflate(o.content, get, object.Limits{Objects: flower.MaxObjects, Bytes: o.config.MaxBytes})
	if err != nil {
		return nil, refusef("%w", err)
	}
	dict, ok := n.(object.RecordDict)
	if !ok {
		return nil, refusef("its message holds a %v", n.Kind())
	}
	s := &Start{Config: map[string]any{}}
	for _, it := range dict {
		switch r := it.Record.(type) {
		case object.ArrayRecord:
			if it.Name != flower.RecordArrays || len(r) == 0 {
				return nil, refusef("its arrays are a record named %.80q of %d arrays, want one named %q that is not empty (strategies of flwr.serverapp send it)", it.Name, len(r), flower.RecordArrays)
			}
			objects, err := object.Objects(object.RecordDict{{Name: it.Name, Record: r}})
			if err != nil {
				return nil, refusef("%w", err)
			}
			for _, x := range objects {
				s.Arrays = append(s.Arrays, x.Raw)
			}
		case object.ConfigRecord:
			if it.Name != flower.RecordConfig {
				return nil, refusef("its config is a record named %.80q, want %q", it.Name, flower.RecordConfig)
			}
			if err := settings(s.Config, r); err != nil {
				return nil, err
			}
		default:
			return nil, refusef("its message holds a %v", it.Record.Kind())
		}
	}
	if s.Arrays == nil {
		return nil, refusef("its message holds no arrays")
	}
	return s, nil
}

// settings reads the config of the message: scalars, which run configs can hold.
func settings(out map[string]any, r object.ConfigRecord) error {
	for _, it := range r {
		if it.Key == flower.ConfigRound {
			continue
		}
		switch v := it.Value.(type) {
		case object.Bool:
			out[it.Key] = bool(v)
		case object.Sint:
			out[it.Key] = int64(v)
		case object.Double:
			out[it.Key] = float64(v)
		case object.String:
			out[it.Key] = string(v)
		default:
			return refusef("train_config %.80q is no bool, integer, float or string", it.Key)
		}
	}
	return nil
}
