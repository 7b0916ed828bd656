package tpm

import (
	"encoding/binary"
	"fmt"
)

// reader takes big-endian fields off the front of b and keeps the first error;
// after one, everything it returns is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(what string, n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b) {
		r.err = fmt.Errorf("%w: %s: %d bytes, only %d left", ErrMalformed, what, n, len(r.b))
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// number takes a big-endian integer of n bytes.
func (r *reader) number(what string, n int) (v uint64) {
	for _, b := range r.take(what, n) {
		v = v<<8 | uint64(b)
	}
	return v
}

func (r *reader) u8(what string) uint8   { return uint8(r.number(what, 1)) }
func (r *reader) u16(what string) uint16 { return uint16(r.number(what, 2)) }
func (r *reader) u32(what string) uint32 { return uint32(r.number(what, 4)) }
func (r *reader) u64(what string) uint64 { return r.number(what, 8) }

// yes takes a TPMI_YES_NO, which is 0 or 1.
func (r *reader) yes(what string) bool {
	v := r.u8(what)
	if r.err == nil && v > 1 {
		r.err = fmt.Errorf("%w: %s: %d, want 0 or 1", ErrMalformed, what, v)
	}
	return v == 1
}

// sized takes a TPM2B: a u16 size, and as many bytes.
func (r *reader) sized(what string, limit int) []byte {
	n := int(r.u16(what))
	if r.err == nil && n > limit {
		r.err = fmt.Errorf("%w: %s: %d bytes, limit %d", ErrMalformed, what, n, limit)
	}
	return r.take(what, n)
}

// end demands that nothing is left.
func (r *reader) end(what string) {
	if r.err == nil && len(r.b) != 0 {
		r.err = fmt.Errorf("%w: %s: %d bytes too many", ErrMalformed, what, len(r.b))
	}
}

func appendSized(b, v []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(v))), v...)
}
