package aggregate

import (
	"encoding/binary"
	"math"
)

// short is a floating-point type of two bytes, which is computed with in float32.
type short struct {
	from func(uint16) float32
	to   func(float32) uint16 // the nearest, of two the even one

	// Kernels, which take 16 elements or a multiple; what they leave over, the functions do.
	kernels bool
	widens  func(out *float32, in *byte, n int)
	rounds  func(out, in *float32, n int)
	narrows func(out *byte, in *float32, n int)
}

var (
	halves = short{fromHalf, toHalf, halfVectors, widenHalves, roundHalves, narrowHalves}
	brains = short{fromBrain, toBrain, vectors, widenBrains, roundBrains, narrowBrains}
)

// short returns the type of two bytes that e is, or nil.
func (e element) short() *short {
	switch {
	case e.half():
		return &halves
	case e.kind == 'V':
		return &brains
	}
	return nil
}

// whole returns how many of n elements the kernels take.
func (s *short) whole(n int) int {
	if !s.kernels {
		return 0
	}
	return n &^ 15
}

// widen sets out to the elements in b, in the machine's order. They may lie in out's memory,
// at its end.
func (s *short) widen(out []float32, b []byte) {
	n := s.whole(len(b) / 2)
	if n > 0 {
		s.widens(&out[0], &b[0], n)
	}
	for i := n; 2*i < len(b); i++ {
		out[i] = s.from(binary.NativeEndian.Uint16(b[2*i:]))
	}
}

// round rounds every x to a value of the type.
func (s *short) round(x []float32) {
	n := s.whole(len(x))
	if n > 0 {
		s.rounds(&x[0], &x[0], n)
	}
	for i := n; i < len(x); i++ {
		x[i] = s.from(s.to(x[i]))
	}
}

// narrow sets b to what x are, which were rounded, in little-endian order. They may lie at the
// start of x's memory.
func (s *short) narrow(b []byte, x []float32) {
	n := s.whole(len(x))
	if n > 0 {
		s.narrows(&b[0], &x[0], n)
	}
	for i := n; i < len(x); i++ {
		binary.LittleEndian.PutUint16(b[2*i:], s.to(x[i]))
	}
}

// fromHalf converts IEEE 754 binary16.
func fromHalf(h uint16) float32 {
	sign, exponent, fraction := uint32(h&0x8000)<<16, uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0: // zero or subnormal: fraction * 2^-24, exactly
		return math.Float32frombits(math.Float32bits(float32(fraction)*0x1p-24) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// toHalf rounds to the nearest binary16, of two to the even one.
func toHalf(f float32) uint16 {
	bits := math.Float32bits(f)
	sign, magnitude := uint16(bits>>16&0x8000), bits&0x7fffffff
	switch {
	case magnitude > 0x7f800000:
		return sign | 0x7e00
	case magnitude >= 0x47800000: // 2^16
		return sign | 0x7c00
	case magnitude < 0x38800000: // below 2^-14: adding 2^-1 rounds to a multiple of 2^-24
		return sign | uint16(math.Float32bits(math.Float32frombits(magnitude)+0.5)&0x7ff)
	}
	magnitude += 0xfff + magnitude>>13&1
	return sign | uint16((magnitude-(127-15)<<23)>>13)
}

// toBrain rounds to the nearest bfloat16, of two to the even one.
func toBrain(f float32) uint16 {
	bits := math.Float32bits(f)
	if bits&0x7fffffff > 0x7f800000 {
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func fromBrain(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }
