package policy

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/internal/cose"
)

var day = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func credential(p *Policy) NodeCredential {
	return NodeCredential{
		Federation: p.FederationID(),
		Member:     "hospital-a",
		NodeKey:    signer("hospital-a", "node").Public(),
		Serial:     7,
		NotAfter:   uint64(day.Add(30 * 24 * time.Hour).Unix()),
	}
}

func TestCredential(t *testing.T) {
	t.Parallel()
	p := example()
	want := credential(p)
	raw, err := SignCredential(issuerKey("hospital-a"), want)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "credential", raw)
	c, m, err := p.VerifyCredential(raw, day)
	if err != nil {
		t.Fatal(err)
	}
	if *c != want || m != "hospital-a" || c.NodeID() != want.NodeKey.ID() {
		t.Errorf("got %+v of %s", c, m)
	}
	next := successor(p, func(q *Policy) { q.Name = "later" })
	if _, _, err := next.VerifyCredential(raw, day); err != nil {
		t.Errorf("under the next version: %v", err)
	}
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if c, m, err := p.VerifyCredential(bad, day); err == nil || c != nil || m != "" {
			t.Fatalf("byte %d is not covered", i)
		}
	}
}

func TestCredentialRefusals(t *testing.T) {
	t.Parallel()
	p := example()
	fed := p.FederationID()
	good := credential(p)
	sign := func(s *cose.Signer, h cose.Header, aad Digest, c NodeCredential) []byte {
		raw, err := cose.Sign(s, h, cose.Marshal(&c), aad[:])
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	issuer := issuerKey("hospital-a")
	head := memberHeader(TypeCredential, "hospital-a", fed)
	with := func(edit func(*NodeCredential)) []byte {
		c := good
		edit(&c)
		return sign(issuer, head, fed, c)
	}
	for name, c := range map[string]struct {
		raw  []byte
		at   time.Time
		want string
	}{
		"last second":           {with(func(*NodeCredential) {}), time.Unix(int64(good.NotAfter), 999), ""},
		"expired":               {with(func(*NodeCredential) {}), time.Unix(int64(good.NotAfter)+1, 0), "expired"},
		"too long":              {with(func(c *NodeCredential) { c.NotAfter = uint64(day.Unix()) + uint64(p.Nodes.CredentialAge) + 1 }), day, "longer than the policy"},
		"longest":               {with(func(c *NodeCredential) { c.NotAfter = uint64(day.Unix()) + uint64(p.Nodes.CredentialAge) }), day, ""},
		"no end":                {with(func(c *NodeCredential) { c.NotAfter = 0 }), day, "no time"},
		"end of time":           {with(func(c *NodeCredential) { c.NotAfter = 1 << 63 }), day, "no time"},
		"no serial":             {with(func(c *NodeCredential) { c.Serial = 0 }), day, "required"},
		"other member's name":   {with(func(c *NodeCredential) { c.Member = "bank-c" }), day, "speaks for"},
		"other federation":      {with(func(c *NodeCredential) { c.Federation = Digest{1} }), day, "speaks for"},
		"policy key as node":    {with(func(c *NodeCredential) { c.NodeKey = policyKey("bank-c").Public() }), day, "policy key of bank-c"},
		"issuer as node":        {with(func(c *NodeCredential) { c.NodeKey = issuer.Public() }), day, "issuer key of hospital-a"},
		"witness as node":       {with(func(c *NodeCredential) { c.NodeKey = signer("lab-b", "witness").Public() }), day, "witness key of lab-b"},
		"log as node":           {with(func(c *NodeCredential) { c.NodeKey = signer("log").Public() }), day, "log key"},
		"issuer of another":     {sign(issuerKey("bank-c"), head, fed, good), day, "signed by key"},
		"by a policy key":       {sign(policyKey("hospital-a"), head, fed, good), day, "signed by key"},
		"external data":         {sign(issuer, head, Digest{1}, good), day, "does not verify"},
		"type":                  {sign(issuer, memberHeader(TypeApproval, "hospital-a", fed), fed, good), day, "header"},
		"subject":               {sign(issuer, memberHeader(TypeCredential, "hospital-a", Digest{1}), fed, good), day, "header"},
		"issuer not a member":   {sign(issuer, memberHeader(TypeCredential, "mallory", fed), fed, good), day, "not a member"},
		"nothing":               {nil, day, "COSE_Sign1"},
		"a hundred years later": {with(func(*NodeCredential) {}), day.AddDate(100, 0, 0), "expired"},
	} {
		_, m, err := p.VerifyCredential(c.raw, c.at)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil || m != "" || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v; want %q", name, m, err, c.want)
		}
	}
	bad := good
	bad.Serial = 0
	if _, err := SignCredential(issuer, bad); err == nil {
		t.Error("signed a credential without serial")
	}
}

func FuzzVerifyCredential(f *testing.F) {
	p := example()
	raw, err := SignCredential(issuerKey("hospital-a"), credential(p))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := p.VerifyCredential(b, day); err == nil && !bytes.Equal(b, raw) {
			t.Error("forged")
		}
	})
}

func TestAllowRun(t *testing.T) {
	t.Parallel()
	p := example()
	all := []MemberID{"bank-c", "hospital-a", "lab-b"}
	good := RunTerms{App: Digest{1}, Config: Digest{5}, Exposure: ExposureAggregate, Strategy: "fedavg", Rounds: 100, Cohort: all}
	single := RunTerms{App: Digest{2}, Config: Digest{7}, Exposure: ExposureIndividual, Strategy: "fedmedian", Rounds: 1, Cohort: append(all, all...)}
	for name, c := range map[string]struct {
		base RunTerms
		edit func(*RunTerms)
		want string
	}{
		"aggregate":            {good, func(*RunTerms) {}, ""},
		"individual":           {single, func(*RunTerms) {}, ""},
		"own code":             {single, func(r *RunTerms) { r.Strategy = StrategyCustom }, ""},
		"unknown app":          {good, func(r *RunTerms) { r.App = Digest{3} }, RefusedApp},
		"no app":               {good, func(r *RunTerms) { r.App = Digest{} }, RefusedApp},
		"no config":            {good, func(r *RunTerms) { r.Config = Digest{} }, RefusedConfig},
		"unknown config":       {single, func(r *RunTerms) { r.Config = Digest{9} }, RefusedConfig},
		"more exposure":        {good, func(r *RunTerms) { r.Exposure = ExposureIndividual }, RefusedExposure},
		"less exposure":        {single, func(r *RunTerms) { r.Exposure = ExposureAggregate }, RefusedExposure},
		"strategy not listed":  {good, func(r *RunTerms) { r.Strategy = "fedyogi" }, RefusedStrategy},
		"strategy not known":   {good, func(r *RunTerms) { r.Strategy = "" }, RefusedStrategy},
		"no rounds":            {good, func(r *RunTerms) { r.Rounds = 0 }, RefusedRounds},
		"too many rounds":      {good, func(r *RunTerms) { r.Rounds = 101 }, RefusedRounds},
		"stranger":             {good, func(r *RunTerms) { r.Cohort = append([]MemberID{"mallory"}, all...) }, RefusedCohort},
		"few members":          {good, func(r *RunTerms) { r.Cohort = all[:2] }, RefusedCohort},
		"one member, 10 nodes": {good, func(r *RunTerms) { r.Cohort = append(all[:2:2], all[0], all[0], all[0], all[1]) }, RefusedCohort},
	} {
		r := c.base
		c.edit(&r)
		err := p.AllowRun(r, nil)
		var refusal *Refusal
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &refusal) || refusal.Reason != c.want) {
			t.Errorf("%s: %v, want reason %q", name, err, c.want)
		}
	}
	// A policy that nobody checked gains nothing from a class that it misplaces.
	p.Apps[0].Strategies = []string{"krum"}
	good.Strategy = "krum"
	var refusal *Refusal
	if err := p.AllowRun(good, nil); !errors.As(err, &refusal) || refusal.Reason != RefusedStrategy {
		t.Errorf("krum with exposure aggregate: %v", err)
	}
}
