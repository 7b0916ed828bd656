package policy

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/concordat/concordat/internal/cose"
)

// Check returns nil, or a [Problems] that names everything that is wrong with p:
// a field that is missing, a value out of its range, a list that is not sorted
// or repeats itself, a key with two jobs, fields that contradict each other. It
// does not know the versions before p: see [Chain.Adopt].
func (p *Policy) Check() error {
	c := checker{keys: make(map[string]string), names: make(map[string]string)}
	c.identity(p)
	c.members(p)
	c.platforms(&p.Platforms)
	c.evidence(&p.Evidence)
	c.log(p)
	c.apps(p.Apps)
	c.signedApps(p.SignedApps)
	c.release(p)
	c.nodes(&p.Nodes)
	return c.err()
}

// checker collects problems, and what must be distinct over the whole policy.
type checker struct {
	Problems
	keys  map[string]string // raw public key → field that holds it
	names map[string]string // C2SP key name → field that holds it
}

func (c *checker) identity(p *Policy) {
	if p.Schema != Schema {
		c.add("schema", "is %d, want %d", p.Schema, Schema)
	}
	c.text("name", p.Name)
	switch {
	case p.Version == 0:
		c.add("version", "missing: the genesis version is 1")
	case p.Version == 1:
		if !p.Federation.IsZero() {
			c.add("federation", "stands in the genesis version, whose own digest names the federation")
		}
		if !p.Previous.IsZero() {
			c.add("previous", "stands in the genesis version, which has none before it")
		}
	default:
		if p.Federation.IsZero() {
			c.add("federation", "missing: want the digest of the genesis version")
		}
		if p.Previous.IsZero() {
			c.add("previous", "missing: want the digest of version %d", p.Version-1)
		}
	}
	if p.Simulated && len(p.SimulatedRoots) == 0 {
		c.add("simulated_roots", "missing: a simulated federation trusts its own roots")
	}
	if !p.Simulated && len(p.SimulatedRoots) != 0 {
		c.add("simulated_roots", "stand in a real federation, whose roots are compiled in")
	}
	c.digests("simulated_roots", p.SimulatedRoots)
}

func (c *checker) members(p *Policy) {
	const field = "members"
	if len(p.Members) < 2 {
		c.add(field, "%d given, want at least 2", len(p.Members))
	}
	sorted(c, field, p.Members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	for i, m := range p.Members {
		at := fmt.Sprintf("%s[%d]", field, i)
		if err := m.ID.Check(); err != nil {
			c.add(at+".id", "%v", err)
		}
		if len(m.PolicyKeys) == 0 {
			c.add(at+".policy_keys", "missing: want at least one key that approves for the member")
		}
		sorted(c, at+".policy_keys", m.PolicyKeys, func(a, b cose.Key) int { return bytes.Compare(a.Encode(), b.Encode()) })
		for j, k := range m.PolicyKeys {
			c.key(fmt.Sprintf("%s.policy_keys[%d]", at, j), k)
		}
		c.key(at+".issuer_key", m.IssuerKey)
		c.verifierKey(at+".witness_key", m.WitnessKey, vkeyWitness)
	}
	if m := uint64(len(p.Members)); 2*p.Approvals <= m || p.Approvals > m {
		c.add("approvals", "are %d of %d members, want more than half and at most all", p.Approvals, m)
	}
}

// Check enforces the grammar that [MemberID] states.
func (m MemberID) Check() error {
	if len(m) == 0 || len(m) > 63 {
		return fmt.Errorf("has %d characters, want 1 to 63", len(m))
	}
	for _, r := range m {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return fmt.Errorf("%q: want a-z, 0-9 and '-' only", string(m))
		}
	}
	return nil
}

func (c *checker) evidence(e *Evidence) {
	c.positive("evidence.max_age", uint64(e.MaxAge))
	c.positive("evidence.max_collateral_age", uint64(e.MaxCollateralAge))
	c.positive("evidence.max_epoch_age", uint64(e.MaxEpochAge))
	c.positive("evidence.max_rounds_per_epoch", e.MaxRoundsPerEpoch)
}

func (c *checker) log(p *Policy) {
	if name := c.verifierKey("log.key", p.Log.Key, vkeyLog); p.Log.Origin == "" {
		c.add("log.origin", "missing")
	} else if name != "" && name != p.Log.Origin {
		c.add("log.origin", "%q is not the name %q in log.key", p.Log.Origin, name) // C2SP tlog-checkpoint: the log signs under its origin
	}
	if w := p.Log.Witnesses; w < 1 || w > uint64(len(p.Members)) {
		c.add("log.witnesses", "are %d of %d members, want at least one and at most all", w, len(p.Members))
	}
	c.positive("log.denial_lag", uint64(p.Log.DenialLag))
}

func (c *checker) apps(apps []App) {
	sorted(c, "apps", apps, func(a, b App) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	for i, a := range apps {
		at := fmt.Sprintf("apps[%d]", i)
		if a.Digest.IsZero() {
			c.add(at+".digest", "missing")
		}
		c.text(at+".name", a.Name)
		switch a.Exposure {
		case ExposureAggregate:
		case ExposureIndividual:
			if len(a.Configs) == 0 {
				c.add(at+".configs", "missing: an app that sees single updates is approved with its configuration")
			}
		default:
			c.add(at+".exposure", "is %q, want %q or %q", a.Exposure, ExposureAggregate, ExposureIndividual)
		}
		c.digests(at+".configs", a.Configs)
		c.strategies(at, a.Strategies, a.Exposure)
		c.positive(at+".max_rounds", a.MaxRounds)
		if a.Addressed && !slices.Contains(a.Strategies, StrategyCustom) {
			c.add(at+".addressed", "is set, but only ServerApps send messages of their own: strategies has no %s", StrategyCustom)
		}
	}
}

func (c *checker) strategies(at string, list []string, exposure Exposure) {
	if len(list) == 0 {
		c.add(at+".strategies", "missing: want the names of the strategies that the app may run")
	}
	sorted(c, at+".strategies", list, cmp.Compare[string])
	for j, s := range list {
		class, ok := StrategyClass(s)
		switch field := fmt.Sprintf("%s.strategies[%d]", at, j); {
		case !ok:
			c.add(field, "%q is not a strategy; known are %s", s, strings.Join(Strategies(), ", "))
		case class != ClassMixing && exposure == ExposureAggregate:
			c.add(field, "%s is a %s strategy, which needs exposure: %s", s, class, ExposureIndividual)
		}
	}
}

func (c *checker) signedApps(list []SignedApp) {
	sorted(c, "signed_apps", list, func(a, b SignedApp) int { return cmp.Compare(a.App, b.App) })
	for i, a := range list {
		at := fmt.Sprintf("signed_apps[%d]", i)
		c.text(at+".app", a.App)
		if len(a.Signers) == 0 {
			c.add(at+".signers", "missing: want at least one key that signs the app's bundles")
		}
		sorted(c, at+".signers", a.Signers, func(a, b cose.Key) int { return bytes.Compare(a.Encode(), b.Encode()) })
		for j, k := range a.Signers {
			c.key(fmt.Sprintf("%s.signers[%d]", at, j), k)
		}
		if n := uint64(len(a.Signers)); a.Threshold < 1 || a.Threshold > n {
			c.add(at+".threshold", "is %d of %d signers, want at least one and at most all", a.Threshold, n)
		}
		c.digests(at+".configs", a.Configs)
		c.strategies(at, a.Strategies, ExposureAggregate)
		c.positive(at+".max_rounds", a.MaxRounds)
	}
}

func (c *checker) release(p *Policy) {
	r := &p.Release
	switch n := r.MinContributors; {
	case n < 2:
		c.add("release.min_contributors", "is %d, want at least 2", n)
	case n > uint64(len(p.Members)):
		c.add("release.min_contributors", "is %d, but there are %d members", n, len(p.Members))
	case r.Collusion > n-2:
		c.add("release.collusion", "is %d, so min_contributors must be at least %d, and is %d", r.Collusion, r.Collusion+2, n)
	case r.MaxWeightShare >= 1 && r.MaxWeightShare*n < 1000:
		// Of n members with equal weight each has a share of 1/n.
		c.add("release.max_weight_share", "is %d in a thousand, which %d members can never all keep", r.MaxWeightShare, n)
	}
	if r.MaxWeightShare < 1 || r.MaxWeightShare > 1000 {
		c.add("release.max_weight_share", "is %d, want 1 to 1000 parts per thousand", r.MaxWeightShare)
	}
	c.oneOf("release.cohort", r.Cohort, CohortFixed, CohortSampled)
	c.oneOf("release.dropouts", r.Dropouts, DropoutsRefuse, DropoutsAllow)
	c.oneOf("release.downlink", r.Downlink, DownlinkShared, DownlinkPerNode)
	if r.Cohort == CohortSampled && r.Dropouts == DropoutsRefuse {
		c.add("release.cohort", "is %s, which leaves members out of steps, but dropouts: %s lets no step do without one", CohortSampled, DropoutsRefuse)
	}
	c.positive("release.max_metric_bytes", r.MaxMetricBytes)
	c.positive("release.step_deadline", uint64(r.StepDeadline))
	c.positive("release.ack_deadline", uint64(r.AckDeadline))
}

func (c *checker) nodes(n *NodeRules) {
	c.known("nodes.message_types", n.MessageTypes, "evaluate", "query", "train")
	sorted(c, "nodes.metric_keys", n.MetricKeys, cmp.Compare[string])
	for i, k := range n.MetricKeys {
		c.text(fmt.Sprintf("nodes.metric_keys[%d]", i), k)
	}
	c.positive("nodes.credential_age", uint64(n.CredentialAge))
}

// text demands something that a person can be shown: reports print it.
func (c *checker) text(field, s string) {
	const limit = 128 // arbitrary; fits a line
	switch {
	case s == "":
		c.add(field, "missing")
	case len(s) > limit:
		c.add(field, "has %d bytes, limit %d", len(s), limit)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		c.add(field, "%q has characters that cannot be printed", s)
	}
}

func (c *checker) positive(field string, n uint64) {
	if n == 0 {
		c.add(field, "missing: want at least 1")
	}
}

func (c *checker) oneOf(field, got string, want ...string) {
	if !slices.Contains(want, got) {
		c.add(field, "is %q, want %s", got, strings.Join(want, " or "))
	}
}

// known demands a sorted, not empty list of the known words.
func (c *checker) known(field string, list []string, words ...string) {
	if len(list) == 0 {
		c.add(field, "missing: want some of %s", strings.Join(words, ", "))
	}
	sorted(c, field, list, cmp.Compare[string])
	for i, s := range list {
		if !slices.Contains(words, s) {
			c.add(fmt.Sprintf("%s[%d]", field, i), "%q is not one of %s", s, strings.Join(words, ", "))
		}
	}
}

func (c *checker) digests(field string, list []Digest) {
	sorted(c, field, list, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
	for i, d := range list {
		if d.IsZero() {
			c.add(fmt.Sprintf("%s[%d]", field, i), "missing")
		}
	}
}

// key demands an Ed25519 key that has no other job anywhere in the policy
// (protocol F22).
func (c *checker) key(field string, k cose.Key) {
	if k.IsZero() {
		c.add(field, "missing")
		return
	}
	pub, ok := k.Public().(ed25519.PublicKey)
	if !ok {
		c.add(field, "is a key for %v; members' keys are Ed25519", k.Alg())
		return
	}
	c.job(field, pub)
}

// verifierKey is key for the C2SP form; it returns the key's name, or "".
func (c *checker) verifierKey(field, s string, typ byte) string {
	if s == "" {
		c.add(field, "missing")
		return ""
	}
	name, pub, err := parseVerifierKey(s, typ)
	if err != nil {
		c.add(field, "%v", err)
		return ""
	}
	if other, ok := c.names[name]; ok {
		c.add(field, "has the name %q of %s", name, other)
	}
	c.names[name] = field
	c.job(field, pub)
	return name
}

func (c *checker) job(field string, pub ed25519.PublicKey) {
	if other, ok := c.keys[string(pub)]; ok {
		c.add(field, "is the key of %s: a key has one job", other)
		return
	}
	c.keys[string(pub)] = field
}

// sorted demands that list is in ascending order without repeats, so that one
// policy has one encoding.
func sorted[T any](c *checker, field string, list []T, compare func(a, b T) int) {
	for i := 1; i < len(list); i++ {
		switch d := compare(list[i-1], list[i]); {
		case d == 0:
			c.add(fmt.Sprintf("%s[%d]", field, i), "is the same as the one before")
		case d > 0:
			c.add(fmt.Sprintf("%s[%d]", field, i), "is out of order: the list is sorted")
		}
	}
}
