package aggregate

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"unsafe"
)

// element is a numpy element type that can be aggregated.
type element struct {
	kind byte // 'f', 'i', 'u', or 'V' for bfloat16, which numpy does not know
	size int  // bytes
	big  bool
}

// elementOf parses a numpy type string. Truth values, complex numbers and text are
// refused by name.
func elementOf(descr string) (element, error) {
	if len(descr) == 3 {
		e := element{kind: descr[1], size: int(descr[2] - '0'), big: descr[0] == '>'}
		order := descr[0] == '<' || descr[0] == '>'
		switch descr[1:] {
		case "i1", "u1":
			order = order || descr[0] == '|'
			fallthrough
		case "f2", "f4", "f8", "V2", "i2", "i4", "i8", "u2", "u4", "u8":
			if order || descr == "|V2" { // as numpy names what has no order
				return e, nil
			}
		}
	}
	return element{}, fmt.Errorf("element type %.20q cannot be aggregated: only integers, bfloat16 and float16 to float64 can", descr)
}

// descr returns the type string of what a sum of e is written as. numpy's
// results are in the machine's order, and every machine that Flower runs on is
// little-endian.
func (e element) descr() string {
	order := byte('<')
	if e.size == 1 {
		order = '|'
	}
	return fmt.Sprintf("%c%c%d", order, e.kind, e.size)
}

func (e element) integer() bool { return e.kind == 'i' || e.kind == 'u' }

// half reports whether numpy rounds every operation to float16.
func (e element) half() bool { return e.kind == 'f' && e.size == 2 }

// wide returns the size of what elements are computed in: float32, and float64 for
// float64 and for integers, as numpy does it.
func (e element) wide() int {
	if e.integer() || e.size == 8 {
		return 8
	}
	return 4
}

// kept returns the element type of what they are computed in.
func (e element) kept() element { return element{kind: 'f', size: e.wide()} }

// native reports whether elements lie as they are computed with: nothing is converted.
func (e element) native() bool { return e.kind == 'f' && e.size >= 4 && e.big == hostBig }

// hostBig reports whether this machine is big-endian.
var hostBig = binary.NativeEndian.Uint16([]byte{1, 0}) != 1

// swap reverses the bytes of every element of b if they are not in the
// machine's order. len(b) is a multiple of e.size.
func (e element) swap(b []byte) {
	if e.big == hostBig {
		return
	}
	switch e.size {
	case 2:
		for ; len(b) >= 2; b = b[2:] {
			b[0], b[1] = b[1], b[0]
		}
	case 4:
		for ; len(b) >= 4; b = b[4:] {
			binary.BigEndian.PutUint32(b, binary.LittleEndian.Uint32(b))
		}
	case 8:
		for ; len(b) >= 8; b = b[8:] {
			binary.BigEndian.PutUint64(b, binary.LittleEndian.Uint64(b))
		}
	}
}

// widen turns the elements in b into float32 or float64 at the start of t. Where b lies in t,
// element i is read before anything is written over it.
func (e element) widen(t tile, b []byte) {
	e.swap(b)
	f32, f64 := t.float32s(), t.float64s()
	switch {
	case e.short() != nil:
		e.short().widen(f32, b)
	case e.kind == 'i':
		for i := 0; e.size*i < len(b); i++ {
			f64[i] = float64(int64(e.bits(b[e.size*i:])) << (64 - 8*e.size) >> (64 - 8*e.size))
		}
	case e.kind == 'u':
		for i := 0; e.size*i < len(b); i++ {
			f64[i] = float64(e.bits(b[e.size*i:]))
		}
	}
}

// bits reads the element at the start of b.
func (e element) bits(b []byte) uint64 {
	switch e.size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return binary.NativeEndian.Uint64(b)
}

// settle rounds every x to a value that e has. What is too large for a float becomes
// infinite; an integer takes its largest value, and loses its fraction as numpy's and
// PyTorch's conversions make it.
func settle[F float](e element, x []F) {
	switch {
	case e.short() != nil:
		e.short().round(any(x).([]float32))
	case e.integer():
		low, high := e.limits()
		for i, v := range x {
			x[i] = F(min(max(math.Trunc(float64(v)), low), high))
		}
	}
}

// limits returns the smallest and the largest value of an integer type, as float64: the
// largest of eight bytes is rounded up.
func (e element) limits() (low, high float64) {
	if e.kind == 'u' {
		return 0, math.Exp2(float64(8*e.size)) - 1
	}
	return -math.Exp2(float64(8*e.size - 1)), math.Exp2(float64(8*e.size-1)) - 1
}

// write writes the first n values of t, which were settled, as e in little-endian order.
// It changes t.
func (e element) write(out io.Writer, t tile, n int) error {
	b := t.bytes()[:n*e.size]
	f32, f64 := t.float32s(), t.float64s()
	little := binary.LittleEndian
	switch {
	case e.short() != nil:
		e.short().narrow(b, f32[:n])
	case e.integer():
		for i, v := range f64[:n] {
			switch u := e.whole(v); e.size {
			case 1:
				b[i] = byte(u)
			case 2:
				little.PutUint16(b[2*i:], uint16(u))
			case 4:
				little.PutUint32(b[4*i:], uint32(u))
			case 8:
				little.PutUint64(b[8*i:], u)
			}
		}
	default:
		element{size: e.size}.swap(b)
	}
	_, err := out.Write(b)
	return err
}

// whole returns the bits of a settled integer.
func (e element) whole(v float64) uint64 {
	switch {
	case e.kind == 'u' && v >= 0x1p64:
		return math.MaxUint64
	case e.kind == 'u':
		return uint64(v)
	case v >= 0x1p63:
		return math.MaxInt64
	}
	return uint64(int64(v))
}

// Tile is how many bytes of each contribution are in memory at a time, in the type that is
// computed with: a sealed segment's plaintext, small enough that four of them and the
// result stay in a core's cache.
const Tile = 64 << 10

// A tile is the memory of one window, aligned for every element type; its two
// views are the same memory in the machine's byte order.
type tile []uint64

func newTile() tile { return make(tile, Tile/8) }

// newTiles returns n tiles that are read side by side. What is at one place in them lies at
// distances that are no power of two, or it would crowd a few sets of a core's caches.
func newTiles(n int) []tile {
	const distance = (Tile + 256) / 8
	all, tiles := make(tile, n*distance), make([]tile, n)
	for k := range tiles {
		tiles[k] = all[k*distance:][: Tile/8 : Tile/8]
	}
	return tiles
}

// view returns the elements in b, which is aligned for them.
func view[F float](b []byte) []F {
	var f F
	return unsafe.Slice((*F)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(f)))
}

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
	// tame: below 2^127 (float32), 2^1023 (float64) or, of float16 in float32, 2^15 as well.
	// No weighted mean and no half sum of tame values overflows.
	tame = map[int]bound{
		2: {0x7f800000_7f800000, 0x39000000_39000000, 0x80000000_80000000},
		4: {0x7f000000_7f000000, 0x01000000_01000000, 0x80000000_80000000},
		8: {0x7fe0000000000000, 0x0020000000000000, 0x8000000000000000},
	}
)

// finite reports whether all values in b are, which were widened.
func (e element) finite(b []byte) bool {
	return e.integer() || finite[e.wide()].holds(b)
}

// tame reports whether no mean of values in b, which were widened, and others like them
// overflows e.
func (e element) tame(b []byte) bool {
	switch {
	case e.integer():
		return true
	case e.half():
		return tame[2].holds(b)
	}
	return tame[e.wide()].holds(b)
}

// holds reports whether every element in b, in the machine's order, is within the bound.
func (b bound) holds(elements []byte) bool {
	var found uint64
	if n := len(elements) &^ 127; vectors && n > 0 {
		found = beyond(&elements[0], n, b.mask, b.one)
		elements = elements[n:]
	}
	return (found|b.beyond(elements))&b.top == 0
}

// beyond returns a word with bits of top where an element is beyond the bound. It is the
// reference of the kernel of that name.
func (b bound) beyond(elements []byte) (found uint64) {
	for ; len(elements) >= 8; elements = elements[8:] {
		found |= (binary.NativeEndian.Uint64(elements) & b.mask) + b.one
	}
	if len(elements) == 4 { // one last float32
		w := uint64(binary.NativeEndian.Uint32(elements))
		found |= (w & b.mask) + b.one&math.MaxUint32
	}
	return found
}
