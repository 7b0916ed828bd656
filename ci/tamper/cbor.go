package tamper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Limits of a value. A format under test is far below.
const (
	maxBytes = 1 << 20
	maxDepth = 24 // byte strings that hold CBOR count as a level
)

// The major types (RFC 8949 3.1).
const (
	majorUint = iota
	majorNegative
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

// item is one data item. Changing it and encoding the root again changes the
// lengths of everything around it too.
type item struct {
	major byte
	arg   uint64 // numbers, tags
	data  []byte // strings; head and content of a simple value or float, as they are
	// items are the elements of an array, keys and values of a map in turn, the content
	// of a tag, or the item that a byte string holds.
	items    []*item
	unsorted bool // encode a map in the order of items
}

// holds reports whether it is a byte string with an item inside.
func (it *item) holds() bool { return it.major == majorBytes && len(it.items) > 0 }

// parse decodes the one item that b is.
func parse(b []byte, depth int) (*item, error) {
	it, rest, err := parseItem(b, depth)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%d bytes after the item", len(rest))
	}
	return it, nil
}

func parseItem(b []byte, depth int) (*item, []byte, error) {
	if depth > maxDepth {
		return nil, nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	it, rest, err := parseHead(b)
	if err != nil {
		return nil, nil, err
	}
	switch it.major {
	case majorBytes, majorText:
		if it.arg > uint64(len(rest)) {
			return nil, nil, fmt.Errorf("string of %d bytes, %d are there", it.arg, len(rest))
		}
		it.data, rest = bytes.Clone(rest[:it.arg]), rest[it.arg:]
		if it.major == majorText && !utf8.Valid(it.data) {
			return nil, nil, errors.New("text is not UTF-8")
		}
		if it.major == majorBytes && len(it.data) > 0 && it.data[0]>>5 >= majorArray && it.data[0]>>5 <= majorTag {
			// Most byte strings hold no CBOR: then they are just bytes.
			if in, err := parse(it.data, depth+1); err == nil {
				it.items = []*item{in}
			}
		}
		return it, rest, nil
	case majorArray, majorMap, majorTag:
		n := it.arg
		if it.major == majorTag {
			n = 1
		}
		if n > uint64(len(rest)) { // an item has at least one byte
			return nil, nil, fmt.Errorf("%d elements in %d bytes", n, len(rest))
		}
		if it.major == majorMap {
			n *= 2
		}
		for range n {
			var e *item
			if e, rest, err = parseItem(rest, depth+1); err != nil {
				return nil, nil, err
			}
			it.items = append(it.items, e)
		}
		if it.major == majorMap {
			keys := it.keys()
			for i := 1; i < len(keys); i++ {
				if bytes.Compare(keys[i-1], keys[i]) >= 0 {
					return nil, nil, errors.New("map keys are not in order")
				}
			}
		}
	}
	return it, rest, nil
}

// parseHead reads the first bytes of an item: major type and argument.
func parseHead(b []byte) (*item, []byte, error) {
	if len(b) == 0 {
		return nil, nil, errors.New("ends too early")
	}
	it := &item{major: b[0] >> 5}
	info := b[0] & 0x1f
	size := 0
	switch {
	case info < 24:
		it.arg = uint64(info)
	case info <= 27:
		size = 1 << (info - 24)
	default:
		return nil, nil, fmt.Errorf("initial byte %#02x: indefinite lengths and reserved values are not deterministic", b[0])
	}
	if len(b) < 1+size {
		return nil, nil, errors.New("ends too early")
	}
	if size > 0 {
		var wide [8]byte
		copy(wide[8-size:], b[1:1+size])
		it.arg = binary.BigEndian.Uint64(wide[:])
	}
	if it.major == majorSimple {
		it.data = bytes.Clone(b[:1+size]) // floats and simple values are kept as they are
	} else if h := appendHead(nil, it.major, it.arg); !bytes.Equal(h, b[:1+size]) {
		return nil, nil, fmt.Errorf("head %x is not the shortest", b[:1+size])
	}
	return it, b[1+size:], nil
}

// keys returns the encoded keys of a map.
func (it *item) keys() (out [][]byte) {
	for i := 0; i < len(it.items); i += 2 {
		out = append(out, it.items[i].append(nil))
	}
	return out
}

// append appends the encoding of it.
func (it *item) append(b []byte) []byte {
	switch it.major {
	case majorSimple:
		return append(b, it.data...)
	case majorUint, majorNegative:
		return appendHead(b, it.major, it.arg)
	case majorBytes, majorText:
		data := it.data
		if it.holds() {
			data = it.items[0].append(nil)
		}
		return append(appendHead(b, it.major, uint64(len(data))), data...)
	case majorTag:
		b = appendHead(b, it.major, it.arg)
	case majorArray:
		b = appendHead(b, it.major, uint64(len(it.items)))
	case majorMap:
		b = appendHead(b, it.major, uint64(len(it.items)/2))
		if !it.unsorted {
			var pairs [][2][]byte
			for i := 0; i < len(it.items); i += 2 {
				pairs = append(pairs, [2][]byte{it.items[i].append(nil), it.items[i+1].append(nil)})
			}
			slices.SortStableFunc(pairs, func(x, y [2][]byte) int { return bytes.Compare(x[0], y[0]) })
			for _, p := range pairs {
				b = append(append(b, p[0]...), p[1]...)
			}
			return b
		}
	}
	for _, e := range it.items {
		b = e.append(b)
	}
	return b
}

// appendHead appends the shortest head.
func appendHead(b []byte, major byte, arg uint64) []byte {
	m := major << 5
	switch {
	case arg < 24:
		return append(b, m|byte(arg))
	case arg < 1<<8:
		return append(b, m|24, byte(arg))
	case arg < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, m|25), uint16(arg))
	case arg < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, m|26), uint32(arg))
	}
	return binary.BigEndian.AppendUint64(append(b, m|27), arg)
}
