package nvgpu

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of the report's parts, in bytes.
const (
	NonceSize       = 32   // of both nonces (DSP0274 1.1, table 44)
	SignatureSize   = 96   // raw r‖s on P-384, big-endian, 48 bytes each
	MeasurementSize = 48   // SHA-384
	MaxReport       = 8192 // NVML_GPU_CONF_COMPUTE_GPU_ATTESTATION_REPORT size in nvml.h
)

// The fixed bytes around what varies. All integers are little-endian.
const (
	spdmVersion     = 0x11
	codeGetMeasure  = 0xE0
	codeMeasure     = 0x60
	paramSigned     = 0x01 // request param1: the responder signs
	paramAll        = 0xFF // request param2: all measurement blocks
	slot            = 0x00 // the certificate slot that signs
	requestSize     = 4 + NonceSize + 1
	responseHeader  = 4 + 1 + 3 // version, code, param1, param2, block count, record length
	blockHeader     = 4         // index, specification, u16 size
	dmtfHeader      = 3         // value type, u16 value size
	blockSize       = blockHeader + dmtfHeader + MeasurementSize
	dmtfMeasurement = 0x01 // MeasurementSpecification: DMTF
	minReport       = requestSize + responseHeader + NonceSize + 2 + SignatureSize
)

// ErrFormat is wrapped by every error about bytes that are not a report.
var ErrFormat = errors.New("nvgpu: not an attestation report")

// Report is a parsed report. Its slices are its own: they share nothing with the
// bytes that [Parse] read.
type Report struct {
	// RequestNonce is the challenge, which the verifier compares. ResponseNonce is
	// the GPU's own random number and proves nothing to a verifier.
	RequestNonce  [NonceSize]byte
	ResponseNonce [NonceSize]byte

	Param1, Param2 byte // of the response; NVIDIA leaves both zero

	Blocks    []Block // ascending by Index
	Opaque    []Field // in the report's order, no type twice
	Signature [SignatureSize]byte
}

// Block is one measurement: SPDM index 1 is index 0 of a reference integrity
// manifest.
type Block struct {
	Index byte // 1 to 255
	Type  byte // DMTFSpecMeasurementValueType (DSP0274 1.1, table 45)
	Value [MeasurementSize]byte
}

// Parse decodes a report that fills b exactly: NVML says how long the report is,
// and what follows it in its buffer is not part of b. Blocks are DMTF blocks of
// 48 bytes in ascending order; opaque fields of unknown types are kept, a type
// that occurs twice is refused. Every report that Parse accepts, [Report.Marshal]
// writes again byte for byte. Errors wrap [ErrFormat].
func Parse(b []byte) (*Report, error) {
	if len(b) < minReport || len(b) > MaxReport {
		return nil, fmt.Errorf("%w: %d bytes, want %d to %d", ErrFormat, len(b), minReport, MaxReport)
	}
	r := new(Report)
	req, rsp := b[:requestSize], b[requestSize:]
	if [4]byte(req) != [4]byte{spdmVersion, codeGetMeasure, paramSigned, paramAll} || req[requestSize-1] != slot {
		return nil, fmt.Errorf("%w: request %x…%02x, want a signed SPDM 1.1 request for all measurements from slot 0", ErrFormat, req[:4], req[requestSize-1])
	}
	copy(r.RequestNonce[:], req[4:])
	if rsp[0] != spdmVersion || rsp[1] != codeMeasure {
		return nil, fmt.Errorf("%w: response version %#02x, code %#02x, want %#02x, %#02x", ErrFormat, rsp[0], rsp[1], spdmVersion, codeMeasure)
	}
	r.Param1, r.Param2 = rsp[2], rsp[3]
	count := int(rsp[4])
	length := int(rsp[5]) | int(rsp[6])<<8 | int(rsp[7])<<16
	rest := rsp[responseHeader:]
	if length != count*blockSize || length > len(rest)-NonceSize-2-SignatureSize {
		return nil, fmt.Errorf("%w: %d measurement blocks in %d bytes, want %d bytes a block inside the report", ErrFormat, count, length, blockSize)
	}
	var err error
	if r.Blocks, err = parseBlocks(rest[:length], count); err != nil {
		return nil, err
	}
	rest = rest[length:]
	copy(r.ResponseNonce[:], rest)
	rest = rest[NonceSize:]
	size := int(binary.LittleEndian.Uint16(rest))
	rest = rest[2:]
	if size != len(rest)-SignatureSize {
		return nil, fmt.Errorf("%w: opaque data of %d bytes, signature of %d and nothing else make %d; %d bytes follow", ErrFormat, size, SignatureSize, size+SignatureSize, len(rest))
	}
	if r.Opaque, err = parseFields(rest[:size]); err != nil {
		return nil, err
	}
	copy(r.Signature[:], rest[size:])
	return r, nil
}

// parseBlocks reads count blocks from b, whose length the caller has checked.
func parseBlocks(b []byte, count int) ([]Block, error) {
	out := make([]Block, count)
	for i := range out {
		x := b[i*blockSize:][:blockSize]
		if x[1] != dmtfMeasurement || binary.LittleEndian.Uint16(x[2:]) != dmtfHeader+MeasurementSize ||
			binary.LittleEndian.Uint16(x[5:]) != MeasurementSize {
			return nil, fmt.Errorf("%w: block %d: header %x is not a DMTF measurement of %d bytes", ErrFormat, i+1, x[:blockHeader+dmtfHeader], MeasurementSize)
		}
		if x[0] == 0 || i > 0 && x[0] <= out[i-1].Index {
			return nil, fmt.Errorf("%w: block %d has index %d; indices start at 1 and ascend", ErrFormat, i+1, x[0])
		}
		out[i] = Block{Index: x[0], Type: x[4], Value: [MeasurementSize]byte(x[blockHeader+dmtfHeader:])}
	}
	return out, nil
}

// AppendSigned appends what the signature covers: the request and the response
// without its signature. It fails only for a report that no format can hold.
func (r *Report) AppendSigned(dst []byte) ([]byte, error) {
	opaque, err := appendFields(nil, r.Opaque)
	if err != nil {
		return nil, err
	}
	if len(r.Blocks) > 255 {
		return nil, fmt.Errorf("%w: %d measurement blocks, at most 255", ErrFormat, len(r.Blocks))
	}
	dst = append(dst, spdmVersion, codeGetMeasure, paramSigned, paramAll)
	dst = append(dst, r.RequestNonce[:]...)
	dst = append(dst, slot)
	n := len(r.Blocks) * blockSize
	dst = append(dst, spdmVersion, codeMeasure, r.Param1, r.Param2, byte(len(r.Blocks)), byte(n), byte(n>>8), byte(n>>16))
	for _, m := range r.Blocks {
		dst = append(dst, m.Index, dmtfMeasurement, dmtfHeader+MeasurementSize, 0, m.Type, MeasurementSize, 0)
		dst = append(dst, m.Value[:]...)
	}
	dst = append(dst, r.ResponseNonce[:]...)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(opaque)))
	return append(dst, opaque...), nil
}

// Marshal returns the report's bytes. It refuses what [Parse] would refuse, so
// that the simulator cannot write what no verifier reads.
func (r *Report) Marshal() ([]byte, error) {
	b, err := r.AppendSigned(make([]byte, 0, MaxReport))
	if err != nil {
		return nil, err
	}
	b = append(b, r.Signature[:]...)
	if _, err := Parse(b); err != nil {
		return nil, err
	}
	return b, nil
}
