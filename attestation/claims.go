package attestation

import (
	"crypto/sha512"
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// RoleAggregator is the only role of this version: the enclave that aggregates.
const RoleAggregator = "aggregator"

// KEMKeySize is the size in bytes of an MLKEM768-X25519 public key
// (draft-ietf-hpke-pq: 1184 bytes of ML-KEM-768, then 32 of X25519).
const KEMKeySize = 1216

// MaxClaims bounds the encoded claims. They have a fixed shape of about 1.7
// KiB.
const MaxClaims = 4 << 10

// Claims are what an enclave says about itself, protocol part 2. Every field is
// present in the encoding; the digests that may be "none" are marked. What is
// not marked may not be none: [ParseClaims] refuses it.
//
// Whether the platform bound the federation at launch is no claim: the verifier
// reads it from the evidence (HOST_DATA, MRCONFIGID).
type Claims struct {
	Federation    Digest   `cbor:"1,keyasint"`
	Policy        Digest   `cbor:"2,keyasint"` // of the version in force
	PolicyVersion uint64   `cbor:"3,keyasint"`
	Denials       Digest   `cbor:"4,keyasint"` // none: no denial is known
	Instance      ID       `cbor:"5,keyasint"` // random, per boot
	Role          string   `cbor:"6,keyasint"` // [RoleAggregator]
	Epoch         uint64   `cbor:"7,keyasint"` // 1 + the highest in the log at Checkpoint
	SignPub       cose.Key `cbor:"8,keyasint"` // ES256; signs statements of this epoch
	KEMPub        []byte   `cbor:"9,keyasint"` // [KEMKeySize] bytes; of this nonce window only
	Image         Digest   `cbor:"10,keyasint"`
	Config        Digest   `cbor:"11,keyasint"`
	GPU           Digest   `cbor:"12,keyasint"` // [GPUDigest] of the items; none: no GPU
	NonceRoot     Digest   `cbor:"13,keyasint"`
	NonceCount    uint64   `cbor:"14,keyasint"` // at least 1

	Checkpoint Checkpoint `cbor:"15,keyasint"` // of the log that this enclave starts from
	Simulated  bool       `cbor:"16,keyasint"`
	IssuedAt   uint64     `cbor:"17,keyasint"` // Unix seconds of the enclave's clock; decides nothing
}

// Checkpoint names a state of the transparency log. An empty log has size 0 and
// root none.
type Checkpoint struct {
	_    struct{} `cbor:",toarray"`
	Size uint64
	Root Digest
}

// Encode returns the canonical bytes of c. Hash, send and keep these bytes; a
// receiver never encodes again what it received. It does not check c.
func (c *Claims) Encode() []byte { return cose.Marshal(c) }

// ParseClaims decodes claims and checks their schema. It says nothing about
// their truth.
func ParseClaims(b []byte) (*Claims, error) {
	if len(b) > MaxClaims {
		return nil, fmt.Errorf("claims: %d bytes, limit %d", len(b), MaxClaims)
	}
	c := new(Claims)
	if err := cose.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return c, nil
}

func (c *Claims) check() error {
	switch {
	case c.Federation.IsZero():
		return errors.New("no federation")
	case c.Policy.IsZero():
		return errors.New("no policy digest")
	case c.PolicyVersion == 0:
		return errors.New("policy version 0")
	case c.Instance.IsZero():
		return errors.New("no instance")
	case c.Role != RoleAggregator:
		return fmt.Errorf("role %.40q, want %q", c.Role, RoleAggregator)
	case c.Epoch == 0:
		return errors.New("epoch 0")
	case c.SignPub.IsZero() || c.SignPub.Alg() != cose.ES256:
		return errors.New("signing key is not ES256")
	case len(c.KEMPub) != KEMKeySize:
		return fmt.Errorf("KEM key of %d bytes, want %d", len(c.KEMPub), KEMKeySize)
	case c.Image.IsZero():
		return errors.New("no image digest")
	case c.Config.IsZero():
		return errors.New("no config digest")
	case c.NonceRoot.IsZero() || c.NonceCount == 0:
		return errors.New("no nonces")
	case (c.Checkpoint.Size == 0) != c.Checkpoint.Root.IsZero():
		return fmt.Errorf("checkpoint of size %d with root %q", c.Checkpoint.Size, c.Checkpoint.Root.Short())
	}
	return nil
}

// The domains of report data. A real and a simulated enclave never hash the
// same bytes (protocol F24).
const (
	domainReal      = "concordat/evidence/1"
	domainSimulated = "concordat/evidence/sim/1"
)

// ReportData returns what the platform must put into its report data for these
// exact claim bytes: SHA-512(domain || 00 || claims). simulated must come from
// the policy, and equal the field of the claims.
func ReportData(claims []byte, simulated bool) [64]byte {
	domain := domainReal
	if simulated {
		domain = domainSimulated
	}
	h := sha512.New()
	h.Write([]byte(domain))
	h.Write([]byte{0})
	h.Write(claims)
	var out [64]byte
	h.Sum(out[:0])
	return out
}
