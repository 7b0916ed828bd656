package collect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/collect/gpuhelper"
	"github.com/concordat/concordat/policy"
	"github.com/google/go-configfs-tsm/configfs/configfsi"
)

// Config is what a machine is opened with. Every field is required.
type Config struct {
	// Policy is what the members demand of the machine. It decides whether GPUs are
	// looked for at all, and when they may work.
	Policy *policy.Policy
	// Now is the machine's clock. The host controls it, so nobody else relies on what
	// was judged by it; see [Machine.CollectGPU].
	Now func() time.Time
}

// host is where the machine's parts lie. Only tests have another one.
type host struct {
	files     configfsi.Client // configfs
	registers string           // directory of the TDX driver's registers
	helper    string           // program that speaks to GPUs, part of the measured image
	// older is the way to the CPU after errNoTSM. It is nil but in builds with the tag
	// sevioctl.
	older func() (*platform, asker, error)
}

// asker gets one report over data, and the blob of certificates beside it.
type asker func(data [64]byte) (report, certs []byte, err error)

var thisHost = host{files: kernelFiles{}, registers: "/sys/class/misc/tdx_guest/measurements", helper: "/usr/libexec/concordat-gpu"}

// Machine is a confidential VM with its GPUs. It is safe for concurrent use; the
// hardware is asked one question at a time.
type Machine struct {
	host     host
	cfg      Config
	platform *platform
	cpu      asker
	gpus     int
	helper   gpuhelper.Helper

	slot chan struct{} // holds a value while nobody speaks to the hardware

	// With slot taken:
	cpuDocs       []attestation.Endorsement
	gpuDocs, more []attestation.Endorsement
}

// Open finds out what this program runs on. An error that wraps
// [errors.ErrUnsupported] means that this machine has not what the policy demands: it
// is no confidential VM, or not of a kind that the members accept, or lacks GPUs.
//
// Where the policy demands GPUs, Open stops them from accepting work: they may only
// after [Machine.CollectGPU] has judged them. A policy of a simulated federation is
// refused: nothing here is simulated.
func Open(ctx context.Context, c Config) (*Machine, error) {
	if c.Policy.Simulated {
		return nil, errors.New("collect: the policy is of a simulated federation, and this machine is none: start concordat-enclave-sim, or use the policy of a real federation")
	}
	return thisHost.open(ctx, c)
}

func (h host) open(ctx context.Context, c Config) (*Machine, error) {
	p, err := detect(h.files)
	m := &Machine{host: h, cfg: c, slot: make(chan struct{}, 1)}
	m.cpu = func(data [64]byte) (report, certs []byte, err error) { return p.ask(m.host.files, data) }
	if h.older != nil && errors.Is(err, errNoTSM) {
		first := err
		if p, m.cpu, err = h.older(); err != nil {
			err = fmt.Errorf("%w; and %w", first, err)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	m.platform = p
	m.slot <- struct{}{}
	accepted := c.Policy.Platforms.SNP != nil
	if p.kind == attestation.KindTDX {
		accepted = c.Policy.Platforms.TDX != nil
	}
	if !accepted {
		return nil, fmt.Errorf("collect: this is %s, which the policy does not accept: %w", p.kind, errors.ErrUnsupported)
	}
	if err := m.openGPU(ctx); err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	return m, nil
}

// How often the hardware is asked again when it is busy or was interrupted, and how
// long one waits before: longer each time.
const (
	attempts = 5
	pause    = 200 * time.Millisecond
)

// Collect gets one report or quote over reportData, and names the certificates that
// the host had laid beside it. It implements attestation.Collector.
//
// A call that waits for another returns when ctx ends; one that is in the kernel ends
// when the kernel gives up, which takes up to a minute.
func (m *Machine) Collect(ctx context.Context, reportData [64]byte) ([]attestation.Item, error) {
	if err := m.take(ctx); err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	defer m.release()
	raw, certs, err := m.ask(ctx, reportData)
	if err != nil {
		return nil, fmt.Errorf("collect: %s: %w", m.platform.kind, err)
	}
	got, err := m.platform.reportData(raw)
	if err != nil {
		return nil, fmt.Errorf("collect: what the platform returned: %w", err)
	}
	if !bytes.Equal(got[:], reportData[:]) {
		return nil, fmt.Errorf("collect: %s: report data mismatch: got %x, want %x", m.platform.kind, got, reportData)
	}
	docs, err := parseCertTable(certs)
	if err != nil {
		return nil, fmt.Errorf("collect: %s: %w", m.platform.kind, err)
	}
	m.cpuDocs = docs
	return []attestation.Item{{Kind: m.platform.kind, Raw: raw, Endorsements: digests(docs)}}, nil
}

// ask repeats the question where that may help.
func (m *Machine) ask(ctx context.Context, reportData [64]byte) (raw, certs []byte, err error) {
	for i := range attempts {
		if err := wait(ctx, time.Duration(i)*pause); err != nil {
			return nil, nil, err
		}
		raw, certs, err = m.cpu(reportData)
		if err == nil || !passing(err) {
			return raw, certs, err
		}
	}
	return nil, nil, fmt.Errorf("%w (%d times)", err, attempts)
}

// passing reports whether err may be gone in a moment: somebody interfered, or the
// security processor or the quoting service has another customer.
func passing(err error) bool {
	return errors.Is(err, errRaced) || errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
}

func wait(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// take waits until nobody else speaks to the hardware.
func (m *Machine) take(ctx context.Context) error {
	select {
	case <-m.slot:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *Machine) release() { m.slot <- struct{}{} }

// AddEndorsements gives the machine documents that it has not itself, such as OCSP
// responses about its GPUs. Where they came from does not matter: nobody believes
// them. They replace those that an earlier call gave, and are among what
// [Machine.Endorsements] returns.
func (m *Machine) AddEndorsements(ctx context.Context, docs []attestation.Endorsement) error {
	if _, err := attestation.NewEndorsements(docs...); err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	if err := m.take(ctx); err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	defer m.release()
	m.more = slices.Clone(docs)
	return nil
}

// Endorsements returns what lay beside the evidence of the last calls, and what was
// added. It waits for a call that speaks to the hardware.
func (m *Machine) Endorsements() (*attestation.Endorsements, error) {
	<-m.slot
	defer m.release()
	ends, err := attestation.NewEndorsements(slices.Concat(m.cpuDocs, m.gpuDocs, m.more)...)
	if err != nil {
		return nil, fmt.Errorf("collect: %w", err)
	}
	return ends, nil
}

// digests names documents as items do.
func digests(docs []attestation.Endorsement) []attestation.Digest {
	var out []attestation.Digest
	for _, d := range docs {
		out = append(out, d.Digest())
	}
	return out
}
