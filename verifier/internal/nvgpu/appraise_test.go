package nvgpu

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
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

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// realH100 returns NVIDIA's own sample: a report and its chain.
func realH100(t testing.TB) ([]byte, *attestation.Endorsements) {
	t.Helper()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: the real H100 report is not checked")
	}
	text, err := os.ReadFile(filepath.Join(dir, "nvidia", "hopperAttestationReport.txt"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	chain, err := os.ReadFile(filepath.Join(dir, "nvidia", "hopperCertChain.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return raw, set(t, attestation.Endorsement{Type: attestation.TypeNVIDIAChain, Data: chain})
}

func set(t testing.TB, docs ...attestation.Endorsement) *attestation.Endorsements {
	t.Helper()
	s, err := attestation.NewEndorsements(docs...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func find(r *check.Recorder, name string) check.Check {
	for _, c := range r.Checks() {
		if c.Name == "gpu."+name {
			return c
		}
	}
	return check.Check{Name: "no such check"}
}

func TestRealH100(t *testing.T) {
	raw, ends := realH100(t)
	nonce := "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb"
	want := check.Expect{At: now, AllowMissingCollateral: true}
	want.ReportData, _ = hex.DecodeString(nonce)

	r := check.NewRecorder("gpu")
	Appraise(raw, ends, nil, nil, want, r)
	if v := check.Summary(r.Checks()); v != check.Pass || !r.IsAuthentic() {
		t.Errorf("verdict %v, authentic %v: %+v", v, r.IsAuthentic(), r.Problems())
	}
	for name, got := range map[string]string{
		"report": "64 measurements", "signature": `by "GH100 A01 GSP FMC LF"`, "chain": `to "NVIDIA Device Identity CA"`,
		"nonce": nonce, "architecture": "hopper (GH100)",
		"firmware-id": "f5c384aebb579217a2c66b17ed0f28e6a9b8d639041acd7b4721cec004f7275494ba94bb5cdfdb3055ee051762b1f75d",
	} {
		if c := find(r, name); c.Verdict != check.Pass || c.Got != got {
			t.Errorf("%s: %+v", name, c)
		}
	}
	for name, advice := range map[string]string{
		"revocation": "no OCSP response for", "driver": "550.90.07", "vbios": "96.00.9F.00.01", "measurements": "this set is", "device": "41431d480fe5e87274",
		"mode": "no mode",
	} {
		if c := find(r, name); c.Verdict != check.NotChecked || !strings.Contains(c.Advice, advice) {
			t.Errorf("%s: %+v", name, c)
		}
	}

	for name, c := range map[string]struct {
		change func(raw []byte, w *check.Expect) []byte
		check  string
		want   check.Verdict
	}{
		"another nonce":   {func(raw []byte, w *check.Expect) []byte { w.ReportData = make([]byte, 32); return raw }, "nonce", check.Fail},
		"short nonce":     {func(raw []byte, w *check.Expect) []byte { w.ReportData = w.ReportData[:31]; return raw }, "nonce", check.Fail},
		"no nonce":        {func(raw []byte, w *check.Expect) []byte { w.ReportData = nil; return raw }, "nonce", check.NotChecked},
		"OCSP demanded":   {func(raw []byte, w *check.Expect) []byte { w.AllowMissingCollateral = false; return raw }, "revocation", check.Incomplete},
		"before issue":    {func(raw []byte, w *check.Expect) []byte { w.At = time.Unix(1e9, 0); return raw }, "chain", check.Fail},
		"no time":         {func(raw []byte, w *check.Expect) []byte { w.At = time.Time{}; return raw }, "chain", check.Fail},
		"simulated world": {func(raw []byte, w *check.Expect) []byte { w.Simulated = true; return raw }, "chain", check.Fail},
		"simulated roots": {func(raw []byte, w *check.Expect) []byte {
			w.Simulated, w.Roots = true, deviceRoots
			return raw
		}, "chain", check.Fail},
		"trailing zero": {func(raw []byte, w *check.Expect) []byte { return append(raw, 0) }, "report", check.Fail},
		"cut":           {func(raw []byte, w *check.Expect) []byte { return raw[:len(raw)-1] }, "report", check.Fail},
		"nothing":       {func(raw []byte, w *check.Expect) []byte { return nil }, "report", check.Fail},
	} {
		w := want
		r := check.NewRecorder("gpu")
		Appraise(c.change(slices.Clone(raw), &w), ends, nil, nil, w, r)
		if got := find(r, c.check); got.Verdict != c.want || got.Name == "no such check" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	r = check.NewRecorder("gpu")
	Appraise(raw, nil, nil, nil, want, r)
	if c := find(r, "chain"); c.Verdict != check.Incomplete {
		t.Errorf("no chain: %+v", c)
	}
}

// TestEveryByteIsSigned flips a bit of every byte of the real report.
func TestEveryByteIsSigned(t *testing.T) {
	if testing.Short() {
		t.Skip("short: thousands of P-384 verifications")
	}
	raw, ends := realH100(t)
	step := 7 // coprime to the block size, so that every offset in a block is met
	for i := 0; i < len(raw); i += step {
		bad := slices.Clone(raw)
		bad[i] ^= 1 << (i % 8)
		r := check.NewRecorder("gpu")
		if Appraise(bad, ends, nil, nil, check.Expect{At: now, AllowMissingCollateral: true}, r); r.IsAuthentic() || check.Summary(r.Checks()) != check.Fail {
			t.Fatalf("byte %d changed: %+v", i, r.Checks())
		}
	}
}

// machine is a simulated machine with two GPUs, its policy and its evidence.
type machine struct {
	ends   *attestation.Endorsements
	items  []attestation.Item
	nonces [][32]byte
	pol    policy.Policy
	want   check.Expect
}

var vendor = sync.OnceValues(sim.NewVendor)

func simulate(t testing.TB, faults ...string) *machine {
	t.Helper()
	return simulateOf(t, sim.Config{GPUs: 2}, faults...)
}

func simulateOf(t testing.TB, cfg sim.Config, faults ...string) *machine {
	t.Helper()
	v, err := vendor()
	if err != nil {
		t.Fatal(err)
	}
	cfg.Vendor, cfg.Platform, cfg.Chip, cfg.Faults = v, sim.PlatformSNP, "a", map[string]string{}
	for _, f := range faults {
		cfg.Faults[f] = ""
	}
	m, err := sim.New(cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Describe()
	if err != nil {
		t.Fatal(err)
	}
	out := &machine{want: check.Expect{At: now, Simulated: true, Roots: d.Roots}}
	for i := range m.GPUs() {
		out.nonces = append(out.nonces, [32]byte{byte(i + 1)})
	}
	out.pol.Platforms = d.Platforms
	out.pol.Evidence.MaxCollateralAge = 24 * 3600
	if out.ends, err = m.Endorsements(); err != nil {
		t.Fatal(err)
	}
	if out.items, err = m.CollectGPU(context.Background(), out.nonces); err != nil {
		t.Fatal(err)
	}
	return out
}

// appraise returns all checks of a machine, the set's too.
func (m *machine) appraise() *check.Recorder {
	all := check.NewRecorder("gpu")
	set := NewSet(m.ends, &m.pol)
	for i, it := range m.items {
		w := m.want
		w.ReportData = m.nonces[i][:]
		set.Appraise(it.Raw, it.Endorsements, w, all)
	}
	set.Judge(all)
	return all
}

func TestSimulatedPasses(t *testing.T) {
	t.Parallel()
	r := simulate(t).appraise()
	if v := check.Summary(r.Checks()); v != check.Pass || !r.IsAuthentic() {
		t.Errorf("verdict %v: %+v", v, r.Problems())
	}
	for _, c := range r.Checks() {
		if c.Verdict == check.NotChecked {
			t.Errorf("not checked under a policy: %+v", c)
		}
	}
}

// TestFaults demands that every fault is refused for its own reason and no other.
func TestFaults(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]struct {
		check   string
		verdict check.Verdict
		words   string
		also    string // another check that must fail with it
	}{
		"gpu-bad-signature": {check: "signature", words: "did not sign this report", also: "distinct"},
		"gpu-duplicate":     {check: "distinct", words: "reports 0 and 1 are of device"},
		"gpu-forged-root":   {check: "chain", words: "which is not accepted", also: "distinct"},
		"gpu-fwid":          {check: "firmware-id", words: "different firmware"},
		"gpu-hold":          {check: "revocation", words: "certificate hold"},
		"gpu-measurement":   {check: "measurements", words: "firmware that the policy does not know"},
		"gpu-no-ocsp":       {check: "revocation", verdict: check.Incomplete, words: "an OCSP response for"},
		"gpu-nvdec":         {check: "measurements", words: "firmware that the policy does not know"},
		"gpu-old-driver":    {check: "driver", words: "550.90.07 or newer"},
		"gpu-old-vbios":     {check: "vbios", words: "96.00.9F.00.01 or newer"},
		"gpu-ppcie":         {check: "mode", words: "PPCIE", also: "topology"},
		"gpu-revoked":       {check: "revocation", words: "key compromise"},
		"gpu-stale-ocsp":    {check: "revocation", words: "ended at 2026-11-22T12:00:00Z"},
		"gpu-stranger":      {check: "device", words: "one of the policy's 2 devices"},
		"gpu-wrong-nonce":   {check: "nonce", words: "another challenge"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			refused(t, simulate(t, fault).appraise(), want.check, want.verdict, want.words, want.also)
		})
	}
}

// refused demands of r this verdict, a failed check of that name in those words,
// and no other but also.
func refused(t *testing.T, r *check.Recorder, want string, verdict check.Verdict, words, also string) {
	t.Helper()
	if v := check.Summary(r.Checks()); v != verdict {
		t.Errorf("verdict %v, want %v", v, verdict)
	}
	var met bool
	for _, c := range r.Problems() {
		name := strings.TrimPrefix(c.Name, "gpu.")
		text := c.Expected + "|" + c.Got + "|" + c.Advice
		switch {
		case name == want && strings.Contains(text, words):
			met = true
		case name != also && name != want:
			t.Errorf("another check failed: %+v", c)
		}
	}
	if !met {
		t.Errorf("no %s that says %q: %+v", want, words, r.Problems())
	}
}

// TestPolicy changes what is demanded of a machine without faults.
func TestPolicy(t *testing.T) {
	t.Parallel()
	good := simulate(t)
	for name, c := range map[string]struct {
		change  func(m *machine, g *policy.GPU)
		check   string
		verdict check.Verdict
	}{
		"real federation":     {func(m *machine, g *policy.GPU) { m.want.Simulated, m.want.Roots = false, nil }, "chain", check.Fail},
		"root pinned as real": {func(m *machine, g *policy.GPU) { m.want.Simulated = false }, "chain", check.Fail},
		"no roots":            {func(m *machine, g *policy.GPU) { m.want.Roots = nil }, "chain", check.Fail},
		"no GPU accepted":     {func(m *machine, g *policy.GPU) { m.pol.Platforms.GPU = nil }, "policy", check.Fail},
		"blackwell only":      {func(m *machine, g *policy.GPU) { g.Architectures = []string{"blackwell"} }, "architecture", check.Fail},
		"more GPUs":           {func(m *machine, g *policy.GPU) { g.MinCount = 3 }, "count", check.Fail},
		"no pinned set":       {func(m *machine, g *policy.GPU) { g.Measurements = nil }, "measurements", check.Unsupported},
		"no floor":            {func(m *machine, g *policy.GPU) { g.MinDriver = "" }, "driver", check.Fail},
		"bad floor":           {func(m *machine, g *policy.GPU) { g.MinVBIOS = "96.00.1FF" }, "vbios", check.Fail},
		"no devices":          {func(m *machine, g *policy.GPU) { g.Devices = nil }, "device", check.Fail},
		"any device":          {func(m *machine, g *policy.GPU) { g.Devices, g.AnyDevice = nil, true }, "device", check.Pass},
		"older collateral": {func(m *machine, g *policy.GPU) {
			m.want.At = now.Add(2 * time.Hour)
			m.pol.Evidence.MaxCollateralAge = 3600
		}, "revocation", check.Fail},
		"no collateral age": {func(m *machine, g *policy.GPU) { m.want.At = now.Add(time.Second); m.pol.Evidence.MaxCollateralAge = 0 }, "revocation", check.Fail},
		"OCSP of tomorrow":  {func(m *machine, g *policy.GPU) { m.want.At = now.Add(-time.Hour) }, "revocation", check.Incomplete},
		"missing is allowed": {func(m *machine, g *policy.GPU) {
			m.want.AllowMissingCollateral = true
			m.ends = only(t, m.ends, attestation.TypeNVIDIAChain)
		}, "revocation", check.Incomplete},
		"nonces swapped": {func(m *machine, g *policy.GPU) { slices.Reverse(m.nonces) }, "nonce", check.Fail},
		"no evidence":    {func(m *machine, g *policy.GPU) { m.items = nil }, "count", check.Fail},
	} {
		m := *good
		m.nonces, m.items = slices.Clone(good.nonces), slices.Clone(good.items)
		g := *good.pol.Platforms.GPU
		m.pol.Platforms.GPU = &g
		c.change(&m, &g)
		r := m.appraise()
		if got := find(r, c.check); got.Verdict != c.verdict || got.Name == "no such check" {
			t.Errorf("%s: %+v", name, got)
		}
		if want := check.Summary(r.Checks()); c.verdict != check.Pass && want == check.Pass {
			t.Errorf("%s: passes as a whole", name)
		}
	}
}

func only(t testing.TB, ends *attestation.Endorsements, typ string) *attestation.Endorsements {
	var docs []attestation.Endorsement
	for _, b := range ends.ByType(typ, nil) {
		docs = append(docs, attestation.Endorsement{Type: typ, Data: b})
	}
	return set(t, docs...)
}

// TestForeignResponses: what anyone may put into the set decides nothing, and a
// chain of the right names under another root changes nothing.
func TestForeignResponses(t *testing.T) {
	t.Parallel()
	good, forged, revoked := simulate(t), simulate(t, "gpu-forged-root", "gpu-revoked"), simulate(t, "gpu-revoked")
	with := func(m *machine, other *machine, types ...string) *machine {
		var docs []attestation.Endorsement
		for _, typ := range []string{attestation.TypeNVIDIAChain, attestation.TypeNVIDIAOCSP} {
			for _, b := range m.ends.ByType(typ, nil) {
				docs = append(docs, attestation.Endorsement{Type: typ, Data: b})
			}
		}
		for _, typ := range types {
			for _, b := range other.ends.ByType(typ, nil) {
				docs = append(docs, attestation.Endorsement{Type: typ, Data: b})
			}
		}
		c := *m
		c.ends = set(t, docs...)
		return &c
	}
	if r := with(good, forged, attestation.TypeNVIDIAOCSP, attestation.TypeNVIDIAChain).appraise(); check.Summary(r.Checks()) != check.Pass {
		t.Errorf("foreign documents changed the verdict: %+v", r.Problems())
	}
	// An authentic revocation counts though a good response was named.
	if r := with(good, revoked, attestation.TypeNVIDIAOCSP).appraise(); find(r, "revocation").Verdict != check.Fail {
		t.Errorf("a revocation beside a good response passed: %+v", r.Checks())
	}
	// Responses of a CA that is not the issuer do not stand in for the issuer's.
	stolen := *good
	var docs []attestation.Endorsement
	for _, b := range good.ends.ByType(attestation.TypeNVIDIAChain, nil) {
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeNVIDIAChain, Data: b})
	}
	for _, b := range simulate(t, "gpu-forged-root").ends.ByType(attestation.TypeNVIDIAOCSP, nil) {
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeNVIDIAOCSP, Data: b})
	}
	stolen.ends = set(t, docs...)
	if r := stolen.appraise(); find(r, "revocation").Verdict != check.Incomplete {
		t.Errorf("forged OCSP responses were believed: %+v", r.Checks())
	}
}

func TestNamesOfChips(t *testing.T) {
	t.Parallel()
	m := simulate(t)
	chain, err := parseChain(m.ends.ByType(attestation.TypeNVIDIAChain, nil)[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ leaf, own, provisioner, identity, want, err string }{
		{"GH100 A01 GSP FMC LF", "GH100 A01 GSP BROM", "NVIDIA GH100 Provisioner ICA 1", "NVIDIA GH100 Identity", "hopper (GH100)", ""},
		{"GB100 A01 GSP FMC LF", "GB100 A01 GSP BROM", "NVIDIA GB100 Provisioner ICA 00000", "NVIDIA GB100 Identity", "blackwell (GB100)", ""},
		{"LS_10 A01 FSP FMC LF", "LS_10 A01 FSP BROM", "NVIDIA LS_10 Provisioner ICA 1", "NVIDIA GH100 Identity", "switch (LS10)", ""},
		{"GZ100 A01 GSP FMC LF", "GZ100 A01 GSP BROM", "NVIDIA GZ100 Provisioner ICA 1", "NVIDIA GZ100 Identity", " (GZ100)", ""},
		{"GB100 A01 GSP FMC LF", "GH100 A01 GSP BROM", "NVIDIA GH100 Provisioner ICA 1", "NVIDIA GH100 Identity", "", "not the FMC LF of a GH100"},
		{"GH100 A01 GSP FMC LF", "GH100 A01 GSP FMC LF", "NVIDIA GH100 Provisioner ICA 1", "NVIDIA GH100 Identity", "", "not the BROM of a GH100"},
		{"GH100 A01 GSP FMC LF", "GH100 A01 GSP BROM", "NVIDIA GB100 Provisioner ICA 1", "NVIDIA GH100 Identity", "", "not a provisioner of GH100"},
		{"LS_10 A01 FSP FMC LF", "LS_10 A01 FSP BROM", "NVIDIA GH100 Provisioner ICA 1", "NVIDIA GH100 Identity", "", "of a GH100"},
		{"LS10 A01 FSP", "LS10 A01 FSP BROM", "NVIDIA LS10 Provisioner ICA 1", "NVIDIA LS10 Identity", "", "names no chip"},
	} {
		for i, n := range map[int]string{leaf: c.leaf, own: c.own, provisioner: c.provisioner, identity: c.identity} {
			x := *chain[i]
			x.Subject.CommonName = n
			chain[i] = &x
		}
		got, err := readChip(chain)
		if (err == nil) != (c.err == "") || err == nil && got.String() != c.want || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}

func TestTcbInfo(t *testing.T) {
	t.Parallel()
	id := bytes.Repeat([]byte{0xab}, 48)
	// [3] svn 1, [6] fwids { { sha384, id } }, [7] flags: DiceTcbInfo as Blackwell has it.
	der := append([]byte{0x30, 0x47, 0x83, 0x01, 0x01, 0xa6, 0x3f, 0x30, 0x3d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x04, 0x30}, id...)
	der = append(der, 0x87, 0x01, 0x00)
	if got, err := tcbInfo(der); err != nil || !bytes.Equal(got, id) {
		t.Errorf("%x, %v", got, err)
	}
	for i := range der[:22] {
		bad := slices.Clone(der)
		bad[i] ^= 0x20
		if got, err := tcbInfo(bad); err == nil && !bytes.Equal(got, id) {
			t.Errorf("byte %d changed: %x", i, got)
		}
	}
	if _, err := tcbInfo(der[:len(der)-1]); err == nil {
		t.Error("cut short and accepted")
	}
	sha256OID := slices.Clone(der)
	sha256OID[19] = 1
	if _, err := tcbInfo(sha256OID); err == nil {
		t.Error("SHA-256 accepted")
	}
}
