package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"google.golang.org/grpc"
)

// What an upload sends at once. A batch is what the link makes durable together: large
// enough that its disk has few of them, small enough that a window has several.
const (
	batchParts  = 4       // of a window: a batch has one of them, and what its last chunk has more
	batchChunks = 1 << 14 // of one batch, at most: half of what a call may ask about
	maxBatches  = 8       // that are on their way at once: calls of which a connection has 256
	chunkCost   = 256     // bytes of memory that a chunk takes beside its own
)

// Upload sends chunks of one scope as they are made, batch by batch. While some batches are
// on their way, or on the link's disk, the next is gathered: Add waits only for room in the
// window (see [Client]), so that a link whose disk is slow slows down who seals. The link is
// asked what of each batch it lacks. Where it lacked all of a batch before, the chunks do not
// wait for the answer, which then spares those that have not been sent; otherwise they
// do. Bytes of batches go one after the other: side by side they would be no faster on one
// connection, and lie in the link's memory longer. After a break each batch that was not confirmed is asked about again and goes on. It is
// not safe for concurrent use, and is closed also after an error.
type Upload struct {
	c      *Client
	scope  chunkstore.Scope
	ctx    context.Context
	cancel context.CancelFunc
	window int
	batch  *batch        // that Add gathers; nil: none
	turn   chan struct{} // has an element while the bytes of a batch are being sent

	mu      sync.Mutex // owns what follows
	ended   sync.Cond  // a batch has ended
	sending int        // batches
	held    int        // bytes of them and of the one that is gathered
	free    [][]byte   // memory of earlier batches
	lacked  bool       // the link lacked all of the batch that it told of last
	err     error      // the first
	sent    uint64
	saved   uint64
}

// Upload begins an upload; its Close says whether all of it is durable at the link.
func (c *Client) Upload(ctx context.Context, scope chunkstore.Scope) *Upload {
	u := &Upload{c: c, scope: scope, window: c.Window, turn: make(chan struct{}, 1)}
	if u.window <= 0 {
		u.window = DefaultWindow
	}
	u.ctx, u.cancel = context.WithCancel(ctx)
	u.ended.L = &u.mu
	return u
}

// Add takes one chunk; stored is copied. After an error nothing may be added.
func (u *Upload) Add(id chunkstore.ID, stored []byte) error {
	if len(stored) == 0 {
		return fmt.Errorf("transfer: put: chunk %s has no bytes", id.Short())
	}
	cost := len(stored) + chunkCost
	if err := u.reserve(cost); err != nil {
		return err
	}
	if u.batch == nil {
		u.batch = new(batch)
	}
	u.batch.add(id, append(u.memory(len(stored)), stored...))
	if u.batch.cost >= u.window/batchParts || len(u.batch.chunks) == batchChunks {
		return u.flush()
	}
	return nil
}

// reserve waits until the window has room for n bytes more, or nothing else is in it. What
// is gathered is sent before: nobody waits for what waits for him.
func (u *Upload) reserve(n int) error {
	full := func() bool { return u.held > 0 && u.held+n > u.window && u.err == nil }
	u.mu.Lock()
	defer u.mu.Unlock()
	if full() {
		u.mu.Unlock()
		u.flush() // its error is in u.err
		u.mu.Lock()
	}
	for full() {
		u.ended.Wait()
	}
	if u.err == nil {
		u.held += n
	}
	return u.err
}

// memory returns memory for n bytes, which has no more than twice as many: that of an
// earlier chunk, if one fits.
func (u *Upload) memory(n int) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range min(len(u.free), 8) {
		at := len(u.free) - 1 - i
		if m := u.free[at]; cap(m) >= n && cap(m) <= 2*n {
			u.free = slices.Delete(u.free, at, at+1)
			return m[:0]
		}
	}
	if len(u.free) > 0 { // what fits nobody is let go
		u.free = u.free[:len(u.free)-1]
	}
	if m, ok := spare.Get().(*[]byte); ok && cap(*m) >= n && cap(*m) <= 2*n {
		return (*m)[:0]
	}
	return make([]byte, 0, n)
}

// spare has memory of uploads that have ended.
var spare sync.Pool

// flush has what was gathered sent.
func (u *Upload) flush() error {
	b := u.batch
	u.batch = nil
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.sending == maxBatches && u.err == nil {
		u.ended.Wait()
	}
	if u.err == nil && b != nil {
		u.sending++
		go u.run(b)
	}
	return u.err
}

// Close sends what is left and waits until all is durable at the link.
func (u *Upload) Close() error {
	u.flush()
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.sending > 0 {
		u.ended.Wait()
	}
	u.cancel()
	if u.c.Window == 0 { // who chose a window counts memory, and a pool keeps it for two collections
		for _, m := range u.free {
			spare.Put(&m)
		}
	}
	u.free = nil
	return u.err
}

// Sent returns the sealed bytes that were sent, of batches that the link confirmed.
func (u *Upload) Sent() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent
}

// Saved returns the sealed bytes that the link had already.
func (u *Upload) Saved() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.saved
}

// run sends a batch and ends it. The first error ends the other batches too.
func (u *Upload) run(b *batch) {
	sent, err := u.send(b)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sending--
	u.held -= b.cost
	if err == nil {
		u.sent += sent
		u.saved += b.size - sent
		if b.lent.count.Load() == 0 { // or a link confirmed what the transport had not sent yet
			for _, x := range b.chunks {
				u.free = append(u.free, x.data)
			}
		}
	} else if u.err == nil {
		u.err = fmt.Errorf("transfer: put: %w", err)
		u.cancel()
	}
	u.ended.Broadcast()
}

// send has a batch stored, over as many calls as it takes, and returns how many bytes the
// last of them was sent.
func (u *Upload) send(b *batch) (sent uint64, err error) {
	u.mu.Lock()
	ahead := u.lacked
	u.mu.Unlock()
	err = retry(u.ctx, func() (err error) {
		sent, err = u.try(b, ahead)
		ahead = false // what a break left is not sent again
		return err
	})
	return sent, err
}

// try asks what of a batch the link lacks, and sends it; ahead of the answer, if it is told
// to. What it started has ended when it returns.
func (u *Upload) try(b *batch, ahead bool) (sent uint64, err error) {
	ctx, cancel := context.WithCancel(u.ctx)
	var missing []bool // once asked is closed without an error
	var unasked error
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		missing, unasked = u.c.Missing(ctx, u.scope, b.ids())
	}()
	defer func() { // an answer that has not come yet is of no more use
		cancel()
		<-asked
		if unasked == nil {
			u.learn(missing)
		}
	}()
	if !ahead {
		if <-asked; unasked != nil {
			return 0, unasked
		}
	}
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	p, err := u.c.put(ctx, u.scope, b, func(i int) bool {
		select {
		case <-asked:
			return unasked == nil && !missing[i]
		default:
			return false
		}
	})
	<-u.turn
	if err != nil {
		return 0, err
	}
	return p.bytes, p.confirmed()
}

// learn remembers whether the link lacked all of a batch.
func (u *Upload) learn(missing []bool) {
	all := true
	for _, m := range missing {
		all = all && m
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lacked = all
}

// batch is chunks on their way.
type batch struct {
	chunks []batchChunk
	lent   lent   // memory of them, to the transport
	size   uint64 // bytes
	cost   int    // of the window
}

type batchChunk struct {
	id   chunkstore.ID
	data []byte
}

func (b *batch) add(id chunkstore.ID, data []byte) {
	b.chunks = append(b.chunks, batchChunk{id, data})
	b.size += uint64(len(data))
	b.cost += len(data) + chunkCost
}

func (b *batch) ids() []chunkstore.ID {
	ids := make([]chunkstore.ID, len(b.chunks))
	for i, c := range b.chunks {
		ids[i] = c.id
	}
	return ids
}

// put is a call of PutChunks, and what was sent on it.
type put struct {
	stream        grpc.ClientStreamingClient[concordatv1.PutChunksRequest, concordatv1.PutChunksResponse] // nil: nothing was to be sent
	chunks, bytes uint64
}

// put streams the chunks of a batch but for those of which spare says, when their turn
// comes, that they need not be sent. The transport may have some of the batch's memory
// until the batch's lent says otherwise. Whoever ends ctx ends the call.
func (c *Client) put(ctx context.Context, scope chunkstore.Scope, b *batch, spare func(i int) bool) (*put, error) {
	p := new(put)
	for i, x := range b.chunks {
		if spare(i) {
			continue
		}
		if p.stream == nil {
			var err error
			if p.stream, err = c.rpc.PutChunks(ctx, grpc.WaitForReady(true), grpc.ForceCodecV2(Codec{&b.lent})); err != nil {
				return nil, err
			}
			if err := p.send(&concordatv1.PutChunksRequest{Scope: scopeProto(scope)}); err != nil {
				return nil, err
			}
		}
		m := &concordatv1.PutChunksRequest{Id: x.id[:], Size: uint64(len(x.data))}
		for piece := range slices.Chunk(x.data, frame) {
			m.Data = piece
			if err := p.send(m); err != nil {
				return nil, err
			}
			m = new(concordatv1.PutChunksRequest)
		}
		p.chunks, p.bytes = p.chunks+1, p.bytes+uint64(len(x.data))
	}
	return p, nil
}

func (p *put) send(m *concordatv1.PutChunksRequest) error {
	err := p.stream.Send(m)
	if err == io.EOF {
		if _, err = p.stream.CloseAndRecv(); err == nil { // or it is the link's own reason
			err = errors.New("the link ended the call before it had all chunks")
		}
	}
	return err
}

// confirmed waits until all that was sent is durable.
func (p *put) confirmed() error {
	if p.stream == nil {
		return nil
	}
	r, err := p.stream.CloseAndRecv()
	if err == nil && (r.GetChunks() != p.chunks || r.GetBytes() != p.bytes) {
		err = fmt.Errorf("the link says that it stored %d chunks of %d bytes, sent were %d of %d", r.GetChunks(), r.GetBytes(), p.chunks, p.bytes)
	}
	return err
}
