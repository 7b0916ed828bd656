package nvgpu

import "github.com/concordat/concordat/internal/cose"

// States of the video decoder in [FieldNVDEC0].
const (
	NVDEC0On  = 0xAA
	NVDEC0Off = 0x55
)

// BlockNVDEC0 is the SPDM index of the measurement of the video decoder's
// firmware: index 35 of a reference manifest, which counts from 0. It is
// meaningless while the decoder is off.
const BlockNVDEC0 = 36

// SkipsNVDEC0 reports whether the video decoder is off, so that its measurement
// does not count. Only the one byte 0x55 means off: a missing field, another
// length or value counts as on.
func (r *Report) SkipsNVDEC0() bool {
	b, ok := r.Field(FieldNVDEC0)
	return ok && len(b) == 1 && b[0] == NVDEC0Off
}

// MeasurementsDigest names the report's set of measurements, for a policy that
// pins it:
//
//	SHA-256("concordat/gpu-measurements/1" ‖ 00 ‖ u32be(49·n) ‖ n × (index u8 ‖ value[48]))
//
// over all blocks in the report's (ascending) order, except block 36 where
// [Report.SkipsNVDEC0]. So a set with the decoder off has another name than the
// same set with it on, and a missing block changes the name.
func MeasurementsDigest(r *Report) cose.Digest {
	skip := r.SkipsNVDEC0()
	b := make([]byte, 0, len(r.Blocks)*(1+MeasurementSize))
	for _, m := range r.Blocks {
		if m.Index == BlockNVDEC0 && skip {
			continue
		}
		b = append(append(b, m.Index), m.Value[:]...)
	}
	return cose.Hash("concordat/gpu-measurements/1", b)
}
