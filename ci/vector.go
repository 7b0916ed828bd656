package ci

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/concordat/concordat/chunkstore/object"
)

// Vector returns a float64 array of one dimension.
func Vector(v []float64) (*object.Array, error) {
	var data []byte
	for _, x := range v {
		data = binary.LittleEndian.AppendUint64(data, math.Float64bits(x))
	}
	return object.NewArray(object.NPY{Descr: "<f8", Shape: []int{len(v)}}, data)
}

// Values reads what [Vector] made.
func Values(a *object.Array) ([]float64, error) {
	b := a.Bytes()
	h, err := object.ParseNPY(b)
	if err != nil {
		return nil, err
	}
	if h.Descr != "<f8" {
		return nil, fmt.Errorf("array of %s, want <f8", h.Descr)
	}
	var v []float64
	for b = b[h.HeaderSize:]; len(b) >= 8; b = b[8:] {
		v = append(v, math.Float64frombits(binary.LittleEndian.Uint64(b)))
	}
	return v, nil
}
