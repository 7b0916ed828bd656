package policy

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

// approve returns the approvals of next by the members, in that order.
func approve(t testing.TB, next *Policy, members ...MemberID) [][]byte {
	t.Helper()
	var out [][]byte
	for _, m := range members {
		raw, err := Approve(policyKey(m), m, next)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, raw)
	}
	return out
}

func genesis(t testing.TB) *Chain {
	t.Helper()
	p := example()
	c, err := NewChain(p.Encode(), approve(t, p, "lab-b", "bank-c"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChain(t *testing.T) {
	t.Parallel()
	c := genesis(t)
	second := successor(c.Head(), func(p *Policy) { p.Release.MaxWeightShare = 500 })
	if err := c.Adopt(second.Encode(), approve(t, second, "hospital-a", "bank-c", "lab-b")); err != nil {
		t.Fatal(err)
	}
	third := successor(second, func(p *Policy) { p.Approvals = 3 })
	if err := c.Adopt(third.Encode(), approve(t, third, "hospital-a", "bank-c")); err != nil {
		t.Fatal(err)
	}
	if c.Head().Digest() != third.Digest() || c.At(2).Digest() != second.Digest() || c.At(0) != nil || c.At(4) != nil || c.Federation() != example().Digest() {
		t.Error("wrong versions")
	}
	if got := c.Approvers(1); !slices.Equal(got, []MemberID{"bank-c", "lab-b"}) || c.Approvers(4) != nil {
		t.Errorf("approvers %v, %v", got, c.Approvers(4))
	}
	raw := c.Encode()
	golden(t, "chain", raw)
	again, err := ParseChain(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Encode(), raw) || again.Head().Digest() != third.Digest() {
		t.Error("parsing changed the chain")
	}

	// A node follows by itself only what its own member signed.
	for _, m := range memberIDs {
		if got, want := c.Followable(m), m != "lab-b"; got != want {
			t.Errorf("%s may follow: %v, want %v", m, got, want)
		}
	}
	if c.Followable("") || c.Followable("mallory") {
		t.Error("a stranger may follow")
	}
	late := approve(t, third, "lab-b")[0]
	for range 2 { // the second time changes nothing
		if err := c.AddApproval(late); err != nil {
			t.Fatal(err)
		}
	}
	if !c.Followable("lab-b") || len(c.Approvers(3)) != 3 {
		t.Errorf("after its late approval: approvers %v", c.Approvers(3))
	}
	if err := c.AddApproval(approve(t, second, "lab-b")[0]); err == nil {
		t.Error("approval of another version accepted")
	}
	if _, err := ParseChain(c.Encode()); err != nil {
		t.Error(err)
	}
}

func TestQuorum(t *testing.T) {
	t.Parallel()
	p := example()
	stranger, err := Approve(signer("mallory"), "lab-b", p)
	if err != nil {
		t.Fatal(err)
	}
	online, err := Approve(issuerKey("lab-b"), "lab-b", p)
	if err != nil {
		t.Fatal(err)
	}
	posing, err := Approve(policyKey("lab-b"), "hospital-a", p)
	if err != nil {
		t.Fatal(err)
	}
	outsider, err := Approve(signer("mallory"), "mallory", p)
	if err != nil {
		t.Fatal(err)
	}
	other := clone(p)
	other.Name = "another"
	fed := p.FederationID()
	digest := p.Digest()
	attached, err := cose.Sign(policyKey("lab-b"), memberHeader(TypeApproval, "lab-b", fed), digest[:], fed[:])
	if err != nil {
		t.Fatal(err)
	}
	lift, err := SignLift(policyKey("lab-b"), "lab-b", fed, digest)
	if err != nil {
		t.Fatal(err)
	}
	one := approve(t, p, "bank-c")
	for name, c := range map[string]struct {
		votes [][]byte
		want  string
	}{
		"none":                     {nil, "0 members approved, want 2"},
		"one of two":               {one, "1 members approved, want 2"},
		"the same twice":           {append(one[:1:1], one[0]), "signed twice"},
		"not that member's key":    {append(one[:1:1], stranger), "not a policy key"},
		"the online key":           {append(one[:1:1], online), "not a policy key"},
		"posing as another":        {append(one[:1:1], posing), "not a policy key"},
		"not a member":             {append(one[:1:1], outsider), "not a member"},
		"of another policy":        {append(one[:1:1], approve(t, other, "lab-b")...), "header"},
		"attached payload":         {append(one[:1:1], attached), "not detached"},
		"a vote on something else": {append(one[:1:1], lift), "header"},
		"more than members":        {slices.Repeat(one, 4), "4 approvals"},
	} {
		_, err := NewChain(p.Encode(), c.votes)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		var few *QuorumError
		if got, want := errors.As(err, &few), strings.Contains(c.want, "want 2"); got != want {
			t.Errorf("%s: quorum error %v, want %v", name, got, want)
		}
	}
	raw := approve(t, p, "lab-b")[0]
	golden(t, "approval", raw)
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if m, err := p.VerifyApproval(bad, p); err == nil || m != "" {
			t.Fatalf("byte %d of the approval is not covered", i)
		}
	}
	broken := clone(p)
	broken.Approvals = 1
	if _, err := Approve(policyKey("lab-b"), "lab-b", broken); err == nil {
		t.Error("signed a policy that is not valid")
	}
}

func TestAdoptRefusals(t *testing.T) {
	t.Parallel()
	sim := func(p *Policy) { p.Simulated, p.SimulatedRoots = true, []Digest{{1}} }
	for name, c := range map[string]struct {
		edit func(*Policy)
		want string
	}{
		"version left out":     {func(p *Policy) { p.Version = 3 }, "cannot follow version 1"},
		"other previous":       {func(p *Policy) { p.Previous = Digest{1} }, "follows 01000000"},
		"other federation":     {func(p *Policy) { p.Federation = Digest{1} }, "is of federation 01000000"},
		"made simulated":       {sim, "fixed by genesis"},
		"second genesis":       {func(p *Policy) { p.Version, p.Federation, p.Previous = 1, Digest{}, Digest{} }, "policy fork"},
		"not valid by itself":  {func(p *Policy) { p.Approvals = 1 }, "more than half"},
		"version back to zero": {func(p *Policy) { p.Version = 0 }, "version"},
	} {
		g := genesis(t)
		next := successor(g.Head(), func(p *Policy) { p.Name = "next"; c.edit(p) })
		var votes [][]byte
		if next.Check() == nil {
			votes = approve(t, next, memberIDs...)
		}
		before := g.Encode()
		if err := g.Adopt(next.Encode(), votes); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if !bytes.Equal(g.Encode(), before) {
			t.Errorf("%s: changed the chain", name)
		}
	}

	// The roots of a simulated federation cannot change either.
	p := example()
	sim(p)
	g, err := NewChain(p.Encode(), approve(t, p, "lab-b", "bank-c"))
	if err != nil {
		t.Fatal(err)
	}
	next := successor(p, func(p *Policy) { p.SimulatedRoots = []Digest{{2}} })
	if err := g.Adopt(next.Encode(), approve(t, next, memberIDs...)); err == nil {
		t.Error("roots of a simulated federation changed")
	}
	if _, err := NewChain(next.Encode(), approve(t, next, memberIDs...)); err == nil {
		t.Error("founded with version 2")
	}
}

// TestOldMembersSignTheNew: a new version's own members have no say in it.
func TestOldMembersSignTheNew(t *testing.T) {
	t.Parallel()
	g := genesis(t)
	next := successor(g.Head(), func(p *Policy) {
		for i := range p.Members { // the same names, keys of the attacker
			p.Members[i].PolicyKeys = []cose.Key{signer("mallory", string(p.Members[i].ID)).Public()}
		}
	})
	var votes [][]byte
	for _, m := range memberIDs {
		raw, err := Approve(signer("mallory", string(m)), m, next)
		if err != nil {
			t.Fatal(err)
		}
		votes = append(votes, raw)
	}
	if err := g.Adopt(next.Encode(), votes); err == nil {
		t.Error("the new members adopted themselves")
	}
	if err := g.Adopt(next.Encode(), approve(t, next, "lab-b", "hospital-a")); err != nil {
		t.Error(err)
	}
}

// TestPolicyFork: of two successors of one version, each with enough signatures,
// the first stays; and because N is more than half, one member signed both and is
// named by its signatures (protocol F13).
func TestPolicyFork(t *testing.T) {
	t.Parallel()
	g := genesis(t)
	one := successor(g.Head(), func(p *Policy) { p.Name = "one" })
	two := successor(g.Head(), func(p *Policy) { p.Name = "two" })
	other, err := ParseChain(g.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Adopt(one.Encode(), approve(t, one, "bank-c", "hospital-a")); err != nil {
		t.Fatal(err)
	}
	if err := g.Adopt(two.Encode(), approve(t, two, "hospital-a", "lab-b")); !errors.Is(err, ErrFork) {
		t.Errorf("second successor: %v", err)
	}
	if g.Head().Name != "one" {
		t.Errorf("head is %q", g.Head().Name)
	}
	if err := g.Adopt(one.Encode(), approve(t, one, "bank-c", "hospital-a")); err == nil || errors.Is(err, ErrFork) {
		t.Errorf("the head again: %v", err)
	}

	// Elsewhere the other was first: each chain is valid, neither extends the other,
	// and the quorums overlap.
	if err := other.Adopt(two.Encode(), approve(t, two, "hospital-a", "lab-b")); err != nil {
		t.Fatal(err)
	}
	if err := other.Extends(g); !errors.Is(err, ErrFork) {
		t.Errorf("fork: %v", err)
	}
	var both []MemberID
	for _, m := range g.Approvers(2) {
		if slices.Contains(other.Approvers(2), m) {
			both = append(both, m)
		}
	}
	if !slices.Equal(both, []MemberID{"hospital-a"}) {
		t.Errorf("signed both: %v", both)
	}
	start := genesis(t)
	if err := g.Extends(start); err != nil {
		t.Error(err)
	}
	if err := start.Extends(g); err == nil || errors.Is(err, ErrFork) {
		t.Errorf("shorter chain: %v", err)
	}
}

func TestParseChainRefuses(t *testing.T) {
	t.Parallel()
	p := example()
	votes := approve(t, p, "bank-c", "lab-b")
	file := func(domain string, vs ...chainVersion) []byte {
		return cose.Marshal(chainFile{domain, vs})
	}
	good := chainVersion{p.Encode(), votes}
	if _, err := ParseChain(file(chainDomain, good)); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":       nil,
		"no version":    file(chainDomain),
		"domain":        file("concordat/policy-chain/2", good),
		"order":         file(chainDomain, chainVersion{p.Encode(), [][]byte{votes[1], votes[0]}}),
		"no approvals":  file(chainDomain, chainVersion{p.Encode(), nil}),
		"genesis twice": file(chainDomain, good, good),
		"trailing":      append(file(chainDomain, good), 0),
		"oversized":     make([]byte, MaxChain+1),
	} {
		if _, err := ParseChain(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	raw := genesis(t).Encode()
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 0x20
		if _, err := ParseChain(bad); err == nil {
			t.Fatalf("byte %d is not covered", i)
		}
	}
}

func FuzzParseChain(f *testing.F) {
	f.Add(genesis(f).Encode())
	f.Add([]byte{0xa2})
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseChain(b); err == nil && !bytes.Equal(c.Encode(), b) {
			t.Error("chain has two encodings")
		}
	})
}
