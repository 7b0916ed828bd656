package aggregate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/concordat/concordat/chunkstore/object"
)

// Tile is how many bytes of each contribution are in memory at a time: a sealed
// segment's plaintext, small enough that four of them and the result stay in a
// core's cache.
const Tile = 64 << 10

// maxHeader is the longest npy header that object.ParseNPY reads, and 12 bytes
// before it.
const maxHeader = 10_012

// Tensor is what all contributions must agree on: the name, element type and
// shape of an array of the model that was handed out.
type Tensor struct {
	Name    string
	Type    string // numpy's: "<f4", ">f4", "<f8" or ">f8"; the byte order is each contribution's own
	Shape   []int
	Fortran bool // column-major
}

// Check reads one contribution's array, npy bytes as in Flower's Array.data, to
// its end, and returns a [*Refused] with Index -1 if it cannot be aggregated: it
// is not of the shape and type of want, it is too short or too long, or a value
// is not finite or so large (2^127, in float64 2^1023) that a sum could overflow.
// Any other error is r's own. Memory is one [Tile].
func Check(want Tensor, r io.Reader) error {
	in, err := open(want, r)
	if err != nil {
		return err
	}
	t := newTile()
	for in.left > 0 {
		n, err := in.next(t)
		if err != nil {
			return err
		}
		if !tame[in.element.size].holds(t, n) {
			return &Refused{Index: -1, Array: want.Name, Reason: wild}
		}
	}
	return in.end()
}

// Array aggregates one array: in holds the npy bytes of each contribution's, in
// the order of [Plan], and out receives the result as numpy would save it,
// little-endian. The readers are read tile by tile in turn, every one to its
// end; out gets nothing before all headers have been read and agree. It writes
// nothing that is not finite. The error is a [*Refused] if a contribution is the
// reason; of contributions that passed [Check] none is. Memory is one [Tile] for
// each contribution and one for the result, and a little for headers.
func Array(s Strategy, want Tensor, in []io.Reader, out io.Writer) error {
	if parts, _ := s.Shares(); len(parts) != len(in) {
		return fmt.Errorf("aggregate: %d readers for %d contributions", len(in), len(parts))
	}
	streams := make([]*stream, len(in))
	for k, r := range in {
		var err error
		if streams[k], err = open(want, r); err != nil {
			return of(k, err)
		}
	}
	e := streams[0].element
	header := object.NPY{Descr: e.descr(), Fortran: want.Fortran, Shape: want.Shape}
	if _, err := out.Write(header.Append(nil)); err != nil {
		return err
	}
	tiles := make([]tile, len(in))
	for k := range tiles {
		tiles[k] = newTile()
	}
	result := newTile()
	f32, f64 := make([][]float32, len(in)), make([][]float64, len(in))
	for streams[0].left > 0 {
		var n int
		for k, st := range streams {
			var err error
			if n, err = st.next(tiles[k]); err != nil {
				return of(k, err)
			}
			f32[k], f64[k] = tiles[k].float32s()[:n/4], tiles[k].float64s()[:n/8]
		}
		if e.size == 4 {
			s.float32s(result.float32s()[:n/4], f32)
		} else {
			s.float64s(result.float64s()[:n/8], f64)
		}
		if !finite[e.size].holds(result, n) {
			return culprit(want, streams, tiles, n)
		}
		b := result.bytes()[:n]
		element{e.size, false}.swap(b)
		if _, err := out.Write(b); err != nil {
			return err
		}
	}
	for k, st := range streams {
		if err := st.end(); err != nil {
			return of(k, err)
		}
	}
	return nil
}

// culprit names the contribution because of which a result is not finite: one
// with a value that is not, or else one that did not pass [Check].
func culprit(want Tensor, streams []*stream, tiles []tile, n int) error {
	for _, b := range []map[int]bound{finite, tame} {
		for k, st := range streams {
			if !b[st.element.size].holds(tiles[k], n) {
				return &Refused{Index: k, Array: want.Name, Reason: wild}
			}
		}
	}
	return fmt.Errorf("aggregate: array %.80q: internal error: sum of small values overflows", want.Name)
}

// wild is the reason of a [Refused] about a value.
const wild = "a value is not finite, or too large to be added"

// of gives an error about a stream the number of its contribution.
func of(k int, err error) error {
	var r *Refused
	if errors.As(err, &r) {
		r.Index = k
		return r
	}
	return fmt.Errorf("aggregate: contribution %d: %w", k, err)
}

// stream is one contribution's array behind its header.
type stream struct {
	name    string
	r       io.Reader
	element element
	left    int // bytes
}

// open reads the header of an array and compares it.
func open(want Tensor, r io.Reader) (*stream, error) {
	refuse := func(format string, x ...any) error {
		return &Refused{Index: -1, Array: want.Name, Reason: fmt.Sprintf(format, x...)}
	}
	model, err := elementOf(want.Type)
	if err != nil {
		return nil, refuse("model: %v", err)
	}
	br := bufio.NewReaderSize(r, maxHeader)
	head, err := br.Peek(maxHeader)
	if err != nil && err != io.EOF {
		return nil, err
	}
	h, err := object.ParseNPY(head)
	if err != nil {
		return nil, refuse("%v", err)
	}
	size, err := h.DataSize()
	if err != nil {
		return nil, refuse("%v", err)
	}
	if _, err := br.Discard(h.HeaderSize); err != nil {
		return nil, err
	}
	e, err := elementOf(h.Descr)
	if err != nil {
		return nil, refuse("%v", err)
	}
	if e.size != model.size {
		return nil, refuse("elements are %q, the model's %q", h.Descr, want.Type)
	}
	if !slices.Equal(h.Shape, want.Shape) {
		return nil, refuse("shape is %v, the model's %v", h.Shape, want.Shape)
	}
	if h.Fortran != want.Fortran && len(h.Shape) > 1 {
		return nil, refuse("column-major is %v, the model's %v", h.Fortran, want.Fortran)
	}
	return &stream{name: want.Name, r: br, element: e, left: size}, nil
}

// next fills t, in the machine's byte order, and returns the bytes filled.
func (s *stream) next(t tile) (int, error) {
	n := min(s.left, Tile)
	b := t.bytes()[:n]
	if _, err := io.ReadFull(s.r, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return 0, &Refused{Index: -1, Array: s.name, Reason: "array ends before its last element"}
		}
		return 0, err
	}
	s.left -= n
	s.element.swap(b)
	return n, nil
}

// end checks that nothing follows the last element.
func (s *stream) end() error {
	var b [1]byte
	switch n, err := io.ReadFull(s.r, b[:]); {
	case n > 0:
		return &Refused{Index: -1, Array: s.name, Reason: "array goes on after its last element"}
	case err == io.EOF:
		return nil
	default:
		return err
	}
}
