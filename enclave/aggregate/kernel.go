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

// weighBlock is how many bytes the kernels add up at a time.
const weighBlock = 256

// weighFused is weigh by the kernels, where there are any.
func weighFused[F float](out []F, in [][]F, w []F) {
	n := 0
	if vectors {
		n = len(out) &^ (weighBlock/int(unsafe.Sizeof(out[0])) - 1)
	}
	if n > 0 {
		groups := (len(in) + fused - 1) / fused
		for g := range groups {
			from, to := g*len(in)/groups, (g+1)*len(in)/groups
			var heads [fused]*F
			for k, x := range in[from:to] {
				heads[k] = &x[:n][0]
			}
			switch heads := any(heads[:to-from]).(type) {
			case []*float32:
				sum32(any(&out[0]).(*float32), heads, any(w[from:to]).([]float32), n, g > 0)
			case []*float64:
				sum64(any(&out[0]).(*float64), heads, any(w[from:to]).([]float64), n, g > 0)
			}
		}
	}
	if n < len(out) {
		weigh(out[n:], tails(in, n), w)
	}
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
	round := func(x float32) float32 { return fromHalf(toHalf(x)) }
	for i := range out {
		s := round(in[0][i] * round(w[0]))
		for k := 1; k < len(in); k++ {
			s = round(s + round(in[k][i]*round(w[k])))
		}
		out[i] = s
	}
}

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
