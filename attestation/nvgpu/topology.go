package nvgpu

import (
	"bytes"
	"fmt"
	"slices"
)

// PDISize is the size of a physical device id: the last bytes of the serial number
// of the device certificate, after one that says what the device is.
const PDISize = 8

// PDI is the physical device id of a GPU or of an NVLink switch, as the device
// certificate spells it.
type PDI [PDISize]byte

// PDI returns the id that a switch states of itself ([FieldPDI] of a switch).
func (r *Report) PDI() (PDI, error) {
	b, ok := r.Field(FieldPDI)
	if !ok || len(b) != PDISize {
		return PDI{}, fmt.Errorf("nvgpu: device id of %d bytes, want %d", len(b), PDISize)
	}
	return PDI(b), nil
}

// Switches returns the switches at the other ends of a GPU's links ([FieldPDI] of
// a GPU: one id a link, its bytes reversed, zeros for a link that is off), sorted
// and each once. A GPU without the field has none.
func (r *Report) Switches() ([]PDI, error) {
	b, _ := r.Field(FieldPDI)
	if len(b)%PDISize != 0 {
		return nil, fmt.Errorf("nvgpu: switch ids of %d bytes, want a multiple of %d", len(b), PDISize)
	}
	var out []PDI
	for c := range slices.Chunk(b, PDISize) {
		id := PDI(c)
		slices.Reverse(id[:])
		if id != (PDI{}) {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b PDI) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(out), nil
}

// LinksGPU reports whether a switch names the GPU id among those on its links
// ([FieldGPUs]). What else stands there is no list of GPUs: real switches leave
// unused entries as they happen to be.
func (r *Report) LinksGPU(id PDI) bool {
	b, _ := r.Field(FieldGPUs)
	for c := range slices.Chunk(b, PDISize) {
		if bytes.Equal(c, id[:]) {
			return true
		}
	}
	return false
}
