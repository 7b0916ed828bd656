package tdx

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

var at = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// vendor is a simulated Intel. AMD's keys, which a vendor holds too, are small
// and unused here.
var vendor = sync.OnceValue(func() *sim.Vendor {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	rsaPEM := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	file, err := json.Marshal(map[string]string{"seed": strings.Repeat("11", 32), "ark": rsaPEM, "ask": rsaPEM})
	if err != nil {
		panic(err)
	}
	v := new(sim.Vendor)
	if err := json.Unmarshal(file, v); err != nil {
		panic(err)
	}
	return v
})

// scene is evidence with all that it is judged by.
type scene struct {
	raw    []byte
	ends   *attestation.Endorsements
	refs   []attestation.Digest
	policy *policy.Policy
	want   check.Expect
}

var federation = attestation.Digest{1, 2, 3}

// simulated returns the scene of a machine with the given faults ("name" or
// "name=value"), under the policy for the machine without them.
func simulated(t testing.TB, faults ...string) *scene {
	t.Helper()
	m := machine(t, faults...)
	reportData := attestation.ReportData([]byte("claims"), true)
	items, err := m.Collect(context.Background(), reportData)
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{raw: items[0].Raw, refs: items[0].Endorsements}
	if s.ends, err = m.Endorsements(); err != nil {
		t.Fatal(err)
	}
	d, err := m.Describe()
	if err != nil {
		t.Fatal(err)
	}
	d.Platforms.TDX.MRConfigID = true
	s.policy = &policy.Policy{Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms, Evidence: policy.Evidence{MaxCollateralAge: 86400}}
	s.want = check.Expect{ReportData: reportData[:], Federation: federation, At: at, Simulated: true, Roots: d.Roots}
	return s
}

func machine(t testing.TB, faults ...string) *sim.Machine {
	t.Helper()
	c := sim.Config{Vendor: vendor(), Platform: sim.PlatformTDX, Chip: "chip-a", HostData: federation[:], Faults: map[string]string{}}
	for _, f := range faults {
		name, value, _ := strings.Cut(f, "=")
		c.Faults[name] = value
	}
	m, err := sim.New(c, at)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (s *scene) appraise() *check.Recorder {
	r := check.NewRecorder("tdx")
	Appraise(s.raw, s.ends, s.refs, s.policy, s.want, r)
	return r
}

// problems returns the checks that did not pass, by name, and their texts.
func problems(r *check.Recorder) (names []string, text string) {
	for _, c := range r.Problems() {
		names = append(names, strings.TrimPrefix(c.Name, "tdx."))
		text += c.Name + " " + c.Verdict.String() + ": expected " + c.Expected + ", got " + c.Got + "; " + c.Advice + "\n"
	}
	return names, text
}

func TestSimulatedPasses(t *testing.T) {
	for _, faults := range [][]string{nil, {"quote-version=5"}, {"quote-version=5", "module-update"}} {
		s := simulated(t, faults...)
		r := s.appraise()
		if _, text := problems(r); text != "" || check.Summary(r.Checks()) != check.Pass || !r.IsAuthentic() {
			t.Errorf("%v:\n%s", faults, text)
		}
		want := []check.Seen{{Issuer: "intel-crl/Intel SGX Root CA", Number: 1}, {Issuer: "intel-crl/Intel SGX PCK Platform CA", Number: 1},
			{Issuer: "intel-tcb/b0c06f000000", Number: 17}, {Issuer: "intel-qe/TD_QE", Number: 17}}
		if !slices.Equal(r.Seen(), want) {
			t.Errorf("%v: seen %v", faults, r.Seen())
		}
		// Every check has its line, made or not, in one order.
		var names []string
		for _, c := range r.Checks() {
			names = append(names, strings.TrimPrefix(c.Name, "tdx."))
		}
		if got := strings.Join(names, " "); got != allChecks {
			t.Errorf("checks:\n%s\nwant:\n%s", got, allChecks)
		}
	}
}

const allChecks = "quote qe-vendor pck-chain pck-validity sgx-extension qe-report-signature qe-report-data td-signature " +
	"collateral root-crl pck-crl revocation tcb-info tcb-info-window tcb-info-platform qe-identity qe-identity-window evaluation qe-report tdx-module tcb-status " +
	"debug sept-ve-disable migratable perfmon attributes xfam mrsignerseam mrtd rtmr mrowner mrservicetd tcb-svn2 platform-instance rtmr3 event-log mrconfigid report-data"

// TestFaults: everything that can be wrong with a machine is refused, by the
// check that is about it and by no other, with a reason that names it.
func TestFaults(t *testing.T) {
	for faults, c := range map[string]struct {
		names     string // the checks that object
		text      string
		verdict   check.Verdict
		authentic bool
	}{
		"debug":                                {"debug", "open to the host", check.Fail, true},
		"sept-ve":                              {"sept-ve-disable", "SEPT_VE_DISABLE", check.Fail, true},
		"migration":                            {"migratable", "MIGRATABLE", check.Fail, true},
		"perfmon":                              {"perfmon", "side channel", check.Fail, true},
		"attribute":                            {"attributes", "0000010000000000", check.Fail, true},
		"xfam":                                 {"xfam", "642e7", check.Fail, true},
		"measurement":                          {"mrtd", "firmware is not one", check.Fail, true},
		"image":                                {"rtmr", "image that the policy does not name", check.Fail, true},
		"image=0":                              {"rtmr", "RTMR0 differs", check.Fail, true},
		"owner":                                {"mrowner", "MROWNER 01", check.Fail, true},
		"quote-version=5,service-td":           {"mrservicetd", "service TD", check.Fail, true},
		"quote-version=5,module-downgrade":     {"tcb-svn2", "older version", check.Fail, true},
		"quote-version=5,debug":                {"debug", "open to the host", check.Fail, true},
		"stale-tcb":                            {"tcb-status", "OutOfDate (platform OutOfDate of 2018-03-13: INTEL-SA-00106 INTEL-SA-00837; module TDX_01 UpToDate", check.Fail, true},
		"stale-tcb=module":                     {"tcb-status", "OutOfDate (platform UpToDate of 2024-03-13; module TDX_01 OutOfDate of 2023-03-13: INTEL-SA-01036", check.Fail, true},
		"stale-tcb=qe":                         {"tcb-status", "QE OutOfDate of 2023-03-13: INTEL-SA-00615", check.Fail, true},
		"unknown-tcb":                          {"tcb-status", "platform below every level", check.Fail, true},
		"unknown-tcb=module":                   {"tcb-status", "module TDX_01 below every level", check.Fail, true},
		"unknown-tcb=qe":                       {"tcb-status", "QE below every level", check.Fail, true},
		"tcb-status=SWHardeningNeeded":         {"tcb-status", "software mitigations", check.Fail, true},
		"tcb-status=ConfigurationNeeded":       {"tcb-status", "BIOS settings", check.Fail, true},
		"tcb-status=Revoked":                   {"tcb-status", "Intel revoked this TCB", check.Fail, true},
		"tcb-status=Fine":                      {"tcb-info", `status "Fine" is unknown`, check.Fail, true},
		"module-signer":                        {"tdx-module mrsignerseam", "not one that Intel signed", check.Fail, true},
		"qe-signer":                            {"qe-report", "other than Intel's TD quoting enclave", check.Fail, true},
		"qe-debug":                             {"qe-report", "attributes 17", check.Fail, true},
		"qe-report-data":                       {"qe-report-data", "does not vouch", check.Fail, false},
		"qe-signature":                         {"qe-report-signature", "another machine", check.Fail, false},
		"bad-signature":                        {"td-signature", "altered", check.Fail, false},
		"expired":                              {"pck-validity", `certificate "Intel SGX PCK Certificate" expired at 2026-11-23T11:00:01Z`, check.Fail, true},
		"expired-collateral":                   {"tcb-info-window qe-identity-window", "expired at 2026-11-23T11:00:00Z", check.Fail, true},
		"expired-crl":                          {"root-crl pck-crl", "expired at 2026-11-23T11:00:00Z", check.Fail, true},
		"missing-crl":                          {"root-crl pck-crl", "missing", check.Incomplete, true},
		"missing-collateral":                   {"collateral", "FMSPC b0c06f000000", check.Incomplete, true},
		"missing-qe-identity":                  {"qe-identity", "missing", check.Incomplete, true},
		"old-evaluation":                       {"evaluation", "expected at least 17, got TCB info 16, QE identity 16", check.Fail, true},
		"tampered-tcb-info":                    {"tcb-info", "does not fit the document", check.Fail, true},
		"tampered-tcb-info=qe":                 {"qe-identity", "does not fit the document", check.Fail, true},
		"other-family":                         {"tcb-info-platform", "FMSPC b1c06f000000", check.Fail, true},
		"revoked":                              {"revocation", `"Intel SGX PCK Certificate"`, check.Fail, true},
		"revoked=ca":                           {"revocation", `"Intel SGX PCK Platform CA"`, check.Fail, true},
		"revoked=signer":                       {"revocation", `"Intel SGX TCB Signing"`, check.Fail, true},
		"forged-root":                          {"pck-chain tcb-info qe-identity", "is not an accepted root", check.Fail, false},
		"forged-collateral":                    {"tcb-info qe-identity", "is not an accepted root", check.Fail, true},
		"forged-ca":                            {"pck-chain", `certificate "Intel SGX PCK Platform CA": not signed by "Intel SGX Root CA"`, check.Fail, false},
		"forged-pck":                           {"pck-chain", `certificate "Intel SGX PCK Certificate": not signed by "Intel SGX PCK Platform CA"`, check.Fail, false},
		"forged-signer":                        {"tcb-info qe-identity", `"Intel SGX TCB Signing": not signed by`, check.Fail, true},
		"expired-signer":                       {"tcb-info-window qe-identity-window", `"Intel SGX TCB Signing" expired`, check.Fail, true},
		"unmarked":                             {"pck-chain tcb-info qe-identity", "lacks the mark of a simulator", check.Fail, false},
		"processor-ca":                         {"pck-chain", `certificate "Intel SGX PCK Processor CA", want "Intel SGX PCK Platform CA"`, check.Fail, false},
		"wrong-nonce":                          {"report-data", "other claims", check.Fail, true},
		"stale-tcb,expired-collateral,revoked": {"revocation tcb-info-window qe-identity-window tcb-status", "expired", check.Fail, true},
	} {
		t.Run(faults, func(t *testing.T) {
			t.Parallel()
			r := simulated(t, strings.Split(faults, ",")...).appraise()
			names, text := problems(r)
			if got := strings.Join(names, " "); got != c.names {
				t.Errorf("objections of %q, want %q\n%s", got, c.names, text)
			}
			if !strings.Contains(text, c.text) {
				t.Errorf("no %q in\n%s", c.text, text)
			}
			if got := check.Summary(r.Checks()); got != c.verdict || r.IsAuthentic() != c.authentic {
				t.Errorf("verdict %v, authentic %t", got, r.IsAuthentic())
			}
		})
	}
}

// TestEveryFaultIsRefused keeps the table above complete: a fault that the
// simulator learns is judged here too.
func TestEveryFaultIsRefused(t *testing.T) {
	harmless := []string{"quote-version", "module-update"}
	for _, f := range tdxFaultNames(t) {
		if slices.Contains(harmless, f) {
			continue
		}
		r := simulated(t, f, "quote-version=5").appraise()
		if got := check.Summary(r.Checks()); got == check.Pass {
			t.Errorf("%s: %v", f, got)
		}
	}
}

// tdxFaultNames asks the simulator, which names them when it refuses one.
func tdxFaultNames(t *testing.T) []string {
	_, err := sim.New(sim.Config{Vendor: vendor(), Platform: sim.PlatformTDX, Faults: map[string]string{"no such fault": ""}}, at)
	if err == nil {
		t.Fatal("an unknown fault was accepted")
	}
	_, list, _ := strings.Cut(err.Error(), "[")
	names := strings.Split(strings.Trim(list, `"]`), `" "`)
	if len(names) < 30 {
		t.Fatalf("only %d faults in %q", len(names), err)
	}
	return names
}

func readVector(t testing.TB, name string) []byte {
	t.Helper()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: real quotes were not judged")
	}
	b, err := os.ReadFile(filepath.Join(dir, "tdx", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func genuine(t testing.TB, quote string, collateral bool, day string) *scene {
	t.Helper()
	s := &scene{raw: readVector(t, quote), want: check.Expect{AllowMissingCollateral: true}}
	var err error
	if s.want.At, err = time.Parse(time.DateOnly, day); err != nil {
		t.Fatal(err)
	}
	if collateral {
		s.ends, err = attestation.NewEndorsements(attestation.Endorsement{Type: attestation.TypeIntelCollateral, Data: readVector(t, "tdx_quote_collateral.json")})
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestReal(t *testing.T) {
	for _, c := range []struct {
		name    string
		s       *scene
		verdict check.Verdict
		names   string
		text    string
	}{
		{"v4, up to date", genuine(t, "tdx_quote", true, "2025-06-20"), check.Pass, "", ""},
		{"v4, collateral expired", genuine(t, "tdx_quote", true, "2026-11-23"), check.Fail, "root-crl pck-crl tcb-info-window qe-identity-window", "expired at 2025-07-19T10:16:03Z"},
		{"v4, before it was issued", genuine(t, "tdx_quote", true, "2025-06-19"), check.Fail, "pck-crl tcb-info-window qe-identity-window", "not valid before 2025-06-19T10:16:03Z"},
		{"v4, without collateral", genuine(t, "tdx_quote", false, "2025-06-20"), check.Incomplete, "collateral", "FMSPC b0c06f000000"},
		{"v5, without collateral", genuine(t, "tdx_quote_5.dat", false, "2026-11-23"), check.Incomplete, "collateral", "FMSPC 90c06f000000"},
		{"v5, collateral of another platform", genuine(t, "tdx_quote_5.dat", true, "2025-06-20"), check.Fail, "tcb-info-platform", "for another family"},
	} {
		r := c.s.appraise()
		names, text := problems(r)
		if got := check.Summary(r.Checks()); got != c.verdict || !r.IsAuthentic() || strings.Join(names, " ") != c.names || !strings.Contains(text, c.text) {
			t.Errorf("%s: %v, authentic %t\n%s", c.name, got, r.IsAuthentic(), text)
		}
	}
}

// TestWorldsApart: real evidence fails in a simulated federation and simulated
// evidence in a real one, each even if its root is pinned there.
func TestWorldsApart(t *testing.T) {
	s := simulated(t)
	s.want.Simulated = false
	_, text := problems(s.appraise())
	if !strings.Contains(text, "is marked as simulated") {
		t.Errorf("simulated evidence, root pinned in a real federation:\n%s", text)
	}
	s.want.Roots = nil
	if _, text := problems(s.appraise()); !strings.Contains(text, "is not an accepted root") {
		t.Errorf("simulated evidence in a real federation:\n%s", text)
	}
	s = genuine(t, "tdx_quote", true, "2025-06-20")
	s.want.Simulated, s.want.Roots = true, intelRoots
	r := s.appraise()
	if _, text := problems(r); !strings.Contains(text, "lacks the mark") || r.IsAuthentic() {
		t.Errorf("real evidence in a simulated federation:\n%s", text)
	}
}

// TestBitFlips: no bit of what was signed can change, nor of a signature or of a
// signed document.
func TestBitFlips(t *testing.T) {
	scenes := map[string]*scene{"simulated v4": simulated(t), "simulated v5": simulated(t, "quote-version=5")}
	if os.Getenv("CONCORDAT_VECTORS") != "" {
		scenes["real v4"] = genuine(t, "tdx_quote", true, "2025-06-20")
	}
	for name, s := range scenes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q, err := tdx.Parse(s.raw)
			if err != nil {
				t.Fatal(err)
			}
			// Header, body, signature, key, QE report and its signature, authentication data.
			end := len(q.Marshal()) - len(q.Chain) - 6
			for i := range end {
				raw := slices.Clone(s.raw)
				raw[i] ^= 1 << (i % 8)
				r := (&scene{raw, nil, nil, s.policy, s.want}).appraise()
				if r.IsAuthentic() {
					t.Fatalf("byte %d changed: still authentic", i)
				}
			}
		})
	}
}

// TestBitFlipsOfCollateral changes bytes all over the signed documents and lists.
func TestBitFlipsOfCollateral(t *testing.T) {
	s := simulated(t)
	file := s.ends.ByType(attestation.TypeIntelCollateral, nil)[0]
	parse := func() *tdx.Collateral {
		c, err := tdx.ParseCollateral(file)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for what, of := range map[string]func(*tdx.Collateral) []byte{
		"TCB info":              func(c *tdx.Collateral) []byte { return c.TCBInfo.Doc },
		"TCB info signature":    func(c *tdx.Collateral) []byte { return c.TCBInfo.Signature[:] },
		"QE identity":           func(c *tdx.Collateral) []byte { return c.QEIdentity.Doc },
		"QE identity signature": func(c *tdx.Collateral) []byte { return c.QEIdentity.Signature[:] },
		"root CRL":              func(c *tdx.Collateral) []byte { return c.RootCRL },
		"PCK CRL":               func(c *tdx.Collateral) []byte { return c.PCKCRL },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			step := len(of(parse()))/100 + 1 // a hundred places, to stay quick
			for i := 0; i < len(of(parse())); i += step {
				c := parse()
				of(c)[i] ^= 1 << (i % 7)
				ends, err := attestation.NewEndorsements(attestation.Endorsement{Type: attestation.TypeIntelCollateral, Data: c.Marshal()})
				if err != nil {
					t.Fatal(err)
				}
				r := (&scene{s.raw, ends, nil, s.policy, s.want}).appraise()
				if check.Summary(r.Checks()) == check.Pass {
					t.Fatalf("byte %d changed: still a pass", i)
				}
			}
		})
	}
}

// TestNewestCollateral: a set may hold old collateral, forged collateral and
// collateral of other platforms beside the right one; none of them can hide it,
// and old collateral that is still in force cannot hide a recovery.
func TestNewestCollateral(t *testing.T) {
	s := simulated(t)
	docs := []attestation.Endorsement{{Type: attestation.TypeIntelCollateral, Data: []byte("no collateral")}}
	for _, f := range []string{"old-evaluation", "other-family", "forged-collateral", "expired-collateral"} {
		for _, d := range simulated(t, f).ends.ByType(attestation.TypeIntelCollateral, nil) {
			docs = append(docs, attestation.Endorsement{Type: attestation.TypeIntelCollateral, Data: d})
		}
	}
	good := s.ends.ByType(attestation.TypeIntelCollateral, nil)[0]
	all, err := attestation.NewEndorsements(append(docs, attestation.Endorsement{Type: attestation.TypeIntelCollateral, Data: good})...)
	if err != nil {
		t.Fatal(err)
	}
	s.refs = []attestation.Digest{docs[1].Digest()} // the attester names the old one
	s.ends = all
	if names, text := problems(s.appraise()); len(names) != 0 {
		t.Error(text)
	}
	if s.ends, err = attestation.NewEndorsements(docs...); err != nil {
		t.Fatal(err)
	}
	if names, text := problems(s.appraise()); !slices.Equal(names, []string{"evaluation"}) {
		t.Errorf("without the good one:\n%s", text)
	}
}

func TestPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		faults string
		change func(*scene)
		names  string
		text   string
	}{
		"no TDX":             {"", func(s *scene) { s.policy.Platforms.TDX = nil }, "platform", "no reference values for TDX"},
		"accepted status":    {"tcb-status=SWHardeningNeeded", func(s *scene) { s.policy.Platforms.TDX.Statuses = []string{"SWHardeningNeeded"} }, "", ""},
		"converged status":   {"tcb-status=ConfigurationNeeded,stale-tcb=module", func(s *scene) { s.policy.Platforms.TDX.Statuses = []string{"ConfigurationNeeded", "OutOfDate"} }, "tcb-status", "OutOfDateConfigurationNeeded (platform ConfigurationNeeded"},
		"revoked for ever":   {"tcb-status=Revoked", func(s *scene) { s.policy.Platforms.TDX.Statuses = []string{"Revoked"} }, "tcb-status", "Intel revoked"},
		"another machine":    {"", func(s *scene) { s.policy.Platforms.TDX.PIIDs[0][0] ^= 1 }, "platform-instance", "not one that the policy names"},
		"any machine":        {"", func(s *scene) { s.policy.Platforms.TDX.PIIDs, s.policy.Platforms.TDX.AnyPlatform = nil, true }, "", ""},
		"any image":          {"image", func(s *scene) { s.policy.Platforms.TDX.RTMRs = nil }, "", ""},
		"old collateral":     {"", func(s *scene) { s.policy.Evidence.MaxCollateralAge = 3599 }, "pck-crl tcb-info-window qe-identity-window", "at most 59m59s old"},
		"rollback":           {"", func(s *scene) { s.policy.Platforms.TDX.MinEvaluation = 18 }, "evaluation", "at least 18"},
		"other federation":   {"", func(s *scene) { s.want.Federation[0] ^= 1 }, "mrconfigid", "another federation"},
		"short report data":  {"", func(s *scene) { s.want.ReportData = s.want.ReportData[:32] }, "report-data", ""},
		"module signer":      {"", func(s *scene) { s.policy.Platforms.TDX.MRSignerSEAM[0] = 1 }, "mrsignerseam", "zeros are Intel's own"},
		"allow migration":    {"migration", func(s *scene) { s.policy.Platforms.TDX.AllowMigration = true }, "migratable", "moved to a machine"},
		"no time":            {"", func(s *scene) { s.want.At = time.Time{} }, "pck-validity root-crl pck-crl tcb-info-window qe-identity-window", "not valid before"},
		"not bound, allowed": {"unbound", func(s *scene) { s.policy.Platforms.TDX.MRConfigID = false }, "", ""},
		"not bound":          {"unbound", func(*scene) {}, "mrconfigid", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var faults []string
			if c.faults != "" && c.faults != "unbound" {
				faults = strings.Split(c.faults, ",")
			}
			s := simulated(t, faults...)
			if c.faults == "unbound" {
				s.raw = unbound(t, s)
			}
			c.change(s)
			names, text := problems(s.appraise())
			if strings.Join(names, " ") != c.names || !strings.Contains(text, c.text) {
				t.Errorf("objections of %q, want %q with %q\n%s", names, c.names, c.text, text)
			}
		})
	}
}

// unbound is the evidence of a machine whose host bound nothing at launch.
func unbound(t *testing.T, s *scene) []byte {
	m, err := sim.New(sim.Config{Vendor: vendor(), Platform: sim.PlatformTDX, Chip: "chip-a"}, at)
	if err != nil {
		t.Fatal(err)
	}
	items, err := m.Collect(context.Background(), [64]byte(s.want.ReportData))
	if err != nil {
		t.Fatal(err)
	}
	return items[0].Raw
}

func TestConverge(t *testing.T) {
	all := []tdx.Status{tdx.UpToDate, tdx.SWHardeningNeeded, tdx.ConfigurationNeeded, tdx.ConfigurationAndSWHardeningNeeded, tdx.OutOfDate, tdx.OutOfDateConfigurationNeeded, tdx.Revoked}
	old := []tdx.Status{tdx.OutOfDate, tdx.OutOfDate, tdx.OutOfDateConfigurationNeeded, tdx.OutOfDateConfigurationNeeded, tdx.OutOfDate, tdx.OutOfDateConfigurationNeeded, tdx.Revoked}
	for i, p := range all {
		if got := converge(p, tdx.UpToDate); got != p {
			t.Errorf("%s with an up-to-date component: %s", p, got)
		}
		if got := converge(p, tdx.OutOfDate); got != old[i] {
			t.Errorf("%s with an old component: %s, want %s", p, got, old[i])
		}
		for _, c := range []tdx.Status{tdx.Revoked, "", "Fine"} {
			if got := converge(p, c); got != tdx.Revoked {
				t.Errorf("%s with component %q: %s", p, c, got)
			}
		}
	}
}

func TestModuleIDCase(t *testing.T) {
	info := &tdx.TCBInfo{Modules: []tdx.Module{{ID: "TDX_01"}, {ID: "TDX_0a"}, {ID: "TDX_0B"}}}
	for version, want := range map[byte]string{1: "TDX_01", 10: "TDX_0a", 11: "TDX_0B"} {
		if m := findModule(info, [16]byte{0, version}); m == nil || m.ID != want {
			t.Errorf("version %d: %v", version, m)
		}
	}
	if m := findModule(info, [16]byte{0, 2}); m != nil {
		t.Errorf("version 2: %v", m)
	}
}

// TestRefusesGarbage: no input panics or passes.
func TestRefusesGarbage(t *testing.T) {
	s := simulated(t)
	for name, c := range map[string]struct {
		raw  []byte
		want check.Verdict
	}{
		"nothing":   {nil, check.Fail},
		"cut":       {s.raw[:len(s.raw)-1], check.Fail},
		"version 3": {append([]byte{3}, s.raw[1:]...), check.Unsupported},
	} {
		r := (&scene{c.raw, s.ends, s.refs, s.policy, s.want}).appraise()
		if got := check.Summary(r.Checks()); got != c.want || r.IsAuthentic() {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzAppraise(f *testing.F) {
	s := simulated(f)
	f.Add(s.raw, s.ends.ByType(attestation.TypeIntelCollateral, nil)[0])
	f.Fuzz(func(t *testing.T, raw, collateral []byte) {
		ends, err := attestation.NewEndorsements(attestation.Endorsement{Type: attestation.TypeIntelCollateral, Data: collateral})
		if err != nil {
			return
		}
		r := (&scene{raw, ends, nil, s.policy, s.want}).appraise()
		if check.Summary(r.Checks()) == check.Pass {
			if q, err := tdx.Parse(raw); err != nil || string(q.Signed()) != string(mustSigned(t, s.raw)) {
				t.Error("other evidence passes")
			}
		}
	})
}

func mustSigned(t *testing.T, raw []byte) []byte {
	q, err := tdx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return q.Signed()
}

// BenchmarkAppraise is the whole appraisal of one quote with its collateral.
func BenchmarkAppraise(b *testing.B) {
	s := simulated(b)
	b.ReportAllocs()
	for b.Loop() {
		if check.Summary(s.appraise().Checks()) != check.Pass {
			b.Fatal("not a pass")
		}
	}
}

func BenchmarkAppraiseReal(b *testing.B) {
	s := genuine(b, "tdx_quote", true, "2025-06-20")
	b.ReportAllocs()
	for b.Loop() {
		if check.Summary(s.appraise().Checks()) != check.Pass {
			b.Fatal("not a pass")
		}
	}
}
