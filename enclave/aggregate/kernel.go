package aggregate

import (
	"math"
	"slices"
)

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

func weighAny[F float](p *Plan, out []F, in [][]F) {
	switch out := any(out).(type) {
	case []float32:
		weigh32(out, any(in).([][]float32), p.w32)
	case []float64:
		weigh64(out, any(in).([][]float64), p.w64)
	}
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

// ascending calls f with the sorted values of each column.
func ascending[F float](in [][]F, f func(i int, column []F)) {
	column := make([]F, len(in))
	for i := range in[0] {
		for k, x := range in {
			column[k] = x[i]
		}
		slices.Sort(column)
		f(i, column)
	}
}

// median returns the middle value, or half the sum of the middle two.
func median[F float](column []F) F {
	h := len(column) / 2
	if len(column)%2 == 1 {
		return column[h]
	}
	return (column[h-1] + column[h]) / 2
}

// mean adds in float64, ascending, and rounds once.
func mean[F float](column []F) F {
	n := float64(len(column))
	sum := 0.0
	for _, x := range column {
		sum += float64(x)
	}
	if math.IsInf(sum, 0) { // of tame values the mean is not
		sum, n = 0, 1
		for _, x := range column {
			sum += float64(x) / float64(len(column))
		}
	}
	return F(sum / n)
}

// medians sets out to the median of each column.
func medians[F float](out []F, in [][]F) {
	ascending(in, func(i int, column []F) { out[i] = median(column) })
}

// trimmedMeans sets out to the mean of each column without cut values at each end.
func trimmedMeans[F float](out []F, in [][]F, cut int) {
	ascending(in, func(i int, column []F) { out[i] = mean(column[cut : len(column)-cut]) })
}

// nearestMeans sets out to the mean of those keep values of each column that are nearest
// to its median. They lie side by side when sorted; of two that are as near, the lower
// one is taken.
func nearestMeans[F float](out []F, in [][]F, keep int) {
	ascending(in, func(i int, column []F) {
		m := median(column)
		from := 0
		for from+keep < len(column) && distance(column[from], m) > distance(column[from+keep], m) {
			from++
		}
		out[i] = mean(column[from : from+keep])
	})
}

func distance[F float](a, b F) F { return F(math.Abs(float64(a - b))) }
