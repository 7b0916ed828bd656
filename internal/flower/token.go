package flower

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
)

// tokenBytes is half the length of a token: Flower's secrets.token_hex(128).
const tokenBytes = 128

// newToken returns 256 hex digits from the system's random source.
func newToken() string {
	b := make([]byte, tokenBytes)
	rand.Read(b) // never fails: Go crashes the program instead
	return hex.EncodeToString(b)
}

// equalTokens compares in constant time, whatever the lengths.
func equalTokens(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}
