package chunkstore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/concordat/concordat/chunkstore/object"
)

// ArrayReader reads an array's bytes. a is in outline, inflated from this parcel. The
// first reading of a chunk holds all of it in memory, sealed, since a chunk's id says
// nothing of a part. The parcel remembers the segments' hashes, as long as they are few
// ([maxLeaves]); readings after that hold four segments of 64 KiB at a time. Every reading
// checks them against the id, and opens four at a time.
//
// Whether a chunk holds the very object that the manifest names, [Parcel.Open] checks, and a
// reader does not: the id in a signed statement binds what is read.
//
// Bytes come through one [Source.Stream], which may read ahead. It ends when the reader
// has returned an error or io.EOF; who stops before ends ctx.
//
// The reader also has a method Lend(n int) []byte, which returns the next n bytes where they
// were opened, and they count as read; or nil if so many are not side by side, or none before
// an error that Read then returns. They are there until the next call of either, and must not
// be changed. Of chunks that are read by segments, what is at a multiple of eight bytes in the
// array is so in memory.
func (p *Parcel) ArrayReader(ctx context.Context, a *object.Array) io.Reader {
	return &arrayReader{ctx: ctx, p: p, chunks: a.Chunks}
}

// maxLeaves bounds what a parcel remembers: 1 MiB of hashes, of 2 GiB of arrays. What is
// beyond is read by whole chunks every time.
const maxLeaves = 1 << 15

// layout returns that of an array chunk that was read whole and had the id that the
// manifest gives it; nil if the parcel remembers none.
func (p *Parcel) layout(id object.ID) *Layout {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[id]
}

func (p *Parcel) remember(id object.ID, l *Layout) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[id] == nil && p.leaves+len(l.Leaves) <= maxLeaves {
		p.known[id] = l
		p.leaves += len(l.Leaves)
	}
}

type arrayReader struct {
	ctx    context.Context
	p      *Parcel
	chunks []object.Chunk
	stream io.ReadCloser // nil before the first Read
	err    error         // that was returned, and is again

	rest   []byte
	at     int       // where rest ends in the array
	group  *segments // memory of rest, if it is opened segments
	opener *Opener   // of the chunk that is being read
	next   int       // its next segment
	head   []byte    // that it begins with, before the array's data; nil once that was read
	sealed []byte    // its segments, if it is read for the first time; they are measured
	whole  *scratch  // memory of sealed
}

// segments is memory for some segments side by side, sealed, or open and aligned.
type segments [together * storedSegment]byte

var groups = sync.Pool{New: func() any { return new(segments) }}

func (r *arrayReader) Read(b []byte) (int, error) {
	if !r.fill() {
		return 0, r.err
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Lend is documented at ArrayReader.
func (r *arrayReader) Lend(n int) []byte {
	if !r.fill() || len(r.rest) < n {
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// fill makes rest the next bytes, unless there are some; it reports whether there are.
func (r *arrayReader) fill() bool {
	for len(r.rest) == 0 && r.err == nil {
		if r.err = r.advance(); r.err != nil {
			r.release()
		}
		r.at += len(r.rest)
	}
	return r.err == nil
}

// release gives up what is held.
func (r *arrayReader) release() {
	r.rest, r.opener, r.sealed = nil, nil, nil
	if r.stream != nil {
		r.stream.Close() // what could fail failed in Read
	}
	if r.whole != nil {
		scratches.Put(r.whole)
	}
	if r.group != nil {
		groups.Put(r.group)
	}
	r.stream, r.whole, r.group = nil, nil, nil
}

// advance makes rest the next bytes, which may be none.
func (r *arrayReader) advance() error {
	switch {
	case r.opener != nil && r.next < r.opener.Segments():
		return r.openGroup()
	case len(r.chunks) == 0:
		return io.EOF
	}
	if r.stream == nil {
		if err := r.openStream(); err != nil {
			return err
		}
	}
	id := r.chunks[0].ID
	r.chunks, r.opener, r.sealed = r.chunks[1:], nil, nil
	e, err := r.p.entry(id)
	if err != nil {
		return err
	}
	if e.Inline != nil {
		r.rest, err = object.ChunkData(e.Inline)
		return err
	}
	if l := r.p.layout(id); l != nil {
		return r.beginAgain(e, l)
	}
	return r.beginWhole(e)
}

// openStream opens the stream of all chunks.
func (r *arrayReader) openStream() error {
	var list []Stored
	for _, c := range r.chunks {
		e, err := r.p.entry(c.ID)
		if err != nil {
			return err
		}
		if e.Inline == nil {
			list = append(list, Stored{e.Chunk, StoredSize(e.Size)})
		}
	}
	r.stream = r.p.source.Stream(r.ctx, list)
	return nil
}

// beginWhole begins to read a chunk for the first time.
func (r *arrayReader) beginWhole(e Entry) error {
	if r.whole == nil {
		r.whole = scratches.Get().(*scratch)
	}
	m, n := r.whole, int(StoredSize(e.Size))
	if cap(m.sealed) < n {
		m.sealed = make([]byte, n)
	}
	m.sealed = m.sealed[:n]
	if err := readFull(r.stream, m.sealed); err != nil {
		return err
	}
	l, err := Measure(m.sealed)
	if err != nil {
		return fmt.Errorf("chunk %s: %w", e.Chunk.Short(), err)
	}
	if err := r.begin(e, l); err != nil {
		return err
	}
	r.sealed = m.sealed[HeaderSize:]
	r.p.remember(e.Object, l)
	return nil
}

// beginAgain begins to read a chunk of which the layout is known.
func (r *arrayReader) beginAgain(e Entry, l *Layout) error {
	if r.whole != nil {
		scratches.Put(r.whole)
		r.whole = nil
	}
	if err := r.begin(e, l); err != nil {
		return err
	}
	var header [HeaderSize]byte
	if err := readFull(r.stream, header[:]); err != nil {
		return err
	}
	if header != l.Header {
		return fmt.Errorf("%w: header of %s", ErrMismatch, e.Chunk.Short())
	}
	return nil
}

// begin checks a layout against the chunk's id and the manifest.
func (r *arrayReader) begin(e Entry, l *Layout) (err error) {
	if r.opener, err = NewOpener(e.Chunk, l, r.p.secret.Opening(e.Object)); err != nil {
		return err
	}
	if r.opener.Size() != e.Size {
		return otherSize(e, r.opener.Size())
	}
	if r.head = object.ChunkHead(e.Size); r.head == nil {
		return fmt.Errorf("%w: no ArrayChunk has %d bytes", ErrOpening, e.Size)
	}
	r.next = 0
	return nil
}

// openGroup opens the next segments.
func (r *arrayReader) openGroup() error {
	if r.group == nil {
		r.group = groups.Get().(*segments)
	}
	var list [together][]byte
	n, used := 0, 0
	for ; n < together && r.next+n < r.opener.Segments(); n++ {
		_, size := r.opener.SegmentSpan(r.next + n)
		used += size
	}
	measured := r.sealed != nil
	from := r.sealed
	if measured {
		r.sealed = r.sealed[used:]
	} else {
		memory := groups.Get().(*segments)
		defer groups.Put(memory)
		from = memory[:used]
		if err := readFull(r.stream, from); err != nil {
			return err
		}
	}
	for k := range n {
		_, size := r.opener.SegmentSpan(r.next + k)
		list[k], from = from[:size], from[size:]
	}
	before := (r.at - len(r.head)) & 7 // bytes that align what comes behind the head
	plain, err := r.opener.openSegments(r.group[:before], r.next, list[:n], measured)
	if err != nil {
		return err
	}
	data, ok := bytes.CutPrefix(plain[before:], r.head)
	if !ok {
		return fmt.Errorf("%w: %s holds no ArrayChunk", ErrOpening, r.opener.id.Short())
	}
	r.rest, r.head = data, nil
	r.next += n
	return nil
}
