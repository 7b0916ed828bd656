package aggregate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// counts are numbers of contributions: all around the group of the kernels, and what
// networks of powers of two and others make of many.
func counts() []int {
	var all []int
	for n := 1; n <= 70; n++ {
		all = append(all, n)
	}
	return append(all, 99, 100, 127, 128, 129, 255, 257, 600)
}

// ranges of sorted values: the median's, those of trimmed means, all, and any.
func ranges(r *rand.Rand, n int) [][2]int {
	a, b := r.IntN(n), r.IntN(n)
	return [][2]int{{(n - 1) / 2, n/2 + 1}, {n / 5, n - n/5}, {0, n}, {0, 1}, {n - 1, n}, {min(a, b), max(a, b) + 1}}
}

// groups are those of the kernels that this processor can run.
func groups(t testing.TB) (all []int) {
	t.Helper()
	if vectors {
		all = append(all, narrowGroup)
	} else {
		t.Log("NOT TESTED: this processor has no AVX2; the reference stands in")
	}
	if wideVectors {
		all = append(all, wideGroup)
	} else {
		t.Log("NOT TESTED: this processor has no AVX-512; narrower kernels stand in")
	}
	return all
}

// The vector kernels give the bytes of the reference, for every number of contributions,
// width, alignment and value.
func TestSortingKernelsAreTheReference(t *testing.T) {
	t.Parallel()
	for _, group := range groups(t) {
		r := rand.New(rand.NewPCG(5, 6))
		for _, n := range counts() {
			for _, g := range []func() uint32{r.Uint32, few(r), zeros(r)} {
				x := [2]int{r.IntN(64), r.IntN(64)}
				sortsAlike(t, r, group, columnsOfBits(n, 130, func() float32 { return math.Float32frombits(g()) }), x)
				sortsAlike(t, r, group, columnsOfBits(n, 70, func() float64 { return math.Float64frombits(uint64(g())<<32 | uint64(g())) }), x)
			}
		}
	}
}

// More contributions than a network's codes can name are sorted by the reference.
func TestSortingBeyondNetworks(t *testing.T) {
	t.Parallel()
	in := make([][]float32, maxRows+1)
	for k := range in {
		in[k] = []float32{float32(len(in) - k)}
	}
	o := newOrder(len(in), 0, len(in))
	if o.group > 0 {
		t.Error("sorted by a network whose codes are ambiguous")
	}
	ascending(in, o, func(_ int, rows [][]float32) {
		for k := range rows {
			if rows[k][0] != float32(k+1) {
				t.Fatalf("row %d: %v", k, rows[k][0])
			}
		}
	})
}

// few gives values of which many are the same, and no NaN or infinity.
func few(r *rand.Rand) func() uint32 {
	return func() uint32 {
		return []uint32{0, 1 << 31, 0x3f800000, 0xbf800000, 0x7f7fffff, 0xff7fffff, 1, 1<<31 + 1, 0x00800000}[r.IntN(9)]
	}
}

// zeros gives zeros of both signs, and now and then what is not finite.
func zeros(r *rand.Rand) func() uint32 {
	return func() uint32 {
		if r.IntN(500) == 0 {
			return []uint32{0x7ff80000, 0xfff80000, 0x7ff00000, 0xfff00000, 0x7f800000, 0xff800000, 0xffffffff, 0x7f800001}[r.IntN(8)]
		}
		return r.Uint32() & (1 << 31)
	}
}

func columnsOfBits[F float](n, length int, next func() F) [][]F {
	in := make([][]F, n)
	for k := range in {
		in[k] = make([]F, length)
		for i := range in[k] {
			in[k][i] = next()
		}
	}
	return in
}

// sortsAlike sorts strips that begin anywhere, of a whole width and of others.
func sortsAlike[F float](t *testing.T, r *rand.Rand, group int, in [][]F, edges [2]int) {
	t.Helper()
	n := len(in)
	before := make([][]F, n)
	for k, x := range in {
		before[k] = slices.Clone(x)
	}
	for _, span := range ranges(r, n) {
		o := newGroups(n, span[0], span[1], group)
		got, want := newStrip[F](o), newStrip[F](o)
		for _, w := range []int{got.width, 1, 1 + edges[0]%got.width} {
			stripsAlike(t, got, want, in, edges[1]%(len(in[0])-w+1), w)
		}
	}
	for k, x := range in {
		if !same(x, before[k]) {
			t.Fatalf("%d contributions: sorting changed contribution %d", n, k)
		}
	}
}

// stripsAlike sorts w columns from at by kernel and by reference, and adds the rows up.
func stripsAlike[F float](t *testing.T, got, want *strip[F], in [][]F, at, w int) {
	t.Helper()
	got.sortVectors(in, at, w)
	want.sortColumns(in, at, w)
	o := got.order
	for k := o.from; k < o.to; k++ {
		got.rows[k-o.from], want.rows[k-o.from] = got.row(k, w), want.row(k, w)
		if a, b := got.row(k, w), want.row(k, w); !same(a, b) {
			t.Fatalf("%d contributions, row %d of %d to %d, %d columns from %d:\ngot  %v\nwant %v", o.n, k, o.from, o.to, w, at, a, b)
		}
	}
	var a, b [stripBytes / 4]float64
	sumRows(&a, got.rows)
	addRows(&b, want.rows)
	if !same(a[:w], b[:w]) {
		t.Fatalf("%d contributions, sums of rows %d to %d, %d columns from %d:\ngot  %v\nwant %v", o.n, o.from, o.to, w, at, a[:w], b[:w])
	}
}

// same compares bits, but for those of NaN.
func same[F float](a, b []F) bool {
	return slices.EqualFunc(a, b, func(x, y F) bool {
		return math.Float64bits(float64(x)) == math.Float64bits(float64(y)) || x != x && y != y
	})
}

// The reference is what its comment says, by the plainest means: every wanted value has as
// many others before it as its place says.
func TestReferenceSorts(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(7, 8))
	before := func(a, b float32) bool {
		return a < b || a == b && math.Signbit(float64(a)) && !math.Signbit(float64(b))
	}
	for n := 1; n < 40; n++ {
		next := few(r)
		in := columnsOfBits(n, 9, func() float32 { return math.Float32frombits(next()) })
		for _, span := range ranges(r, n) {
			s := newStrip[float32](newOrder(n, span[0], span[1]))
			s.sortColumns(in, 2, 7)
			for k := span[0]; k < span[1]; k++ {
				for i, v := range s.row(k, 7) {
					lower, there := 0, 0
					for _, x := range in {
						if before(x[2+i], v) {
							lower++
						} else if math.Float32bits(x[2+i]) == math.Float32bits(v) {
							there++
						}
					}
					if lower > k || k >= lower+there {
						t.Fatalf("%d contributions: %g is at %d, and has %d before it and is there %d times", n, v, k, lower, there)
					}
				}
			}
		}
	}
}

// A network that sorts zeros and ones sorts everything (Knuth, volume 3, 5.3.4, theorem Z).
// Rows of groups that are sorted already are the kernels' part.
func TestNetworksSort(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(9, 10))
	for _, n := range []int{1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 64, 65, 100, 1000} {
		for _, span := range ranges(r, n) {
			for _, group := range []int{narrowGroup, wideGroup} {
				comparators := network(n, span[0], span[1], group)
				for range 100 {
					networkSorts(t, r, comparators, n, group, span)
				}
			}
		}
	}
}

func networkSorts(t *testing.T, r *rand.Rand, comparators []uint32, n, group int, span [2]int) {
	t.Helper()
	rows := make([]int, n)
	chance := r.IntN(n + 1)
	for i := range rows {
		if r.IntN(n) < chance {
			rows[i] = 1
		}
	}
	want := slices.Sorted(slices.Values(rows))
	for at := range slices.Chunk(rows, group) {
		slices.Sort(at)
	}
	run(rows, comparators)
	if !slices.Equal(rows[span[0]:span[1]], want[span[0]:span[1]]) {
		t.Fatalf("%d rows in groups of %d, %v: %v, want %v", n, group, span, rows, want)
	}
}

// run does with rows of one column what the kernels do.
func run(rows []int, network []uint32) {
	compare := func(a, b uint32) { rows[a], rows[b] = min(rows[a], rows[b]), max(rows[a], rows[b]) }
	for _, code := range network {
		row, d := code&math.MaxUint16, code>>16&(1<<14-1)
		switch code >> 30 << 14 {
		case fiveRows:
			compare(row+d, row+3*d)
			compare(row+2*d, row+4*d)
			compare(row+2*d, row+3*d)
			compare(row, row+d)
		case fourRows:
			compare(row, row+2*d)
			compare(row+d, row+3*d)
			compare(row+d, row+2*d)
		default:
			compare(row, d)
		}
	}
}

// So many contributions as are allowed. Their numbers fit where networks have them.
func TestMostContributions(t *testing.T) {
	t.Parallel()
	if MaxContributions-1 >= 1<<14 {
		t.Fatal("a code has no place for the largest row")
	}
	in := make([][]float32, MaxContributions)
	for k := range in {
		in[k] = []float32{float32(k * 7919 % MaxContributions), -float32(k)}
	}
	out := make([]float32, 2)
	medians(out, in, newOrder(len(in), (len(in)-1)/2, len(in)/2+1))
	if half := float32(MaxContributions-1) / 2; out[0] != half || out[1] != -half {
		t.Errorf("got %g, want %g and its negative", out, half)
	}
}

// Where Check was skipped, nothing that is not finite disappears among others.
func TestSortedStrategiesRefuseWhatIsNotFinite(t *testing.T) {
	t.Parallel()
	for _, name := range []string{FedMedian, FedTrimmedAvg} {
		for _, n := range []int{2, 5, 20} {
			for _, x := range []float64{math.NaN(), math.Copysign(math.NaN(), -1), math.Inf(1), math.Inf(-1)} {
				for _, culprit := range []int{0, n - 1} {
					t.Run(fmt.Sprint(name, n, x, culprit), func(t *testing.T) {
						var in [][]byte
						for k := range n {
							in = append(in, npy(70, func(i int) float32 {
								if k == culprit && i == 66 {
									return float32(x)
								}
								return float32(k)
							}))
						}
						model := Tensor{"a", "<f4", []int{70}, false}
						err := plan(t, name, make([]Contribution, n)).Array(model, Sources{In: readers(in...)}, io.Discard, nil)
						var r *Refused
						if !errors.As(err, &r) || r.Index != culprit {
							t.Errorf("%v, want contribution %d refused", err, culprit)
						}
					})
				}
			}
		}
	}
}

// Means of values whose sum float64 does not hold.
func TestLargeMeans(t *testing.T) {
	t.Parallel()
	big := math.Nextafter(0x1p1023, 0)
	in := columnsOfBits(9, 40, func() float64 { return big })
	in[3][7] = 1
	for name, f := range map[string]func(out []float64){
		"trimmed": func(out []float64) { trimmedMeans(out, in, newOrder(9, 1, 8)) },
		"nearest": func(out []float64) { nearestMeans(out, in, newOrder(9, 0, 9), 7) },
	} {
		out := make([]float64, 40)
		f(out)
		for i, x := range out {
			if math.Abs(x/big-1) > 1e-15 {
				t.Errorf("%s: %g at %d, want %g", name, x, i, big)
			}
		}
	}
}

// FuzzSort compares kernels and reference on any bytes.
func FuzzSort(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0, 0, 0, 0x80, 0, 0, 0, 0}, 50), 3, 0, 3)
	f.Add(bytes.Repeat([]byte{1, 0, 0xc0, 0x7f, 2, 0, 0x80, 0xff, 9, 9, 9, 9}, 40), 17, 8, 9)
	f.Fuzz(func(t *testing.T, b []byte, n, from, to int) {
		if n < 1 || n > 300 || from < 0 || to > n || from >= to {
			return
		}
		at := 0
		in := columnsOfBits(n, 33, func() float64 {
			var u uint64
			for range 8 {
				if len(b) > 0 {
					u = u<<8 | uint64(b[at%len(b)])
				}
				at++
			}
			return math.Float64frombits(u)
		})
		narrow := make([][]float32, n)
		for k, x := range in {
			for _, v := range x {
				u := math.Float64bits(v)
				narrow[k] = append(narrow[k], math.Float32frombits(uint32(u)), math.Float32frombits(uint32(u>>32)))
			}
		}
		fuzzSort(t, in, from, to)
		fuzzSort(t, narrow, from, to)
	})
}

func fuzzSort[F float](t *testing.T, in [][]F, from, to int) {
	for _, group := range groups(t) {
		o := newGroups(len(in), from, to, group)
		got, want := newStrip[F](o), newStrip[F](o)
		for at := 0; at < len(in[0]); at += got.width {
			stripsAlike(t, got, want, in, at, min(got.width, len(in[0])-at))
		}
	}
}
