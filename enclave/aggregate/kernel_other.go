//go:build !amd64

package aggregate

const vectors, wideVectors = false, false

const noVectors = "aggregate: internal error: no such instructions"

func sum32(*float32, []*float32, []float32, int, bool)    { panic(noVectors) }
func sum64(*float64, []*float64, []float64, int, bool)    { panic(noVectors) }
func sort32(*float32, []*float32, []uint32, int, int)     { panic(noVectors) }
func sort64(*float64, []*float64, []uint32, int, int)     { panic(noVectors) }
func sort32Wide(*float32, []*float32, []uint32, int, int) { panic(noVectors) }
func sort64Wide(*float64, []*float64, []uint32, int, int) { panic(noVectors) }
func sum32Rows(*float64, *float32, int)                   { panic(noVectors) }
func sum64Rows(*float64, *float64, int)                   { panic(noVectors) }
func beyond(*byte, int, uint64, uint64) uint64            { panic(noVectors) }
