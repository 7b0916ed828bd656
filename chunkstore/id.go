package chunkstore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// Digest is a SHA-256 value; zero is none.
type Digest = cose.Digest

// ID names a chunk: the hash over its header and the tree of its segments. It
// says nothing about the plaintext to whoever lacks the key, and may be shown,
// logged and asked for.
type ID [sha256.Size]byte

// String returns lower-case hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 hex digits, for log lines and errors.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id is no chunk.
func (id ID) IsZero() bool { return id == ID{} }

// ParseID decodes 64 lower-case hex digits.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("chunkstore: id of %d characters, want %d", len(s), 2*len(id))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, errors.New("chunkstore: id is not lower-case hex")
	}
	return id, nil
}

// The reasons on which callers decide; every error of this package about a
// chunk or a run wraps one of them.
var (
	// ErrNotFound: the store has no such chunk in that scope.
	ErrNotFound = errors.New("chunkstore: not found")
	// ErrMismatch: bytes are not those of the id. Whoever stored or carried
	// them is at fault; ask again or elsewhere.
	ErrMismatch = errors.New("chunkstore: bytes do not match the chunk id")
	// ErrOpening: bytes are those of the id, but the key is not theirs or they
	// hold something else than agreed. Whoever sealed the chunk, or gave the
	// key, is at fault; asking again does not help.
	ErrOpening = errors.New("chunkstore: opening does not fit the chunk")
	// ErrTooLarge: a chunk or manifest is over the format's limit.
	ErrTooLarge = errors.New("chunkstore: too large")
	// ErrQuota: the store's limit for that federation is reached.
	ErrQuota = errors.New("chunkstore: quota exceeded")
	// ErrInUse: the run is not released, since somebody uses it.
	ErrInUse = errors.New("chunkstore: run is in use")
)
