package flower

import (
	"errors"
	"fmt"
	"sync"

	"github.com/concordat/concordat/chunkstore/object"
)

// Reply is what an app process answered: a RecordDict and all objects under it,
// each verified against its id. The envelope stays behind: the node makes its
// own, signed one.
type Reply struct {
	Root    object.ID
	Content object.RecordDict    // of Root; chunks have ids and no data
	Objects map[object.ID][]byte // every object under Root, and Root
}

// Flower's rules for replies (flwr.server.superlink.linkstate and
// flwr.common.constant).
const (
	ttlTolerance = 0.1        // seconds
	minCreatedAt = 1740700800 // seconds since 1970
)

// task is one instruction on its way through the process.
type task struct {
	metadata object.Metadata
	tree     Tree
	envelope []byte
	known    map[object.ID]bool // objects of the instruction
	maxReply int64

	answered chan struct{} // closed with reply or err set

	mu        sync.Mutex
	get       func(object.ID) ([]byte, error)
	announced Tree
	want      map[object.ID]bool // announced and not here yet
	got       map[object.ID][]byte
	bytes     int64
	reply     *Reply
	err       error
	closed    bool
}

func (t *task) isAnswered() bool {
	select {
	case <-t.answered:
		return true
	default:
		return false
	}
}

// finish ends the task, once; t.mu is held.
func (t *task) finish(r *Reply, err error) {
	if !t.closed {
		t.closed, t.reply, t.err, t.want, t.got = true, r, err, nil, nil
		close(t.answered)
	}
}

func (t *task) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finish(nil, err)
}

// begin checks the envelope of the reply and says which objects are to come.
func (t *task) begin(m object.Metadata, tree Tree, failed *Failure) ([]object.ID, error) {
	if err := t.replies(m); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, nil // the answer to the first call was lost
	}
	if failed != nil {
		t.finish(nil, failed)
		return nil, nil
	}
	if len(tree.Children) != 1 {
		return nil, fmt.Errorf("%w: message with %d contents, want 1", ErrRefused, len(tree.Children))
	}
	if t.want == nil {
		t.want, t.got, t.announced = map[object.ID]bool{}, map[object.ID][]byte{}, tree.Children[0]
		t.announced.Each(func(id object.ID) { t.want[id] = true })
	} else if !t.announced.equal(tree.Children[0]) {
		return nil, fmt.Errorf("%w: second reply to one message", ErrRefused)
	}
	var missing []object.ID
	for id := range t.want {
		missing = append(missing, id)
	}
	return missing, nil
}

// replies reports why m is not the metadata of a reply to the instruction.
func (t *task) replies(m object.Metadata) error {
	i := t.metadata
	for _, f := range []struct {
		name string
		ok   bool
	}{
		{"run id", m.RunID == i.RunID},
		{"source", m.SrcNode == i.DstNode},
		{"destination", m.DstNode == i.SrcNode},
		{"reply-to", m.ReplyTo == t.tree.ID.String()},
		{"group", m.Group == i.Group},
		{"type", m.Type == i.Type},
		{"ttl", m.TTL > 0 && m.CreatedAt+m.TTL <= i.CreatedAt+i.TTL+ttlTolerance},
		{"creation time", m.CreatedAt >= minCreatedAt},
	} {
		if !f.ok {
			return fmt.Errorf("%w: %s of the reply does not fit the message", ErrRefused, f.name)
		}
	}
	return nil
}

// take verifies and keeps one object.
func (t *task) take(id object.ID, content []byte) error {
	if known, err := t.expects(id, len(content)); known || err != nil {
		return err
	}
	if object.Sum(content) != id { // outside of the lock: processes push in parallel
		return fmt.Errorf("%w: an object has other content than its id", ErrRefused)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || !t.want[id] {
		return nil // the same object came twice at once
	}
	if t.bytes += int64(len(content)); t.bytes > t.maxReply {
		return fmt.Errorf("%w: reply of more than %d bytes", ErrRefused, t.maxReply)
	}
	t.got[id] = content
	delete(t.want, id)
	if len(t.want) > 0 {
		return nil
	}
	r, err := newReply(t.announced, t.got)
	if err != nil {
		return fmt.Errorf("%w: reply: %w", ErrRefused, err)
	}
	t.finish(r, nil)
	return nil
}

// expects reports whether the object is here already, or why it is not taken.
// Ids stay out of the errors: they tell of small objects what is in them.
func (t *task) expects(id object.ID, size int) (here bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, here = t.got[id]
	switch {
	case here:
		return true, nil
	case t.closed:
		return false, fmt.Errorf("%w: object after the reply", ErrRefused)
	case !t.want[id]:
		return false, fmt.Errorf("%w: an object was not announced", ErrRefused)
	case size > MaxObject:
		return false, fmt.Errorf("%w: object of %d bytes, limit %d", ErrRefused, size, MaxObject)
	case t.bytes+int64(size) > t.maxReply:
		return false, fmt.Errorf("%w: reply of more than %d bytes", ErrRefused, t.maxReply)
	}
	return false, nil
}

// newReply checks that the objects, whose ids were verified as they came, are
// the announced tree of a RecordDict and nothing else.
func newReply(announced Tree, objects map[object.ID][]byte) (*Reply, error) {
	get := func(id object.ID) ([]byte, error) {
		if b, ok := objects[id]; ok {
			return b, nil
		}
		return nil, errors.New("an object of it was not announced")
	}
	tree, err := grow(announced.ID, true, get)
	if err != nil {
		return nil, err
	}
	if !tree.equal(announced) {
		return nil, errors.New("objects are not as announced")
	}
	content, err := outline(announced.ID, get)
	if err != nil {
		return nil, err
	}
	return &Reply{Root: announced.ID, Content: content, Objects: objects}, nil
}
