package snp

import (
	"bytes"
	"encoding/pem"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// vector reads a genuine file, or skips.
func vector(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: no genuine evidence to judge")
	}
	b, err := os.ReadFile(filepath.Join(dir, "snp", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func set(t testing.TB, docs ...attestation.Endorsement) *attestation.Endorsements {
	t.Helper()
	s, err := attestation.NewEndorsements(docs...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// verdicts returns the checks of r by name.
func verdicts(r *check.Recorder) map[string]check.Check {
	m := map[string]check.Check{}
	for _, c := range r.Checks() {
		m[c.Name] = c
	}
	return m
}

var (
	at2025 = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)
	at2026 = time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
)

// TestRealEvidence judges genuine reports by the built-in policy.
func TestRealEvidence(t *testing.T) {
	milan := attestation.Endorsement{Type: attestation.TypeAMDVCEK, Data: vector(t, "test-vcek.der")}
	badVCEK := attestation.Endorsement{Type: attestation.TypeAMDVCEK, Data: vector(t, "test-vcek-invalid-new.der")}
	vlek := attestation.Endorsement{Type: attestation.TypeAMDVLEK, Data: vector(t, "test-vlek.der")}
	for _, c := range []struct {
		name, report string
		ends         *attestation.Endorsements
		at           time.Time
		want         check.Verdict
		authentic    bool
		not          map[string]check.Verdict // the checks that are neither pass nor not-checked
	}{
		{"milan", "test-report.bin", set(t, milan), at2026, check.Pass, true, nil},
		{"milan before its certificate", "test-report.bin", set(t, milan), time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), check.Fail, true,
			map[string]check.Verdict{"snp.validity": check.Fail}},
		{"milan without its certificate", "test-report.bin", nil, at2026, check.Incomplete, false,
			map[string]check.Verdict{"snp.certificate": check.Incomplete}},
		{"wrongly signed certificate", "test-report.bin", set(t, badVCEK), at2026, check.Fail, false,
			map[string]check.Verdict{"snp.chain": check.Fail}},
		{"both certificates", "test-report.bin", set(t, badVCEK, milan), at2026, check.Pass, true, nil},
		{"vlek", "test-vlek-report.bin", set(t, vlek), at2025, check.Fail, true,
			map[string]check.Verdict{"snp.vmpl": check.Fail}},
		{"vlek expired", "test-vlek-report.bin", set(t, vlek), at2026, check.Fail, true,
			map[string]check.Verdict{"snp.vmpl": check.Fail, "snp.validity": check.Fail}},
		{"certificate of another report", "test-vlek-report.bin", set(t, milan), at2025, check.Fail, false,
			map[string]check.Verdict{"snp.vmpl": check.Fail, "snp.certificate": check.Incomplete}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := check.NewRecorder("snp")
			Appraise(vector(t, c.report), c.ends, nil, nil, check.Expect{At: c.at, AllowMissingCollateral: true}, r)
			if got := check.Summary(r.Checks()); got != c.want || r.IsAuthentic() != c.authentic {
				t.Errorf("verdict %s, authentic %v", got, r.IsAuthentic())
			}
			expectProblems(t, r, c.not)
		})
	}
}

// TestDebugGuest judges a genuine report of a guest with debugging, which is in
// this repository: see testdata.
func TestDebugGuest(t *testing.T) {
	t.Parallel()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	raw := read("milan-debug-report.bin")
	ends := set(t, attestation.Endorsement{Type: attestation.TypeAMDVCEK, Data: read("milan-debug-vcek.der")})
	r := check.NewRecorder("snp")
	Appraise(raw, ends, nil, nil, check.Expect{At: at2026, AllowMissingCollateral: true}, r)
	if !r.IsAuthentic() {
		t.Error("not authentic")
	}
	expectProblems(t, r, fails("debug"))
	for i := 0; i < 8*0x330; i += 29 {
		bad := bytes.Clone(raw)
		bad[i/8] ^= 1 << (i % 8)
		r := check.NewRecorder("snp")
		Appraise(bad, ends, nil, nil, check.Expect{At: at2026, AllowMissingCollateral: true}, r)
		if r.IsAuthentic() {
			t.Fatalf("bit %d of byte 0x%x: still authentic", i%8, i/8)
		}
	}
}

// expectProblems demands that the problems of r are exactly want.
func expectProblems(t *testing.T, r *check.Recorder, want map[string]check.Verdict) {
	t.Helper()
	got := map[string]check.Verdict{}
	for _, c := range r.Problems() {
		got[c.Name] = c.Verdict
		if want[c.Name] != c.Verdict || want == nil {
			t.Errorf("%s is %s: want %s, got %s", c.Name, c.Verdict, c.Expected, c.Got)
		}
	}
	for name, v := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is not %s", name, v)
		}
	}
}

// TestRealEvidencePolicy judges genuine reports by policies that accept
// everything that they can, and then less.
func TestRealEvidencePolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		vlek bool
		at   time.Time
		edit func(p *policy.SNP)
		want map[string]check.Verdict // beside the list that the vectors do not hold
	}{
		"milan":             {false, at2026, func(p *policy.SNP) {}, nil},
		"milan provisional": {false, at2026, func(p *policy.SNP) { p.AllowProvisional = false }, fails("provisional-firmware")}, // COMMITTED below CURRENT
		"milan alias":       {false, at2026, func(p *policy.SNP) { p.AllowUncheckedAlias = false }, fails("alias-check")},       // firmware from before BadRAM
		"milan smt":         {false, at2026, func(p *policy.SNP) { p.AllowSMT = false }, fails("smt")},
		"milan tcb": {false, at2026, func(p *policy.SNP) { p.MinTCB[0].Microcode = 116 },
			fails("minimum-tcb", "minimum-launch-tcb", "minimum-committed-tcb")},
		"milan version": {false, at2026, func(p *policy.SNP) { p.MinVersion = 3 }, fails("version")},
		"milan denied":  {false, at2026, func(p *policy.SNP) { p.Denied, p.Chips, p.AnyChip = p.Chips, nil, true }, fails("chip-denied")},
		"milan id key":  {false, at2026, func(p *policy.SNP) { p.IDKeys[0] = make([]byte, 48) }, fails("id-key")},

		"vlek":             {true, at2025, func(p *policy.SNP) {}, fails("vmpl")},
		"vlek expired":     {true, at2026, func(p *policy.SNP) {}, fails("vmpl", "validity")},
		"vlek no provider": {true, at2025, func(p *policy.SNP) { p.Providers = nil }, fails("signer", "provider", "vmpl")},
		"vlek region":      {true, at2025, func(p *policy.SNP) { p.Providers[0] = "CN=cc-us-east-1.amazonaws.com" }, fails("provider", "vmpl")},
		"vlek alias":       {true, at2025, func(p *policy.SNP) { p.AllowUncheckedAlias = false }, fails("vmpl")}, // newer firmware: checked
		"vlek chips":       {true, at2025, func(p *policy.SNP) { p.AnyChip, p.Chips = false, []policy.Hex{make([]byte, 64)} }, fails("chip", "vmpl")},
		"vlek platform":    {true, at2025, func(p *policy.SNP) { p.PlatformForbidden = []string{"smt", "tsme"} }, fails("platform-info", "vmpl")},
	} {
		t.Run(name, func(t *testing.T) {
			report, cert, typ := "test-report.bin", "test-vcek.der", attestation.TypeAMDVCEK
			if c.vlek {
				report, cert, typ = "test-vlek-report.bin", "test-vlek.der", attestation.TypeAMDVLEK
			}
			raw := vector(t, report)
			rep, err := snp.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			ref := &policy.SNP{
				Products: []string{"Milan"}, Measurements: []policy.Hex{rep.Measurement[:]}, MinTCB: []policy.ProdTCB{{Product: "Milan", BootLoader: 3}},
				AllowSMT: true, MinVersion: 2, AllowProvisional: true, AllowUncheckedAlias: true,
			}
			if c.vlek {
				ref.Providers, ref.AnyChip = []string{"CN=cc-us-east-2.amazonaws.com"}, true
			} else {
				ref.Chips, ref.IDKeys = []policy.Hex{rep.ChipID[:]}, []policy.Hex{bytes.Clone(rep.IDKeyDigest[:])}
			}
			c.edit(ref)
			r := check.NewRecorder("snp")
			Appraise(raw, set(t, attestation.Endorsement{Type: typ, Data: vector(t, cert)}), nil, &policy.Policy{Platforms: policy.Platforms{SNP: ref}},
				check.Expect{At: c.at, ReportData: rep.ReportData[:]}, r)
			if !r.IsAuthentic() {
				t.Error("not authentic")
			}
			want := is("revocation", check.Incomplete)
			maps.Copy(want, c.want)
			expectProblems(t, r, want)
		})
	}
}

// TestRealTurin checks a genuine Turin certificate: there is no public report of
// that generation to go with it.
func TestRealTurin(t *testing.T) {
	s, err := parseSigner(vector(t, "vcek_turin.der"), snp.VCEK)
	if err != nil {
		t.Fatal(err)
	}
	if s.ext.product != snp.Turin || len(s.ext.hwID) != 8 || s.ext.version != 1 || s.ext.tcb != (snp.TCB{Microcode: 9}) {
		t.Errorf("extensions: %+v", s.ext)
	}
	want := &check.Expect{At: at2026}
	for name, chains := range map[string][][]byte{"compiled in": nil, "given": {vector(t, "cert_chain_turin")}} {
		if err := s.findChain(chains, snp.VCEK, snp.Turin, want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if c := s.outOfDate(at2026); c != nil {
			t.Errorf("%s: %s is out of date", name, c.Subject.CommonName)
		}
	}
	if err := s.findChain(nil, snp.VCEK, snp.Genoa, want); err == nil {
		t.Error("a Turin certificate passes as Genoa")
	}
	// The vendor's chain alone, without the compiled-in one, and changed.
	p, err := parsePair(vector(t, "cert_chain_turin"))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPath(s.cert, p, snp.Turin, want); err != nil {
		t.Error(err)
	}
	if _, err := parsePair(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ark.Raw})); err == nil {
		t.Error("a chain of one certificate accepted")
	}
}

// TestRealCertificatesEveryByte changes every byte of genuine certificates in
// turn: none reaches AMD's root any more.
func TestRealCertificatesEveryByte(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file    string
		key     snp.SigningKey
		product snp.Product
	}{{"vcek_turin.der", snp.VCEK, snp.Turin}, {"test-vcek.der", snp.VCEK, snp.Milan}, {"test-vlek.der", snp.VLEK, snp.Milan}} {
		der := vector(t, c.file)
		for i := range der {
			bad := bytes.Clone(der)
			bad[i] ^= 1 << (i % 8)
			s, err := parseSigner(bad, c.key)
			if err == nil {
				err = s.findChain(nil, c.key, c.product, &check.Expect{At: at2026})
			}
			if err == nil {
				t.Fatalf("%s: byte 0x%x counts for nothing", c.file, i)
			}
		}
	}
}
