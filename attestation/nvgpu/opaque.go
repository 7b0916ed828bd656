package nvgpu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// FieldType says what an opaque field holds. The numbers are those of NVIDIA's
// nvtrust verifier (OpaqueDataField in attestation_report.py).
type FieldType uint16

// The opaque fields that this project reads or simulates. Reports hold others;
// they are kept and decide nothing.
const (
	FieldDriver      FieldType = 3  // driver version, ASCII, ends with NUL
	FieldVBIOS       FieldType = 6  // see [Report.VBIOS]
	FieldNVDEC0      FieldType = 11 // one byte, see [Report.SkipsNVDEC0]
	FieldBoardID     FieldType = 14 // u32
	FieldChipSKU     FieldType = 15 // ASCII, ends with NUL
	FieldProject     FieldType = 17 // ASCII, ends with NUL
	FieldProjectSKU  FieldType = 18 // ASCII, ends with NUL
	FieldFWID        FieldType = 20 // SHA-384 of the firmware that the leaf certificate names
	FieldPCIe        FieldType = 21 // one byte: 0xAA in protected-PCIe mode, see [Report.Feature]
	FieldPDI         FieldType = 22 // see [Report.Switches] and [Report.PDI]
	FieldGPUs        FieldType = 26 // of a switch, see [Report.LinksGPU]
	FieldVersion     FieldType = 34 // version of the opaque data
	FieldChipInfo    FieldType = 35 // Blackwell: the chip's name, ASCII, ends with NUL
	FieldFeatureFlag FieldType = 36 // one byte, see [Feature]
)

// Field is one opaque field.
type Field struct {
	Type FieldType
	Data []byte
}

// maxFields bounds the number of opaque fields; real reports hold 14 to 40.
const maxFields = 256

func parseFields(b []byte) ([]Field, error) {
	b = bytes.Clone(b)
	var out []Field
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, fmt.Errorf("%w: opaque data ends inside a field header", ErrFormat)
		}
		typ, n := FieldType(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:]))
		b = b[4:]
		switch {
		case n > len(b):
			return nil, fmt.Errorf("%w: opaque field %d of %d bytes, %d left", ErrFormat, typ, n, len(b))
		case len(out) == maxFields:
			return nil, fmt.Errorf("%w: more than %d opaque fields", ErrFormat, maxFields)
		case slices.ContainsFunc(out, func(f Field) bool { return f.Type == typ }):
			return nil, fmt.Errorf("%w: opaque field %d occurs twice", ErrFormat, typ)
		}
		out = append(out, Field{typ, b[:n:n]})
		b = b[n:]
	}
	return out, nil
}

func appendFields(dst []byte, fields []Field) ([]byte, error) {
	for _, f := range fields {
		if len(f.Data) > MaxReport || len(dst) > MaxReport {
			return nil, fmt.Errorf("%w: opaque data over %d bytes", ErrFormat, MaxReport)
		}
		dst = binary.LittleEndian.AppendUint16(dst, uint16(f.Type))
		dst = binary.LittleEndian.AppendUint16(dst, uint16(len(f.Data)))
		dst = append(dst, f.Data...)
	}
	return dst, nil
}

// Field returns the data of the field of type t. The caller must not change it.
func (r *Report) Field(t FieldType) ([]byte, bool) {
	for _, f := range r.Opaque {
		if f.Type == t {
			return f.Data, true
		}
	}
	return nil, false
}

// FWID returns the firmware id that the report states, or false where it states
// none. A field of another length than 48 bytes is an error: it can equal no
// certificate's.
func (r *Report) FWID() ([MeasurementSize]byte, bool, error) {
	b, ok := r.Field(FieldFWID)
	if !ok {
		return [MeasurementSize]byte{}, false, nil
	}
	if len(b) != MeasurementSize {
		return [MeasurementSize]byte{}, false, fmt.Errorf("nvgpu: FWID of %d bytes, want %d", len(b), MeasurementSize)
	}
	return [MeasurementSize]byte(b), true, nil
}
