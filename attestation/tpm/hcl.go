package tpm

import (
	"encoding/binary"
	"fmt"
)

// What an HCL report vouches with (Azure, report type).
const (
	HCLSNP = 2 // an SEV-SNP report
	HCLTDX = 4 // a TDREPORT, from which the host makes a quote
)

// Layout of an HCL report; all integers are little-endian.
const (
	hclMagic    = "HCLA"
	hclHeader   = 32   // magic, version, size, request type, status, 12 reserved
	hclHardware = 1184 // room for the hardware's report
	hclData     = hclHeader + hclHardware
	hclFrame    = 20 // u32 size, version, report type, hash, size of the runtime data
	hclSHA256   = 1  // hash by which the hardware's report covers the runtime data
	maxHCL      = hclData + hclFrame + MaxRuntime + 4<<10
)

// HCLReport is what Azure's paravisor keeps for its guest in the TPM's NV index
// 0x01400001: the hardware's report, taken once at start, and the runtime data
// that it covers.
type HCLReport struct {
	Type     uint32 // [HCLSNP] or [HCLTDX]
	Hardware []byte // 1184 bytes: for [HCLSNP] the report, for [HCLTDX] a TDREPORT and zeros
	Runtime  []byte
}

// ParseHCL decodes an HCL report. What follows the runtime data must be zeros:
// the NV index is larger than its content.
func ParseHCL(b []byte) (*HCLReport, error) {
	if len(b) > maxHCL || len(b) < hclData+hclFrame {
		return nil, fmt.Errorf("%w: HCL report of %d bytes, want %d to %d", ErrMalformed, len(b), hclData+hclFrame, maxHCL)
	}
	if string(b[:4]) != hclMagic {
		return nil, fmt.Errorf("%w: HCL report starts with %q, want %q", ErrMalformed, b[:4], hclMagic)
	}
	f := b[hclData:]
	u32 := func(i int) uint32 { return binary.LittleEndian.Uint32(f[4*i:]) }
	size, typ, hash, n := u32(0), u32(2), u32(3), u32(4)
	switch {
	case typ != HCLSNP && typ != HCLTDX:
		return nil, fmt.Errorf("%w: HCL report of type %d, want %d or %d", ErrMalformed, typ, HCLSNP, HCLTDX)
	case hash != hclSHA256:
		return nil, fmt.Errorf("%w: HCL report hashes by %d, want %d (SHA-256)", ErrMalformed, hash, hclSHA256)
	case n > MaxRuntime || int64(n) > int64(len(f)-hclFrame):
		return nil, fmt.Errorf("%w: HCL report with %d bytes of runtime data", ErrMalformed, n)
	case size != n+hclFrame:
		return nil, fmt.Errorf("%w: HCL report: runtime data of %d bytes in a frame of %d", ErrMalformed, n, size)
	}
	for _, x := range f[hclFrame+n:] {
		if x != 0 {
			return nil, fmt.Errorf("%w: HCL report: bytes after the runtime data", ErrMalformed)
		}
	}
	return &HCLReport{Type: typ, Hardware: b[hclHeader:hclData:hclData], Runtime: f[hclFrame : hclFrame+n : hclFrame+n]}, nil
}

// Marshal returns the report as ParseHCL reads it, with no zeros at the end.
// Hardware is cut or filled to its room.
func (h *HCLReport) Marshal() []byte {
	le := binary.LittleEndian
	b := append([]byte(hclMagic), make([]byte, hclData-len(hclMagic))...)
	le.PutUint32(b[4:], 1)
	le.PutUint32(b[8:], uint32(hclData+hclFrame+len(h.Runtime)))
	le.PutUint32(b[12:], 2)
	copy(b[hclHeader:], h.Hardware)
	for _, v := range []uint32{uint32(hclFrame + len(h.Runtime)), 1, h.Type, hclSHA256, uint32(len(h.Runtime))} {
		b = le.AppendUint32(b, v)
	}
	return append(b, h.Runtime...)
}
