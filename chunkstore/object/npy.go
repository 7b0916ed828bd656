package object

import (
	"encoding/binary"
	"io"
	"math"
	"strconv"
	"strings"
)

// NumPy is the SType of arrays in numpy's file format.
const NumPy = "numpy.ndarray"

// maxNPYHeader is what numpy itself reads without allow_pickle
// (numpy.lib.format _MAX_HEADER_SIZE).
const maxNPYHeader = 10_000

const npyMagic = "\x93NUMPY"

// NPY is the header of an array in numpy's file format (NEP 1, versions 1.0,
// 2.0 and 3.0): what follows it are the elements, without gaps.
type NPY struct {
	Descr   string // as numpy writes it: byte order, kind, bytes: "<f4"
	Fortran bool   // the first dimension varies fastest, not the last
	Shape   []int  // no dimension is negative; none at all is a scalar
	// HeaderSize is where the elements begin. [NPY.Append] does not read it.
	HeaderSize int
}

// ParseNPY reads the header at the start of b, which may be cut off anywhere
// after it: the first chunk of an array will do if it holds the header.
// Structured types are refused. The error wraps [ErrInvalid].
func ParseNPY(b []byte) (NPY, error) {
	start, end, err := npyDict(b)
	if err != nil {
		return NPY{}, err
	}
	if len(b) < end {
		return NPY{}, invalid("npy: truncated")
	}
	h := NPY{HeaderSize: end}
	return h, h.parse(string(b[start:end]))
}

// ReadNPY reads a header, and nothing behind it: [ParseNPY] for what is read in turn. Errors
// of r that are not its end are passed on.
func ReadNPY(r io.Reader) (NPY, error) {
	b := make([]byte, npyShortest, 128) // as most are
	if err := readNPY(r, b); err != nil {
		return NPY{}, err
	}
	_, end, err := npyDict(b)
	if err != nil {
		return NPY{}, err
	}
	b = append(b, make([]byte, max(end, npyShortest)-npyShortest)...)
	if err := readNPY(r, b[npyShortest:]); err != nil {
		return NPY{}, err
	}
	return ParseNPY(b)
}

func readNPY(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return invalid("npy: truncated")
	}
	return err
}

// npyShortest: no header of the known form has fewer bytes.
const npyShortest = 12

// npyDict returns where a header's dict begins and ends; b may end before that.
func npyDict(b []byte) (start, end int, err error) {
	if len(b) < npyShortest || string(b[:6]) != npyMagic {
		return 0, 0, invalid("npy: no magic")
	}
	var n uint64
	switch v := [2]byte{b[6], b[7]}; v {
	case [2]byte{1, 0}:
		n, start = uint64(binary.LittleEndian.Uint16(b[8:])), 10
	case [2]byte{2, 0}, [2]byte{3, 0}:
		n, start = uint64(binary.LittleEndian.Uint32(b[8:])), 12
	default:
		return 0, 0, invalid("npy: version %d.%d", v[0], v[1])
	}
	if n > maxNPYHeader {
		return 0, 0, invalid("npy: header of %d bytes, limit %d", n, maxNPYHeader)
	}
	return start, start + int(n), nil
}

// parse reads the header's dict. numpy accepts any Python literal there; this
// takes the three keys in any order, with any spaces, and either quote.
func (h *NPY) parse(dict string) error {
	s := literal{strings.TrimSpace(dict), false}
	var have [3]bool
	s.expect("{")
	for !s.failed && !s.try("}") {
		key := s.str()
		s.expect(":")
		at := -1
		switch key {
		case "descr":
			at, h.Descr = 0, s.str()
		case "fortran_order":
			at, h.Fortran = 1, s.try("True")
			if !h.Fortran {
				s.expect("False")
			}
		case "shape":
			at, h.Shape = 2, s.tuple()
		}
		if at < 0 || have[at] {
			return invalid("npy: header has other keys")
		}
		have[at] = true
		if !s.try(",") {
			s.expect("}")
			break
		}
	}
	if s.failed || s.s != "" {
		return invalid("npy: header is not a dict of the known form")
	}
	if have != [3]bool{true, true, true} {
		return invalid("npy: header lacks a key")
	}
	_, err := h.DataSize()
	return err
}

// literal reads Python literals. Its first failure sticks.
type literal struct {
	s      string
	failed bool
}

func (l *literal) try(token string) bool {
	l.s = strings.TrimLeft(l.s, " ")
	if l.failed || !strings.HasPrefix(l.s, token) {
		return false
	}
	l.s = l.s[len(token):]
	return true
}

func (l *literal) expect(token string) {
	if !l.try(token) {
		l.failed, l.s = true, ""
	}
}

// str reads a string without escapes.
func (l *literal) str() string {
	quote := "'"
	if l.try(`"`) {
		quote = `"`
	} else {
		l.expect(quote)
	}
	v, rest, ok := strings.Cut(l.s, quote)
	if !ok || strings.ContainsAny(v, "\\\n") {
		l.failed, l.s = true, ""
		return ""
	}
	l.s = rest
	return v
}

// tuple reads a tuple of non-negative integers; one alone needs its comma.
func (l *literal) tuple() []int {
	dims := []int{}
	l.expect("(")
	for !l.failed && !l.try(")") {
		n := 0
		for n < len(l.s) && l.s[n] >= '0' && l.s[n] <= '9' {
			n++
		}
		v, err := strconv.ParseInt(l.s[:min(n, 20)], 10, 0)
		if err != nil || len(dims) == maxDims {
			l.failed, l.s = true, ""
			break
		}
		l.s = l.s[n:]
		dims = append(dims, int(v))
		if !l.try(",") {
			l.expect(")")
			l.failed = l.failed || len(dims) == 1
			break
		}
	}
	return dims
}

// ItemSize returns the bytes of one element, for the kinds b, i, u, f, c, S and
// U, and V of two bytes: what numpy, which does not know bfloat16, writes for it.
func (h NPY) ItemSize() (int, error) {
	if len(h.Descr) < 3 || len(h.Descr) > 8 || !strings.Contains("<>|=", h.Descr[:1]) {
		return 0, invalid("npy: element type %.8q", h.Descr)
	}
	n, err := strconv.ParseUint(h.Descr[2:], 10, 20)
	if err != nil {
		return 0, invalid("npy: element type %.8q", h.Descr)
	}
	switch h.Descr[1] {
	case 'b', 'i', 'u', 'f', 'c':
		if n >= 1 && n <= 32 { // complex256 is the largest
			return int(n), nil
		}
	case 'V':
		if n == 2 {
			return 2, nil
		}
	case 'S':
		return int(n), nil
	case 'U': // UCS-4
		return 4 * int(n), nil
	}
	return 0, invalid("npy: element type %.8q", h.Descr)
}

// Len returns the number of elements: 1 for a scalar.
func (h NPY) Len() (int, error) {
	n := 1
	for _, d := range h.Shape {
		if d < 0 || d != 0 && n > math.MaxInt/d {
			return 0, invalid("npy: shape overflows")
		}
		n *= d
	}
	return n, nil
}

// DataSize returns the bytes of all elements: what must follow the header, and
// nothing after it.
func (h NPY) DataSize() (int, error) {
	size, err := h.ItemSize()
	if err != nil {
		return 0, err
	}
	n, err := h.Len()
	if err != nil {
		return 0, err
	}
	if size != 0 && n > (math.MaxInt-maxNPYHeader-12)/size {
		return 0, invalid("npy: array overflows")
	}
	return n * size, nil
}

// Append adds the header to b as numpy 1.24 and later writes it: version 1.0,
// space for the growing axis, elements at a multiple of 64 bytes.
func (h NPY) Append(b []byte) []byte {
	order := "False"
	if h.Fortran {
		order = "True"
	}
	dict := "{'descr': '" + h.Descr + "', 'fortran_order': " + order + ", 'shape': " + h.shape() + ", }"
	if len(h.Shape) > 0 {
		axis := h.Shape[0]
		if h.Fortran {
			axis = h.Shape[len(h.Shape)-1]
		}
		// 21 digits: numpy.lib.format GROWTH_AXIS_MAX_DIGITS.
		dict += strings.Repeat(" ", 21-len(strconv.Itoa(axis)))
	}
	pad := 64 - (10+len(dict)+1)%64 // 1 to 64, as numpy does it
	b = append(b, npyMagic+"\x01\x00"...)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(dict)+pad+1)) // 64 dimensions fit
	b = append(b, dict...)
	b = append(b, strings.Repeat(" ", pad)...)
	return append(b, '\n')
}

func (h NPY) shape() string {
	s := make([]string, len(h.Shape))
	for i, d := range h.Shape {
		s[i] = strconv.Itoa(d)
	}
	if len(s) == 1 {
		return "(" + s[0] + ",)"
	}
	return "(" + strings.Join(s, ", ") + ")"
}

// dtypes maps numpy's descr, without byte order, to str(ndarray.dtype).
var dtypes = map[string]string{
	"b1": "bool", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64",
	"u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64",
	"f2": "float16", "f4": "float32", "f8": "float64", "V2": "bfloat16", "c8": "complex64", "c16": "complex128",
}

// NewArray returns the array of a header and its elements, in chunks as Flower
// cuts them. data is copied; its length must be the header's DataSize. The
// element type is as [NewOutline] wants it.
func NewArray(h NPY, data []byte) (*Array, error) {
	a, err := NewOutline(h)
	if err != nil {
		return nil, err
	}
	size, err := h.DataSize()
	if err != nil {
		return nil, err
	}
	if size != len(data) {
		return nil, invalid("npy: %d bytes of elements, shape wants %d", len(data), size)
	}
	b := h.Append(make([]byte, 0, 256+len(data)))
	a.Chunks = SplitChunks(append(b, data...))
	return a, nil
}

// NewOutline returns the array of a header without its chunks. The element type is one
// of dtypes' in little-endian order (or of one byte).
func NewOutline(h NPY) (*Array, error) {
	item, err := h.ItemSize()
	if err != nil {
		return nil, err
	}
	dtype := dtypes[h.Descr[1:]]
	if dtype == "" || (h.Descr[0] == '|') != (item == 1) || h.Descr[0] != '|' && h.Descr[0] != '<' {
		return nil, invalid("npy: cannot write element type %.8q", h.Descr)
	}
	if len(h.Shape) > maxDims {
		return nil, invalid("npy: %d dimensions, limit %d", len(h.Shape), maxDims)
	}
	return &Array{DType: dtype, Shape: h.Shape, SType: NumPy}, nil
}
