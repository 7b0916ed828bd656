package object

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
)

// Limits of one object. Flower itself has none.
const (
	// MaxSize bounds an ArrayChunk, head included: what one sealed chunk holds.
	MaxSize = 64 << 20
	// MaxStructure bounds every other object. They describe arrays instead of
	// holding them, and all of one message travel in one manifest of this size.
	MaxStructure = 16 << 20
	// maxChildren is 1.25 TiB of array in chunks of ChunkSize; arbitrary.
	maxChildren = 1 << 18
)

// Kind is the type of an object.
type Kind uint8

// The kinds of objects. The zero Kind is none.
const (
	KindArrayChunk Kind = iota + 1
	KindArray
	KindArrayRecord
	KindConfigRecord
	KindMetricRecord
	KindRecordDict
	KindMessage
)

var kindNames = [...]string{"none", "ArrayChunk", "Array", "ArrayRecord", "ConfigRecord", "MetricRecord", "RecordDict", "Message"}

// String returns the kind as the head spells it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// leaf reports whether objects of kind k have no children.
func (k Kind) leaf() bool {
	return k == KindArrayChunk || k == KindConfigRecord || k == KindMetricRecord
}

// MayHold reports whether an object of kind k may have one of kind child as a
// child. That bounds the depth of every tree at five.
func (k Kind) MayHold(child Kind) bool {
	switch k {
	case KindMessage:
		return child == KindRecordDict
	case KindRecordDict:
		return child == KindArrayRecord || child == KindConfigRecord || child == KindMetricRecord
	case KindArrayRecord:
		return child == KindArray
	case KindArray:
		return child == KindArrayChunk
	}
	return false
}

// Head is one object, taken apart: object = "<Kind> <id>,<id>,… <len(body)>" ||
// 00 || body.
type Head struct {
	Kind     Kind
	Children []ID   // in the head's order, each once
	Body     []byte // shares memory with the object
}

// ParseHead takes an object apart and checks its head: grammar, kind, number
// and spelling of children, length of the body. It does not look into the body.
// The error wraps [ErrInvalid].
func ParseHead(raw []byte) (Head, error) {
	if len(raw) > MaxSize {
		return Head{}, invalid("%d bytes, limit %d", len(raw), MaxSize)
	}
	name, rest, ok := bytes.Cut(raw, []byte{' '})
	if !ok || len(name) > 16 {
		return Head{}, invalid("head without a kind")
	}
	var h Head
	for k, s := range kindNames {
		if k > 0 && string(name) == s {
			h.Kind = Kind(k)
		}
	}
	if h.Kind == 0 {
		return Head{}, invalid("unknown kind %.16q", name)
	}
	if h.Kind != KindArrayChunk && len(raw) > MaxStructure {
		return Head{}, invalid("%v of %d bytes, limit %d", h.Kind, len(raw), MaxStructure)
	}
	ids, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return Head{}, invalid("%v: head without a length", h.Kind)
	}
	if err := h.parseChildren(ids); err != nil {
		return Head{}, fmt.Errorf("%w (in the head of a %v)", err, h.Kind)
	}
	// The length is at most eight digits (64 MiB).
	end := bytes.IndexByte(rest[:min(len(rest), 9)], 0)
	if end < 0 {
		return Head{}, invalid("%v: head without an end", h.Kind)
	}
	h.Body = rest[end+1:]
	if string(rest[:end]) != strconv.Itoa(len(h.Body)) {
		return Head{}, invalid("%v: head says %.8q bytes, body has %d", h.Kind, rest[:end], len(h.Body))
	}
	return h, nil
}

func (h *Head) parseChildren(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	const size = 2 * len(ID{})
	n := (len(b) + 1) / (size + 1)
	switch {
	case len(b) != n*(size+1)-1:
		return invalid("list of children has %d bytes", len(b))
	case n > maxChildren:
		return invalid("%d children, limit %d", n, maxChildren)
	case h.Kind.leaf():
		return invalid("%d children, want none", n)
	case h.Kind == KindMessage && n > 1:
		return invalid("%d children, want at most 1", n)
	}
	h.Children = make([]ID, n)
	seen := make(map[ID]struct{}, n)
	for i := range h.Children {
		at := i * (size + 1)
		if i > 0 && b[at-1] != ',' {
			return invalid("children are not separated by commas")
		}
		id, err := ParseID(string(b[at : at+size]))
		if err != nil {
			return err
		}
		if _, dup := seen[id]; dup {
			return invalid("child %d is listed twice", i)
		}
		seen[id] = struct{}{}
		h.Children[i] = id
	}
	return nil
}

// encode joins a head and a body to an object.
func (h Head) encode() []byte { return h.append(nil) }

// append appends the encoding to b.
func (h Head) append(b []byte) []byte {
	b = slices.Grow(b, 32+len(h.Children)*(2*len(ID{})+1)+len(h.Body))
	return append(h.appendStart(b, len(h.Body)), h.Body...)
}

// appendStart appends what stands before a body of that length.
func (h Head) appendStart(b []byte, body int) []byte {
	b = append(b, h.Kind.String()...)
	b = append(b, ' ')
	for i, c := range h.Children {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, c.String()...)
	}
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(body), 10)
	return append(b, 0)
}
