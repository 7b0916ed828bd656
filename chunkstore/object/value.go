package object

import (
	"math"
	"unicode/utf8"
)

// Value is an entry of a ConfigRecord or MetricRecord. The set is closed: the
// twelve types below.
type Value interface {
	// field is the number of the value's member in Flower's oneof.
	field() int
	// append adds the member's content, without its tag.
	append(b []byte) []byte
}

// The single values. Flower writes a Python int as Sint if it fits and as Uint
// if not, so a Uint below 2^63 comes from other writers only.
type (
	Double float64 // every bit pattern, NaN included, survives
	Sint   int64
	Uint   uint64
	Bool   bool
	String string // valid UTF-8
	Bytes  []byte
)

// The lists. Flower writes an empty list as Bools in a ConfigRecord and as
// Doubles in a MetricRecord.
type (
	Doubles []float64
	Sints   []int64
	Uints   []uint64
	Bools   []bool
	Strings []string // valid UTF-8
	Blobs   [][]byte
)

// The members of ConfigRecordValue; MetricRecordValue has 1 to 3 and 21 to 23
// (recorddict.proto).
const (
	fieldDouble  = 1
	fieldSint    = 2
	fieldUint    = 3
	fieldBool    = 4
	fieldString  = 5
	fieldBytes   = 6
	fieldDoubles = 21
	fieldSints   = 22
	fieldUints   = 23
	fieldBools   = 24
	fieldStrings = 25
	fieldBlobs   = 26
)

func (Double) field() int  { return fieldDouble }
func (Sint) field() int    { return fieldSint }
func (Uint) field() int    { return fieldUint }
func (Bool) field() int    { return fieldBool }
func (String) field() int  { return fieldString }
func (Bytes) field() int   { return fieldBytes }
func (Doubles) field() int { return fieldDoubles }
func (Sints) field() int   { return fieldSints }
func (Uints) field() int   { return fieldUints }
func (Bools) field() int   { return fieldBools }
func (Strings) field() int { return fieldStrings }
func (Blobs) field() int   { return fieldBlobs }

func (v Double) append(b []byte) []byte { return appendFixed64(b, math.Float64bits(float64(v))) }
func (v Sint) append(b []byte) []byte   { return appendVarint(b, zigzag(int64(v))) }
func (v Uint) append(b []byte) []byte   { return appendVarint(b, uint64(v)) }
func (v Bool) append(b []byte) []byte   { return appendBool(b, bool(v)) }
func (v String) append(b []byte) []byte { return appendBytes(b, string(v)) }
func (v Bytes) append(b []byte) []byte  { return appendBytes(b, []byte(v)) }

func (v Doubles) append(b []byte) []byte {
	return appendPacked(b, v, func(b []byte, x float64) []byte { return appendFixed64(b, math.Float64bits(x)) })
}

func (v Sints) append(b []byte) []byte {
	return appendPacked(b, v, func(b []byte, x int64) []byte { return appendVarint(b, zigzag(x)) })
}

func (v Uints) append(b []byte) []byte   { return appendPacked(b, v, appendVarint) }
func (v Bools) append(b []byte) []byte   { return appendPacked(b, v, appendBool) }
func (v Strings) append(b []byte) []byte { return appendRepeated(b, v) }
func (v Blobs) append(b []byte) []byte   { return appendRepeated(b, v) }

// appendPacked adds the message {1 repeated vals} with packed scalars; an empty
// list is the empty message.
func appendPacked[T any](b []byte, list []T, one func([]byte, T) []byte) []byte {
	if len(list) == 0 {
		return appendVarint(b, 0)
	}
	var vals []byte
	for _, x := range list {
		vals = one(vals, x)
	}
	return appendBytes(b, appendBytes(appendTag(nil, 1, wireBytes), vals))
}

func appendRepeated[T string | []byte](b []byte, list []T) []byte {
	var msg []byte
	for _, x := range list {
		msg = appendBytes(appendTag(msg, 1, wireBytes), x)
	}
	return appendBytes(b, msg)
}

// encodeItems returns the body of a ConfigRecord or MetricRecord:
// {1 repeated Item{1 key, 2 value}}.
func encodeItems(kind Kind, items []ValueItem) ([]byte, error) {
	var body []byte
	seen := make(map[string]struct{}, len(items))
	for i, it := range items {
		if err := checkKey(seen, it.Key); err != nil {
			return nil, invalid("%v item %d: %v", kind, i, err)
		}
		if it.Value == nil || !kind.allows(it.Value.field()) {
			return nil, invalid("%v item %d: a %T is not allowed", kind, i, it.Value)
		}
		if !validText(it.Value) {
			return nil, invalid("%v item %d: text is not UTF-8", kind, i)
		}
		f := it.Value.field()
		val := it.Value.append(appendTag(nil, f, wireTypeOf(f)))
		var item []byte
		if it.Key != "" {
			item = appendBytes(appendTag(item, 1, wireBytes), it.Key)
		}
		item = appendBytes(appendTag(item, 2, wireBytes), val)
		body = appendBytes(appendTag(body, 1, wireBytes), item)
	}
	return body, nil
}

// allows reports whether a record of kind k may hold the member.
func (k Kind) allows(field int) bool {
	if k == KindMetricRecord {
		return field >= fieldDouble && field <= fieldUint || field >= fieldDoubles && field <= fieldUints
	}
	return field >= fieldDouble && field <= fieldBytes || field >= fieldDoubles && field <= fieldBlobs
}

func wireTypeOf(field int) int {
	switch field {
	case fieldDouble:
		return wireFixed64
	case fieldSint, fieldUint, fieldBool:
		return wireVarint
	}
	return wireBytes
}

func validText(v Value) bool {
	switch v := v.(type) {
	case String:
		return utf8.ValidString(string(v))
	case Strings:
		for _, s := range v {
			if !utf8.ValidString(s) {
				return false
			}
		}
	}
	return true
}

// decodeItems is the inverse of encodeItems. It accepts other spellings of the
// same items: the caller compares.
func decodeItems(body []byte) ([]ValueItem, error) {
	var items []ValueItem
	r := reader{b: body}
	for r.more() {
		if f, w := r.tag(); f != 1 || w != wireBytes {
			return nil, invalid("unknown field in a record")
		}
		var it ValueItem
		item := reader{b: r.bytes()}
		for item.more() {
			switch f, w := item.tag(); {
			case f == 1 && w == wireBytes:
				it.Key = string(item.bytes())
			case f == 2 && w == wireBytes:
				val := reader{b: item.bytes()}
				it.Value = decodeValue(&val)
				if val.failed || val.more() {
					return nil, invalid("record item %d: value", len(items))
				}
			default:
				return nil, invalid("record item %d: unknown field", len(items))
			}
		}
		if item.failed {
			return nil, invalid("record item %d: truncated", len(items))
		}
		items = append(items, it)
	}
	if r.failed {
		return nil, invalid("record is truncated")
	}
	return items, nil
}

func decodeValue(r *reader) Value {
	f, w := r.tag()
	if w != wireTypeOf(f) {
		r.failed = true
		return nil
	}
	switch f {
	case fieldDouble:
		return Double(math.Float64frombits(r.fixed64()))
	case fieldSint:
		return Sint(unzigzag(r.varint()))
	case fieldUint:
		return Uint(r.varint())
	case fieldBool:
		return Bool(r.varint() != 0)
	case fieldString:
		return String(r.bytes())
	case fieldBytes:
		return append(Bytes{}, r.bytes()...)
	case fieldDoubles:
		return Doubles(packed(r, func(r *reader) float64 { return math.Float64frombits(r.fixed64()) }))
	case fieldSints:
		return Sints(packed(r, func(r *reader) int64 { return unzigzag(r.varint()) }))
	case fieldUints:
		return Uints(packed(r, (*reader).varint))
	case fieldBools:
		return Bools(packed(r, func(r *reader) bool { return r.varint() != 0 }))
	case fieldStrings:
		return Strings(repeated(r, func(b []byte) string { return string(b) }))
	case fieldBlobs:
		return Blobs(repeated(r, func(b []byte) []byte { return append([]byte{}, b...) }))
	}
	r.failed = true
	return nil
}

func packed[T any](r *reader, one func(*reader) T) []T {
	list := []T{}
	msg := reader{b: r.bytes()}
	if !msg.more() {
		r.failed = r.failed || msg.failed
		return list
	}
	if f, w := msg.tag(); f != 1 || w != wireBytes {
		msg.fail()
	}
	vals := reader{b: msg.bytes()}
	for vals.more() {
		list = append(list, one(&vals))
	}
	r.failed = r.failed || msg.failed || vals.failed || msg.more()
	return list
}

func repeated[T any](r *reader, one func([]byte) T) []T {
	list := []T{}
	msg := reader{b: r.bytes()}
	for msg.more() {
		if f, w := msg.tag(); f != 1 || w != wireBytes {
			msg.failed = true
			break
		}
		list = append(list, one(msg.bytes()))
	}
	r.failed = r.failed || msg.failed
	return list
}
