package sim

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/policy"
)

// The platforms.
const (
	PlatformSNP = "snp"
	PlatformTDX = "tdx"
)

// Config describes a simulated machine. It is the content of a machine file, in
// JSON, and holds private keys of the simulated vendors: worthless elsewhere, but
// whoever has them can forge this simulation.
type Config struct {
	Vendor   *Vendor `json:"vendor"`
	Platform string  `json:"platform"`          // [PlatformSNP] or [PlatformTDX]
	Product  string  `json:"product,omitempty"` // SNP: "Milan", "Genoa" (default) or "Turin"

	// Chip names the chip. Machines of one Vendor with different chips have
	// different chip ids and keys; with the same, the same.
	Chip        string `json:"chip"`
	Measurement Hex    `json:"measurement,omitempty"` // 48 bytes; default: derived from the vendor's seed
	HostData    Hex    `json:"host_data,omitempty"`   // 32 bytes bound at launch (HOST_DATA, MRCONFIGID); default: zeros
	GPUs        int    `json:"gpus,omitempty"`

	// Faults are what is wrong with the machine: name to value, the value empty
	// where the fault needs none. The lists snpFaults, tdxFaults and gpuFaults
	// say what each does; a name that the machine does not know is an error.
	Faults map[string]string `json:"faults,omitempty"`
}

// Hex is a byte string that JSON holds in hex.
type Hex []byte

// MarshalText returns lower-case hex.
func (h Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads hex.
func (h *Hex) UnmarshalText(b []byte) error {
	p, err := hex.DecodeString(string(b))
	*h = p
	return err
}

// Machine is one simulated machine. It is safe for concurrent use.
type Machine struct {
	cfg Config

	mu   sync.Mutex // guards what [Machine.Issue] replaces, here and in the states below
	docs []attestation.Endorsement

	snp snpState
	tdx tdxState // tdx.go
	gpu gpuState // gpu.go
}

// Every platform's file defines its state and these methods on Machine:
//
//	issueX(at time.Time) ([]attestation.Endorsement, error)   certificates and collateral in force at at; keeps what collect needs
//	collectX(reportData [64]byte) (attestation.Item, error)   called with mu held, after issue; Endorsements of the item = digests of what issue returned
//	describeX(d *Description) error                           adds its roots and reference values
//
// and a list xFaults of the fault names it understands. Keys come from
// Vendor.Key and Machine.chipKey, certificates get their marks from markCert.

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

func (m *Machine) defaults() error {
	c := &m.cfg
	if c.Vendor == nil {
		return errors.New("no vendor")
	}
	switch c.Platform {
	case PlatformSNP:
		if c.Product == "" {
			c.Product = "Genoa"
		}
	case PlatformTDX:
	default:
		return fmt.Errorf("platform %q, want %q or %q", c.Platform, PlatformSNP, PlatformTDX)
	}
	if c.Measurement == nil {
		c.Measurement = c.Vendor.bytes("measurement", 48)
	}
	if c.HostData == nil {
		c.HostData = make([]byte, 32)
	}
	switch {
	case len(c.Measurement) != 48:
		return fmt.Errorf("measurement of %d bytes, want 48", len(c.Measurement))
	case len(c.HostData) != 32:
		return fmt.Errorf("host data of %d bytes, want 32", len(c.HostData))
	case c.GPUs < 0 || c.GPUs > 16:
		return fmt.Errorf("%d GPUs, want 0 to 16", c.GPUs)
	}
	known := c.knownFaults()
	for _, name := range slices.Sorted(maps.Keys(c.Faults)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("unknown fault %q, this machine knows %q", name, known)
		}
	}
	return nil
}

// knownFaults returns the faults that a machine of c can have, sorted.
func (c *Config) knownFaults() []string {
	all := slices.Clone(commonFaults)
	if c.Platform == PlatformSNP {
		all = append(all, snpFaults...)
	} else {
		all = append(all, tdxFaults...)
	}
	if c.GPUs > 0 {
		all = append(all, gpuFaults...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// commonFaults are those of every platform.
var commonFaults = []string{
	"wrong-nonce", // CPU evidence over other report data than was asked for
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
	it, err := collect(reportData)
	if err != nil {
		return nil, fmt.Errorf("sim: %w", err)
	}
	return []attestation.Item{it}, nil
}

// CollectGPU returns the evidence of the machine's GPUs, the i-th for nonces[i].
func (m *Machine) CollectGPU(ctx context.Context, nonces [][32]byte) ([]attestation.Item, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(nonces) != m.cfg.GPUs {
		return nil, fmt.Errorf("sim: %d nonces for %d GPUs", len(nonces), m.cfg.GPUs)
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

// GPUs returns the number of GPUs.
func (m *Machine) GPUs() int { return m.cfg.GPUs }

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
	slices.SortFunc(d.Roots, func(a, b attestation.Digest) int { return slices.Compare(a[:], b[:]) })
	d.Roots = slices.Compact(d.Roots)
	return d, nil
}

// Config returns what the machine was made of, defaults filled in. The caller
// must not change what it points to.
func (m *Machine) Config() Config { return m.cfg }

// WriteConfig writes a machine file, readable by its owner alone.
func WriteConfig(name string, c Config) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	if err := os.WriteFile(name, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	return nil
}

// ReadConfig reads a machine file.
func ReadConfig(name string) (Config, error) {
	var c Config
	b, err := os.ReadFile(name)
	if err != nil {
		return c, fmt.Errorf("sim: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("sim: %s: %w", name, err)
	}
	return c, nil
}
