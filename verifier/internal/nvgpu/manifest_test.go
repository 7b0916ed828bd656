package nvgpu

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	"github.com/concordat/concordat/verifier/internal/nvgpu/rim"
)

// everything is a machine with all that a Blackwell machine can have.
var everything = sim.Config{GPUs: 2, GPU: sim.GPUBlackwell, Switches: 2, Manifests: true}

func TestKindsPass(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]sim.Config{
		"hopper, pinned":                  {GPUs: 2},
		"hopper, manifests":               {GPUs: 2, Manifests: true},
		"hopper, switches":                {GPUs: 2, Switches: 2},
		"blackwell, pinned":               {GPUs: 2, GPU: sim.GPUBlackwell},
		"blackwell, manifests":            {GPUs: 1, GPU: sim.GPUBlackwell, Manifests: true},
		"blackwell, switches, manifests":  everything,
		"eight GPUs, four switches, RIMs": {GPUs: 8, Switches: 4, Manifests: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := simulateOf(t, cfg)
			r := m.appraise()
			if v := check.Summary(r.Checks()); v != check.Pass || !r.IsAuthentic() {
				t.Fatalf("verdict %v: %+v", v, r.Problems())
			}
			for _, c := range r.Checks() {
				if c.Verdict == check.NotChecked && !strings.Contains(c.Advice, "a switch has none") && !strings.Contains(c.Advice, "states no firmware id") {
					t.Errorf("not checked under a policy: %+v", c)
				}
			}
			if (find(r, "rim-vbios").Verdict == check.Pass) != cfg.Manifests || (find(r, "topology").Verdict == check.Pass) != (cfg.Switches > 0) {
				t.Errorf("manifests or topology: %+v, %+v", find(r, "rim-vbios"), find(r, "topology"))
			}
		})
	}
}

// TestSwitchFaults and TestManifestFaults demand that every fault is refused for
// its own reason and no other.
func TestSwitchFaults(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]struct{ check, words string }{
		"gpu-topology":     {"topology", "of which there is no evidence"},
		"switch-id":        {"topology", "states the id"},
		"switch-old-vbios": {"vbios", "96.10.55.00.01 or newer"},
		"switch-topology":  {"topology", "is not linked to GPU"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			refused(t, simulateOf(t, sim.Config{GPUs: 2, Switches: 2}, fault).appraise(), want.check, check.Fail, want.words, "")
		})
	}
}

func TestManifestFaults(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]struct {
		check   string
		verdict check.Verdict
		words   string
		also    string
	}{
		"gpu-measurement":    {check: "measurements", words: "2 (Measurement_2) is"},
		"gpu-nvdec":          {check: "measurements", words: "35 (Measurement_35) is 0000000000000000"},
		"gpu-old-driver":     {check: "rim-driver", verdict: check.Fail, words: "no RIM NV_GPU_DRIVER_GH100_550.9.7 was given", also: "driver"},
		"rim-doctype":        {check: "rim-vbios", words: "a comment, CDATA or document type", also: "rim-driver"},
		"rim-expired":        {check: "rim-vbios", words: "certificate has expired", also: "rim-driver"},
		"rim-forged-root":    {check: "rim-vbios", words: `"NVIDIA CoRIM signing Root CA" has key`, also: "rim-driver"},
		"rim-hold":           {check: "rim-vbios", words: "certificate hold", also: "rim-driver"},
		"rim-missing-driver": {check: "rim-driver", verdict: check.Incomplete, words: "no RIM NV_GPU_DRIVER_GH100_550.90.07 was given"},
		"rim-missing-vbios":  {check: "rim-vbios", verdict: check.Incomplete, words: "no RIM NV_GPU_VBIOS_1010_0200_882_96009F0001 was given"},
		"rim-no-ocsp":        {check: "rim-revocation", verdict: check.Incomplete, words: `an OCSP response for "HCC RIM L4 Signer"`},
		"rim-other-chip":     {check: "rim-vbios", verdict: check.Incomplete, words: "was given", also: "rim-driver"},
		"rim-other-version":  {check: "rim-vbios", verdict: check.Incomplete, words: "was given", also: "rim-driver"},
		"rim-overlap":        {check: "measurements", words: "measurement 4 is in both manifests"},
		"rim-revoked":        {check: "rim-vbios", words: "superseded", also: "rim-driver"},
		"rim-tampered":       {check: "rim-vbios", words: "the document's digest is", also: "rim-driver"},
		"rim-two-signatures": {check: "rim-vbios", words: "2 Signature elements, want 1", also: "rim-driver"},
		"rim-wrapped":        {check: "rim-vbios", words: "not a child of the root", also: "rim-driver"},
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			refused(t, simulateOf(t, sim.Config{GPUs: 1, Manifests: true}, fault).appraise(), want.check, want.verdict, want.words, want.also)
		})
	}
}

// TestManifestPolicy changes what is demanded of a machine without faults.
func TestManifestPolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault  string
		change func(m *machine, g *policy.GPU)
		check  string
		want   check.Verdict
	}{
		"without manifests":      {change: func(m *machine, g *policy.GPU) { g.RIM = false }, check: "measurements", want: check.Unsupported},
		"hold is accepted":       {fault: "rim-hold", change: func(m *machine, g *policy.GPU) { g.AllowRIMHold = true }, check: "rim-revocation", want: check.Pass},
		"revoked is not":         {fault: "rim-revoked", change: func(m *machine, g *policy.GPU) { g.AllowRIMHold = true }, check: "rim-vbios", want: check.Fail},
		"a device on hold":       {fault: "gpu-hold", change: func(m *machine, g *policy.GPU) { g.AllowRIMHold = true }, check: "revocation", want: check.Fail},
		"old responses":          {change: func(m *machine, g *policy.GPU) { g.MaxOCSPAge = 60; m.want.At = now.Add(2 * time.Minute) }, check: "rim-vbios", want: check.Fail},
		"old responses, devices": {change: func(m *machine, g *policy.GPU) { g.MaxOCSPAge = 60; m.want.At = now.Add(2 * time.Minute) }, check: "revocation", want: check.Fail},
		"age of its own":         {change: func(m *machine, g *policy.GPU) { g.MaxOCSPAge = 60; m.pol.Evidence.MaxCollateralAge = 1 }, check: "revocation", want: check.Pass},
		"denied":                 {change: func(m *machine, g *policy.GPU) { g.Denied = g.Devices[:1] }, check: "device", want: check.Fail},
		"denied, any":            {change: func(m *machine, g *policy.GPU) { g.Denied, g.Devices, g.AnyDevice = g.Devices, nil, true }, check: "device", want: check.Fail},
		"MPT alone":              {change: func(m *machine, g *policy.GPU) { g.Modes = []string{"mpt"} }, check: "mode", want: check.Fail},
		"no switches":            {change: func(m *machine, g *policy.GPU) { g.MinSwitches = 0 }, check: "architecture", want: check.Fail},
		"more switches":          {change: func(m *machine, g *policy.GPU) { g.MinSwitches = 3 }, check: "switches", want: check.Fail},
		"switches are no GPUs":   {change: func(m *machine, g *policy.GPU) { g.MinCount = 3 }, check: "count", want: check.Fail},
		"no floor for switches":  {change: func(m *machine, g *policy.GPU) { g.MinSwitchVBIOS = "" }, check: "vbios", want: check.Fail},
		"a switch is not shown":  {change: func(m *machine, g *policy.GPU) { m.items = m.items[:3] }, check: "topology", want: check.Fail},
		"the run was long ago":   {change: func(m *machine, g *policy.GPU) { m.want.At = now.AddDate(0, 0, -400) }, check: "rim-vbios", want: check.Fail},
		"no policy":              {change: func(m *machine, g *policy.GPU) { m.pol.Platforms.GPU = nil }, check: "policy", want: check.Fail},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var faults []string
			if c.fault != "" {
				faults = []string{c.fault}
			}
			m := simulateOf(t, everything, faults...)
			c.change(m, m.pol.Platforms.GPU)
			r := m.appraise()
			if !slices.ContainsFunc(r.Checks(), func(k check.Check) bool { return k.Name == "gpu."+c.check && k.Verdict == c.want }) {
				t.Errorf("no %s %v: %+v", c.check, c.want, r.Problems())
			}
			if v := check.Summary(r.Checks()); (v == check.Pass) != (c.want == check.Pass) {
				t.Errorf("as a whole %v: %+v", v, r.Problems())
			}
		})
	}
}

// TestPinnedGoesFirst: a pinned set needs no manifest.
func TestPinnedGoesFirst(t *testing.T) {
	t.Parallel()
	m, pinned := simulateOf(t, sim.Config{GPUs: 1, Manifests: true}, "rim-missing-vbios"), simulateOf(t, sim.Config{GPUs: 1})
	m.pol.Platforms.GPU.Measurements = pinned.pol.Platforms.GPU.Measurements
	r := m.appraise()
	if v := check.Summary(r.Checks()); v != check.Pass || find(r, "rim-vbios").Verdict == check.Pass {
		t.Errorf("%v: %+v", v, r.Problems())
	}
}

// TestManifestWithoutPolicy: manifests that are given are used, and what lacks is
// said.
func TestManifestWithoutPolicy(t *testing.T) {
	t.Parallel()
	m := simulateOf(t, sim.Config{GPUs: 1, Manifests: true})
	for name, ends := range map[string]*attestation.Endorsements{"measurements": m.ends, "rim-revocation": without(t, m.ends, attestation.TypeNVIDIAOCSP)} {
		w := m.want
		w.AllowMissingCollateral = true
		r := check.NewRecorder("gpu")
		Appraise(m.items[0].Raw, ends, nil, nil, w, r)
		want := check.Pass
		if name == "rim-revocation" {
			want = check.NotChecked
		}
		if c := find(r, name); c.Verdict != want || check.Summary(r.Checks()) != check.Pass {
			t.Errorf("%s: %+v, %+v", name, c, r.Problems())
		}
	}
}

func without(t testing.TB, ends *attestation.Endorsements, typ string) *attestation.Endorsements {
	var docs []attestation.Endorsement
	for _, e := range ends.All() {
		if e.Type != typ {
			docs = append(docs, e)
		}
	}
	return set(t, docs...)
}

// TestEveryByteOfManifests flips a bit of every byte of a manifest: it is refused,
// or its signature still holds and it says the same.
func TestEveryByteOfManifests(t *testing.T) {
	t.Parallel()
	m := simulateOf(t, sim.Config{GPUs: 1, Manifests: true})
	doc := m.ends.ByType(attestation.TypeNVIDIARIM, nil)[0]
	good, err := rim.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	step := 29
	if testing.Short() {
		step = 61
	}
	for i := 0; i < len(doc); i += step {
		bad := slices.Clone(doc)
		bad[i] ^= 1 << (i % 7)
		got, err := rim.Parse(bad)
		if err != nil {
			continue
		}
		// The certificates above the signer's are not signed here; their own
		// signatures are judged with the chain, and of the root its key alone counts.
		chain := slices.EqualFunc(got.Chain[:signerChain-1], good.Chain[:signerChain-1], (*x509.Certificate).Equal)
		if !chain && NewSet(nil, nil).verifySigner(got.Chain, &m.want) != nil {
			continue
		}
		got.Chain = good.Chain
		if !chain || !reflect.DeepEqual(got, good) {
			t.Fatalf("byte %d (%q) changed and accepted", i, doc[max(0, i-20):min(len(doc), i+20)])
		}
	}
}

// TestRealManifest: NVIDIA's own VBIOS manifest. Its signer's certificates ended
// in 2025.
func TestRealManifest(t *testing.T) {
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: the real manifest is not checked")
	}
	doc, err := os.ReadFile(filepath.Join(dir, "nvidia", "1010_0200_882_96005E0001_PROD.swidtag"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := rim.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	if m.Version != "96.00.5E.00.01" || m.Product != "GH100" || m.Edition != "GPU" || len(m.Chain) != signerChain || len(m.Measurements) == 0 {
		t.Errorf("%s %s %s, %d measurements, %d certificates", m.Product, m.Edition, m.Version, len(m.Measurements), len(m.Chain))
	}
	s := NewSet(nil, nil)
	if err := s.verifySigner(m.Chain, &check.Expect{At: time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)}); err != nil {
		t.Errorf("at 2024-01-01: %v", err)
	}
	if err := s.verifySigner(m.Chain, &check.Expect{At: now}); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("at %v, in the same set: %v", now, err)
	}
	if err := s.verifySigner(m.Chain, &check.Expect{At: now, Simulated: true, Roots: manifestRoots}); err == nil {
		t.Error("a real signer in a simulation")
	}
}
