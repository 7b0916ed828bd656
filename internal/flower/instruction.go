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
	Type  string        // "train", "evaluate" or "query", with ".action" if it has one
	Round uint64        // becomes the group id
	TTL   time.Duration // how long the reply is wanted; 12 h, as Flower's, if 0

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
	content, err := grow(in.Content, false, in.Get)
	if err != nil {
		return nil, fmt.Errorf("flower: instruction: %w", err)
	}
	m := object.Metadata{
		RunID: a.config.RunID, SrcNode: Server, DstNode: a.config.NodeID,
		Group: strconv.FormatUint(in.Round, 10), TTL: in.TTL.Seconds(), Type: in.Type,
		CreatedAt: float64(a.config.Now().UnixMicro()) / 1e6,
	}
	envelope, err := envelop(m, in.Content, in.Get)
	if err != nil {
		return nil, fmt.Errorf("flower: instruction: %w", err)
	}
	t := &task{
		metadata: m, tree: Tree{ID: object.Sum(envelope), Children: []Tree{content}}, envelope: envelope, get: in.Get,
		maxReply: a.config.MaxReply, known: map[object.ID]bool{}, answered: make(chan struct{}),
	}
	t.tree.each(func(id object.ID) { t.known[id] = true })
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

// envelop returns the Message object around the RecordDict root.
func envelop(m object.Metadata, root object.ID, get func(object.ID) ([]byte, error)) ([]byte, error) {
	content, err := outline(root, get)
	if err != nil {
		return nil, err
	}
	objects, err := object.Objects(&object.Message{Metadata: m, Content: content})
	if err != nil {
		return nil, err
	}
	return objects[len(objects)-1].Raw, nil // a message comes after all that is in it
}

// outline reads a RecordDict without the data of its chunks.
func outline(root object.ID, get func(object.ID) ([]byte, error)) (object.RecordDict, error) {
	// Sizes are bounded elsewhere: object by object, and by Config.MaxReply.
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
