package sim

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
)

// gpuMachine builds only what GPUs need: no RSA key, so that the test is quick.
func gpuMachine(t *testing.T, chip string, faults ...string) *Machine {
	t.Helper()
	return gpuMachineOf(t, Config{Chip: chip, GPUs: 2}, faults...)
}

func gpuMachineOf(t *testing.T, cfg Config, faults ...string) *Machine {
	t.Helper()
	cfg.Vendor, cfg.Faults = &Vendor{seed: [32]byte{1}}, map[string]string{}
	m := &Machine{cfg: cfg}
	if err := m.cfg.checkGPU(); err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		m.cfg.Faults[f] = ""
	}
	docs, err := m.issueGPU(time.Unix(1.8e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	m.docs = docs
	return m
}

func gpuReports(t *testing.T, m *Machine) [][]byte {
	t.Helper()
	var nonces [][32]byte
	for i := range m.GPUs() {
		nonces = append(nonces, [32]byte{byte(i + 1)})
	}
	items, err := m.CollectGPU(context.Background(), nonces)
	if err != nil {
		t.Fatal(err)
	}
	var raw [][]byte
	for _, it := range items {
		raw = append(raw, it.Raw)
	}
	return raw
}

func gpuDocs(m *Machine, typ string) []byte {
	var all []byte
	for _, d := range m.docs {
		if d.Type == typ {
			all = append(all, d.Data...)
		}
	}
	return all
}

// TestGPUDeterministic: the same machine file makes the same evidence, and
// another chip other evidence with the same measurements.
func TestGPUDeterministic(t *testing.T) {
	t.Parallel()
	a, b, c := gpuMachine(t, "a"), gpuMachine(t, "a"), gpuMachine(t, "c")
	ra, rb, rc := gpuReports(t, a), gpuReports(t, b), gpuReports(t, c)
	for i := range ra {
		if !bytes.Equal(ra[i], rb[i]) {
			t.Errorf("report %d differs between two equal machines", i)
		}
		if bytes.Equal(ra[i], rc[i]) {
			t.Errorf("report %d is the same on another chip", i)
		}
	}
	if !bytes.Equal(gpuDocs(a, attestation.TypeNVIDIAChain), gpuDocs(b, attestation.TypeNVIDIAChain)) {
		t.Error("chains differ between two equal machines")
	}
	pa, err1 := nvgpu.Parse(ra[0])
	pc, err2 := nvgpu.Parse(rc[1])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	if nvgpu.MeasurementsDigest(pa) != nvgpu.MeasurementsDigest(pc) {
		t.Error("measurements depend on the chip")
	}
}

// TestGPUFaultsDo demands that every fault changes the evidence, or its OCSP
// responses alone.
func TestGPUFaultsDo(t *testing.T) {
	t.Parallel()
	good := gpuMachine(t, "a")
	for _, f := range gpuFaults {
		bad := gpuMachine(t, "a", f)
		same := bytes.Equal(bytes.Join(gpuReports(t, good), nil), bytes.Join(gpuReports(t, bad), nil)) &&
			bytes.Equal(gpuDocs(good, attestation.TypeNVIDIAChain), gpuDocs(bad, attestation.TypeNVIDIAChain))
		switch f {
		case "gpu-hold", "gpu-revoked", "gpu-no-ocsp", "gpu-stale-ocsp":
			if !same {
				t.Errorf("%s changes more than OCSP responses", f)
			}
		default:
			if same {
				t.Errorf("%s changes nothing", f)
			}
		}
	}
}

// TestSwitchAndManifestFaultsDo demands that every fault of switches changes a
// report, and every fault of manifests a document, and nothing else.
func TestSwitchAndManifestFaultsDo(t *testing.T) {
	t.Parallel()
	cfg := Config{Chip: "a", GPUs: 2, GPU: GPUBlackwell, Switches: 2, Manifests: true}
	good := gpuMachineOf(t, cfg)
	reports, rims := bytes.Join(gpuReports(t, good), nil), gpuDocs(good, attestation.TypeNVIDIARIM)
	for _, f := range switchFaults {
		bad := gpuMachineOf(t, cfg, f)
		if bytes.Equal(reports, bytes.Join(gpuReports(t, bad), nil)) || !bytes.Equal(rims, gpuDocs(bad, attestation.TypeNVIDIARIM)) {
			t.Errorf("%s changes no report, or the manifests", f)
		}
	}
	for _, f := range manifestFaults {
		bad := gpuMachineOf(t, cfg, f)
		if !bytes.Equal(reports, bytes.Join(gpuReports(t, bad), nil)) {
			t.Errorf("%s changes a report", f)
		}
		ocspAlone := f == "rim-hold" || f == "rim-revoked" || f == "rim-no-ocsp"
		if same := bytes.Equal(rims, gpuDocs(bad, attestation.TypeNVIDIARIM)); same != ocspAlone {
			t.Errorf("%s: same manifests %v", f, same)
		}
	}
}

func TestGPUConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]Config{
		"another kind":         {GPUs: 1, GPU: "ampere"},
		"a kind and no GPU":    {GPU: GPUHopper},
		"switches and no GPU":  {Switches: 1},
		"manifests and no GPU": {Manifests: true},
		"too many":             {GPUs: 13, Switches: 4},
		"less than no switch":  {GPUs: 1, Switches: -1},
	} {
		if err := c.checkGPU(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
