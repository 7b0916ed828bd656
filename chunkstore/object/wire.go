package object

import (
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

// The protobuf wire format, as much as five messages need of it
// (protobuf.dev/programming-guides/encoding). The encoder writes what Python's
// SerializeToString(deterministic=True) writes: fields in the order of their
// numbers, scalars packed, zero values left out except inside a oneof. Go's
// protobuf promises no stable bytes, and ids hang on them.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
)

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

func appendVarint(b []byte, v uint64) []byte  { return binary.AppendUvarint(b, v) }
func appendFixed64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendTag(b []byte, field, wire int) []byte { return appendVarint(b, uint64(field<<3|wire)) }

func appendBytes[T string | []byte](b []byte, v T) []byte {
	return append(appendVarint(b, uint64(len(v))), v...)
}

// reader reads wire format. Its first failure sticks, and every read after it
// returns zero: callers check failed before they believe anything.
type reader struct {
	b      []byte
	failed bool
}

// more reports whether bytes are left and nothing failed.
func (r *reader) more() bool { return !r.failed && len(r.b) > 0 }

func (r *reader) fail() { r.failed, r.b = true, nil }

func (r *reader) varint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) fixed64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// bytes returns a length-delimited field. It shares memory with the input.
func (r *reader) bytes() []byte {
	n := r.varint()
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) tag() (field, wire int) {
	v := r.varint()
	if v>>3 > 1<<29-1 || v>>3 == 0 {
		r.fail()
		return 0, 0
	}
	return int(v >> 3), int(v & 7)
}

// checkKey refuses a name that is no text or was used before.
func checkKey(seen map[string]struct{}, key string) error {
	if !utf8.ValidString(key) {
		return errors.New("name is not UTF-8")
	}
	if _, dup := seen[key]; dup {
		return errors.New("name is used twice")
	}
	seen[key] = struct{}{}
	return nil
}
