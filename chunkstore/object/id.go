package object

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// ID names an object: the SHA-256 of its bytes, head included. Flower spells it
// in lower-case hex. It is secret: see the package comment.
type ID [sha256.Size]byte

// Sum returns the ID of an object's bytes.
func Sum(raw []byte) ID { return sha256.Sum256(raw) }

// ParseID decodes 64 lower-case hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("%w: id of %d characters, want %d", ErrInvalid, len(s), 2*len(id))
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ID{}, fmt.Errorf("%w: id is not lower-case hex", ErrInvalid)
		}
	}
	hex.Decode(id[:], []byte(s)) // checked above
	return id, nil
}

// String returns lower-case hex, as Flower spells it.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is no object.
func (id ID) IsZero() bool { return id == ID{} }

// ErrInvalid is wrapped by every refusal of bytes or values that are no object.
// Callers that relay objects of others decide on it: the sender is at fault,
// not the transport.
var ErrInvalid = errors.New("object: invalid")

func invalid(format string, a ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, a...)...)
}
