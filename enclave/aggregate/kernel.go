package aggregate

import "slices"

type float interface{ float32 | float64 }

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

// medians sets out to the median of each column: the middle value, or half the
// sum of the middle two.
func medians[F float](out []F, in [][]F) {
	column := make([]F, len(in))
	for i := range out {
		for k, x := range in {
			column[k] = x[i]
		}
		slices.Sort(column)
		h := len(column) / 2
		if len(column)%2 == 1 {
			out[i] = column[h]
		} else {
			out[i] = (column[h-1] + column[h]) / 2
		}
	}
}
