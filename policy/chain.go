package policy

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/concordat/concordat/internal/cose"
)

// Chain is every version of a federation's policy from genesis to the one in
// force, each with the approvals that adopted it. It is what programs take as
// "the policy". A Chain is not safe for use while [Chain.Adopt] or
// [Chain.AddApproval] runs; its policies are never changed, not by the caller
// either.
type Chain struct{ versions []version }

type version struct {
	policy    *Policy
	approvals [][]byte   // sorted by member
	approvers []MemberID // the same, parsed
}

// Limits of an encoded chain. A policy with a member approval each has room for
// hundreds of versions.
const (
	MaxChain    = 16 << 20 // bytes
	maxVersions = 4096
)

// chainDomain opens every encoded chain; another format is another string.
const chainDomain = "concordat/policy-chain/1"

type chainFile struct {
	Domain   string         `cbor:"1,keyasint"`
	Versions []chainVersion `cbor:"2,keyasint"`
}

type chainVersion struct {
	Policy    []byte   `cbor:"1,keyasint"`
	Approvals [][]byte `cbor:"2,keyasint"`
}

// ErrFork is wrapped by [Chain.Adopt] and [Chain.Extends] where another policy
// already has the place.
var ErrFork = errors.New("policy fork")

// NewChain founds a federation: genesis is version 1 in its canonical form,
// approved by N of its own members.
func NewChain(genesis []byte, approvals [][]byte) (*Chain, error) {
	p, err := Decode(genesis)
	if err != nil {
		return nil, err
	}
	if p.Version != 1 {
		return nil, fmt.Errorf("policy chain: starts with version %d, want the genesis version 1", p.Version)
	}
	c := new(Chain)
	if err := c.append(p, p, approvals); err != nil {
		return nil, err
	}
	return c, nil
}

// Adopt puts next, in its canonical form, in force if N distinct members of the
// version before signed it, it is that version's direct successor, and it leaves
// alone what genesis fixed: federation, Simulated and SimulatedRoots. The first
// successor of a version stays; the error for every other wraps [ErrFork]. An
// approval that is not valid is an error, not ignored. On an error c is as
// before.
func (c *Chain) Adopt(next []byte, approvals [][]byte) error {
	p, err := Decode(next)
	if err != nil {
		return err
	}
	if err := c.MayFollow(p); err != nil {
		return err
	}
	return c.append(c.Head(), p, approvals)
}

// MayFollow checks all of [Chain.Adopt] but the approvals: what a member asks
// before it signs next.
func (c *Chain) MayFollow(next *Policy) error {
	if err := next.Check(); err != nil {
		return err
	}
	err := next.succeeds(c.Head(), c.Federation())
	if old := c.At(next.Version); err != nil && old != nil && old.Digest() != next.Digest() {
		return fmt.Errorf("%w: version %d is %s, adopted before %s", ErrFork, next.Version, old.Digest().Short(), next.Digest().Short())
	}
	return err
}

// succeeds checks that p may come right after head.
func (p *Policy) succeeds(head *Policy, federation Digest) error {
	switch {
	case p.Version == 1:
		return fmt.Errorf("policy chain: version 1 founds a federation, and cannot follow version %d", head.Version)
	case p.Federation != federation:
		return fmt.Errorf("policy chain: version %d is of federation %s, want %s", p.Version, p.Federation.Short(), federation.Short())
	case p.Version != head.Version+1:
		return fmt.Errorf("policy chain: version %d cannot follow version %d", p.Version, head.Version)
	case p.Previous != head.Digest():
		return fmt.Errorf("policy chain: version %d follows %s, but version %d is %s", p.Version, p.Previous.Short(), head.Version, head.Digest().Short())
	case p.Simulated != head.Simulated || !slices.Equal(p.SimulatedRoots, head.SimulatedRoots):
		return errors.New("policy chain: simulated and simulated_roots are fixed by genesis")
	}
	return nil
}

func (c *Chain) append(voters, p *Policy, approvals [][]byte) error {
	if len(c.versions) == maxVersions {
		return fmt.Errorf("policy chain: limit of %d versions", maxVersions)
	}
	v := version{policy: p}
	who, err := voters.quorum(TypeApproval, p.Digest(), approvals)
	if err != nil {
		return fmt.Errorf("policy version %d: %w", p.Version, err)
	}
	for i, m := range who {
		v.insert(m, approvals[i])
	}
	c.versions = append(c.versions, v)
	return nil
}

func (v *version) insert(m MemberID, raw []byte) {
	i, _ := slices.BinarySearch(v.approvers, m)
	v.approvers = slices.Insert(v.approvers, i, m)
	v.approvals = slices.Insert(v.approvals, i, bytes.Clone(raw))
}

// AddApproval adds an approval of the head that came after its adoption: it
// changes nothing but who signed, on which [Chain.Followable] looks. The same
// member's second approval is ignored.
func (c *Chain) AddApproval(raw []byte) error {
	voters, head := c.voters(len(c.versions)-1), &c.versions[len(c.versions)-1]
	m, err := voters.VerifyApproval(raw, head.policy)
	if err != nil {
		return err
	}
	if !slices.Contains(head.approvers, m) {
		head.insert(m, raw)
	}
	return nil
}

// voters returns the policy whose members decide on the version at index i.
func (c *Chain) voters(i int) *Policy { return c.versions[max(i-1, 0)].policy }

// Head returns the version in force.
func (c *Chain) Head() *Policy { return c.versions[len(c.versions)-1].policy }

// At returns the version with the number, or nil.
func (c *Chain) At(version uint64) *Policy {
	if version == 0 || version > uint64(len(c.versions)) {
		return nil
	}
	return c.versions[version-1].policy
}

// Federation returns the digest of the genesis version.
func (c *Chain) Federation() Digest { return c.versions[0].policy.Digest() }

// Approvers returns the members that signed the version, sorted; nil if there is
// no such version.
func (c *Chain) Approvers(version uint64) []MemberID {
	if c.At(version) == nil {
		return nil
	}
	return slices.Clone(c.versions[version-1].approvers)
}

// Followable reports whether a node of the member may take up the head by
// itself: only if its own member signed it (protocol F13). It says nothing on
// whether the head extends what the node followed before: see [Chain.Extends].
func (c *Chain) Followable(own MemberID) bool {
	return own != "" && slices.Contains(c.versions[len(c.versions)-1].approvers, own)
}

// Extends checks that c holds every version of old unchanged. The error of two
// histories wraps [ErrFork].
func (c *Chain) Extends(old *Chain) error {
	for i, v := range old.versions {
		if i >= len(c.versions) {
			return fmt.Errorf("policy chain: ends at version %d, but version %d is known", len(c.versions), len(old.versions))
		}
		if have, want := c.versions[i].policy.Digest(), v.policy.Digest(); have != want {
			return fmt.Errorf("%w: version %d is %s, and is known as %s", ErrFork, i+1, have.Short(), want.Short())
		}
	}
	return nil
}

// Encode returns the chain file: deterministic CBOR of
// {1: "concordat/policy-chain/1", 2: [{1: canonical policy, 2: [approvals, sorted by member]}]}.
func (c *Chain) Encode() []byte {
	f := chainFile{Domain: chainDomain}
	for _, v := range c.versions {
		f.Versions = append(f.Versions, chainVersion{v.policy.Encode(), v.approvals})
	}
	return cose.Marshal(f)
}

// ParseChain reads what [Chain.Encode] wrote and checks everything in it again:
// every version, every link between two, every approval.
func ParseChain(b []byte) (*Chain, error) {
	if len(b) > MaxChain {
		return nil, fmt.Errorf("policy chain: %d bytes, limit %d", len(b), MaxChain)
	}
	var f chainFile
	if err := cose.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("policy chain: %w", err)
	}
	if f.Domain != chainDomain {
		return nil, fmt.Errorf("policy chain: domain is %.60q, want %q", f.Domain, chainDomain)
	}
	if len(f.Versions) == 0 {
		return nil, errors.New("policy chain: empty")
	}
	c, err := NewChain(f.Versions[0].Policy, f.Versions[0].Approvals)
	if err != nil {
		return nil, err
	}
	for _, v := range f.Versions[1:] {
		if err := c.Adopt(v.Policy, v.Approvals); err != nil {
			return nil, err
		}
	}
	if !bytes.Equal(c.Encode(), b) {
		return nil, errors.New("policy chain: approvals are not sorted by member")
	}
	return c, nil
}
