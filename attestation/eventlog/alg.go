package eventlog

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

// Alg is a hash algorithm by its TCG number (TCG Algorithm Registry, table
// "TPM_ALG_ID").
type Alg uint16

// The algorithms whose digests have a known size. Only [SHA256], [SHA384] and
// [SHA512] can be replayed; the others are skipped over.
const (
	SHA1   Alg = 0x0004
	SHA256 Alg = 0x000b
	SHA384 Alg = 0x000c
	SHA512 Alg = 0x000d
	SM3    Alg = 0x0012
)

// Size returns the bytes of a digest, or 0 for an unknown algorithm.
func (a Alg) Size() int {
	switch a {
	case SHA1:
		return 20
	case SHA256, SM3:
		return 32
	case SHA384:
		return 48
	case SHA512:
		return 64
	}
	return 0
}

// String returns the algorithm's usual name.
func (a Alg) String() string {
	switch a {
	case SHA1:
		return "SHA-1"
	case SHA256:
		return "SHA-256"
	case SHA384:
		return "SHA-384"
	case SHA512:
		return "SHA-512"
	case SM3:
		return "SM3"
	}
	return fmt.Sprintf("algorithm %#04x", uint16(a))
}

// new returns the hash, or nil for one that is not replayed: SHA-1 collides, and
// no quote that is accepted here covers SM3.
func (a Alg) new() hash.Hash {
	switch a {
	case SHA256:
		return sha256.New()
	case SHA384:
		return sha512.New384()
	case SHA512:
		return sha512.New()
	}
	return nil
}

// Sum returns the digest of data, or nil for an algorithm that is not replayed.
func (a Alg) Sum(data []byte) []byte {
	h := a.new()
	if h == nil {
		return nil
	}
	h.Write(data)
	return h.Sum(nil)
}
