package sim

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/concordat/concordat/internal/durable"
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
	Product  string  `json:"product,omitempty"` // SNP: "Milan", "Genoa" (default), "Bergamo", "Siena" or "Turin"

	SNP SNPOptions `json:"snp,omitzero"` // of an SNP machine

	// Chip names the chip. Machines of one Vendor with different chips have
	// different chip ids and keys; with the same, the same.
	Chip        string `json:"chip"`
	Measurement Hex    `json:"measurement,omitempty"` // 48 bytes; default: derived from the vendor's seed
	HostData    Hex    `json:"host_data,omitempty"`   // 32 bytes bound at launch (HOST_DATA, MRCONFIGID); default: zeros
	GPUs        int    `json:"gpus,omitempty"`

	// GPU is what the GPUs are: [GPUHopper], the default, or [GPUBlackwell].
	// Switches is the number of NVLink switches; with any, the GPUs are in
	// protected-PCIe mode. Manifests makes the vendor publish reference manifests
	// of driver and VBIOS, and the description name them in place of pinned sets.
	GPU       string `json:"gpu,omitempty"`
	Switches  int    `json:"switches,omitempty"`
	Manifests bool   `json:"manifests,omitempty"`
	VTPM      bool   `json:"vtpm,omitempty"` // under a paravisor with a vTPM, as on Azure: Measurement is then the paravisor's

	// Faults are what is wrong with the machine: name to value, the value empty
	// where the fault needs none. The lists snpFaults, tdxFaults, gpuFaults and so on
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

// defaults fills in what the configuration leaves out and checks it.
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
		if err := m.checkSNP(); err != nil {
			return err
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
	if err := c.checkGPU(); err != nil {
		return err
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
	if c.Switches > 0 {
		all = append(all, switchFaults...)
	}
	if c.Manifests {
		all = append(all, manifestFaults...)
	}
	if c.VTPM {
		all = append(all, tpmFaults...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// commonFaults are those of every platform.
var commonFaults = []string{
	"wrong-nonce", // CPU evidence over other report data than was asked for
}

// maxConfig bounds a machine file: three RSA keys and a few names.
const maxConfig = 64 << 10

// WriteConfig writes a machine file, whole or not at all, readable by its owner
// alone.
func WriteConfig(name string, c Config) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	if err := durable.WriteFile(durable.OS{}, name, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("sim: %w", err)
	}
	return nil
}

// ReadConfig reads a machine file. It refuses unknown fields.
func ReadConfig(name string) (Config, error) {
	b, err := durable.ReadFile(durable.OS{}, name, maxConfig)
	if err != nil {
		return Config{}, fmt.Errorf("sim: %w", err)
	}
	var c Config
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Config{}, fmt.Errorf("sim: %s: %w", name, err)
	}
	return c, nil
}
