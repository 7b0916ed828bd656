package nvgpu

import (
	"bytes"
	"fmt"
)

// Feature is the mode of the device's confidential computing (opaque field 36).
// Reports of older drivers do not state it.
type Feature byte

// The modes.
const (
	SinglePassThrough Feature = 0 // SPT: one GPU, all links closed
	MultiPassThrough  Feature = 1 // MPT: several GPUs, NVLink encrypted
	ProtectedPCIe     Feature = 2 // PPCIE: NVLink and switches in clear
)

// String names the mode as NVIDIA does.
func (f Feature) String() string {
	switch f {
	case SinglePassThrough:
		return "SPT"
	case MultiPassThrough:
		return "MPT"
	case ProtectedPCIe:
		return "PPCIE"
	}
	return fmt.Sprintf("feature %d", byte(f))
}

// pcieOn is [FieldPCIe] in protected-PCIe mode; off is 0x55.
const pcieOn = 0xAA

// Feature returns the stated mode, or false where the report states none.
// Drivers before 570 do not state it; of them a report with [FieldPCIe] on is in
// protected-PCIe mode. A field that is not one byte, or a byte with zeros after
// it, is an error.
func (r *Report) Feature() (Feature, bool, error) {
	b, ok := r.Field(FieldFeatureFlag)
	if !ok {
		if p, _ := r.Field(FieldPCIe); len(p) > 0 && p[0] == pcieOn {
			return ProtectedPCIe, true, nil
		}
		return 0, false, nil
	}
	if len(b) == 0 || len(b) > 8 || len(bytes.Trim(b[1:], "\x00")) > 0 {
		return 0, false, fmt.Errorf("nvgpu: feature flag %x is not one small number", b)
	}
	return Feature(b[0]), true, nil
}
