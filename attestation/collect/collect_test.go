package collect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier"
	"github.com/google/go-configfs-tsm/configfs/faketsm"
	"github.com/google/go-configfs-tsm/report"
)

// TestRoundTrip: what the released collector brings, the released verifier accepts,
// for every platform; and what the host laid beside the report is used.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, c := range []sim.Config{
		{Platform: sim.PlatformSNP, Product: "Milan"},
		{Platform: sim.PlatformSNP, Product: "Genoa"},
		{Platform: sim.PlatformSNP, Product: "Turin"},
		{Platform: sim.PlatformTDX},
		{Platform: sim.PlatformSNP, GPUs: 2},
	} {
		t.Run(fmt.Sprint(c.Platform, c.Product, c.GPUs), func(t *testing.T) {
			t.Parallel()
			hardware := simulated(t, c)
			k := newKernel(t, hardware)
			h := k.host(t)
			fetched := []string{attestation.TypeIntelCollateral}
			if c.Platform == sim.PlatformSNP {
				k.certs = certTable(t, documents(t, hardware, attestation.TypeAMDVCEK, attestation.TypeAMDChain))
				fetched = []string{attestation.TypeAMDCRL}
			}
			if c.GPUs > 0 {
				h.helper = newGPUs(t, hardware).program()
				fetched = append(fetched, attestation.TypeNVIDIAOCSP)
			}
			m := open(t, h, accepts(t, hardware))
			if m.GPUs() != c.GPUs {
				t.Fatalf("%d GPUs, want %d", m.GPUs(), c.GPUs)
			}
			r := appraise(t, m)
			if r.Verdict() != verifier.Incomplete || !r.Authentic() && c.Platform == sim.PlatformSNP {
				t.Errorf("with the machine's own endorsements: %s, authentic %t", r.Verdict(), r.Authentic())
			}
			if err := m.AddEndorsements(context.Background(), documents(t, hardware, fetched...)); err != nil {
				t.Fatal(err)
			}
			if r := appraise(t, m); r.Verdict() != verifier.PassSimulated {
				t.Errorf("with what was fetched: %s", r.Verdict())
				for _, c := range r.Checks() {
					if c.Verdict != verifier.Pass {
						t.Logf("%+v", c)
					}
				}
			}
			if len(k.reports.Entries) != 0 {
				t.Errorf("%d entries left behind", len(k.reports.Entries))
			}
		})
	}
}

// appraise makes evidence as an enclave does and judges it as a node does.
func appraise(t *testing.T, m *Machine) *verifier.Result {
	t.Helper()
	ctx := context.Background()
	signer, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	var tree attestation.NonceTree
	if _, err := tree.Add(attestation.Digest{1}, [32]byte{1}); err != nil {
		t.Fatal(err)
	}
	p := m.cfg.Policy
	claims := &attestation.Claims{
		Federation: p.FederationID(), Policy: p.Digest(), PolicyVersion: 1, Instance: attestation.ID{1}, Role: attestation.RoleAggregator,
		Epoch: 1, SignPub: signer.Public(), KEMPub: make([]byte, attestation.KEMKeySize), Image: attestation.Digest{2}, Config: attestation.Digest{3},
		NonceRoot: tree.Root(), NonceCount: tree.Count(), Simulated: true, IssuedAt: uint64(now.Unix()),
	}
	var nonces [][32]byte
	for i := range m.GPUs() {
		nonces = append(nonces, attestation.GPUNonce(claims, i))
	}
	gpus, err := m.CollectGPU(ctx, nonces)
	if err != nil {
		t.Fatal(err)
	}
	claims.GPU = attestation.GPUDigest(gpus)
	raw := claims.Encode()
	items, err := m.Collect(ctx, attestation.ReportData(raw, true))
	if err != nil {
		t.Fatal(err)
	}
	ends, err := m.Endorsements()
	if err != nil {
		t.Fatal(err)
	}
	e, err := attestation.ParseEvidence((&attestation.Evidence{Claims: raw, Items: append(items, gpus...)}).Encode())
	if err != nil {
		t.Fatal(err)
	}
	r, err := verifier.Appraise(e, ends, p, tree.Proof(0), now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestSameAsLibrary compares with the module's own way through the interface.
func TestSameAsLibrary(t *testing.T) {
	t.Parallel()
	for _, platform := range []string{sim.PlatformSNP, sim.PlatformTDX} {
		hardware := simulated(t, sim.Config{Platform: platform})
		k := newKernel(t, hardware)
		k.certs = make([]byte, certEntrySize)
		m := open(t, k.host(t), accepts(t, hardware))
		data := [64]byte{5}
		req := &report.Request{InBlob: data[:]}
		if platform == sim.PlatformSNP {
			req.GetAuxBlob, req.Privilege = true, &report.Privilege{Level: 0}
		}
		want, err := report.Get(k, req)
		if err != nil {
			t.Fatal(err)
		}
		got, certs, err := m.cpu(data)
		if err != nil || !bytes.Equal(got, want.OutBlob) || !bytes.Equal(certs, want.AuxBlob) {
			t.Errorf("%s: %d bytes and %d, want %d and %d: %v", platform, len(got), len(certs), len(want.OutBlob), len(want.AuxBlob), err)
		}
		if level, there := k.written["privlevel"]; there != (platform == sim.PlatformSNP) || there && level != "0" {
			t.Errorf("%s: asked for privilege level %q", platform, level)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP})
	other := accepts(t, simulated(t, sim.Config{Platform: sim.PlatformTDX}))
	p := accepts(t, hardware)
	for name, c := range map[string]struct {
		change      func(k *kernel, h *host)
		tdx         bool
		want        string
		unsupported bool
	}{
		"no configfs":      {change: func(k *kernel, h *host) { h.files = kept{k, map[string]error{"mkdir": os.ErrNotExist}} }, want: "cannot attest itself", unsupported: true},
		"no driver":        {change: func(k *kernel, h *host) { h.files = kept{k, map[string]error{"mkdir": syscall.ENXIO}} }, want: "cannot attest itself", unsupported: true},
		"no permission":    {change: func(k *kernel, h *host) { h.files = kept{k, map[string]error{"mkdir": syscall.EACCES}} }, want: "permission denied"},
		"another provider": {change: func(k *kernel, h *host) { k.provider = "arm_cca_guest" }, want: `"arm_cca_guest"`, unsupported: true},
		"another platform": {change: func(k *kernel, h *host) {}, tdx: true, want: "amd-sev-snp, which the policy does not accept", unsupported: true},
		"no generation":    {change: func(k *kernel, h *host) { h.files = kept{k, map[string]error{"generation": syscall.EIO}} }, want: "generation"},
	} {
		k := newKernel(t, hardware)
		h := k.host(t)
		c.change(k, &h)
		cfg := Config{Policy: p, Now: time.Now}
		if c.tdx {
			cfg.Policy = other
		}
		_, err := h.open(context.Background(), cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, errors.ErrUnsupported) != c.unsupported {
			t.Errorf("%s: %v", name, err)
		}
		if len(k.reports.Entries) != 0 {
			t.Errorf("%s: %d entries left behind", name, len(k.reports.Entries))
		}
	}
	if _, err := Open(context.Background(), Config{Policy: p, Now: time.Now}); err == nil || !strings.Contains(err.Error(), "simulated federation") {
		t.Errorf("the policy of a simulated federation: %v", err)
	}
}

// TestInterference: a report is never of somebody else's question.
func TestInterference(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP})
	p := accepts(t, hardware)
	for name, c := range map[string]struct {
		times int // that it goes wrong
		wrong func(e *faketsm.ReportEntry) error
		want  string // in the error, "" for none
	}{
		"another writer, once":  {1, func(e *faketsm.ReportEntry) error { e.WriteGeneration++; return nil }, ""},
		"another writer, often": {attempts - 1, func(e *faketsm.ReportEntry) error { e.WriteGeneration++; return nil }, ""},
		"another writer, ever":  {attempts, func(e *faketsm.ReportEntry) error { e.WriteGeneration++; return nil }, errRaced.Error()},
		"another question": {1, func(e *faketsm.ReportEntry) error {
			e.InAttrs["inblob"].Value = make([]byte, 64)
			e.WriteGeneration++
			return nil
		}, ""},
		"another question, unnoticed": {1, func(e *faketsm.ReportEntry) error {
			e.InAttrs["inblob"].Value = make([]byte, 64)
			return nil
		}, "report data mismatch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				k := newKernel(t, hardware)
				m := open(t, k.host(t), p)
				asked := 0
				k.before = func(e *faketsm.ReportEntry) error {
					if asked++; asked <= c.times {
						return c.wrong(e)
					}
					return nil
				}
				items, err := m.Collect(context.Background(), [64]byte{1, 2})
				switch {
				case c.want != "":
					if err == nil || !strings.Contains(err.Error(), c.want) {
						t.Errorf("got %v, want %q in it", err, c.want)
					}
				case err != nil:
					t.Error(err)
				case !bytes.Equal(items[0].Raw, k.answer([64]byte{1, 2})):
					t.Error("the report of another question")
				}
				if len(k.reports.Entries) != 0 {
					t.Errorf("%d entries left behind", len(k.reports.Entries))
				}
			})
		})
	}
}

// lost is a tree that takes binary attributes and forgets them, as the kernel does
// with what a driver refuses when the file is closed.
type lost struct{ *kernel }

func (l lost) WriteFile(name string, value []byte) error {
	if strings.HasSuffix(name, "/inblob") {
		return nil
	}
	return l.kernel.WriteFile(name, value)
}

// TestLostWrite: the kernel's silence about a refused question is noticed.
func TestLostWrite(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP})
	p := accepts(t, hardware)
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(t, hardware)
		m := open(t, k.host(t), p)
		m.host.files = lost{k}
		fresh := k.reports.MakeEntry
		k.reports.MakeEntry = func() *faketsm.ReportEntry {
			e := fresh()
			e.WriteGeneration = 5 // or the fake shows no attributes before the first write
			return e
		}
		if _, err := m.Collect(context.Background(), [64]byte{}); !errors.Is(err, errRaced) || !strings.Contains(err.Error(), "generation 6, want 7") {
			t.Error(err)
		}
	})
}

// TestBusy: what passes is waited for, what does not is said at once.
func TestBusy(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP})
	p := accepts(t, hardware)
	for _, c := range []struct {
		err   error
		asked int
		took  time.Duration
	}{
		{syscall.EBUSY, attempts, 2 * time.Second},
		{syscall.EAGAIN, attempts, 2 * time.Second},
		{syscall.EINTR, attempts, 2 * time.Second},
		{syscall.EIO, 1, 0},
		{syscall.ETIMEDOUT, 1, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(t, hardware)
			h := k.host(t)
			m := open(t, h, p)
			asked := 0
			m.host.files = counted{kept{k, map[string]error{"outblob": c.err}}, &asked}
			began := time.Now()
			_, err := m.Collect(context.Background(), [64]byte{})
			if !errors.Is(err, c.err) || asked != c.asked || time.Since(began) != c.took {
				t.Errorf("%v: %v after %d times and %s, want %d and %s", c.err, err, asked, time.Since(began), c.asked, c.took)
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if _, err := m.Collect(ctx, [64]byte{}); c.asked > 1 && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: with a second's patience: %v", c.err, err)
			}
		})
	}
}

type counted struct {
	kept
	asked *int
}

func (c counted) ReadFile(name string) ([]byte, error) {
	if strings.HasSuffix(name, "/outblob") {
		*c.asked++
	}
	return c.kept.ReadFile(name)
}

// TestBadAnswers: what the host can put in the way of a report is refused in words.
func TestBadAnswers(t *testing.T) {
	t.Parallel()
	snpMachine := simulated(t, sim.Config{Platform: sim.PlatformSNP})
	tdxMachine := simulated(t, sim.Config{Platform: sim.PlatformTDX})
	for name, c := range map[string]struct {
		hardware *sim.Machine
		change   func(k *kernel)
		want     string
	}{
		"wrong nonce":      {simulated(t, sim.Config{Platform: sim.PlatformSNP, Faults: map[string]string{"wrong-nonce": ""}}), nil, "report data mismatch"},
		"wrong nonce, TDX": {simulated(t, sim.Config{Platform: sim.PlatformTDX, Faults: map[string]string{"wrong-nonce": ""}}), nil, "report data mismatch"},
		"no report":        {snpMachine, func(k *kernel) { k.answer = func([64]byte) []byte { return nil } }, "what the platform returned"},
		"a quote":          {snpMachine, func(k *kernel) { k.answer = newKernel(t, tdxMachine).answer }, "what the platform returned"},
		"garbage quote":    {tdxMachine, func(k *kernel) { k.answer = func([64]byte) []byte { return make([]byte, 8000) } }, "what the platform returned"},
		"bad certificates": {snpMachine, func(k *kernel) { k.certs = []byte("certificates") }, "certificate table"},
		"under an SVSM":    {snpMachine, func(k *kernel) { k.floor = "2" }, "VMPL 2"},
		"no number":        {snpMachine, func(k *kernel) { k.floor = "none" }, "privlevel_floor"},
	} {
		k := newKernel(t, c.hardware)
		m := open(t, k.host(t), accepts(t, c.hardware))
		if c.change != nil {
			c.change(k)
		}
		items, err := m.Collect(context.Background(), [64]byte{1})
		if err == nil || items != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, c.want)
		}
	}
}

// TestEndorsements: what was added is replaced by the next, what the machine has stays.
func TestEndorsements(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP})
	k := newKernel(t, hardware)
	own := documents(t, hardware, attestation.TypeAMDVCEK, attestation.TypeAMDChain)
	k.certs = certTable(t, own)
	m := open(t, k.host(t), accepts(t, hardware))
	ctx := context.Background()
	has := func(want int) {
		t.Helper()
		if ends, err := m.Endorsements(); err != nil || ends.Len() != want {
			t.Errorf("%d documents, want %d: %v", ends.Len(), want, err)
		}
	}
	has(0)
	items, err := m.Collect(ctx, [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	has(2)
	for _, d := range own {
		if !slices.Contains(items[0].Endorsements, d.Digest()) {
			t.Errorf("the report does not name the %s beside it", d.Type)
		}
	}
	for range 2 {
		if err := m.AddEndorsements(ctx, documents(t, hardware, attestation.TypeAMDCRL)); err != nil {
			t.Fatal(err)
		}
		has(3)
	}
	if err := m.AddEndorsements(ctx, []attestation.Endorsement{{Type: "rumour", Data: []byte{1}}}); err == nil {
		t.Error("an unknown document was added")
	}
	if err := m.AddEndorsements(ctx, nil); err != nil {
		t.Fatal(err)
	}
	has(2)
}

// TestOneAtATime: calls wait for each other, and no longer than they want to.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	hardware := simulated(t, sim.Config{Platform: sim.PlatformSNP})
	p := accepts(t, hardware)
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(t, hardware)
		m := open(t, k.host(t), p)
		inside, release := make(chan struct{}), make(chan struct{})
		k.before = func(*faketsm.ReportEntry) error {
			inside <- struct{}{}
			<-release
			return nil
		}
		done := make(chan error)
		collect := func(ctx context.Context) { _, err := m.Collect(ctx, [64]byte{}); done <- err }
		go collect(context.Background())
		<-inside
		ctx, cancel := context.WithCancel(context.Background())
		go collect(ctx)
		synctest.Wait() // the second waits and has not reached the hardware
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the second: %v", err)
		}
		close(release)
		if err := <-done; err != nil {
			t.Errorf("the first: %v", err)
		}
	})
}
