package aggregate

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"
)

// BenchmarkFedAvg reports GB/s of contributions consumed that lie in memory, and beside it the
// limit, measured in the same run and interleaved with it: reading the same bytes
// once, by bytes.IndexByte, which is vector code that finds nothing.
func BenchmarkFedAvg(b *testing.B) {
	const elements = 8 << 20 // 32 MiB each: no cache holds them
	for _, n := range []int{3, 8} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var in [][]byte
			var cs []Contribution
			for k := range n {
				in = append(in, npy(elements, func(i int) float32 { return 1.5 * float32(k+1) }))
				cs = append(cs, Contribution{Examples: uint64(k + 1)})
			}
			p := plan(b, FedAvg, cs)
			model := Tensor{"a", "<f4", []int{elements}, false}
			b.SetBytes(int64(n) * 4 * elements)
			var limit time.Duration
			b.ResetTimer()
			for b.Loop() {
				b.StopTimer()
				start := time.Now()
				for _, x := range in {
					bytes.IndexByte(x, 0xff)
				}
				limit += time.Since(start)
				b.StartTimer()
				if err := p.Array(model, Sources{In: lenders(in...)}, io.Discard, nil); err != nil {
					b.Fatal(err)
				}
			}
			perRun := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(limit.Seconds()/float64(b.N)/perRun, "of-read-limit")
			b.ReportMetric(float64(n)*4*elements*float64(b.N)/limit.Seconds()/1e9, "limit-GB/s")
		})
	}
}

// BenchmarkCheck is the pass at admission.
func BenchmarkCheck(b *testing.B) {
	const elements = 8 << 20
	in := npy(elements, func(i int) float32 { return float32(i) })
	b.SetBytes(4 * elements)
	for b.Loop() {
		if err := Check(Tensor{"a", "<f4", []int{elements}, false}, bytes.NewReader(in)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkKernel is the sum alone, of tiles that are in the cache.
func BenchmarkKernel(b *testing.B) {
	const n = 8
	out := newTile().float32s()
	in, w := make([][]float32, n), make([]float32, n)
	for k := range in {
		in[k], w[k] = newTile().float32s(), 1.0/n
	}
	b.SetBytes(n * Tile)
	for b.Loop() {
		weigh32(out, in, w)
	}
}

// BenchmarkShort is FedAvg of eight contributions of two bytes an element that lie in memory.
func BenchmarkShort(b *testing.B) {
	const elements = 8 << 20
	for name, descr := range map[string]string{"float16": "<f2", "bfloat16": "<V2"} {
		b.Run(name, func(b *testing.B) {
			var in [][]byte
			for k := range 8 {
				in = append(in, typed(descr, elements, bytes.Repeat([]byte{byte(k), 0x30}, elements)))
			}
			p := plan(b, FedAvg, contributions(1, 2, 3, 4, 5, 6, 7, 8))
			model := Tensor{"a", descr, []int{elements}, false}
			b.SetBytes(8 * 2 * elements)
			for b.Loop() {
				if err := p.Array(model, Sources{In: lenders(in...)}, io.Discard, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSurvey is Krum's first pass, over twenty contributions.
func BenchmarkSurvey(b *testing.B) {
	const elements, n = 1 << 16, 20
	var in [][]byte
	for k := range n {
		in = append(in, npy(elements, func(i int) float32 { return float32(i * k % 977) }))
	}
	s, err := New(Krum, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := s.Survey(n).Array(Tensor{"a", "<f4", []int{elements}, false}, nil, lenders(in...)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(n*(n-1)/2*elements), "ns/element-of-pair")
}

// BenchmarkMedian is the median of a hundred contributions that lie in memory, and are lent
// from there.
func BenchmarkMedian(b *testing.B) { benchmarkSorted(b, FedMedian) }

// BenchmarkTrimmedMean is the same without the lowest and the highest fifth.
func BenchmarkTrimmedMean(b *testing.B) { benchmarkSorted(b, FedTrimmedAvg) }

// BenchmarkBulyan is Bulyan's second step: two contributions are left out by the first.
func BenchmarkBulyan(b *testing.B) {
	const elements = Tile / 4
	in := make([][]float32, 98)
	r := rand.New(rand.NewPCG(1, 2))
	for k, x := range newTiles(len(in)) {
		in[k] = x.float32s()
		for i := range in[k] {
			in[k][i] = float32(r.NormFloat64())
		}
	}
	o, out := newOrder(len(in), 0, len(in)), make([]float32, elements)
	b.SetBytes(int64(len(in)) * Tile)
	for b.Loop() {
		nearestMeans(out, in, o, 96)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/elements, "ns/value")
}

func benchmarkSorted(b *testing.B, name string) {
	const elements, n = 16 * Tile / 4, 100
	r := rand.New(rand.NewPCG(1, 2))
	var in [][]byte
	for range n {
		in = append(in, npy(elements, func(int) float32 { return float32(r.NormFloat64()) }))
	}
	p := plan(b, name, make([]Contribution, n))
	model := Tensor{"a", "<f4", []int{elements}, false}
	b.SetBytes(n * 4 * elements)
	for b.Loop() {
		if err := p.Array(model, Sources{In: lenders(in...)}, io.Discard, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/elements, "ns/value")
}
