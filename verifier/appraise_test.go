package verifier

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

var vendor = sync.OnceValue(func() *sim.Vendor {
	v, err := sim.NewVendor()
	if err != nil {
		panic(err)
	}
	return v
})

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func key(words string) *cose.Signer {
	seed := sha256.Sum256([]byte(words))
	s, err := cose.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	return s
}

// noteKey returns a C2SP verifier key (typ 1: Ed25519, 4: cosignature).
func noteKey(name string, typ byte) string {
	data := append([]byte{typ}, key(name).Public().Public().(ed25519.PublicKey)...)
	h := sha256.Sum256(slices.Concat([]byte(name), []byte{'\n'}, data))
	return fmt.Sprintf("%s+%x+%s", name, h[:4], base64.StdEncoding.EncodeToString(data))
}

// testPolicy returns the genesis version of a simulated federation that accepts
// the described machine.
func testPolicy(t testing.TB, d *sim.Description) *policy.Policy {
	t.Helper()
	p := &policy.Policy{
		Schema: policy.Schema, Version: 1, Name: "test", Approvals: 2,
		Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms,
		Evidence: policy.Evidence{MaxAge: 600, MaxCollateralAge: 30 * 86400, MaxEpochAge: 86400, MaxRoundsPerEpoch: 100},
		Log:      policy.Log{Origin: "log.example", Key: noteKey("log.example", 1), Witnesses: 1, MaxUnpublishedSteps: 1, DenialLag: 60},
		Release: policy.Release{
			MinContributors: 2, MaxWeightShare: 600, Cohort: policy.CohortFixed, Dropouts: policy.DropoutsRefuse,
			Downlink: policy.DownlinkShared, MaxMetricBytes: 1024, StepDeadline: 60, AckDeadline: 60,
		},
		Apps:  []policy.App{{Digest: policy.Digest{1}, Name: "app", Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: 10}},
		Nodes: policy.NodeRules{MessageTypes: []string{"train"}, MetricKeys: []string{"loss"}, CredentialAge: 86400},
	}
	for _, id := range []policy.MemberID{"a", "b", "c"} {
		p.Members = append(p.Members, policy.Member{
			ID: id, PolicyKeys: []cose.Key{key(string(id) + " policy").Public()}, IssuerKey: key(string(id) + " issuer").Public(),
			WitnessKey: noteKey(string(id)+".example/witness", 4),
		})
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	return p
}

// federation is one enclave of a simulated federation and one node's challenge.
type federation struct {
	machine *sim.Machine
	policy  *policy.Policy
	claims  *attestation.Claims
	nonce   *attestation.NonceProof
}

func newFederation(t testing.TB, cfg sim.Config) *federation {
	t.Helper()
	cfg.Vendor = vendor()
	m, err := sim.New(cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Describe()
	if err != nil {
		t.Fatal(err)
	}
	p := testPolicy(t, d)
	signer, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	var tree attestation.NonceTree
	for i := range 5 {
		if _, err := tree.Add(attestation.Digest{byte(i + 1)}, [32]byte{byte(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	return &federation{
		machine: m, policy: p, nonce: tree.Proof(2),
		claims: &attestation.Claims{
			Federation: p.FederationID(), Policy: p.Digest(), PolicyVersion: 1, Instance: attestation.ID{1}, Role: attestation.RoleAggregator,
			Epoch: 1, SignPub: signer.Public(), KEMPub: make([]byte, attestation.KEMKeySize), Image: attestation.Digest{2}, Config: attestation.Digest{3},
			NonceRoot: tree.Root(), NonceCount: tree.Count(), Simulated: true, IssuedAt: uint64(now.Unix()),
		},
	}
}

// evidence makes the envelope as an enclave does: GPUs first, then claims, then
// the CPU.
func (f *federation) evidence(t testing.TB) (*attestation.Evidence, *attestation.Endorsements) {
	t.Helper()
	var nonces [][32]byte
	for i := range f.machine.GPUs() {
		nonces = append(nonces, attestation.GPUNonce(f.claims, i))
	}
	gpus, err := f.machine.CollectGPU(context.Background(), nonces)
	if err != nil {
		t.Fatal(err)
	}
	if f.claims.GPU.IsZero() {
		f.claims.GPU = attestation.GPUDigest(gpus)
	}
	claims := f.claims.Encode()
	cpu, err := f.machine.Collect(context.Background(), attestation.ReportData(claims, true))
	if err != nil {
		t.Fatal(err)
	}
	ends, err := f.machine.Endorsements()
	if err != nil {
		t.Fatal(err)
	}
	return &attestation.Evidence{Claims: claims, Items: append(cpu, gpus...)}, ends
}

func (f *federation) appraise(t testing.TB) *Result {
	t.Helper()
	e, ends := f.evidence(t)
	r, err := Appraise(e, ends, f.policy, f.nonce, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// problems returns the names of the checks that are neither pass nor not-checked.
func problems(r *Result) (names []string) {
	for _, c := range r.Checks() {
		if c.Verdict != Pass && c.Verdict != NotChecked {
			names = append(names, c.Name)
		}
	}
	return names
}

func TestAppraise(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]sim.Config{
		"snp":          {Platform: sim.PlatformSNP},
		"snp and GPUs": {Platform: sim.PlatformSNP, GPUs: 2},
		"tdx":          {Platform: sim.PlatformTDX},
		"tdx and GPU":  {Platform: sim.PlatformTDX, GPUs: 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFederation(t, cfg)
			e, ends := f.evidence(t)
			r, err := Appraise(e, ends, f.policy, f.nonce, now)
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict() != PassSimulated || !r.Authentic() || !r.Simulated() {
				t.Fatalf("%s, authentic %v: %v", r.Verdict(), r.Authentic(), problems(r))
			}
			pass, err := r.Passed()
			if err != nil {
				t.Fatal(err)
			}
			if pass.IsZero() || !bytes.Equal(pass.Claims().Encode(), e.Claims) {
				t.Error("the pass holds other claims")
			}
			// The result belongs to its arguments alone, also after a round trip.
			again, err := attestation.ParseEvidence(e.Encode())
			if err != nil {
				t.Fatal(err)
			}
			r2, err := Appraise(again, ends, f.policy, f.nonce, now)
			if err != nil || !slices.Equal(r.Checks(), r2.Checks()) || !slices.Equal(r.Seen(), r2.Seen()) {
				t.Errorf("another result for the same evidence: %v", err)
			}
			// An auditor without a nonce of his own sees a pass, but may not join.
			r, err = Appraise(e, ends, f.policy, nil, now)
			if err != nil || r.Verdict() != PassSimulated {
				t.Fatalf("without a nonce: %v, %v", r.Verdict(), err)
			}
			if _, err := r.Passed(); !errors.Is(err, ErrNotPassed) {
				t.Errorf("a result without a nonce became a pass: %v", err)
			}
		})
	}
}

// TestClaims changes what the enclave says: the hardware vouches for it all the
// same, and exactly the named check objects.
func TestClaims(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformSNP})
	good := *f.claims
	for name, c := range map[string]struct {
		spoil func(c *attestation.Claims)
		want  []string
	}{
		"federation":     {func(c *attestation.Claims) { c.Federation = attestation.Digest{9} }, []string{"claims.federation"}},
		"policy":         {func(c *attestation.Claims) { c.Policy = attestation.Digest{9} }, []string{"claims.policy"}},
		"policy version": {func(c *attestation.Claims) { c.PolicyVersion = 2 }, []string{"claims.policy-version"}},
		"real":           {func(c *attestation.Claims) { c.Simulated = false }, []string{"claims.simulated"}},
		"GPU":            {func(c *attestation.Claims) { c.GPU = attestation.Digest{9} }, []string{"claims.gpu"}},
		"nonce root":     {func(c *attestation.Claims) { c.NonceRoot = attestation.Digest{9} }, []string{"claims.nonce"}},
		"nonce count":    {func(c *attestation.Claims) { c.NonceCount = 6 }, []string{"claims.nonce"}},
		"schema":         {func(c *attestation.Claims) { c.Role = "node" }, []string{"claims.schema"}},
		"epoch":          {func(c *attestation.Claims) { c.Epoch = 0 }, []string{"claims.schema"}},
	} {
		*f.claims = good
		c.spoil(f.claims)
		r := f.appraise(t)
		if got := problems(r); !slices.Equal(got, c.want) || r.Verdict() != Fail {
			t.Errorf("%s: %s by %v", name, r.Verdict(), got)
		}
		if _, err := r.Passed(); !errors.Is(err, ErrNotPassed) || !strings.Contains(err.Error(), c.want[0]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEnvelope changes the envelope after it was made.
func TestEnvelope(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformSNP, GPUs: 2})
	other := newFederation(t, sim.Config{Platform: sim.PlatformSNP, Chip: "other"})
	otherE, _ := other.evidence(t)
	for name, c := range map[string]struct {
		spoil func(e *attestation.Evidence)
		want  []string
	}{
		"no items": {func(e *attestation.Evidence) { e.Items = nil }, []string{"envelope.items"}},
		"no CPU":   {func(e *attestation.Evidence) { e.Items = e.Items[1:] }, []string{"envelope.items"}},
		"two CPUs": {func(e *attestation.Evidence) { e.Items = append(e.Items, e.Items[0]) }, []string{"envelope.items"}},
		"CPU last": {func(e *attestation.Evidence) { slices.Reverse(e.Items) }, []string{"envelope.items"}},
		"unknown":  {func(e *attestation.Evidence) { e.Items[0].Kind = "sgx" }, []string{"envelope.items"}},
		"TPM beside": {func(e *attestation.Evidence) {
			e.Items = append(e.Items, attestation.Item{Kind: attestation.KindTPM, Raw: []byte("x")})
		}, []string{"envelope.tpm"}},
		"other claims": {func(e *attestation.Evidence) { e.Claims = otherE.Claims }, []string{"claims.federation", "claims.policy", "claims.gpu", "snp.report-data", "gpu[0].nonce", "gpu[1].nonce"}},
		"other CPU":    {func(e *attestation.Evidence) { e.Items[0] = otherE.Items[0] }, nil},
		"one byte":     {func(e *attestation.Evidence) { e.Claims[len(e.Claims)-1] ^= 1 }, []string{"snp.report-data"}},
		"GPU missing":  {func(e *attestation.Evidence) { e.Items = e.Items[:2] }, []string{"claims.gpu", "gpu.count"}},
		"GPUs swapped": {func(e *attestation.Evidence) { e.Items[1], e.Items[2] = e.Items[2], e.Items[1] }, []string{"claims.gpu", "gpu[0].nonce", "gpu[1].nonce"}},
		"GPU twice":    {func(e *attestation.Evidence) { e.Items[2] = e.Items[1] }, []string{"claims.gpu", "gpu[1].nonce", "gpu.distinct"}},
	} {
		e, ends := f.evidence(t)
		c.spoil(e)
		r, err := Appraise(e, ends, f.policy, f.nonce, now)
		if err != nil {
			t.Fatal(err)
		}
		got := problems(r)
		for _, w := range c.want {
			if !slices.Contains(got, w) {
				t.Errorf("%s: %s does not object, only %v", name, w, got)
			}
		}
		if c.want != nil && len(got) != len(c.want) {
			t.Errorf("%s: %v", name, got)
		}
		if v := r.Verdict(); v == Pass || v == PassSimulated {
			t.Errorf("%s: %s", name, v)
		}
		if _, err := r.Passed(); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
}

// TestNonce offers evidence that answers another node.
func TestNonce(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformSNP})
	f.nonce.Nonce[0] ^= 1
	if r := f.appraise(t); !slices.Equal(problems(r), []string{"claims.nonce"}) {
		t.Errorf("%v", problems(r))
	}
}

// TestFiveLocks opens all locks but one between simulated evidence and a real
// federation, one test a lock.
func TestFiveLocks(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformSNP})
	realPolicy := *f.policy
	realPolicy.Simulated, realPolicy.SimulatedRoots = false, nil
	f.claims.Federation, f.claims.Policy, f.claims.Simulated = realPolicy.FederationID(), realPolicy.Digest(), false
	e, ends := f.evidence(t)
	r, err := Appraise(e, ends, &realPolicy, f.nonce, now)
	if err != nil {
		t.Fatal(err)
	}
	if r.Authentic() || r.Verdict() != Fail || !slices.Contains(problems(r), "snp.chain") {
		t.Errorf("roots: %s by %v", r.Verdict(), problems(r))
	}
	// Report data of the real domain, so that only the roots differ.
	items, err := f.machine.Collect(context.Background(), attestation.ReportData(e.Claims, false))
	if err != nil {
		t.Fatal(err)
	}
	e.Items = items
	r, err = Appraise(e, ends, &realPolicy, f.nonce, now)
	if err != nil || !slices.Equal(problems(r), []string{"snp.chain"}) {
		t.Errorf("roots alone: %v, %v", problems(r), err)
	}
	// A policy that holds both is none.
	both := realPolicy
	both.SimulatedRoots = f.policy.SimulatedRoots
	if _, err := Appraise(e, ends, &both, f.nonce, now); err == nil {
		t.Error("a real policy with a simulator's roots is accepted")
	}
	// Claims that deny the simulation, and report data of the real domain, in a
	// simulated federation.
	f.claims.Federation, f.claims.Policy, f.claims.Simulated = f.policy.FederationID(), f.policy.Digest(), true
	e, ends = f.evidence(t)
	e.Items, err = f.machine.Collect(context.Background(), attestation.ReportData(e.Claims, false))
	if err != nil {
		t.Fatal(err)
	}
	r, err = Appraise(e, ends, f.policy, f.nonce, now)
	if err != nil || !slices.Equal(problems(r), []string{"snp.report-data"}) {
		t.Errorf("domain alone: %v, %v", problems(r), err)
	}
	// A sound simulation never says pass.
	if r := f.appraise(t); r.Verdict() != PassSimulated {
		t.Errorf("verdict %s", r.Verdict())
	}
}

func TestAppraiseArguments(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformSNP})
	e, ends := f.evidence(t)
	if _, err := Appraise(e, ends, nil, f.nonce, now); err == nil {
		t.Error("no policy: no error")
	}
	if _, err := Appraise(e, ends, new(policy.Policy), f.nonce, now); err == nil {
		t.Error("zero policy: no error")
	}
	if _, err := Appraise(e, ends, f.policy, f.nonce, time.Time{}); err == nil {
		t.Error("no time: no error")
	}
	r, err := Appraise(nil, nil, f.policy, f.nonce, now)
	if err != nil || r.Verdict() != Incomplete {
		t.Errorf("no evidence: %v, %v", r.Verdict(), err)
	}
	r, err = Appraise(e, nil, f.policy, f.nonce, now)
	if err != nil || r.Verdict() != Incomplete || r.Authentic() {
		t.Errorf("no endorsements: %v, %v", r.Verdict(), err)
	}
	var zero Result
	if zero.Verdict() != Fail {
		t.Error("the zero result does not fail")
	}
	if _, err := zero.Passed(); !errors.Is(err, ErrNotPassed) {
		t.Error("the zero result passes")
	}
	if p := (Passed{}); !p.IsZero() || p.Claims() != nil || p.Result() != nil {
		t.Error("the zero pass holds something")
	}
}

func TestAppraiseItem(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformSNP})
	e, ends := f.evidence(t)
	raw := e.Items[0].Raw
	rd := attestation.ReportData(e.Claims, true)
	r, err := AppraiseItem(attestation.KindSNP, raw, ends, f.policy, rd[:], now)
	if err != nil || r.Verdict() != PassSimulated || !r.Authentic() {
		t.Errorf("with a policy: %v, %v", problems(r), err)
	}
	if _, err := r.Passed(); err == nil {
		t.Error("a single item became a pass")
	}
	r, err = AppraiseItem(attestation.KindSNP, raw, ends, nil, nil, now)
	if err != nil || r.Verdict() != Fail || r.Authentic() {
		t.Errorf("simulated evidence by the built-in policy: %v, %v", r.Verdict(), err)
	}
	r, err = AppraiseItem(attestation.KindTPM, raw, ends, nil, nil, now)
	if err != nil || r.Verdict() != Fail {
		t.Errorf("TPM: %v, %v", r.Verdict(), err)
	}
	r, err = AppraiseItem("sgx", raw, ends, nil, nil, now)
	if err != nil || r.Verdict() != Unsupported {
		t.Errorf("unknown kind: %v, %v", r.Verdict(), err)
	}
}

func TestCheckJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal([]Check{{Name: "a", Verdict: PassSimulated, Expected: "b", Got: "c", Advice: "d"}, {Name: "e"}})
	const want = `[{"name":"a","verdict":"pass-simulated","expected":"b","got":"c","advice":"d"},{"name":"e","verdict":"fail"}]`
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}

func BenchmarkAppraise(b *testing.B) {
	f := newFederation(b, sim.Config{Platform: sim.PlatformSNP})
	e, ends := f.evidence(b)
	for b.Loop() {
		if r, err := Appraise(e, ends, f.policy, f.nonce, now); err != nil || r.Verdict() != PassSimulated {
			b.Fatal(err)
		}
	}
}
