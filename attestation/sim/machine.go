package sim

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/policy"
)

// Machine is one simulated machine. It is safe for concurrent use.
type Machine struct {
	cfg Config

	mu   sync.Mutex // guards what [Machine.Issue] replaces, here and in the states below
	docs []attestation.Endorsement

	// What every platform keeps between issue and collect. A platform is a state,
	// a list of faults, and three methods: issueX makes certificates and collateral
	// in force at a time, collectX (after issueX, with mu held) evidence that names
	// them, describeX adds its roots and reference values to a description.
	snp snpState
	tdx tdxState
	gpu gpuState
	tpm tpmState
}

// New returns the machine of cfg with everything that its vendors would have
// issued at the time at. Faults that are unknown are an error. It keeps cfg.
func New(cfg Config, at time.Time) (*Machine, error) {
	m := &Machine{cfg: cfg}
	if err := m.defaults(); err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	if err := m.Issue(at); err != nil {
		return nil, err
	}
	return m, nil
}

// fault returns the value of a fault and whether the machine has it.
func (m *Machine) fault(name string) (string, bool) {
	v, ok := m.cfg.Faults[name]
	return v, ok
}

func (m *Machine) has(fault string) bool { _, ok := m.fault(fault); return ok }

// Issue makes the vendors issue everything anew, as of at: certificates,
// revocation lists, TCB info. Keys stay.
func (m *Machine) Issue(at time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	issue := m.issueSNP
	if m.cfg.Platform == PlatformTDX {
		issue = m.issueTDX
	}
	docs, err := issue(at)
	if err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	if m.cfg.GPUs > 0 {
		more, err := m.issueGPU(at)
		if err != nil {
			return fmt.Errorf("sim: %w", err)
		}
		docs = append(docs, more...)
	}
	if m.cfg.VTPM {
		more, err := m.issueTPM()
		if err != nil {
			return fmt.Errorf("sim: %w", err)
		}
		docs = append(docs, more...)
	}
	m.docs = docs
	return nil
}

// Collect returns the CPU evidence for reportData. It implements
// attestation.Collector.
func (m *Machine) Collect(ctx context.Context, reportData [64]byte) ([]attestation.Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.has("wrong-nonce") {
		reportData[0] ^= 1
	}
	collect := m.collectSNP
	if m.cfg.Platform == PlatformTDX {
		collect = m.collectTDX
	}
	if m.cfg.VTPM {
		items, err := m.collectVTPM(collect, reportData)
		if err != nil {
			return nil, fmt.Errorf("sim: %w", err)
		}
		return items, nil
	}
	it, err := collect(reportData)
	if err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	return []attestation.Item{it}, nil
}

// CollectGPU returns the evidence of the machine's GPUs and then of its switches,
// the i-th for nonces[i].
func (m *Machine) CollectGPU(ctx context.Context, nonces [][32]byte) ([]attestation.Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(nonces) != m.GPUs() {
		return nil, fmt.Errorf("sim: %d nonces for %d GPUs and switches", len(nonces), m.GPUs())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var items []attestation.Item
	for i, n := range nonces {
		it, err := m.collectGPU(i, n)
		if err != nil {
			return nil, fmt.Errorf("sim: gpu %d: %w", i, err)
		}
		items = append(items, it)
	}
	return items, nil
}

// GPUs returns the number of GPUs and switches: of nonces that
// [Machine.CollectGPU] takes.
func (m *Machine) GPUs() int { return m.cfg.GPUs + m.cfg.Switches }

// Endorsements returns what the vendors publish for this machine.
func (m *Machine) Endorsements() (*attestation.Endorsements, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return attestation.NewEndorsements(m.docs...)
}

// Description is what a policy must hold to accept a machine.
type Description struct {
	Roots     []attestation.Digest // sorted, for Policy.SimulatedRoots
	Platforms policy.Platforms
}

// Describe returns the reference values of the machine as it is meant to be:
// without its faults, for exactly its chips.
func (m *Machine) Describe() (*Description, error) {
	d := new(Description)
	describe := m.describeSNP
	if m.cfg.Platform == PlatformTDX {
		describe = m.describeTDX
	}
	if err := describe(d); err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	if m.cfg.GPUs > 0 {
		if err := m.describeGPU(d); err != nil {
			return nil, fmt.Errorf("sim: %w", err)
		}
	}
	if m.cfg.VTPM {
		if err := m.describeTPM(d); err != nil {
			return nil, fmt.Errorf("sim: %w", err)
		}
	}
	slices.SortFunc(d.Roots, func(a, b attestation.Digest) int { return slices.Compare(a[:], b[:]) })
	d.Roots = slices.Compact(d.Roots)
	return d, nil
}

// Config returns what the machine was made of, defaults filled in. The caller
// must not change what it points to.
func (m *Machine) Config() Config { return m.cfg }
