package flower

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
)

// Server is the node id of the server side in Flower's messages.
const Server = 1

// Instruction is one message for an app process, without its envelope.
type Instruction struct {
	Type  string // "train", "evaluate" or "query", with ".action" if it has one
	Round uint64 // becomes the group id, unless Group is set
	Group string
	TTL   time.Duration // how long the reply is wanted; 12 h, as Flower's, if 0
	// MaxReply is what all objects of the reply may have, in bytes; DefaultMaxReply if 0.
	// They are held in memory.
	MaxReply int64

	// Content is the RecordDict. Get returns the bytes of it and of every object
	// under it, which are verified already: the App trusts them. They are not kept
	// after the process has confirmed the message. Get may be called concurrently
	// until Do returns.
	Content object.ID
	Get     func(object.ID) ([]byte, error)
}

// defaultTTL is Flower's (flwr.common.constant.DEFAULT_TTL).
const defaultTTL = 12 * time.Hour

// newTask wraps an instruction into Flower's message: the envelope is an object
// of its own, whose id is the message's.
func (a *App) newTask(in Instruction) (*task, error) {
	if in.TTL <= 0 {
		in.TTL = defaultTTL
	}
	if in.MaxReply == 0 {
		in.MaxReply = DefaultMaxReply
	}
	m := object.Metadata{
		RunID: a.config.RunID, SrcNode: Server, DstNode: a.config.NodeID,
		Group: in.Group, TTL: in.TTL.Seconds(), Type: in.Type,
		CreatedAt: float64(a.config.Now().UnixMicro()) / 1e6,
	}
	if m.Group == "" {
		m.Group = strconv.FormatUint(in.Round, 10)
	}
	tree, envelope, err := Envelop(m, in.Content, in.Get, nil)
	if err != nil {
		return nil, fmt.Errorf("flower: instruction: %w", err)
	}
	t := &task{
		metadata: m, tree: tree, envelope: envelope, get: in.Get,
		maxReply: in.MaxReply, known: map[object.ID]bool{}, answered: make(chan struct{}),
	}
	t.tree.Each(func(id object.ID) { t.known[id] = true })
	return t, nil
}

// object returns an object of the instruction; nil if it has none of that id.
func (t *task) object(id object.ID) ([]byte, error) {
	t.mu.Lock()
	get, known := t.get, t.known[id]
	t.mu.Unlock()
	switch {
	case id == t.tree.ID:
		return t.envelope, nil
	case !known || get == nil:
		return nil, nil
	}
	return get(id)
}

// confirm forgets the instruction's objects: the process has them all.
func (t *task) confirm() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.get = nil
}

// Envelop returns the Message object around the RecordDict root, and the message's tree;
// with failed, around an error instead, and root and get are not used. The app's own text
// of the failure is not in it.
func Envelop(m object.Metadata, root object.ID, get func(object.ID) ([]byte, error), failed *Failure) (Tree, []byte, error) {
	message, tree := &object.Message{Metadata: m}, Tree{}
	if failed != nil {
		message.Error = &object.Error{Code: int64(failed.Code), Reason: failed.Error()}
	} else {
		child, err := grow(root, false, get)
		if err != nil {
			return Tree{}, nil, err
		}
		tree.Children = []Tree{child}
		if message.Content, err = outline(root, get); err != nil {
			return Tree{}, nil, err
		}
	}
	objects, err := object.Objects(message)
	if err != nil {
		return Tree{}, nil, err
	}
	last := objects[len(objects)-1] // a message comes after all that is in it
	tree.ID = last.ID
	return tree, last.Raw, nil
}

// outline reads a RecordDict without the data of its chunks.
func outline(root object.ID, get func(object.ID) ([]byte, error)) (object.RecordDict, error) {
	// Sizes are bounded elsewhere: object by object, and by Instruction.MaxReply.
	n, err := object.Inflate(root, get, object.Limits{Objects: MaxObjects, Bytes: math.MaxInt64, Outline: true})
	if err != nil {
		return nil, err
	}
	content, ok := n.(object.RecordDict)
	if !ok {
		return nil, fmt.Errorf("a %v is no content", n.Kind())
	}
	return content, nil
}
