//go:build !amd64

package aggregate

func weigh32(out []float32, in [][]float32, w []float32) { weigh(out, in, w) }
func weigh64(out []float64, in [][]float64, w []float64) { weigh(out, in, w) }
