package policy

import (
	"encoding/hex"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// MaxSize bounds the canonical form of one policy, in bytes.
const MaxSize = 1 << 20

// Encode returns the canonical form: deterministic CBOR (RFC 8949 4.2) of the
// struct. It does not check p.
func (p *Policy) Encode() []byte { return cose.Marshal(p) }

// Decode reads the canonical form and refuses every other spelling of the same
// policy, every unknown or missing field, and every policy that does not pass
// [Policy.Check]; that error is a [Problems].
func Decode(b []byte) (*Policy, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("policy: %d bytes, limit %d", len(b), MaxSize)
	}
	p := new(Policy)
	if err := cose.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	return p, nil
}

// Digest returns the SHA-256 of the canonical form: what members approve and
// what claims, heads and statements call the policy.
func (p *Policy) Digest() Digest { return cose.Sum(p.Encode()) }

// FederationID returns the digest of the genesis version, which names the
// federation for ever: p's own digest if p is that version.
func (p *Policy) FederationID() Digest {
	if p.Version == 1 {
		return p.Digest()
	}
	return p.Federation
}

// Member returns the member with the id, or nil.
func (p *Policy) Member(id MemberID) *Member {
	for i := range p.Members {
		if p.Members[i].ID == id {
			return &p.Members[i]
		}
	}
	return nil
}

// String returns lower-case hex.
func (h Hex) String() string { return hex.EncodeToString(h) }

// String joins the three registers with slashes.
func (r RTMRs) String() string {
	return r.RTMR0.String() + "/" + r.RTMR1.String() + "/" + r.RTMR2.String()
}
