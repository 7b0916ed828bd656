package policy

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/concordat/concordat/internal/cose"
)

// The typs of a denial, and of a vote to lift one.
const (
	TypeDenial = "application/vnd.concordat.denial+cose"
	TypeLift   = "application/vnd.concordat.lift+cose"
)

// DenialKind says what is denied.
type DenialKind string

// What a member can deny, and what Value then holds.
const (
	DenyMeasurement DenialKind = "measurement" // launch measurement, 48 bytes
	DenyChip        DenialKind = "chip"        // AMD CHIP_ID (64 or 8 bytes), Intel platform instance id (16)
	DenyGPU         DenialKind = "gpu"         // ueid, 1 to 20 bytes
	DenyKey         DenialKind = "key"         // key thumbprint: a node id, a signing key
	DenyCredential  DenialKind = "credential"  // SHA-256 of the credential's bytes
	DenyApp         DenialKind = "app"         // app digest
)

// Denial is one member's word that something must not be relied on any more. It
// is valid as soon as it is seen, by whatever path (protocol F13); only N members
// lift it.
type Denial struct {
	Federation Digest     `cbor:"1,keyasint"`
	Kind       DenialKind `cbor:"2,keyasint"`
	Value      Hex        `cbor:"3,keyasint"`
	Since      uint64     `cbor:"4,keyasint"` // Unix time from which the member distrusts it; 0: always. For reports: it is denied whatever it says
}

func (d *Denial) check() error {
	var ok bool
	switch n := len(d.Value); d.Kind {
	case DenyMeasurement:
		ok = n == measurementSize
	case DenyChip:
		ok = n == chipIDSize || n == turinIDSize || n == piidSize
	case DenyGPU:
		ok = n >= 1 && n <= maxDeviceSize
	case DenyKey, DenyCredential, DenyApp:
		ok = n == len(Digest{})
	default:
		return fmt.Errorf("denial: kind %.60q is not known", string(d.Kind))
	}
	if !ok {
		return fmt.Errorf("denial: %s of %d bytes", d.Kind, len(d.Value))
	}
	if d.Federation.IsZero() || d.Since > maxUnix {
		return fmt.Errorf("denial: federation and a time before the year 10000 are required")
	}
	return nil
}

// SignDenial signs d for the member with one of its policy keys: a COSE_Sign1
// with d as payload and the federation id as external data.
func SignDenial(s *cose.Signer, member MemberID, d Denial) ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	if err := member.Check(); err != nil {
		return nil, fmt.Errorf("denial: member %w", err)
	}
	raw, err := cose.Sign(s, memberHeader(TypeDenial, member, d.Federation), cose.Marshal(&d), d.Federation[:])
	if err != nil {
		return nil, fmt.Errorf("denial: %w", err)
	}
	return raw, nil
}

// VerifyDenial checks that raw is a denial by a member of p.
func (p *Policy) VerifyDenial(raw []byte) (*Denial, MemberID, error) {
	federation := p.FederationID()
	msg, m, err := p.parseMember(raw, TypeDenial, federation)
	if err != nil {
		return nil, "", fmt.Errorf("denial: %w", err)
	}
	k, err := m.policyKey(msg.KeyID)
	if err != nil {
		return nil, "", fmt.Errorf("denial: %w", err)
	}
	if err := msg.Verify(k, federation[:]); err != nil {
		return nil, "", fmt.Errorf("denial of %s: %w", m.ID, err)
	}
	d := new(Denial)
	if err := cose.Unmarshal(msg.Payload, d); err != nil {
		return nil, "", fmt.Errorf("denial of %s: %w", m.ID, err)
	}
	if err := d.check(); err != nil {
		return nil, "", err
	}
	if d.Federation != federation {
		return nil, "", fmt.Errorf("denial of %s: is of federation %s, want %s", m.ID, d.Federation.Short(), federation.Short())
	}
	return d, m.ID, nil
}

// SignLift votes, for the member, to lift the denial whose statement has the
// digest (SHA-256 of its bytes).
func SignLift(s *cose.Signer, member MemberID, federation, denial Digest) ([]byte, error) {
	return vote(s, TypeLift, member, federation, denial)
}

// maxDenials bounds a set; a federation that denies more has members to remove.
const maxDenials = 1 << 16

// Denials is the set of denials that a party has seen. The zero value is empty
// and ready; it is not safe for concurrent use. A denial that was lifted stays
// lifted: its statement, shown again, changes nothing.
type Denials struct {
	seen   map[Digest]seenDenial // by digest of the statement
	denied map[string]int        // kind and value → denials in force
}

type seenDenial struct {
	raw    []byte
	denial Denial
	lifted bool
}

func deniedKey(kind DenialKind, value []byte) string { return string(kind) + "\x00" + string(value) }

// Add verifies a denial under p, the policy in force, and puts it into the set.
// The same statement again is no error.
func (s *Denials) Add(p *Policy, raw []byte) (*Denial, error) {
	id := cose.Sum(raw)
	if old, ok := s.seen[id]; ok { // verified under a policy that was in force then
		return &old.denial, nil
	}
	d, m, err := p.VerifyDenial(raw)
	if err != nil {
		return nil, err
	}
	if len(s.seen) == maxDenials {
		return nil, fmt.Errorf("denial of %s: the set is full at %d", m, maxDenials)
	}
	if s.seen == nil {
		s.seen, s.denied = make(map[Digest]seenDenial), make(map[string]int)
	}
	s.seen[id] = seenDenial{raw: bytes.Clone(raw), denial: *d}
	s.denied[deniedKey(d.Kind, d.Value)]++
	return d, nil
}

// Lift takes back the denial whose statement has the digest, if N distinct
// members of p voted for it. What another denial also denies stays denied.
func (s *Denials) Lift(p *Policy, denial Digest, votes [][]byte) error {
	d, ok := s.seen[denial]
	if !ok {
		return fmt.Errorf("denial %s: not seen", denial.Short())
	}
	if _, err := p.quorum(TypeLift, denial, votes); err != nil {
		return fmt.Errorf("denial %s: lift: %w", denial.Short(), err)
	}
	if !d.lifted {
		d.lifted = true
		s.seen[denial] = d
		s.denied[deniedKey(d.denial.Kind, d.denial.Value)]--
	}
	return nil
}

// Contains reports whether the value of the kind is denied.
func (s *Denials) Contains(kind DenialKind, value []byte) bool {
	return s.denied[deniedKey(kind, value)] > 0
}

// Statements returns the bytes of every denial seen, lifted ones too, in the
// order of their digests. The caller must not change them.
func (s *Denials) Statements() [][]byte {
	var out [][]byte
	for _, id := range s.ids(nil) {
		out = append(out, s.seen[id].raw)
	}
	return out
}

// Digest names the set as claims and heads do: none if nothing was ever denied,
// else Hash("concordat/denials/1", statement digests in ascending order, those
// lifted in ascending order), each list as one string of 32-byte values.
func (s *Denials) Digest() Digest {
	if len(s.seen) == 0 {
		return Digest{}
	}
	join := func(ids []Digest) (b []byte) {
		for _, id := range ids {
			b = append(b, id[:]...)
		}
		return b
	}
	return cose.Hash("concordat/denials/1", join(s.ids(nil)), join(s.ids(func(d seenDenial) bool { return d.lifted })))
}

func (s *Denials) ids(keep func(seenDenial) bool) []Digest {
	var out []Digest
	for id, d := range s.seen {
		if keep == nil || keep(d) {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
	return out
}
