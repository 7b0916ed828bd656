package snp

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// vendor is one simulated world for all tests.
var vendor = sync.OnceValue(func() *sim.Vendor {
	v, err := sim.NewVendor()
	if err != nil {
		panic(err)
	}
	return v
})

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// made is simulated evidence with everything that judging it takes.
type made struct {
	raw  []byte
	ends *attestation.Endorsements
	refs []attestation.Digest
	pol  *policy.Policy
	want check.Expect
}

// machines holds the machines of all tests by what they are: certificates are
// slow to make.
var machines sync.Map

func machine(t testing.TB, cfg sim.Config) *sim.Machine {
	t.Helper()
	key := fmt.Sprintf("%+v", cfg)
	if m, ok := machines.Load(key); ok {
		return m.(*sim.Machine)
	}
	cfg.Vendor, cfg.Platform = vendor(), sim.PlatformSNP
	m, err := sim.New(cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	machines.Store(key, m)
	return m
}

func make1(t testing.TB, cfg sim.Config) *made {
	t.Helper()
	m := machine(t, cfg)
	rd := attestation.ReportData([]byte("claims"), true)
	items, err := m.Collect(context.Background(), rd)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := m.Endorsements()
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Describe()
	if err != nil {
		t.Fatal(err)
	}
	return &made{
		raw: items[0].Raw, refs: items[0].Endorsements, ends: ends,
		pol: &policy.Policy{Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms,
			Evidence: policy.Evidence{MaxCollateralAge: 7 * 86400}},
		want: check.Expect{ReportData: rd[:], Federation: attestation.Digest{1}, At: now, Simulated: true, Roots: d.Roots},
	}
}

func (m *made) appraise() *check.Recorder {
	r := check.NewRecorder("snp")
	Appraise(m.raw, m.ends, m.refs, m.pol, m.want, r)
	return r
}

// aws is a machine as AWS has them: signed with the VLEK of a region, CHIP_ID
// hidden.
var aws = sim.SNPOptions{Provider: "CN=cc-us-east-2.amazonaws.com", MaskChip: true}

// everyCheck are the checks of the list, in their order.
var everyCheck = strings.Fields(`format version signature-algorithm signer product certificate certificate-version chain validity revocation
	provider certificate-chip certificate-tcb signature tcb-format tcb-order provisional-firmware minimum-tcb minimum-launch-tcb
	minimum-committed-tcb debug migration vmpl smt cxl guest-policy measurement id-key author-key guest-svn host-data alias-check
	platform-info mitigations chip chip-denied report-data`)

// TestSound judges machines without faults: every product, key and version.
func TestSound(t *testing.T) {
	t.Parallel()
	for _, product := range []string{"Milan", "Genoa", "Bergamo", "Siena", "Turin"} {
		for i, o := range []sim.SNPOptions{{Report: 2}, aws, {Report: 5, Mitigation: 5, Provider: "CN=example"}, {Report: 3, IDBlock: true}} {
			if i == 1 {
				o.Report = 5
			}
			sound(t, sim.Config{Product: product, SNP: o})
		}
	}
	for _, report := range []uint32{2, 3, 5} {
		sound(t, sim.Config{SNP: sim.SNPOptions{Report: report, Provider: aws.Provider, MaskChip: true}})
	}
}

func sound(t *testing.T, cfg sim.Config) {
	t.Helper()
	m := make1(t, cfg)
	if err := onlySNP(m.pol); err != nil {
		t.Errorf("%s %+v: the simulator's policy: %v", cfg.Product, cfg.SNP, err)
	}
	r := m.appraise()
	expectProblems(t, r, nil)
	if check.Summary(r.Checks()) != check.Pass || !r.IsAuthentic() {
		t.Errorf("%s %+v: %s, authentic %v", cfg.Product, cfg.SNP, check.Summary(r.Checks()), r.IsAuthentic())
	}
	line := m.pol.Platforms.SNP.Products[0]
	if s := r.Seen(); len(s) != 1 || s[0].Issuer != "amd-crl/ARK-"+line || s[0].Number != uint64(now.Unix()) {
		t.Errorf("%s: relied on %v", cfg.Product, s)
	}
	if again := m.appraise(); !slices.Equal(again.Checks(), r.Checks()) {
		t.Errorf("%s: another result for the same evidence", cfg.Product)
	}
	var names []string
	for _, c := range r.Checks() {
		names = append(names, strings.TrimPrefix(c.Name, "snp."))
	}
	if !slices.Equal(names, everyCheck) {
		t.Errorf("%s: checks %v, want %v", cfg.Product, names, everyCheck)
	}
}

// onlySNP checks the part of the policy that this package reads.
func onlySNP(p *policy.Policy) error {
	problems, _ := p.Check().(policy.Problems)
	problems = slices.DeleteFunc(problems, func(x policy.Problem) bool { return !strings.HasPrefix(x.Field, "platforms.snp") })
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// TestCombined judges several faults at once: each has its line, none hides
// another.
func TestCombined(t *testing.T) {
	t.Parallel()
	all := map[string]string{"debug": "", "vmpl": "", "stale-tcb": "", "expired": "", "expired-crl": "", "alias": "", "wrong-nonce": ""}
	r := make1(t, sim.Config{Faults: all}).appraise()
	expectProblems(t, r, fails("debug", "vmpl", "minimum-tcb", "minimum-launch-tcb", "minimum-committed-tcb", "validity", "revocation", "alias-check", "report-data"))
	if !r.IsAuthentic() {
		t.Error("authentic evidence with faults is not authentic")
	}
}

// TestEveryBit flips every single bit of the signed part and of the signature:
// the report is refused for its form, its kind of key, its certificate or its
// signature.
func TestEveryBit(t *testing.T) {
	t.Parallel()
	m := make1(t, sim.Config{SNP: sim.SNPOptions{Report: 5, Mitigation: 1}})
	refusals := []string{"snp.format", "snp.version", "snp.signer", "snp.product", "snp.certificate", "snp.signature"}
	stride := 1
	if testing.Short() {
		stride = 17
	}
	const shards = 4
	for shard := range shards {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			for i := shard * stride; i < 8*0x330; i += shards * stride {
				bad := *m
				bad.raw = bytes.Clone(m.raw)
				bad.raw[i/8] ^= 1 << (i % 8)
				r := bad.appraise()
				if r.IsAuthentic() || check.Summary(r.Checks()) == check.Pass {
					t.Fatalf("bit %d of byte 0x%x: still authentic", i%8, i/8)
				}
				if !slices.ContainsFunc(r.Problems(), func(c check.Check) bool { return slices.Contains(refusals, c.Name) }) {
					t.Fatalf("bit %d of byte 0x%x: refused by %v", i%8, i/8, r.Problems())
				}
			}
		})
	}
}
