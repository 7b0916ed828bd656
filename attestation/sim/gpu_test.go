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
	m := &Machine{cfg: Config{Vendor: &Vendor{seed: [32]byte{1}}, Chip: chip, GPUs: 2, Faults: map[string]string{}}}
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
	items, err := m.CollectGPU(context.Background(), [][32]byte{{1}, {2}})
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
