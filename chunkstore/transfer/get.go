package transfer

import (
	"context"
	"fmt"
	"io"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Range is a part of a chunk in its stored form (header and segments).
type Range struct {
	ID             chunkstore.ID
	Offset, Length uint64 // bytes; Length 0: to the end
}

// Get streams ranges in their order and calls each for every one, with its index,
// the stored size of its chunk as the link says, and a reader of exactly its bytes,
// which is valid during the call. What each leaves is skipped. A break is resumed
// where it happened, until ctx ends, without each noticing; it holds one message
// in memory. An error of each ends Get and is returned. The bytes are not checked
// against the id: a segment's reader does that.
func (c *Client) Get(ctx context.Context, scope chunkstore.Scope, ranges []Range, each func(i int, size uint64, r io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx) // ends a stream that is not read to its end
	defer cancel()
	g := &getter{ctx: ctx, c: c, scope: scope, ranges: ranges}
	for i := range ranges {
		g.at, g.pos, g.known = i, 0, false
		err := g.fill() // the first message has the size
		if err == nil {
			err = each(i, g.size, g)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, g)
		}
		if err != nil {
			return fmt.Errorf("transfer: chunk %s: %w", ranges[i].ID.Short(), err)
		}
	}
	return nil
}

// ReadAt reads from a stored chunk as io.ReaderAt does: fewer than len(p) bytes
// only with an error, io.EOF at the chunk's end. It costs a call; use Get for much.
func (c *Client) ReadAt(ctx context.Context, scope chunkstore.Scope, id chunkstore.ID, p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("transfer: chunk %s: negative offset", id.Short())
	}
	if len(p) == 0 {
		return 0, nil
	}
	read := func(length uint64) error {
		return c.Get(ctx, scope, []Range{{id, uint64(off), length}}, func(_ int, size uint64, r io.Reader) error {
			n, err = io.ReadFull(r, p[:min(uint64(len(p)), size-uint64(off))])
			return err
		})
	}
	if err = read(uint64(len(p))); status.Code(err) != codes.InvalidArgument {
		return n, err
	}
	// It reaches beyond the end: what is left is less than p.
	if err = read(0); err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// getter reads the range at, over as many streams as it takes.
type getter struct {
	ctx    context.Context
	c      *Client
	scope  chunkstore.Scope
	ranges []Range

	stream grpc.ServerStreamingClient[concordatv1.GetChunksResponse]
	base   int // index of the range that is the stream's first

	at    int    // of ranges
	pos   uint64 // bytes of it that Read returned or data holds
	known bool   // whether size is
	size  uint64 // of its chunk
	data  []byte // what is left of msg
	msg   concordatv1.GetChunksResponse
}

// length returns the bytes of the current range, once its chunk's size is known.
func (g *getter) length() uint64 {
	r := g.ranges[g.at]
	if r.Length == 0 {
		return g.size - r.Offset
	}
	return r.Length
}

func (g *getter) Read(p []byte) (int, error) {
	for len(g.data) == 0 {
		if g.pos == g.length() {
			return 0, io.EOF
		}
		if err := g.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, g.data)
	g.data = g.data[n:]
	return n, nil
}

// fill receives the next message of the current range; where the stream breaks, it
// opens another from there.
func (g *getter) fill() error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		fresh := g.stream == nil
		err := g.receive()
		if err == nil {
			return nil
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.Aborted, codes.ResourceExhausted:
		default:
			return err
		}
		g.stream = nil
		if !fresh {
			wait = 20 * time.Millisecond // there was progress
		}
		select {
		case <-time.After(wait):
		case <-g.ctx.Done():
			return err
		}
	}
}

func (g *getter) receive() error {
	// A stream asks for many ranges; the next group, and what a break left, need
	// another.
	resumed := g.stream == nil || g.at >= g.base+maxRanges
	if resumed {
		if err := g.open(); err != nil {
			return err
		}
	}
	m := &g.msg
	switch err := g.stream.RecvMsg(m); {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	}
	if int(m.GetRange()) != g.at-g.base {
		return fmt.Errorf("the link sent range %d, want %d", m.GetRange(), g.at-g.base)
	}
	if resumed || !g.known {
		r := g.ranges[g.at]
		if m.GetSize() < r.Offset || m.GetSize()-r.Offset < r.Length || m.GetSize() > chunkstore.MaxStored || g.known && m.GetSize() != g.size {
			return fmt.Errorf("%w: the link says %d bytes", chunkstore.ErrMismatch, m.GetSize())
		}
		g.size, g.known = m.GetSize(), true
	}
	if n := uint64(len(m.GetData())); n > g.length()-g.pos || n == 0 && g.pos < g.length() {
		return fmt.Errorf("%w: the link sent %d bytes, %d are left", chunkstore.ErrMismatch, n, g.length()-g.pos)
	}
	g.data = m.GetData()
	g.pos += uint64(len(g.data))
	return nil
}

// open asks for what is left of the current range and for those after it.
func (g *getter) open() error {
	if g.stream != nil {
		if _, err := g.stream.Recv(); err != io.EOF {
			return fmt.Errorf("the link sent more than was asked for (%v)", err)
		}
	}
	q := &concordatv1.GetChunksRequest{Scope: scopeProto(g.scope)}
	for i, r := range g.ranges[g.at:min(g.at+maxRanges, len(g.ranges))] {
		if i == 0 && g.pos > 0 {
			r.Offset, r.Length = r.Offset+g.pos, g.length()-g.pos
		}
		q.Ranges = append(q.Ranges, &concordatv1.Range{Id: r.ID[:], Offset: r.Offset, Length: r.Length})
	}
	stream, err := g.c.rpc.GetChunks(g.ctx, q, grpc.WaitForReady(true), grpc.ForceCodecV2(Codec{}))
	if err != nil {
		return err
	}
	g.stream, g.base = stream, g.at
	return nil
}
