package snp

import (
	"encoding/pem"
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

// TestRealEvidencePolicy judges the genuine Milan report by a policy that
// accepts everything that it can: provisional firmware stays refused.
func TestRealEvidencePolicy(t *testing.T) {
	raw := vector(t, "test-report.bin")
	rep, err := snp.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	p := &policy.Policy{Platforms: policy.Platforms{SNP: &policy.SNP{
		Products: []string{"Milan"}, Measurements: []policy.Hex{rep.Measurement[:]}, Chips: []policy.Hex{rep.ChipID[:]},
		MinTCB: []policy.ProdTCB{{Product: "Milan", BootLoader: 3}}, AllowSMT: true, MinVersion: 2,
	}}}
	ends := set(t, attestation.Endorsement{Type: attestation.TypeAMDVCEK, Data: vector(t, "test-vcek.der")})
	r := check.NewRecorder("snp")
	Appraise(raw, ends, nil, p, check.Expect{At: at2026, ReportData: rep.ReportData[:]}, r)
	if !r.IsAuthentic() {
		t.Error("not authentic")
	}
	expectProblems(t, r, map[string]check.Verdict{
		"snp.provisional-firmware": check.Fail,       // COMMITTED below CURRENT
		"snp.alias-check":          check.Fail,       // firmware from before BadRAM
		"snp.revocation":           check.Incomplete, // the vectors hold no list
	})
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
