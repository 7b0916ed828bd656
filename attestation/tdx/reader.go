package tdx

import (
	"encoding/binary"
	"fmt"
)

// reader takes fields off the front of b and keeps the first error; after one,
// everything it returns is zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(what string, n uint32) []byte {
	if r.err != nil {
		return nil
	}
	if int64(n) > int64(len(r.b)) {
		r.err = fmt.Errorf("%w: %s: %d bytes, only %d left", ErrMalformed, what, n, len(r.b))
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// fixed fills v, a pointer to a value of size bytes, little-endian.
func (r *reader) fixed(what string, size uint32, v any) {
	b := r.take(what, size)
	if r.err != nil {
		return
	}
	if n, err := binary.Decode(b, binary.LittleEndian, v); err != nil || n != len(b) {
		panic(fmt.Sprintf("tdx: internal error: %s: layout takes %d of %d bytes: %v", what, n, len(b), err))
	}
}

func (r *reader) u16(what string) (v uint16) {
	r.fixed(what, 2, &v)
	return v
}

func (r *reader) u32(what string) (v uint32) {
	r.fixed(what, 4, &v)
	return v
}

// nested reads what r took as b; it starts with r's error.
func (r *reader) nested(b []byte) reader { return reader{b: b, err: r.err} }

// cert takes certification data of one type: u16 type, u32 size, bytes.
func (r *reader) cert(what string, want uint16) []byte {
	typ := r.u16(what)
	if r.err == nil && typ != want {
		r.err = fmt.Errorf("%w: %s of type %d, want %d", ErrUnsupported, what, typ, want)
	}
	return r.take(what, r.u32(what))
}

// end demands that nothing is left.
func (r *reader) end(what string) {
	if r.err == nil && len(r.b) != 0 {
		r.err = fmt.Errorf("%w: %s: %d bytes too many", ErrMalformed, what, len(r.b))
	}
}

func appendFixed(b []byte, v any) []byte {
	b, err := binary.Append(b, binary.LittleEndian, v)
	if err != nil {
		panic("tdx: internal error: " + err.Error())
	}
	return b
}
