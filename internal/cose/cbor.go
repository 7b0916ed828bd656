package cose

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// Limits of every CBOR item that comes from outside. An item that needs more is
// split by its format.
const (
	MaxItem    = 16 << 20 // bytes of one item; callers apply their own, smaller limit first
	maxNesting = 8
	maxArray   = 1 << 20
	maxMap     = 256
)

// ErrEncoding is wrapped by every error about bytes that are not the one
// deterministic encoding of a value of the expected shape.
var ErrEncoding = errors.New("cbor: not in canonical form")

var encMode = func() cbor.EncMode {
	o := cbor.CoreDetEncOptions()
	o.NilContainers = cbor.NilContainerAsEmpty
	m, err := o.EncMode()
	if err != nil {
		panic("cose: internal error: " + err.Error())
	}
	return m
}()

var decMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   maxNesting,
		MaxArrayElements:  maxArray,
		MaxMapPairs:       maxMap,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		IntDec:            cbor.IntDecConvertSignedOrFail,
	}.DecMode()
	if err != nil {
		panic("cose: internal error: " + err.Error())
	}
	return m
}()

// Marshal returns the deterministic encoding of v. Nil slices and maps encode
// as empty ones. It panics if v holds a type without an encoding: what is
// encoded is chosen by this program, never by input.
func Marshal(v any) []byte {
	b, err := encMode.Marshal(v)
	if err != nil {
		panic("cose: internal error: " + err.Error())
	}
	return b
}

// Unmarshal decodes b into v, a pointer, and then demands that v encodes to b
// again: that refuses unknown, missing and extra fields, other lengths of byte
// arrays and every second spelling of the same value. Optional fields carry
// omitempty. The error wraps [ErrEncoding]. v keeps no reference to b.
func Unmarshal(b []byte, v any) error {
	if len(b) > MaxItem {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrEncoding, len(b), MaxItem)
	}
	if k := reflect.ValueOf(v); k.Kind() != reflect.Pointer || k.IsNil() {
		panic("cose: internal error: Unmarshal needs a pointer")
	}
	if err := decMode.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	again, err := encMode.Marshal(v)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%w: value has another encoding (or missing fields)", ErrEncoding)
	}
	return nil
}

// Raw is one encoded CBOR item that is carried as it is.
type Raw = cbor.RawMessage

// Digest is a SHA-256 value. Its zero value means "none" and encodes as such
// only where a format says so: formats that know "none" use a byte string of
// length zero.
type Digest [sha256.Size]byte

// Sum returns the SHA-256 of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// String returns lower-case hex.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// Short returns the first 8 hex digits, for log lines and tables.
func (d Digest) Short() string { return hex.EncodeToString(d[:4]) }

// IsZero reports whether d is "none".
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText encodes d as hex, for JSON and YAML.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText decodes 64 hex digits.
func (d *Digest) UnmarshalText(b []byte) error {
	p, err := ParseDigest(string(b))
	if err != nil {
		return err
	}
	*d = p
	return nil
}

// ParseDigest decodes 64 hex digits.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("digest %.80q: %d characters, want %d hex digits", s, len(s), 2*len(d))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("digest %q: %w", s, err)
	}
	return d, nil
}

// MarshalCBOR encodes d as a byte string of 32 bytes, or of none if d is zero.
func (d Digest) MarshalCBOR() ([]byte, error) {
	if d.IsZero() {
		return []byte{0x40}, nil
	}
	return append([]byte{0x58, sha256.Size}, d[:]...), nil
}

// UnmarshalCBOR decodes a byte string of 32 bytes or of none.
func (d *Digest) UnmarshalCBOR(b []byte) error {
	switch {
	case len(b) == 1 && b[0] == 0x40:
		*d = Digest{}
	case len(b) == 2+sha256.Size && b[0] == 0x58 && b[1] == sha256.Size:
		copy(d[:], b[2:])
		if d.IsZero() {
			return fmt.Errorf("%w: digest of zeros", ErrEncoding)
		}
	default:
		return fmt.Errorf("%w: not a digest", ErrEncoding)
	}
	return nil
}

// Hash is the domain-separated hash of protocol part 2:
// SHA-256(label || 00 || for each x: u32be len(x) || x).
func Hash(label string, x ...[]byte) Digest {
	h := sha256.New()
	h.Write([]byte(label))
	h.Write([]byte{0})
	for _, b := range x {
		n := len(b)
		h.Write([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		h.Write(b)
	}
	var d Digest
	h.Sum(d[:0])
	return d
}
