package collect

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/collect/gpuhelper"
	"github.com/concordat/concordat/attestation/sim"
)

// withGPUs opens a machine with two GPUs, and what its vendors publish about them.
func withGPUs(t *testing.T) (*Machine, gpuBox, []attestation.Endorsement) {
	t.Helper()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP, GPUs: 2})
	b := newGPUs(t, hardware)
	h := newKernel(t, hardware).host(t)
	h.helper = b.program()
	m := open(t, h, accepts(t, hardware))
	return m, b, documents(t, hardware, attestation.TypeNVIDIAOCSP)
}

var twoNonces = [][32]byte{{1}, {2}}

// TestGPUReady: GPUs work after they were judged and passed, and at no other time.
func TestGPUReady(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	m, b, ocsp := withGPUs(t)
	if b.state().Ready {
		t.Fatal("the GPUs work before anybody judged them")
	}
	ready := func(want bool, when string) {
		t.Helper()
		if b.state().Ready != want {
			t.Errorf("%s: ready is %t", when, !want)
		}
	}
	items, err := m.CollectGPU(ctx, twoNonces)
	if err != nil || len(items) != 2 {
		t.Fatalf("without OCSP responses: %d items, %v", len(items), err)
	}
	ready(false, "without OCSP responses")
	if err := m.AddEndorsements(ctx, ocsp); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if items, err = m.CollectGPU(ctx, twoNonces); err != nil {
			t.Fatal(err)
		}
		ready(true, "after a pass")
	}
	for i, it := range items {
		if it.Kind != attestation.KindGPU || len(it.Endorsements) != 1 {
			t.Errorf("item %d: %s with %d endorsements", i, it.Kind, len(it.Endorsements))
		}
	}

	// Whatever goes wrong later stops them.
	good := b.state()
	fails := func(name, want string) {
		t.Helper()
		items, err := m.CollectGPU(ctx, twoNonces)
		if err == nil || items != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d items, %v, want %q", name, len(items), err, want)
		}
		ready(false, name)
		b.set(good)
	}
	for fault, want := range map[string]string{
		"gpu-bad-signature": "gpu 0: fail: gpu.signature",
		"gpu-wrong-nonce":   "gpu.nonce",
		"gpu-old-driver":    "driver",
		"gpu-measurement":   "measurement",
		"gpu-duplicate":     "gpus 0 and 1 are one device",
		"gpu-forged-root":   "gpu.chain",
	} {
		b.become(simulated(t, sim.Config{Platform: sim.PlatformSNP, GPUs: 2, Faults: map[string]string{fault: ""}}))
		fails(fault, want)
	}
	b.become(simulated(t, sim.Config{Platform: sim.PlatformSNP, GPUs: 2}))
	for want, change := range map[string]func(*gpuhelper.State){
		"DevTools":                 func(s *gpuhelper.State) { s.DevTools = true },
		"computing is off":         func(s *gpuhelper.State) { s.Confidential = false },
		`environment "simulation"`: func(s *gpuhelper.State) { s.Environment = gpuhelper.Simulation },
		"2 nonces for 3 GPUs":      func(s *gpuhelper.State) { s.GPUs = 3 },
		"17 GPUs":                  func(s *gpuhelper.State) { s.GPUs = 17 },
	} {
		s := good
		change(&s)
		b.set(s)
		_, err := m.CollectGPU(ctx, twoNonces)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
		ready(false, want)
		b.set(good)
	}

	// A collection that is given up stops them too.
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := m.CollectGPU(stopped, twoNonces); err == nil {
		t.Error("collected after the context's end")
	}
	b.set(good)
	if _, err := m.CollectGPU(ctx, twoNonces[:1]); err == nil || !strings.Contains(err.Error(), "1 nonces for 2 GPUs") {
		t.Errorf("one nonce: %v", err)
	}
}

func TestOpenGPURefuses(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP, GPUs: 2})
	p := accepts(t, hardware)
	for name, c := range map[string]struct {
		change      func(h *host, s *gpuhelper.State)
		want        string
		unsupported bool
	}{
		"one GPU":     {func(_ *host, s *gpuhelper.State) { s.GPUs = 1 }, "demands 2 GPUs, this machine has 1", true},
		"no GPU":      {func(_ *host, s *gpuhelper.State) { s.GPUs = 0 }, "demands 2 GPUs, this machine has 0", true},
		"CC off":      {func(_ *host, s *gpuhelper.State) { s.Confidential = false }, "confidential computing is off", true},
		"DevTools":    {func(_ *host, s *gpuhelper.State) { s.DevTools = true }, "DevTools", true},
		"unavailable": {func(_ *host, s *gpuhelper.State) { s.Environment = gpuhelper.Unavailable }, "unavailable", true},
		"no helper":   {func(h *host, _ *gpuhelper.State) { h.helper += "-not" }, "no such file", false},
	} {
		b := newGPUs(t, hardware)
		h := newKernel(t, hardware).host(t)
		h.helper = b.program()
		s := b.state()
		c.change(&h, &s)
		b.set(s)
		_, err := h.open(context.Background(), Config{Policy: p})
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, errors.ErrUnsupported) != c.unsupported {
			t.Errorf("%s: %v", name, err)
		}
		if name == "no helper" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A policy that knows no GPU starts no program.
	h := newKernel(t, hardware).host(t)
	m := open(t, h, accepts(t, simulated(t, sim.Config{Platform: sim.PlatformSNP})))
	if items, err := m.CollectGPU(context.Background(), nil); m.GPUs() != 0 || items != nil || err != nil {
		t.Errorf("%d GPUs, %d items, %v", m.GPUs(), len(items), err)
	}
}
