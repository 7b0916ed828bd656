package aggregate

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// element is a numpy element type that can be aggregated.
type element struct {
	size int // bytes: 4 or 8
	big  bool
}

// elementOf parses a numpy type string. Integers are refused by name: Flower
// would turn them into float64, and the model would change its type.
func elementOf(descr string) (element, error) {
	switch descr {
	case "<f4":
		return element{4, false}, nil
	case ">f4":
		return element{4, true}, nil
	case "<f8":
		return element{8, false}, nil
	case ">f8":
		return element{8, true}, nil
	}
	return element{}, fmt.Errorf("element type %.20q cannot be aggregated: only float32 and float64 can", descr)
}

// descr returns the type string of what a sum of e is written as. numpy's
// results are in the machine's order, and every machine that Flower runs on is
// little-endian.
func (e element) descr() string { return fmt.Sprintf("<f%d", e.size) }

// hostBig reports whether this machine is big-endian.
var hostBig = binary.NativeEndian.Uint16([]byte{1, 0}) != 1

// swap reverses the bytes of every element of b if they are not in the
// machine's order. len(b) is a multiple of e.size.
func (e element) swap(b []byte) {
	if e.big == hostBig {
		return
	}
	if e.size == 4 {
		for ; len(b) >= 4; b = b[4:] {
			binary.BigEndian.PutUint32(b, binary.LittleEndian.Uint32(b))
		}
		return
	}
	for ; len(b) >= 8; b = b[8:] {
		binary.BigEndian.PutUint64(b, binary.LittleEndian.Uint64(b))
	}
}

// A tile is the memory of one segment, aligned for every element type; its two
// views are the same memory in the machine's byte order.
type tile []uint64

func newTile() tile { return make(tile, Tile/8) }

func (t tile) bytes() []byte       { return unsafe.Slice((*byte)(unsafe.Pointer(&t[0])), 8*len(t)) }
func (t tile) float32s() []float32 { return unsafe.Slice((*float32)(unsafe.Pointer(&t[0])), 2*len(t)) }
func (t tile) float64s() []float64 { return unsafe.Slice((*float64)(unsafe.Pointer(&t[0])), len(t)) }

// A bound on the size of elements, by their exponent: mask selects the bits that
// are all ones in an element beyond the bound, and adding one carries them into
// the sign bit top. For float32 the constants hold two elements.
type bound struct{ mask, one, top uint64 }

var (
	// finite: no infinity, no NaN.
	finite = map[int]bound{
		4: {0x7f800000_7f800000, 0x00800000_00800000, 0x80000000_80000000},
		8: {0x7ff0000000000000, 0x0010000000000000, 0x8000000000000000},
	}
	// tame: below 2^127 (float32) or 2^1023 (float64) as well. No weighted mean and
	// no half sum of tame values overflows.
	tame = map[int]bound{
		4: {0x7f000000_7f000000, 0x01000000_01000000, 0x80000000_80000000},
		8: {0x7fe0000000000000, 0x0020000000000000, 0x8000000000000000},
	}
)

// holds reports whether every element of t[:n] (n bytes, in the machine's order)
// is within the bound.
func (b bound) holds(t tile, n int) bool {
	var beyond uint64
	for _, w := range t[:n/8] {
		beyond |= (w & b.mask) + b.one
	}
	if n%8 == 4 { // one last float32
		w := uint64(binary.NativeEndian.Uint32(t.bytes()[n-4:]))
		beyond |= (w & b.mask) + b.one&math.MaxUint32
	}
	return beyond&b.top == 0
}
