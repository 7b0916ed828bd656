package chunkstore

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/concordat/concordat/chunkstore/object"
)

// ArrayReader reads an array's bytes. a is in outline, inflated from this parcel. The
// first reading of a chunk holds all of it in memory, sealed and open, since a chunk's id
// says nothing of a part. The parcel remembers the segments' hashes, as long as they are
// few ([maxLeaves]); readings after that check and hold four segments of 64 KiB at a time.
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

// outline is what the parcel remembers of an array chunk that was opened whole and found
// to be what its names say: the same bytes are the same object.
type outline struct {
	layout *Layout
	skip   int // bytes of the object before the array's data
}

func (p *Parcel) outline(id object.ID) (outline, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	o, ok := p.known[id]
	return o, ok
}

func (p *Parcel) remember(id object.ID, o outline) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.known[id]; !again && o.skip < SegmentSize && p.leaves+len(o.layout.Leaves) <= maxLeaves {
		p.known[id] = o
		p.leaves += len(o.layout.Leaves)
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
	whole  *scratch  // memory of rest, if it is a chunk
	group  *segments // if it is opened segments
	opener *Opener   // of the chunk that is read by segments
	next   int       // its next segment
	skip   int       // bytes of it that are no data of the array
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
	r.rest, r.opener = nil, nil
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
		if err := r.begin(); err != nil {
			return err
		}
	}
	id := r.chunks[0].ID
	r.chunks, r.opener = r.chunks[1:], nil
	e, err := r.p.entry(id)
	if err != nil {
		return err
	}
	if e.Inline != nil {
		r.rest, err = object.ChunkData(e.Inline)
		return err
	}
	if o, known := r.p.outline(id); known {
		return r.beginChunk(e, o)
	}
	return r.openWhole(e)
}

// begin opens the stream of all chunks.
func (r *arrayReader) begin() error {
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

// openWhole reads a chunk for the first time.
func (r *arrayReader) openWhole(e Entry) (err error) {
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
	var l *Layout
	if m.plain, l, err = r.p.openChunk(m.plain[:0], e, m.sealed); err != nil {
		return err
	}
	if r.rest, err = object.ChunkData(m.plain); err != nil {
		return err
	}
	r.p.remember(e.Object, outline{l, len(m.plain) - len(r.rest)})
	return nil
}

// beginChunk begins to read a chunk again.
func (r *arrayReader) beginChunk(e Entry, o outline) (err error) {
	if r.whole != nil {
		scratches.Put(r.whole)
		r.whole = nil
	}
	if r.opener, err = NewOpener(e.Chunk, o.layout, r.p.secret.Opening(e.Object)); err != nil {
		return err
	}
	r.next, r.skip = 0, o.skip
	var header [HeaderSize]byte
	if err := readFull(r.stream, header[:]); err != nil {
		return err
	}
	if header != o.layout.Header {
		return fmt.Errorf("%w: header of %s", ErrMismatch, e.Chunk.Short())
	}
	return nil
}

// openGroup reads the next segments.
func (r *arrayReader) openGroup() error {
	if r.group == nil {
		r.group = groups.Get().(*segments)
	}
	sealed := groups.Get().(*segments)
	defer groups.Put(sealed)
	var list [together][]byte
	n, used := 0, 0
	for ; n < together && r.next+n < r.opener.Segments(); n++ {
		_, size := r.opener.SegmentSpan(r.next + n)
		list[n] = sealed[used : used+size]
		used += size
	}
	if err := readFull(r.stream, sealed[:used]); err != nil {
		return err
	}
	before := (r.at - r.skip) & 7 // bytes that align what comes behind skip
	plain, err := r.opener.openSegments(r.group[:before], r.next, list[:n])
	if err != nil {
		return err
	}
	r.rest = plain[before+r.skip:]
	r.next += n
	r.skip = 0
	return nil
}
