package aggregate

// The vector kernels of weigh use SSE2, which every amd64 has: no detection, and no path
// that a test machine does not take. They multiply and add as weigh does, element
// by element in the same order, and so give the same bytes.

// sum32 sets out[:n] to the sum over k of in[k][:n]*w[k]; n is a positive
// multiple of 32 and len(w) == len(in) > 0. in holds addresses of first elements.
//
//go:noescape
func sum32(out *float32, in []*float32, w []float32, n int)

// sum64 is sum32 for float64; n is a positive multiple of 16.
//
//go:noescape
func sum64(out *float64, in []*float64, w []float64, n int)

func weigh32(out []float32, in [][]float32, w []float32) {
	if n := len(out) &^ 31; n > 0 {
		sum32(&out[0], heads(in, n), w, n)
		out, in = out[n:], tails(in, n)
	}
	weigh(out, in, w)
}

func weigh64(out []float64, in [][]float64, w []float64) {
	if n := len(out) &^ 15; n > 0 {
		sum64(&out[0], heads(in, n), w, n)
		out, in = out[n:], tails(in, n)
	}
	weigh(out, in, w)
}

// heads returns the addresses of the tiles; it panics if one is shorter than n.
func heads[F float](in [][]F, n int) []*F {
	p := make([]*F, len(in))
	for k, x := range in {
		p[k] = &x[:n][0]
	}
	return p
}

func tails[F float](in [][]F, n int) [][]F {
	t := make([][]F, len(in))
	for k, x := range in {
		t[k] = x[n:]
	}
	return t
}
