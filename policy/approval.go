package policy

import (
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// TypeApproval is the typ of a member's approval of a policy version.
const TypeApproval = "application/vnd.concordat.policy+cose"

// Approve signs next for the member with one of its policy keys: a COSE_Sign1
// whose payload, the 32 bytes of next's digest, is detached, with the federation
// id as external data. It refuses a policy that does not pass [Policy.Check].
func Approve(s *cose.Signer, member MemberID, next *Policy) ([]byte, error) {
	if err := next.Check(); err != nil {
		return nil, err
	}
	return vote(s, TypeApproval, member, next.FederationID(), next.Digest())
}

// VerifyApproval checks that raw is an approval of next by a member of p with one
// of its policy keys, and returns that member. p is the version that decides: the
// one before next, or next itself where that is genesis.
func (p *Policy) VerifyApproval(raw []byte, next *Policy) (MemberID, error) {
	return p.verifyVote(raw, TypeApproval, p.FederationID(), next.Digest())
}

// vote signs a digest for a member; typ says to what the digest belongs.
func vote(s *cose.Signer, typ string, m MemberID, federation, digest Digest) ([]byte, error) {
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("approval: member %w", err)
	}
	raw, err := cose.SignDetached(s, memberHeader(typ, m, federation), digest[:], federation[:])
	if err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	return raw, nil
}

func (p *Policy) verifyVote(raw []byte, typ string, federation, digest Digest) (MemberID, error) {
	msg, m, err := p.parseMember(raw, typ, federation)
	if err != nil {
		return "", fmt.Errorf("approval: %w", err)
	}
	k, err := m.policyKey(msg.KeyID)
	if err != nil {
		return "", fmt.Errorf("approval: %w", err)
	}
	if err := msg.VerifyDetached(k, digest[:], federation[:]); err != nil {
		return "", fmt.Errorf("approval of %s by %s: %w", digest.Short(), m.ID, err)
	}
	return m.ID, nil
}

func (m *Member) policyKey(id Digest) (cose.Key, error) {
	for _, k := range m.PolicyKeys {
		if k.ID() == id {
			return k, nil
		}
	}
	return cose.Key{}, fmt.Errorf("key %s is not a policy key of %s", id.Short(), m.ID)
}

// quorum demands valid votes of at least N distinct members of p, and no vote
// that is not valid or that a member gave before, so that what is stored says
// exactly who agreed. It returns the members in the order of the votes.
func (p *Policy) quorum(typ string, digest Digest, votes [][]byte) ([]MemberID, error) {
	if len(votes) > len(p.Members) {
		return nil, fmt.Errorf("%d approvals, but there are %d members", len(votes), len(p.Members))
	}
	federation := p.FederationID()
	var who []MemberID
	seen := make(map[MemberID]bool)
	for _, raw := range votes {
		m, err := p.verifyVote(raw, typ, federation, digest)
		if err != nil {
			return nil, err
		}
		if seen[m] {
			return nil, fmt.Errorf("approval of %s: %s signed twice, and counts once", digest.Short(), m)
		}
		seen[m] = true
		who = append(who, m)
	}
	if uint64(len(who)) < p.Approvals {
		return who, &QuorumError{Have: who, Need: p.Approvals}
	}
	return who, nil
}

// QuorumError says that fewer members agreed than the policy demands.
type QuorumError struct {
	Have []MemberID
	Need uint64
}

func (e *QuorumError) Error() string {
	return fmt.Sprintf("%d members approved, want %d", len(e.Have), e.Need)
}
