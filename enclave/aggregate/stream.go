package aggregate

import (
	"bufio"
	"fmt"
	"io"
	"slices"

	"github.com/concordat/concordat/chunkstore/object"
)

// maxHeader is the longest npy header that object.ParseNPY reads, and 12 bytes
// before it.
const maxHeader = 10_012

// stream is one array behind its header.
type stream struct {
	name    string
	r       io.Reader
	element element
	left    int // elements
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
	if _, err := h.DataSize(); err != nil {
		return nil, refuse("%v", err)
	}
	n, err := h.Len()
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
	if e.kind != model.kind || e.size != model.size {
		return nil, refuse("elements are %q, the model's %q", h.Descr, want.Type)
	}
	if !slices.Equal(h.Shape, want.Shape) {
		return nil, refuse("shape is %v, the model's %v", h.Shape, want.Shape)
	}
	if h.Fortran != want.Fortran && len(h.Shape) > 1 {
		return nil, refuse("column-major is %v, the model's %v", h.Fortran, want.Fortran)
	}
	return &stream{name: want.Name, r: br, element: e, left: n}, nil
}

// next fills t with the next elements in the type that is computed with, and returns how
// many there are.
func (s *stream) next(t tile) (int, error) {
	n := min(s.left, Tile/s.element.wide())
	// At the end of the tile, elements that are narrower than what they become lie where
	// they are read before they are written over.
	b := t.bytes()[Tile-n*s.element.size:]
	if s.element.size == s.element.wide() {
		b = t.bytes()[:n*s.element.size]
	}
	if _, err := io.ReadFull(s.r, b); err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return 0, &Refused{Index: -1, Array: s.name, Reason: "array ends before its last element"}
		}
		return 0, err
	}
	s.left -= n
	s.element.widen(t, b)
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
