package snp

import (
	"bytes"
	"context"
	"crypto/x509"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// vendor is one simulated world for all tests: its RSA keys take a second.
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

func make1(t testing.TB, cfg sim.Config) *made {
	t.Helper()
	cfg.Vendor, cfg.Platform = vendor(), sim.PlatformSNP
	m, err := sim.New(cfg, now)
	if err != nil {
		t.Fatal(err)
	}
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

// TestSound judges machines without faults.
func TestSound(t *testing.T) {
	t.Parallel()
	for _, product := range []string{"Milan", "Genoa", "Turin"} {
		m := make1(t, sim.Config{Product: product})
		r := m.appraise()
		expectProblems(t, r, nil)
		if check.Summary(r.Checks()) != check.Pass || !r.IsAuthentic() {
			t.Errorf("%s: %s, authentic %v", product, check.Summary(r.Checks()), r.IsAuthentic())
		}
		if s := r.Seen(); len(s) != 1 || s[0].Issuer != "amd-crl/ARK-"+product || s[0].Number != uint64(now.Unix()) {
			t.Errorf("%s: relied on %v", product, s)
		}
		if again := m.appraise(); !slices.Equal(again.Checks(), r.Checks()) {
			t.Errorf("%s: another result for the same evidence", product)
		}
	}
	// Every check of the list has a line, and no name twice.
	names := map[string]bool{}
	for _, c := range make1(t, sim.Config{}).appraise().Checks() {
		if names[c.Name] {
			t.Errorf("%s is there twice", c.Name)
		}
		names[c.Name] = true
	}
	for _, n := range []string{"format", "version", "signature-algorithm", "signer", "product", "certificate", "chain", "validity", "revocation",
		"certificate-chip", "certificate-tcb", "signature", "tcb-format", "tcb-order", "provisional-firmware", "minimum-tcb", "minimum-launch-tcb",
		"debug", "migration", "smt", "cxl", "vmpl", "measurement", "guest-svn", "host-data", "alias-check", "chip", "report-data"} {
		if !names["snp."+n] {
			t.Errorf("no check %s", n)
		}
	}
}

// TestFaults breaks one thing at a time: exactly the named checks object.
func TestFaults(t *testing.T) {
	t.Parallel()
	fails := func(names ...string) map[string]check.Verdict {
		m := map[string]check.Verdict{}
		for _, n := range names {
			m["snp."+n] = check.Fail
		}
		return m
	}
	is := func(name string, v check.Verdict) map[string]check.Verdict {
		return map[string]check.Verdict{"snp." + name: v}
	}
	for _, c := range []struct {
		fault, value string
		want         map[string]check.Verdict
		authentic    bool
	}{
		{"debug", "", fails("debug"), true},
		{"migration", "", fails("migration"), true},
		{"smt", "", fails("smt"), true},
		{"cxl", "", fails("cxl"), true},
		{"vmpl", "", fails("vmpl"), true},
		{"vmpl", "3", fails("vmpl"), true},
		{"measurement", "", fails("measurement"), true},
		{"stale-tcb", "", fails("minimum-tcb", "minimum-launch-tcb"), true},
		{"stale-launch-tcb", "", fails("minimum-launch-tcb"), true},
		{"provisional-firmware", "", fails("provisional-firmware"), true},
		{"tcb-order", "", fails("tcb-order"), true},
		{"certificate-tcb", "", fails("certificate-tcb"), true},
		{"certificate-chip", "", fails("certificate-chip"), true},
		{"expired", "", fails("validity"), true},
		{"expired-crl", "", fails("revocation"), true},
		{"missing-crl", "", is("revocation", check.Incomplete), true},
		{"missing-certificate", "", is("certificate", check.Incomplete), false},
		{"revoked", "", fails("revocation"), true},
		{"revoked", "ask", fails("revocation"), true},
		{"forged-root", "", fails("chain"), false},
		{"unmarked", "", fails("chain"), false},
		{"masked-chip", "", fails("certificate-chip", "chip"), true},
		{"alias", "", fails("alias-check"), true},
		{"bad-signature", "", fails("signature"), false},
		{"unsigned", "", fails("signer"), false},
		{"wrong-nonce", "", fails("report-data"), true},
		{"report-version", "2", fails("version"), true},
		{"report-version", "5", is("mitigations", check.Unsupported), true},
		{"report-version", "4", is("version", check.Unsupported), false},
	} {
		t.Run(c.fault+c.value, func(t *testing.T) {
			r := make1(t, sim.Config{Faults: map[string]string{c.fault: c.value}}).appraise()
			expectProblems(t, r, c.want)
			if r.IsAuthentic() != c.authentic {
				t.Errorf("authentic %v", r.IsAuthentic())
			}
			if check.Summary(r.Checks()) == check.Pass {
				t.Error("passes")
			}
		})
	}
}

// TestPolicy tightens the policy around sound evidence, one field at a time.
func TestPolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(m *made)
		check string
		want  check.Verdict
	}{
		"no SNP":             {func(m *made) { m.pol.Platforms.SNP = nil }, "platform", check.Fail},
		"product":            {func(m *made) { m.pol.Platforms.SNP.Products = []string{"Turin"} }, "product", check.Fail},
		"version":            {func(m *made) { m.pol.Platforms.SNP.MinVersion = 5 }, "version", check.Fail},
		"measurement":        {func(m *made) { m.pol.Platforms.SNP.Measurements[0] = make([]byte, 48) }, "measurement", check.Fail},
		"chip":               {func(m *made) { m.pol.Platforms.SNP.Chips[0] = make([]byte, 64) }, "chip", check.Fail},
		"short chip":         {func(m *made) { c := m.pol.Platforms.SNP.Chips; c[0] = c[0][:8] }, "chip", check.Fail},
		"any chip":           {func(m *made) { m.pol.Platforms.SNP.Chips, m.pol.Platforms.SNP.AnyChip = nil, true }, "chip", check.NotChecked},
		"boot loader":        {func(m *made) { m.pol.Platforms.SNP.MinTCB[0].BootLoader++ }, "minimum-tcb", check.Fail},
		"TEE":                {func(m *made) { m.pol.Platforms.SNP.MinTCB[0].TEE++ }, "minimum-tcb", check.Fail},
		"SNP":                {func(m *made) { m.pol.Platforms.SNP.MinTCB[0].SNP++ }, "minimum-tcb", check.Fail},
		"microcode":          {func(m *made) { m.pol.Platforms.SNP.MinTCB[0].Microcode++ }, "minimum-tcb", check.Fail},
		"FMC":                {func(m *made) { m.pol.Platforms.SNP.MinTCB[0].FMC++ }, "minimum-tcb", check.Fail},
		"no minimum":         {func(m *made) { m.pol.Platforms.SNP.MinTCB = nil }, "minimum-tcb", check.Fail},
		"guest SVN":          {func(m *made) { m.pol.Platforms.SNP.MinGuestSVN = 2 }, "guest-svn", check.Fail},
		"host data":          {func(m *made) { m.pol.Platforms.SNP.HostData = true }, "host-data", check.Fail},
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
			c.spoil(m)
			got, ok := verdicts(m.appraise())["snp."+c.check]
			if !ok || got.Verdict != c.want {
				t.Errorf("%s is %s: want %s, got %s", c.check, got.Verdict, got.Expected, got.Got)
			}
		})
	}
}

const crlMonth = 30 * 24 * time.Hour

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
	expectProblems(t, m.appraise(), map[string]check.Verdict{"snp.host-data": check.Fail})
}

// TestWithoutPolicy judges simulated evidence by the built-in policy: no roots
// but AMD's, so nothing simulated is authentic.
func TestWithoutPolicy(t *testing.T) {
	t.Parallel()
	m := make1(t, sim.Config{})
	m.pol, m.want = nil, check.Expect{At: now, AllowMissingCollateral: true}
	r := m.appraise()
	expectProblems(t, r, map[string]check.Verdict{"snp.chain": check.Fail})
	if r.IsAuthentic() {
		t.Error("simulated evidence is authentic without a policy")
	}
}

// TestLists puts several revocation lists side by side: those of strangers do
// not count, and one that revokes is not outvoted.
func TestLists(t *testing.T) {
	t.Parallel()
	crl := func(m *made) attestation.Endorsement {
		return attestation.Endorsement{Type: attestation.TypeAMDCRL, Data: m.ends.ByType(attestation.TypeAMDCRL, nil)[0]}
	}
	m := make1(t, sim.Config{})
	stranger := make1(t, sim.Config{Faults: map[string]string{"forged-root": "", "revoked": ""}})
	for _, e := range []attestation.Endorsement{crl(stranger), {Type: attestation.TypeAMDCRL, Data: []byte("no list")}} {
		if _, err := m.ends.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	expectProblems(t, m.appraise(), nil)
	if _, err := m.ends.Add(crl(make1(t, sim.Config{Faults: map[string]string{"revoked": ""}}))); err != nil {
		t.Fatal(err)
	}
	expectProblems(t, m.appraise(), map[string]check.Verdict{"snp.revocation": check.Fail})
}

// TestEveryByte flips bits all over the signed part and the signature, at least
// two in every byte: no flip stays authentic.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	m := make1(t, sim.Config{})
	rep, err := snp.Parse(m.raw)
	if err != nil {
		t.Fatal(err)
	}
	s, err := findSigner(certsOf(m.ends, nil, snp.VCEK), rep)
	if err != nil {
		t.Fatal(err)
	}
	if !s.checkReport(m.raw, rep) {
		t.Fatal("sound report does not verify")
	}
	for i := 0; i < 8*0x330; i += 3 {
		raw := bytes.Clone(m.raw)
		raw[i/8] ^= 1 << (i % 8)
		if bad, err := snp.Parse(raw); err == nil && s.checkReport(raw, bad) {
			t.Fatalf("bit %d of byte 0x%x: still authentic", i%8, i/8)
		}
	}
}

// FuzzAppraise feeds reports and certificates that nobody made.
func FuzzAppraise(f *testing.F) {
	m := make1(f, sim.Config{})
	f.Add(m.raw, m.ends.ByType(attestation.TypeAMDVCEK, nil)[0], m.ends.ByType(attestation.TypeAMDChain, nil)[0], m.ends.ByType(attestation.TypeAMDCRL, nil)[0])
	f.Add(m.raw, []byte("x"), []byte("x"), []byte("x"))
	f.Fuzz(func(t *testing.T, raw, vcek, chain, crl []byte) {
		ends := new(attestation.Endorsements)
		for typ, b := range map[string][]byte{attestation.TypeAMDVCEK: vcek, attestation.TypeAMDChain: chain, attestation.TypeAMDCRL: crl} {
			if _, err := ends.Add(attestation.Endorsement{Type: typ, Data: b}); err != nil {
				return
			}
		}
		r := check.NewRecorder("snp")
		Appraise(raw, ends, nil, m.pol, m.want, r)
		if len(r.Checks()) == 0 {
			t.Error("no check recorded")
		}
		if r.IsAuthentic() && !bytes.Equal(raw, m.raw) {
			t.Error("forged report is authentic")
		}
	})
}

func BenchmarkAppraise(b *testing.B) {
	m := make1(b, sim.Config{})
	b.ReportAllocs()
	for b.Loop() {
		if r := m.appraise(); check.Summary(r.Checks()) != check.Pass {
			b.Fatal(r.Problems())
		}
	}
}

// BenchmarkAppraiseReal is a genuine Milan report, without a revocation list.
func BenchmarkAppraiseReal(b *testing.B) {
	raw := vector(b, "test-report.bin")
	ends := set(b, attestation.Endorsement{Type: attestation.TypeAMDVCEK, Data: vector(b, "test-vcek.der")})
	b.ReportAllocs()
	for b.Loop() {
		r := check.NewRecorder("snp")
		Appraise(raw, ends, nil, nil, check.Expect{At: at2026, AllowMissingCollateral: true}, r)
		if !r.IsAuthentic() {
			b.Fatal(r.Problems())
		}
	}
}

// TestRootIsSelfSigned offers the accepted root key under a certificate that the
// vendor did not make.
func TestRootIsSelfSigned(t *testing.T) {
	t.Parallel()
	m := make1(t, sim.Config{})
	chain := m.ends.ByType(attestation.TypeAMDChain, nil)[0]
	p, err := parsePair(chain)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := parseSigner(m.ends.ByType(attestation.TypeAMDVCEK, nil)[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPath(leaf.cert, p, snp.Genoa, &m.want); err != nil {
		t.Fatal(err)
	}
	raw := bytes.Clone(p.ark.Raw)
	raw[len(raw)-1] ^= 1 // the last byte of the signature
	bad, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPath(leaf.cert, pair{p.ask, bad}, snp.Genoa, &m.want); err == nil {
		t.Error("a root with a broken signature is accepted")
	}
}
