package aggregate

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The vector kernels give the bytes of the reference, for every length, count
// and size of value.
func TestKernelsAreTheReference(t *testing.T) {
	t.Parallel()
	if !vectors {
		t.Skip("NOT TESTED: this processor has no AVX2; the reference stands in")
	}
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 140 {
		for _, count := range []int{1, 2, 3, fused - 1, fused, fused + 1, 3*fused - 1} {
			equal(t, weigh32, random(r, count, n, math.Float32frombits), random(r, 1, count, math.Float32frombits)[0], n)
			bits := func(u uint32) float64 { return math.Float64frombits(uint64(u)<<32 | uint64(r.Uint32())) }
			equal(t, weigh64, random(r, count, n, bits), random(r, 1, count, bits)[0], n)
		}
	}
}

// random returns values of every exponent, subnormal ones, zeros of both signs
// and infinities, but no NaN: of two, either may be the result.
func random[F float](r *rand.Rand, count, n int, bits func(uint32) F) [][]F {
	out := make([][]F, count)
	for k := range out {
		for len(out[k]) < n {
			if x := bits(r.Uint32()); x == x {
				out[k] = append(out[k], x)
			}
		}
	}
	return out
}

func equal[F float](t *testing.T, kernel func([]F, [][]F, []F), in [][]F, w []F, n int) {
	t.Helper()
	got, want := make([]F, n+1), make([]F, n+1)
	got[n], want[n] = 7, 7
	kernel(got[:n], in, w)
	weigh(want[:n], in, w)
	for i := range want {
		bothNaN := got[i] != got[i] && want[i] != want[i]
		if !bothNaN && (got[i] != want[i] || math.Signbit(float64(got[i])) != math.Signbit(float64(want[i]))) {
			t.Fatalf("%d contributions, element %d of %d: got %g, want %g", len(in), i, n, got[i], want[i])
		}
	}
}

// Distances have the bits of the reference, whatever their number and the length.
func TestDistancesAreTheReference(t *testing.T) {
	t.Parallel()
	if !vectors {
		t.Skip("NOT TESTED: this processor has no AVX2; the reference stands in")
	}
	r := rand.New(rand.NewPCG(17, 18))
	for n := range 40 {
		for count := 1; count <= together; count++ {
			distancesAlike(t, columnsOfBits(count+1, n, func() float32 { return float32(r.NormFloat64() * math.Exp2(float64(r.IntN(40)))) }))
			distancesAlike(t, columnsOfBits(count+1, n, func() float64 { return r.NormFloat64() * math.Exp2(float64(r.IntN(80))) }))
		}
	}
}

func distancesAlike[F float](t *testing.T, in [][]F) {
	t.Helper()
	got, want := make([]float64, len(in)-1), make([]float64, len(in)-1)
	for k := range got {
		got[k], want[k] = float64(k), float64(k)
		addDistance(&want[k], in[0], in[k+1])
	}
	addDistances(got, in[0], in[1:])
	if !same(got, want) {
		t.Fatalf("%d of %d elements:\ngot  %v\nwant %v", len(got), len(in[0]), got, want)
	}
}

// Whatever word is beyond a bound, the kernel finds it as the reference does.
func TestBeyondIsTheReference(t *testing.T) {
	t.Parallel()
	if !vectors {
		t.Skip("NOT TESTED: this processor has no AVX2; the reference stands in")
	}
	for _, bounds := range []map[int]bound{finite, tame} {
		for size, b := range bounds {
			size = max(size, 4) // float16 is looked at in float32
			for _, n := range []int{128, 256, 640} {
				elements := make([]byte, n+1)[1:]
				for at := range n / size {
					clear(elements)
					if beyond(&elements[0], n, b.mask, b.one)&b.top != 0 {
						t.Fatalf("%d zeros are beyond %x", n, b.mask)
					}
					for i := range size {
						elements[at*size+i] = 0xff
					}
					if got, want := beyond(&elements[0], n, b.mask, b.one), b.beyond(elements); got&b.top == 0 || got != want {
						t.Fatalf("NaN of %d bytes at %d of %d: %x, want %x", size, at*size, n, got, want)
					}
				}
			}
		}
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for _, c := range []struct {
		x            float64
		f32          float32
		finite, tame bool
	}{
		{0, 0, true, true},
		{math.Copysign(0, -1), float32(math.Copysign(0, -1)), true, true},
		{-math.Nextafter(0x1p1023, 0), -math.Nextafter32(0x1p127, 0), true, true},
		{0x1p1023, 0x1p127, true, false},
		{-math.MaxFloat64, -math.MaxFloat32, true, false},
		{-inf, float32(-inf), false, false},
		{math.NaN(), float32(math.NaN()), false, false},
	} {
		for at := range 5 {
			a, b := newTile(), newTile()
			a.float32s()[at], b.float64s()[at] = c.f32, c.x
			for size, x := range map[int]tile{4: a, 8: b} {
				if got := finite[size].holds(x.bytes()[:5*size]); got != c.finite {
					t.Errorf("%d bytes, %g at %d: finite is %v", size, c.x, at, got)
				}
				if got := tame[size].holds(x.bytes()[:5*size]); got != c.tame {
					t.Errorf("%d bytes, %g at %d: tame is %v", size, c.x, at, got)
				}
			}
		}
	}
}
