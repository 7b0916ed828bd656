//go:build !amd64

package aggregate

const vectors, wideVectors, halfVectors = false, false, false

const noVectors = "aggregate: internal error: no such instructions"

func sum32(*float32, []*float32, []float32, int, bool)     { panic(noVectors) }
func sum64(*float64, []*float64, []float64, int, bool)     { panic(noVectors) }
func sort32(*float32, []*float32, []uint32, int, int)      { panic(noVectors) }
func sort64(*float64, []*float64, []uint32, int, int)      { panic(noVectors) }
func sort32Wide(*float32, []*float32, []uint32, int, int)  { panic(noVectors) }
func sort64Wide(*float64, []*float64, []uint32, int, int)  { panic(noVectors) }
func sum32Rows(*float64, *float32, int)                    { panic(noVectors) }
func sum64Rows(*float64, *float64, int)                    { panic(noVectors) }
func distances32(*float64, *float32, []*float32, int)      { panic(noVectors) }
func distances64(*float64, *float64, []*float64, int)      { panic(noVectors) }
func sumHalves(*float32, []*float32, []float32, int, bool) { panic(noVectors) }
func widenHalves(*float32, *byte, int)                     { panic(noVectors) }
func widenBrains(*float32, *byte, int)                     { panic(noVectors) }
func roundHalves(*float32, *float32, int)                  { panic(noVectors) }
func roundBrains(*float32, *float32, int)                  { panic(noVectors) }
func narrowHalves(*byte, *float32, int)                    { panic(noVectors) }
func narrowBrains(*byte, *float32, int)                    { panic(noVectors) }
func beyond(*byte, int, uint64, uint64) uint64             { panic(noVectors) }
