//go:build !amd64

package aggregate

const vectors = false

func sort32(*float32, []*float32, []uint32, int, int) {
	panic("aggregate: internal error: no such instructions")
}

func sort64(*float64, []*float64, []uint32, int, int) {
	panic("aggregate: internal error: no such instructions")
}

func sum32Rows(*float64, *float32, int) {
	panic("aggregate: internal error: no such instructions")
}

func sum64Rows(*float64, *float64, int) {
	panic("aggregate: internal error: no such instructions")
}
