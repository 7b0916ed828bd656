package serverapp

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
)

// Batch is the messages that a process sent together.
type Batch struct {
	Type     string // "train", "evaluate" or "query", with ".action" if it has one
	Group    string // Flower's group id: strategies put the round there
	To       []uint64
	Contents []object.ID          // of the RecordDicts, one for each of To: all the same, unless Config.Addressed
	Objects  map[object.ID][]byte // all of them; not to be changed
}

// Base returns the type without its action.
func (b *Batch) Base() string {
	base, _, _ := strings.Cut(b.Type, ".")
	return base
}

// Get returns an object of the contents.
func (b *Batch) Get(id object.ID) ([]byte, error) {
	raw, ok := b.Objects[id]
	if !ok {
		return nil, errors.New("object is missing")
	}
	return raw, nil
}

// announced is one message, as a process announces it.
type announced struct {
	id       object.ID
	metadata object.Metadata
	tree     flower.Tree // of the message: its one child is the content
	failed   bool        // it holds an error
}

// batch is one on its way. The server's mutex guards it.
type batch struct {
	Batch
	messages  []announced
	maxBytes  int64
	addressed bool               // contents may differ
	want      map[object.ID]bool // announced and not here
	whole     map[object.ID]bool // contents that are here, and RecordDicts
	bytes     int64
	settle    *time.Timer // runs while messages to more nodes may come; nil before
	ready     bool        // handed to Next: nothing is added any more

	answered chan struct{} // closed when replies is set
	replies  []*reply
	alone    int              // calls that wait for the reply to one message
	later    map[uint64]Reply // of nodes that are to get a message yet, where not all had one
}

// minPool is the least number of threads in which strategies from before the Message API
// send: processors and 4 (concurrent.futures.ThreadPoolExecutor). Each waits for its reply
// before it takes the next node.
const minPool = 5

// Limits of words that go on to nodes.
const maxWord = 256

// newBatch returns a batch that a message may begin.
func newBatch(m announced, c Config) (*batch, error) {
	b := &batch{Batch: Batch{Type: m.metadata.Type, Group: m.metadata.Group, Objects: map[object.ID][]byte{}},
		maxBytes: c.MaxBytes, addressed: c.Addressed, want: map[object.ID]bool{}, whole: map[object.ID]bool{}, answered: make(chan struct{})}
	if len(b.Type) > maxWord || len(b.Group) > maxWord {
		return nil, refusef("a message type or group of more than %d bytes", maxWord)
	}
	return b, nil
}

// add adds messages to other nodes. Processes send all at once or, with strategies from
// before the Message API, each from a thread of its own.
func (b *batch) add(list []announced) error {
	for _, m := range list {
		switch err := b.fits(m); {
		case err != nil:
			return err
		case b.ready:
			return refusef("it sends a second batch of messages before it has an answer")
		case slices.Contains(b.To, m.metadata.DstNode):
			return refusef("it sends a node a second message before it has an answer")
		}
		b.To, b.messages = append(b.To, m.metadata.DstNode), append(b.messages, m)
		b.Contents = append(b.Contents, m.tree.Children[0].ID)
		m.tree.Children[0].Each(func(id object.ID) {
			if _, here := b.Objects[id]; !here {
				b.want[id] = true
			}
		})
		if n := len(b.want) + len(b.Objects); n > flower.MaxObjects {
			return refusef("its messages have more than %d objects", flower.MaxObjects)
		}
	}
	return nil
}

// one says whether all contents are the same.
func (b *batch) one() bool {
	return !slices.ContainsFunc(b.Contents, func(id object.ID) bool { return id != b.Contents[0] })
}

// fits says whether a message is one of the batch's.
func (b *batch) fits(m announced) error {
	switch {
	case m.failed || len(m.tree.Children) != 1:
		return refusef("a message has no content")
	case m.metadata.Type != b.Type || m.metadata.Group != b.Group:
		return refusef("it sends nodes messages of different types or groups at once")
	case !b.addressed && len(b.Contents) > 0 && m.tree.Children[0].ID != b.Contents[0]:
		return refusef("it sends nodes different messages; all are to get the same, unless the policy says addressed")
	case m.metadata.TTL <= 0:
		return refusef("a message is not to be answered")
	}
	return nil
}

// addLate adds messages to nodes whose replies are here already.
func (b *batch) addLate(run uint64, list []announced, now time.Time) error {
	for _, m := range list {
		if err := b.fits(m); err != nil {
			return err
		}
		if m.tree.Children[0].ID != b.Contents[0] {
			return refusef("a thread of its pool sends another message than the first ones; all are to get the same")
		}
		r, ok := b.later[m.metadata.DstNode]
		if !ok {
			return refusef("it sends a node a second message, and others none")
		}
		out, err := b.answer(run, m, r, now)
		if err != nil {
			return err
		}
		delete(b.later, r.Node)
		b.messages, b.replies = append(b.messages, m), append(b.replies, out)
	}
	return nil
}

// missing are the objects to push of some messages, in the order of their trees.
func (b *batch) missing(list []announced) (out []string) {
	seen := map[object.ID]bool{}
	for _, m := range list {
		m.tree.Children[0].Each(func(id object.ID) {
			if b.want[id] && !seen[id] {
				seen[id] = true
				out = append(out, id.String())
			}
		})
	}
	return out
}

// take takes one object.
func (b *batch) take(id object.ID, raw []byte) error {
	if !b.want[id] {
		if _, have := b.Objects[id]; have {
			return nil // again: the answer may have been lost
		}
		return refusef("it pushes an object that it did not announce")
	}
	if object.Sum(raw) != id {
		return refusef("an object is not what its id says")
	}
	if b.bytes += int64(len(raw)); b.bytes > b.maxBytes {
		return refusef("a message has more than %d bytes, which do not fit", b.maxBytes)
	}
	delete(b.want, id)
	b.Objects[id] = raw
	if len(b.want) > 0 {
		return nil
	}
	for _, content := range b.Contents {
		if b.whole[content] {
			continue
		}
		n, err := object.Inflate(content, b.Get, object.Limits{Objects: flower.MaxObjects, Bytes: b.maxBytes, Outline: true})
		if err != nil {
			return refusef("%w", err)
		}
		if _, ok := n.(object.RecordDict); !ok {
			return refusef("its message holds a %v", n.Kind())
		}
		b.whole[content] = true
	}
	return nil
}

// Reply is what one node answered. Content and Get are as in [flower.Instruction], and
// Get may be called until the next batch; or Failure is set, and they are not.
type Reply struct {
	Node    uint64
	Content object.ID
	Get     func(object.ID) ([]byte, error)
	Failure *flower.Failure
}

// reply is one as the process gets it.
type reply struct {
	to        string // id of the message that it answers
	metadata  object.Metadata
	tree      flower.Tree
	envelope  []byte
	failure   *flower.Failure
	get       func(object.ID) ([]byte, error)
	has       map[object.ID]bool
	delivered bool // the process has all of it
}

// asksForAll says whether a process that asks for the replies to those messages sends no
// more: it asks for those to all at once. One that does so for a single message may be one
// of several threads.
func (b *batch) asksForAll(ids []string) bool {
	return !b.ready && len(b.messages) > 1 && !slices.ContainsFunc(b.messages, func(m announced) bool { return !slices.Contains(ids, m.id.String()) })
}

// reply wraps the replies into Flower's messages, but those to messages that are to come.
func (b *batch) reply(run uint64, replies []Reply, now time.Time) (made []*reply, later map[uint64]Reply, err error) {
	made, later = []*reply{}, map[uint64]Reply{}
	for _, r := range replies {
		i := slices.IndexFunc(b.messages, func(m announced) bool { return m.metadata.DstNode == r.Node })
		switch {
		case i >= 0:
			out, err := b.answer(run, b.messages[i], r, now)
			if err != nil {
				return nil, nil, err
			}
			made = append(made, out)
		case slices.Contains(b.To, r.Node):
			later[r.Node] = r
		default:
			return nil, nil, fmt.Errorf("reply of node %d, which was not asked", r.Node)
		}
	}
	return made, later, nil
}

// answer wraps the reply to one message.
func (b *batch) answer(run uint64, asked announced, r Reply, now time.Time) (*reply, error) {
	at := float64(now.UnixMicro()) / 1e6
	m := object.Metadata{RunID: run, SrcNode: r.Node, DstNode: flower.Server, ReplyTo: asked.id.String(), Group: b.Group,
		TTL: max(asked.metadata.CreatedAt+asked.metadata.TTL-at, 1), Type: b.Type, CreatedAt: at}
	out := &reply{to: m.ReplyTo, metadata: m, failure: r.Failure, get: r.Get, has: map[object.ID]bool{}}
	var err error
	if out.tree, out.envelope, err = flower.Envelop(m, r.Content, r.Get, r.Failure); err != nil {
		return nil, err
	}
	out.tree.Each(func(id object.ID) { out.has[id] = true })
	return out, nil
}

// wanted returns the replies to some of the messages that the process does not have.
func (b *batch) wanted(ids []string) (out []*reply) {
	for _, r := range b.replies {
		if !r.delivered && slices.Contains(ids, r.to) {
			out = append(out, r)
		}
	}
	return out
}

// holder returns a reply that holds an object, or nil.
func (b *batch) holder(id object.ID) *reply {
	for _, r := range b.replies {
		if !r.delivered && r.has[id] {
			return r
		}
	}
	return nil
}

func (b *batch) confirm(id object.ID) {
	for _, r := range b.replies {
		if r.tree.ID == id {
			r.delivered, r.get, r.envelope = true, nil, nil
		}
	}
}
