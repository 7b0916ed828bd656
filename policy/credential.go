package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/internal/cose"
)

// TypeCredential is the typ of a node credential.
const TypeCredential = "application/vnd.concordat.credential+cose"

// NodeCredential is a member's word that a key is one of its nodes (protocol
// F6): a COSE_Sign1 by the member's issuer key, with the federation id as
// external data. The member alone issues it; the link enrols nobody.
type NodeCredential struct {
	Federation Digest   `cbor:"1,keyasint"`
	Member     MemberID `cbor:"2,keyasint"`
	NodeKey    cose.Key `cbor:"3,keyasint"` // node id = NodeKey.ID()
	Serial     uint64   `cbor:"4,keyasint"` // the issuer's number for it, for its own records; not 0
	NotAfter   uint64   `cbor:"5,keyasint"` // last second of validity, Unix time
}

// maxUnix is the end of the year 9999: times beyond it are mistakes.
const maxUnix = 253402300799

// NodeID returns the id under which the node is known everywhere.
func (c *NodeCredential) NodeID() Digest { return c.NodeKey.ID() }

func (c *NodeCredential) check() error {
	if c.Federation.IsZero() || c.NodeKey.IsZero() || c.Serial == 0 {
		return fmt.Errorf("credential: federation, node key and serial are required")
	}
	if err := c.Member.Check(); err != nil {
		return fmt.Errorf("credential: member %w", err)
	}
	if c.NotAfter == 0 || c.NotAfter > maxUnix {
		return fmt.Errorf("credential: not_after %d is no time", c.NotAfter)
	}
	return nil
}

// SignCredential issues c with the member's issuer key. Whether the key is the
// member's is for [Policy.VerifyCredential] to say.
func SignCredential(issuer *cose.Signer, c NodeCredential) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	raw, err := cose.Sign(issuer, memberHeader(TypeCredential, c.Member, c.Federation), cose.Marshal(&c), c.Federation[:])
	if err != nil {
		return nil, fmt.Errorf("credential: %w", err)
	}
	return raw, nil
}

// CredentialNode returns the node id that raw claims to be about. It checks no
// signature: it is for whoever files credentials that others verify.
func CredentialNode(raw []byte) (Digest, error) {
	msg, err := cose.Parse(raw)
	if err != nil {
		return Digest{}, fmt.Errorf("credential: %w", err)
	}
	c := new(NodeCredential)
	if err := cose.Unmarshal(msg.Payload, c); err != nil {
		return Digest{}, fmt.Errorf("credential: %w", err)
	}
	return c.NodeID(), nil
}

// VerifyCredential checks that raw is a credential by the issuer key of a member
// of p, in date at the given time and not valid for longer than p allows from
// then on. Denials are the caller's to ask. On an error the other values are
// empty.
func (p *Policy) VerifyCredential(raw []byte, at time.Time) (*NodeCredential, MemberID, error) {
	federation := p.FederationID()
	msg, m, err := p.parseMember(raw, TypeCredential, federation)
	if err != nil {
		return nil, "", fmt.Errorf("credential: %w", err)
	}
	if err := msg.Verify(m.IssuerKey, federation[:]); err != nil {
		return nil, "", fmt.Errorf("credential of %s: %w", m.ID, err)
	}
	c := new(NodeCredential)
	if err := cose.Unmarshal(msg.Payload, c); err != nil {
		return nil, "", fmt.Errorf("credential of %s: %w", m.ID, err)
	}
	if err := c.check(); err != nil {
		return nil, "", err
	}
	if c.Federation != federation || c.Member != m.ID {
		return nil, "", fmt.Errorf("credential of %s: speaks for member %q of federation %s, want %s", m.ID, c.Member, c.Federation.Short(), federation.Short())
	}
	if field := p.holder(c.NodeKey); field != "" {
		return nil, "", fmt.Errorf("credential of %s: node key is also a %s: a key has one job", m.ID, field)
	}
	end := time.Unix(int64(c.NotAfter), 0).UTC()
	if at.Unix() > end.Unix() {
		return nil, "", fmt.Errorf("credential of %s: expired at %s, judged at %s", m.ID, end.Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	}
	if limit := p.Nodes.CredentialAge; end.Unix()-at.Unix() > int64(min(uint64(limit), maxUnix)) {
		return nil, "", fmt.Errorf("credential of %s: valid until %s, longer than the policy's %s from %s", m.ID, end.Format(time.RFC3339), limit.Duration(), at.UTC().Format(time.RFC3339))
	}
	return c, m.ID, nil
}

// holder returns which job of p the key has already, or "".
func (p *Policy) holder(k cose.Key) string {
	for _, m := range p.Members {
		for _, pk := range m.PolicyKeys {
			if pk == k {
				return "policy key of " + string(m.ID)
			}
		}
		if m.IssuerKey == k {
			return "issuer key of " + string(m.ID)
		}
		if sameVerifierKey(m.WitnessKey, vkeyWitness, k) {
			return "witness key of " + string(m.ID)
		}
	}
	if sameVerifierKey(p.Log.Key, vkeyLog, k) {
		return "log key"
	}
	for _, a := range p.SignedApps {
		if slices.Contains(a.Signers, k) {
			return "signer of " + a.App
		}
	}
	return ""
}

const issuerPrefix = "member:"

// memberHeader is the protected header of everything that a member signs under
// a policy.
func memberHeader(typ string, m MemberID, federation Digest) cose.Header {
	return cose.Header{Type: typ, Issuer: issuerPrefix + string(m), Subject: federation.String()}
}

// parseMember parses a message of the type about the federation and finds the
// member of p that it says it is from. It verifies no signature.
func (p *Policy) parseMember(raw []byte, typ string, federation Digest) (*cose.Message, *Member, error) {
	msg, err := cose.Parse(raw)
	if err != nil {
		return nil, nil, err
	}
	id, ok := strings.CutPrefix(msg.Header.Issuer, issuerPrefix)
	m := p.Member(MemberID(id))
	if !ok || m == nil {
		return nil, nil, fmt.Errorf("issuer %q is not a member", msg.Header.Issuer)
	}
	if want := memberHeader(typ, m.ID, federation); msg.Header != want {
		return nil, nil, fmt.Errorf("header is %q about %.64q, want %q about %q", msg.Header.Type, msg.Header.Subject, want.Type, want.Subject)
	}
	return msg, m, nil
}
