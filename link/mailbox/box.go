package mailbox

import (
	"context"
	"errors"
)

// ErrEnded is what [Box.Next] returns when the same address was opened again, or
// the box was closed.
var ErrEnded = errors.New("mailbox: the address was opened again")

// Message is one payload on its way.
type Message struct {
	Handle  [16]byte
	From    Address
	Payload []byte
}

// Box is an attached party's end. Next is for one goroutine; the other methods
// are safe for concurrent use.
type Box struct {
	x     *Exchange
	addr  Address
	rank  int64
	wake  chan struct{} // has one element if there may be more to read
	ended chan struct{} // closed when another box of the address opened, or by Close

	own, shared queue // owned by Next
}

// queue is a reader's place in one queue of the store.
type queue struct {
	after int64
	ahead []Message // read, not yet returned
}

// maxAhead bounds the bytes that a box reads ahead.
const maxAhead = 2 << 20

// Next returns the next payload that this box has not returned yet; it waits for
// one. Every payload that was not [Box.Received] comes again in the next box of the
// address.
func (b *Box) Next(ctx context.Context) (Message, error) {
	for {
		select {
		case <-b.ended:
			return Message{}, ErrEnded
		default:
		}
		if m, ok, err := b.read(ctx, &b.own, b.addr); ok || err != nil {
			return m, err
		}
		if b.addr.Role == Enclave && b.x.isNewest(b) {
			if m, ok, err := b.read(ctx, &b.shared, NewestEnclave); ok || err != nil {
				return m, err
			}
		}
		select {
		case <-b.wake:
		case <-b.ended:
			return Message{}, ErrEnded
		case <-ctx.Done():
			return Message{}, ctx.Err()
		}
	}
}

func (b *Box) read(ctx context.Context, q *queue, a Address) (Message, bool, error) {
	if len(q.ahead) == 0 {
		q.ahead = nil
		var bad error
		size := 0
		err := b.x.store.Pending(ctx, b.x.federation, a.String(), q.after, func(seq int64, handle [16]byte, sender string, payload []byte) bool {
			var from Address
			if from, bad = parse(sender); bad != nil {
				return false
			}
			q.after = seq
			q.ahead = append(q.ahead, Message{handle, from, payload})
			size += len(payload)
			return size < maxAhead && len(q.ahead) < 1024
		})
		if err := errors.Join(err, bad); err != nil {
			return Message{}, false, err
		}
	}
	if len(q.ahead) == 0 {
		return Message{}, false, nil
	}
	m := q.ahead[0]
	q.ahead = q.ahead[1:]
	return m, true, nil
}

// Received forgets delivered payloads by handle; unknown ones are ignored. An
// enclave forgets in its own queue and, while it is the newest, in the shared one.
func (b *Box) Received(ctx context.Context, handles [][16]byte) error {
	queues := []string{b.addr.String()}
	if b.addr.Role == Enclave && b.x.isNewest(b) {
		queues = append(queues, NewestEnclave.String())
	}
	return b.x.store.Remove(ctx, b.x.federation, handles, queues...)
}

// Close detaches the party. What waits stays.
func (b *Box) Close() {
	b.x.mu.Lock()
	defer b.x.mu.Unlock()
	if b.x.boxes[b.addr] == b {
		delete(b.x.boxes, b.addr)
		if b.addr.Role == Enclave {
			b.x.elect()
		}
	}
	b.end()
}

// Ended is closed when the box is, or when the address was opened again.
func (b *Box) Ended() <-chan struct{} { return b.ended }

// end is called with the exchange's mutex held.
func (b *Box) end() {
	select {
	case <-b.ended:
	default:
		close(b.ended)
	}
}

func (b *Box) wakeUp() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}
