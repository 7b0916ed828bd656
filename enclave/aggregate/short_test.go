package aggregate

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func TestHalves(t *testing.T) {
	t.Parallel()
	for h := range 1 << 16 {
		f := fromHalf(uint16(h))
		if got := toHalf(f); got != uint16(h) && f == f {
			t.Fatalf("%#04x is %g, and back %#04x", h, f, got)
		}
		if f != f && toHalf(f)&0x7c00 != 0x7c00 {
			t.Fatalf("%#04x is no number, and back %#04x", h, toHalf(f))
		}
	}
	for _, c := range []struct {
		h uint16
		f float32
	}{
		{0x3c00, 1}, {0xc000, -2}, {0x7bff, 65504}, {0x0001, 0x1p-24}, {0x0400, 0x1p-14}, {0x03ff, 0x1p-14 - 0x1p-24}, {0x8000, float32(math.Copysign(0, -1))},
	} {
		if got := fromHalf(c.h); got != c.f {
			t.Errorf("%#04x is %g, want %g", c.h, got, c.f)
		}
	}
	// Between each two neighbours: a little less than half is the lower, half is the even
	// one, a little more is the upper.
	for h := range uint16(0x7bff) {
		low, high := float64(fromHalf(h)), float64(fromHalf(h+1))
		between := float32((low + high) / 2)
		even := h + h&1
		for f, want := range map[float32]uint16{math.Nextafter32(between, 0): h, between: even, math.Nextafter32(between, 1e9): h + 1} {
			if got := toHalf(f); got != want {
				t.Fatalf("%g rounds to %#04x, want %#04x", f, got, want)
			}
			if got := toHalf(-f); got != want|0x8000 {
				t.Fatalf("%g rounds to %#04x, want %#04x", -f, got, want|0x8000)
			}
		}
	}
	for _, f := range []float32{65520, 1e9, float32(math.Inf(1))} {
		if toHalf(f) != 0x7c00 || toHalf(-f) != 0xfc00 {
			t.Errorf("%g is not infinite", f)
		}
	}
	if toHalf(math.Nextafter32(65520, 0)) != 0x7bff {
		t.Error("just below the limit is infinite")
	}
}

func TestBrains(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 1 << 16 {
		f := math.Float32frombits(r.Uint32())
		got := math.Float32frombits(uint32(toBrain(f)) << 16)
		if f != f {
			if got == got {
				t.Fatal("no number became one")
			}
			continue
		}
		low := math.Float32frombits(math.Float32bits(f) &^ 0xffff)
		high := math.Float32frombits(math.Float32bits(low) + 0x10000)
		if math.IsInf(float64(high), 0) || math.IsInf(float64(f), 0) {
			continue // half of the way to infinity is no number
		}
		if d := math.Abs(float64(f) - float64(got)); got != low && got != high || d > math.Abs(float64(high)-float64(f)) || d > math.Abs(float64(f)-float64(low)) {
			t.Fatalf("%g rounds to %g, between %g and %g", f, got, low, high)
		}
	}
}

// The kernels convert as the functions do, every value and every length, also in memory that
// is shared as tiles share it.
func TestShortKernelsAreTheReference(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]*short{"float16": &halves, "bfloat16": &brains} {
		if !s.kernels {
			t.Logf("NOT TESTED: %s: this processor has no such instructions; the reference stands in", name)
			continue
		}
		slow := *s
		slow.kernels = false
		r := rand.New(rand.NewPCG(13, 14))
		var x []float32
		for u := range 1 << 16 {
			f := s.from(uint16(u)) // and what is around it, and half way to the next
			x = append(x, f, math.Nextafter32(f, 0), math.Nextafter32(f, math.MaxFloat32), math.Float32frombits(r.Uint32()))
			if next := s.from(uint16(u + 1)); next-f < math.MaxFloat32 {
				x = append(x, f+(next-f)/2)
			}
		}
		for n := range 70 {
			shortAlike(t, name, s, &slow, x[:n])
		}
		shortAlike(t, name, s, &slow, x)
	}
}

func shortAlike(t *testing.T, name string, fast, slow *short, x []float32) {
	t.Helper()
	n := len(x)
	got, want := append([]float32(nil), x...), append([]float32(nil), x...)
	fast.round(got)
	slow.round(want)
	if !same(got, want) {
		t.Fatalf("%s: %d values are rounded to others", name, n)
	}
	if n == 0 {
		return
	}
	bytesOf := func(x []float32) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(&x[0])), 4*n) }
	narrow := make([]byte, 2*n)
	slow.narrow(narrow, want)
	fast.narrow(bytesOf(got), got)
	for i := range n {
		a, b := binary.LittleEndian.Uint16(bytesOf(got)[2*i:]), binary.LittleEndian.Uint16(narrow[2*i:])
		if a != b && (slow.from(a) == slow.from(a) || slow.from(b) == slow.from(b)) {
			t.Fatalf("%s: %g at %d of %d becomes %#04x, want %#04x", name, want[i], i, n, a, b)
		}
	}
	copy(bytesOf(got)[2*n:], narrow)
	fast.widen(got, bytesOf(got)[2*n:])
	slow.widen(want, narrow)
	if !same(got, want) {
		t.Fatalf("%s: %d values are widened to others", name, n)
	}
}

// Sums of halves are rounded as the reference rounds them, also what is subnormal or becomes
// infinite.
func TestHalfSumsAreTheReference(t *testing.T) {
	t.Parallel()
	if !halfVectors {
		t.Skip("NOT TESTED: this processor does not convert float16; the reference stands in")
	}
	r := rand.New(rand.NewPCG(15, 16))
	for n := range 140 {
		for _, count := range []int{1, 2, fused, fused + 1, 2*fused + 3} {
			in, w := make([][]float32, count), make([]float32, count)
			for k := range in {
				w[k] = nearestHalf(r.Float32())
				for range n {
					in[k] = append(in[k], fromHalf(uint16(r.Uint32())&^(1<<uint(10+r.IntN(5)))))
				}
			}
			got, want := make([]float32, n), make([]float32, n)
			weighHalves(got, in, w)
			weighHalvesSlowly(want, in, w)
			if !same(got, want) {
				t.Fatalf("%d sums of %d contributions:\ngot  %v\nwant %v", n, count, got, want)
			}
		}
	}
}
