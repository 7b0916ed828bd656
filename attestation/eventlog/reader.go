package eventlog

import (
	"encoding/binary"
	"fmt"
)

// reader takes little-endian fields off the front of b and keeps the first
// error; after one, everything it returns is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b) {
		r.err = fmt.Errorf("%d bytes wanted, %d left", n, len(r.b))
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() uint8 {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// data takes a size and as many bytes.
func (r *reader) data() []byte {
	n := r.u32()
	if r.err == nil && n > MaxData {
		r.err = fmt.Errorf("%d bytes of data, limit %d", n, MaxData)
	}
	return r.take(int(n))
}

// padding reports whether nothing but the rest of a buffer is left. An event of
// zeros alone would be one of no digests, which no header allows; one of FF alone
// is larger than any log.
func (r *reader) padding() bool {
	return len(r.b) == 0 || (r.b[0] == 0 || r.b[0] == 0xFF) && uniform(r.b, r.b[0])
}
