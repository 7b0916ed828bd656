package aggregate

import "unsafe"

type float interface{ float32 | float64 }

// combination is how the contributions to one value become one.
type combination int

const (
	weighted combination = iota // mean by examples
	middle                      // median
	trimmed                     // mean without the extremes
	nearest                     // mean of those nearest to the median
	fair                        // a step by losses
)

// weigh sets out to the sum of in[k]*w[k], k ascending. Every product and every
// sum is rounded to F: the conversion keeps the compiler from fusing them (Go
// specification, "Floating-point operators"), so that the result is numpy's. The
// first product is the first sum, as in Flower: 0 + x would turn -0 into +0.
//
// It is the reference of the vector kernels, and does what they leave over.
func weigh[F float](out []F, in [][]F, w []F) {
	for i := range out {
		s := in[0][i] * w[0]
		for k := 1; k < len(in); k++ {
			s += F(in[k][i] * w[k])
		}
		out[i] = s
	}
}

// fused is how many contributions are added up at a time, at most: fewer streams leave the
// memory waiting, and of more the processor loses track (docs/performance.md).
const fused = 8

// weigh32 is weigh by the kernels, where there are any.
func weigh32(out []float32, in [][]float32, w []float32) {
	n := 0
	if vectors {
		n = fuse(sum32, out, in, w)
	}
	if n < len(out) {
		weigh(out[n:], tails(in, n), w)
	}
}

// weigh64 is weigh32 for float64.
func weigh64(out []float64, in [][]float64, w []float64) {
	n := 0
	if vectors {
		n = fuse(sum64, out, in, w)
	}
	if n < len(out) {
		weigh(out[n:], tails(in, n), w)
	}
}

// fuse has a kernel add up what makes whole blocks, and returns how many elements that is.
func fuse[F float](kernel func(out *F, in []*F, w []F, n int, add bool), out []F, in [][]F, w []F) int {
	const block = 256 // bytes
	n := len(out) &^ (block/int(unsafe.Sizeof(w[0])) - 1)
	if n == 0 {
		return 0
	}
	heads := make([]*F, fused)
	groups := (len(in) + fused - 1) / fused
	for g := range groups {
		from, to := g*len(in)/groups, (g+1)*len(in)/groups
		for k, x := range in[from:to] {
			heads[k] = &x[:n][0]
		}
		kernel(&out[0], heads[:to-from], w[from:to], n, g > 0)
	}
	return n
}

func tails[F float](in [][]F, n int) [][]F {
	t := make([][]F, len(in))
	for k, x := range in {
		t[k] = x[n:]
	}
	return t
}

// weighHalves is weigh with every operation rounded to float16, the weights too. Rounding
// to float32 before changes nothing: 24 bits are twice 11 and two.
func weighHalves(out []float32, in [][]float32, w []float32) {
	n, rounded := 0, make([]float32, len(w))
	for k := range w {
		rounded[k] = nearestHalf(w[k])
	}
	if halfVectors {
		n = fuse(sumHalves, out, in, rounded)
	}
	if n < len(out) {
		weighHalvesSlowly(out[n:], tails(in, n), rounded)
	}
}

// weighHalvesSlowly is the reference of the kernel, and does what it leaves over. Weights are
// rounded already.
func weighHalvesSlowly(out []float32, in [][]float32, w []float32) {
	for i := range out {
		s := nearestHalf(in[0][i] * w[0])
		for k := 1; k < len(in); k++ {
			s = nearestHalf(s + nearestHalf(in[k][i]*w[k]))
		}
		out[i] = s
	}
}

func nearestHalf(x float32) float32 { return fromHalf(toHalf(x)) }

// clip replaces each contribution by the model and a part of its update, also where that
// is all of it: x is not always w + (x - w), and Flower computes that.
func clip[F float](c columns[F], scale []float64) {
	for k, x := range c.in {
		s := F(scale[k])
		for i, w := range c.model {
			x[i] = w + F(F(x[i]-w)*s)
		}
	}
}

// fairSteps sets out to q-fair averaging's next model. Flower's F^q and the sum of h_k
// are numpy.float64 values, by which an array is multiplied and divided in float64.
func fairSteps[F float](c columns[F], lipschitz F, power []float64, sumH float64) {
	for i, w := range c.model {
		var sum F
		for k, x := range c.in {
			d := F(float64(F(F(w-x[i])*lipschitz)) * power[k])
			if k == 0 {
				sum = d
			} else {
				sum += d
			}
		}
		c.out[i] = F(float64(w) - float64(sum)/sumH)
	}
}
