package snp

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// with returns a machine with one fault.
func with(cfg sim.Config, fault, value string) sim.Config {
	cfg.Faults = map[string]string{fault: value}
	return cfg
}

// rule is a policy for evidence, and what one check says.
type rule struct {
	name  string
	cfg   sim.Config
	edit  func(p *policy.SNP)
	check string
	want  check.Verdict
	says  string
}

var rules = []rule{
	{"product", plain, func(p *policy.SNP) { p.Products = []string{"Turin"} }, "product", check.Fail, "generation"},
	{"floor", milan, func(p *policy.SNP) { p.Products = []string{"Genoa", "Turin"} }, "product", check.Fail, "Milan"},
	{"version", plain, func(p *policy.SNP) { p.MinVersion = 5 }, "version", check.Fail, "at least 5"},
	{"old version", with(plain, "report-version", "2"), func(p *policy.SNP) { p.MinVersion = 2 }, "version", check.Pass, "2"},
	{"measurement", plain, func(p *policy.SNP) { p.Measurements[0] = make([]byte, 48) }, "measurement", check.Fail, ""},
	{"no measurement", plain, func(p *policy.SNP) { p.Measurements = nil }, "measurement", check.Fail, ""},
	{"two measurements", plain, func(p *policy.SNP) { p.Measurements = append(p.Measurements, make([]byte, 48)) }, "measurement", check.Pass, ""},
	{"guest SVN", plain, func(p *policy.SNP) { p.MinGuestSVN = 2 }, "guest-svn", check.Fail, "at least 2"},
	{"host data", plain, func(p *policy.SNP) { p.HostData = true }, "host-data", check.Fail, ""},
	{"SMT allowed", with(plain, "smt", ""), func(p *policy.SNP) { p.AllowSMT = true }, "smt", check.Pass, "on"},
	{"CXL allowed", with(plain, "cxl", ""), func(p *policy.SNP) { p.AllowCXL = true }, "cxl", check.Pass, "on"},

	{"boot loader", plain, func(p *policy.SNP) { p.MinTCB[0].BootLoader++ }, "minimum-tcb", check.Fail, "bootloader 10 below 11"},
	{"TEE", plain, func(p *policy.SNP) { p.MinTCB[0].TEE++ }, "minimum-tcb", check.Fail, "tee 1 below 2"},
	{"SNP", plain, func(p *policy.SNP) { p.MinTCB[0].SNP++ }, "minimum-launch-tcb", check.Fail, "snp 23 below 24"},
	{"microcode", plain, func(p *policy.SNP) { p.MinTCB[0].Microcode++ }, "minimum-committed-tcb", check.Fail, "microcode 84 below 85"},
	{"FMC", turin, func(p *policy.SNP) { p.MinTCB[0].FMC++ }, "minimum-tcb", check.Fail, "fmc 1 below 2"},
	{"higher, but not everywhere", plain, func(p *policy.SNP) {
		p.MinTCB[0] = policy.ProdTCB{Product: "Genoa", SNP: 24}
	}, "minimum-tcb", check.Fail, "snp 23 below 24"},
	{"no minimum", plain, func(p *policy.SNP) { p.MinTCB = nil }, "minimum-tcb", check.Fail, "min_tcb"},
	{"minimum of another line", plain, func(p *policy.SNP) { p.MinTCB[0].Product = "Turin" }, "minimum-tcb", check.Fail, "none"},
	{"provisional", with(plain, "provisional-firmware", ""), func(p *policy.SNP) { p.AllowProvisional = true }, "provisional-firmware", check.Pass, "permitted by the policy"},
	{"provisional build", with(plain, "provisional-build", ""), func(p *policy.SNP) { p.AllowProvisional = true }, "provisional-firmware", check.Pass, "1.55.5"},
	{"provisional over old", with(plain, "stale-committed-tcb", ""), func(p *policy.SNP) { p.AllowProvisional = true }, "minimum-committed-tcb", check.Fail, "snp 22 below 23"},
	{"provisional the wrong way", with(plain, "committed-order", ""), func(p *policy.SNP) { p.AllowProvisional = true }, "tcb-order", check.Fail, "COMMITTED"},

	{"chip", plain, func(p *policy.SNP) { p.Chips[0] = make([]byte, 64) }, "chip", check.Fail, "did not list"},
	{"short chip", plain, func(p *policy.SNP) { p.Chips[0] = p.Chips[0][:8] }, "chip", check.Fail, ""},
	{"long chip", turin, func(p *policy.SNP) { p.Chips[0] = append(bytes.Clone(p.Chips[0]), make([]byte, 56)...) }, "chip", check.Fail, ""},
	{"no chips", plain, func(p *policy.SNP) { p.Chips = nil }, "chip", check.Fail, ""},
	{"any chip", plain, func(p *policy.SNP) { p.Chips, p.AnyChip = nil, true }, "chip", check.NotChecked, "forges every enclave"},
	{"any chip, masked", with(plain, "masked-chip", ""), func(p *policy.SNP) { p.Chips, p.AnyChip = nil, true }, "chip", check.Fail, "masked"},
	{"any provider's chip, masked", masking, func(p *policy.SNP) {}, "chip", check.NotChecked, "its key forges every enclave"},
	{"provider, masked, with a list", masking, func(p *policy.SNP) { p.AnyChip, p.Chips = false, []policy.Hex{make([]byte, 64)} }, "chip", check.Fail, "masked"},
	{"denied chip", plain, func(p *policy.SNP) { p.Denied, p.Chips, p.AnyChip = p.Chips, nil, true }, "chip-denied", check.Fail, "deny this chip"},
	{"denied short chip", turin, func(p *policy.SNP) { p.Denied, p.Chips, p.AnyChip = p.Chips, nil, true }, "chip-denied", check.Fail, "deny this chip"},
	{"listed and denied", plain, func(p *policy.SNP) { p.Denied = p.Chips }, "chip-denied", check.Fail, ""},
	{"another denied", plain, func(p *policy.SNP) { p.Denied = []policy.Hex{make([]byte, 64)} }, "chip-denied", check.Pass, ""},
	{"denied, masked", masking, func(p *policy.SNP) { p.Denied = []policy.Hex{make([]byte, 64)} }, "chip-denied", check.Fail, "masked"},

	{"no provider", masking, func(p *policy.SNP) { p.Providers = nil }, "signer", check.Fail, "add the provider"},
	{"other provider", masking, func(p *policy.SNP) { p.Providers = []string{"CN=cc-eu-west-1.amazonaws.com"} }, "provider", check.Fail, "region"},
	{"providers and a VCEK", plain, func(p *policy.SNP) { p.Providers = []string{"CN=x"} }, "signer", check.Pass, "VCEK"},

	{"unchecked alias", with(plain, "alias", ""), func(p *policy.SNP) { p.AllowUncheckedAlias = true }, "alias-check", check.NotChecked, "BadRAM"},
	{"checked alias", plain, func(p *policy.SNP) { p.AllowUncheckedAlias = true }, "alias-check", check.Pass, ""},
	{"guest policy", plain, func(p *policy.SNP) { p.GuestPolicy = snp.PolicyWords() }, "guest-policy", check.Fail, "lacks aes-256-xts, ciphertext-hiding, page-swap-disabled, rapl-disabled, single-socket"},
	{"guest policy met", with(plain, "guest-policy", "3d00000"), func(p *policy.SNP) { p.GuestPolicy = snp.PolicyWords() }, "guest-policy", check.Pass, "POLICY 0x3d20000"},
	{"guest policy met in part", with(plain, "guest-policy", "3500000"), func(p *policy.SNP) { p.GuestPolicy = snp.PolicyWords() }, "guest-policy", check.Fail, "lacks rapl-disabled"},
	{"unknown guest policy", plain, func(p *policy.SNP) { p.GuestPolicy = []string{"debug"} }, "guest-policy", check.Fail, "debug"},
	{"platform", plain, func(p *policy.SNP) { p.PlatformRequired = []string{"ciphertext-hiding", "ecc"} }, "platform-info", check.Fail, "lacks ciphertext-hiding"},
	{"platform met", plain, func(p *policy.SNP) { p.PlatformRequired, p.PlatformForbidden = []string{"ecc"}, []string{"smt", "tio"} }, "platform-info", check.Pass, ""},
	{"platform hides", with(plain, "platform-info", "30"), func(p *policy.SNP) { p.PlatformRequired = []string{"ciphertext-hiding"} }, "platform-info", check.Pass, ""},
	{"platform with TIO", with(plain, "platform-info", "a0"), func(p *policy.SNP) { p.PlatformForbidden = []string{"tio"} }, "platform-info", check.Fail, "has tio"},
	{"platform with a bit to come", with(plain, "platform-info", "100000024"), func(p *policy.SNP) { p.PlatformForbidden = []string{"tio"} }, "platform-info", check.Pass, ""},
	{"unknown platform word", plain, func(p *policy.SNP) { p.PlatformForbidden = []string{"x"} }, "platform-info", check.Fail, "has x"},
	{"mitigations", newest, func(p *policy.SNP) { p.Mitigations = 8 }, "mitigations", check.Fail, "current lacks 0x8"},
	{"mitigations met", newest, func(p *policy.SNP) { p.Mitigations = 4 }, "mitigations", check.Pass, "launch 0x5, current 0x5"},
	{"mitigations in an old report", plain, func(p *policy.SNP) { p.Mitigations = 1 }, "mitigations", check.Fail, "version 3 states no mitigations"},
	{"no mitigations", newest, func(p *policy.SNP) { p.Mitigations = 0 }, "mitigations", check.NotChecked, "demands none"},
	{"id key", plain, func(p *policy.SNP) { p.IDKeys = []policy.Hex{make([]byte, 48)} }, "id-key", check.Fail, "none"},
	{"author key", plain, func(p *policy.SNP) { p.AuthorKeys = []policy.Hex{make([]byte, 48)} }, "author-key", check.Fail, "none"},
	{"author of another id key", with(idBlock, "id-key", ""), func(p *policy.SNP) { p.IDKeys = nil }, "author-key", check.Pass, ""},
}

// TestPolicy holds evidence against policies, one field at a time, and looks at
// the check that the field is for.
func TestPolicy(t *testing.T) {
	t.Parallel()
	for _, c := range rules {
		t.Run(c.name, func(t *testing.T) {
			m := make1(t, c.cfg)
			c.edit(m.pol.Platforms.SNP)
			got, ok := verdicts(m.appraise())["snp."+c.check]
			if !ok || got.Verdict != c.want {
				t.Errorf("%s is %s: want %s, got %s", c.check, got.Verdict, got.Expected, got.Got)
			}
			if text := got.Expected + "\n" + got.Got + "\n" + got.Advice; !strings.Contains(text, c.says) {
				t.Errorf("%s does not say %q:\n%s", c.check, c.says, text)
			}
		})
	}
}

// TestZeroPolicy judges sound evidence by a policy in which nothing is set: a
// field that is not set accepts nothing.
func TestZeroPolicy(t *testing.T) {
	t.Parallel()
	m := make1(t, masking)
	m.pol.Platforms.SNP = &policy.SNP{}
	expectProblems(t, m.appraise(), fails("signer", "product", "provider", "minimum-tcb", "measurement", "chip"))
	m.pol.Platforms.SNP = nil
	expectProblems(t, m.appraise(), fails("platform"))
}

const crlMonth = 30 * 24 * time.Hour

// TestExpect changes what is expected beside the reference values.
func TestExpect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		edit  func(m *made)
		check string
		want  check.Verdict
	}{
		"report data":        {func(m *made) { m.want.ReportData = make([]byte, 64) }, "report-data", check.Fail},
		"half report data":   {func(m *made) { m.want.ReportData = m.want.ReportData[:32] }, "report-data", check.Fail},
		"no report data":     {func(m *made) { m.want.ReportData = nil }, "report-data", check.NotChecked},
		"collateral age":     {func(m *made) { m.pol.Evidence.MaxCollateralAge = 60 }, "revocation", check.Fail},
		"after the list":     {func(m *made) { m.want.At = now.Add(crlMonth); m.pol.Evidence.MaxCollateralAge *= 9 }, "revocation", check.Fail},
		"before the list":    {func(m *made) { m.want.At = now.Add(-2 * time.Hour) }, "revocation", check.Fail},
		"no roots":           {func(m *made) { m.want.Roots = nil }, "chain", check.Fail},
		"another root":       {func(m *made) { m.want.Roots = []attestation.Digest{{1}} }, "chain", check.Fail},
		"real federation":    {func(m *made) { m.want.Simulated, m.want.Roots = false, nil }, "chain", check.Fail},
		"pinned in real one": {func(m *made) { m.want.Simulated = false }, "chain", check.Fail},
		"no endorsements":    {func(m *made) { m.ends = nil }, "certificate", check.Incomplete},
		"other references":   {func(m *made) { m.refs = []attestation.Digest{{1}} }, "chain", check.Pass},
	} {
		t.Run(name, func(t *testing.T) {
			m := make1(t, sim.Config{})
			c.edit(m)
			got, ok := verdicts(m.appraise())["snp."+c.check]
			if !ok || got.Verdict != c.want {
				t.Errorf("%s is %s: want %s, got %s", c.check, got.Verdict, got.Expected, got.Got)
			}
		})
	}
}

func TestHostDataBound(t *testing.T) {
	t.Parallel()
	fed := attestation.Digest{1}
	m := make1(t, sim.Config{HostData: fed[:]})
	for _, required := range []bool{true, false} {
		m.pol.Platforms.SNP.HostData = required
		expectProblems(t, m.appraise(), nil)
	}
	// Bound to another federation: refused even where binding is optional.
	m.want.Federation = attestation.Digest{2}
	expectProblems(t, m.appraise(), fails("host-data"))
}

// TestWithoutPolicy judges simulated evidence by the built-in policy: no roots
// but AMD's, so nothing simulated is authentic.
func TestWithoutPolicy(t *testing.T) {
	t.Parallel()
	for _, cfg := range []sim.Config{plain, masking, turin, newest} {
		m := make1(t, cfg)
		m.pol, m.want = nil, check.Expect{At: now, AllowMissingCollateral: true}
		r := m.appraise()
		expectProblems(t, r, fails("chain"))
		if r.IsAuthentic() {
			t.Error("simulated evidence is authentic without a policy")
		}
	}
}

// TestLists puts several revocation lists side by side: those of strangers do
// not count, and one that revokes is not outvoted, whatever its age.
func TestLists(t *testing.T) {
	t.Parallel()
	crl := func(faults ...string) attestation.Endorsement {
		cfg := sim.Config{Faults: map[string]string{}}
		for _, f := range faults {
			cfg.Faults[f] = ""
		}
		return attestation.Endorsement{Type: attestation.TypeAMDCRL, Data: make1(t, cfg).ends.ByType(attestation.TypeAMDCRL, nil)[0]}
	}
	m := make1(t, sim.Config{})
	add := func(e attestation.Endorsement) {
		if _, err := m.ends.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	add(crl("forged-root", "revoked"))
	add(crl("forged-crl", "revoked"))
	add(crl("expired-crl"))
	add(attestation.Endorsement{Type: attestation.TypeAMDCRL, Data: []byte("no list")})
	expectProblems(t, m.appraise(), nil)
	for _, how := range [][]string{{"revoked"}, {"revoked", "expired-crl"}, {"revoked", "future-crl"}} {
		m = make1(t, sim.Config{})
		add(crl(how...))
		expectProblems(t, m.appraise(), fails("revocation"))
	}
}
