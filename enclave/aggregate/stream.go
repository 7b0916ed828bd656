package aggregate

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"unsafe"

	"github.com/concordat/concordat/chunkstore/object"
)

// Lender is an [io.Reader] that lends bytes which it has in memory, so that they need not be
// copied. What [Check], [Survey.Array] and [Plan.Array] read from may be one.
type Lender interface {
	io.Reader
	// Lend returns the next n bytes where they lie, and they count as read; n is positive.
	// If there are fewer side by side, or an error comes first, it returns nil, and nothing
	// is read: Read then has them. The bytes are the reader's again with the next call of
	// either; they must not be changed.
	Lend(n int) []byte
}

// use is what is done with the elements of a stream, and so where they may lie.
type use int

const (
	inspects use = iota // they are looked at as bytes, anywhere
	computes            // they are read as numbers, and so aligned
	changes             // they are written over, in memory of the stream's own
)

// stream is one array behind its header.
type stream struct {
	name    string
	r       io.Reader
	element element
	left    int    // elements
	lender  Lender // r, if it is one and what it lends can be used
	use     use
}

// open reads the header of an array and compares it.
func open(want Tensor, r io.Reader, u use) (*stream, error) {
	refuse := func(format string, x ...any) error {
		return &Refused{Index: -1, Array: want.Name, Reason: fmt.Sprintf(format, x...)}
	}
	model, err := elementOf(want.Type)
	if err != nil {
		return nil, refuse("model: %v", err)
	}
	h, err := object.ReadNPY(r)
	switch {
	case errors.Is(err, object.ErrInvalid):
		return nil, refuse("%v", err)
	case err != nil:
		return nil, err
	}
	if _, err := h.DataSize(); err != nil {
		return nil, refuse("%v", err)
	}
	n, err := h.Len()
	if err != nil {
		return nil, refuse("%v", err)
	}
	e, err := elementOf(h.Descr)
	if err != nil {
		return nil, refuse("%v", err)
	}
	if e.kind != model.kind || e.size != model.size {
		return nil, refuse("elements are %q, the model's %q", h.Descr, want.Type)
	}
	if !slices.Equal(h.Shape, want.Shape) {
		return nil, refuse("shape is %v, the model's %v", h.Shape, want.Shape)
	}
	if h.Fortran != want.Fortran && len(h.Shape) > 1 {
		return nil, refuse("column-major is %v, the model's %v", h.Fortran, want.Fortran)
	}
	s := &stream{name: want.Name, r: r, element: e, left: n, use: u}
	if e.big == hostBig { // else bytes are turned round, in memory of the stream's own
		s.lender, _ = r.(Lender)
	}
	return s, nil
}

// next returns the next elements in the type that is computed with and in the machine's
// order, a [Tile] of them or all that are left: where they lie, or else in the tile that room
// returns. They are there until the next call.
func (s *stream) next(room func() tile) ([]byte, error) {
	e := s.element
	n := min(s.left, Tile/e.wide())
	var lent []byte
	if s.lender != nil && n > 0 {
		lent = s.lender.Lend(n * e.size)
	}
	if lent != nil && s.permits(lent) {
		s.left -= n
		return lent, nil
	}
	t := room()
	// At the end of the tile, elements that are narrower than what they become lie where
	// they are read before they are written over.
	b := t.bytes()[Tile-n*e.size:]
	if e.size == e.wide() {
		b = t.bytes()[:n*e.size]
	}
	if lent != nil && e.size < e.wide() {
		b = lent
	} else if lent != nil {
		copy(b, lent)
	} else if _, err := io.ReadFull(s.r, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return nil, &Refused{Index: -1, Array: s.name, Reason: "array ends before its last element"}
		}
		return nil, err
	}
	s.left -= n
	e.widen(t, b)
	return t.bytes()[:n*e.wide()], nil
}

// permits reports whether elements can be used where they lie.
func (s *stream) permits(lent []byte) bool {
	aligned := uintptr(unsafe.Pointer(&lent[0]))%uintptr(s.element.size) == 0
	return s.element.native() && (s.use == inspects || s.use == computes && aligned)
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
