package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/concordat/concordat/attestation/snp"
)

// SNPOptions are what AMD machines differ in beside their product line. The zero
// value is a machine of one's own with current firmware.
type SNPOptions struct {
	Report     uint32 `json:"report,omitempty"`      // version of the reports: 2, 3 (default) or 5
	Provider   string `json:"provider,omitempty"`    // set: signed with the VLEK of the provider with this CSP id, as on AWS
	MaskChip   bool   `json:"mask_chip,omitempty"`   // the host hides CHIP_ID, as on AWS
	IDBlock    bool   `json:"id_block,omitempty"`    // launched with an ID block that an author key certified
	Mitigation uint64 `json:"mitigations,omitempty"` // both mitigation vectors of reports of version 5
}

// snpCPUs are the processors that a machine can be, by the name of their design.
var snpCPUs = map[string]struct {
	line  snp.Product
	cpuid snp.CPUID
}{
	"Milan":   {snp.Milan, snp.CPUID{Family: 0x19, Model: 0x01, Stepping: 1}},
	"Genoa":   {snp.Genoa, snp.CPUID{Family: 0x19, Model: 0x11, Stepping: 1}},
	"Bergamo": {snp.Genoa, snp.CPUID{Family: 0x19, Model: 0xA0, Stepping: 2}},
	"Siena":   {snp.Genoa, snp.CPUID{Family: 0x19, Model: 0xA1, Stepping: 0}},
	"Turin":   {snp.Turin, snp.CPUID{Family: 0x1A, Model: 0x02, Stepping: 1}},
}

func (m *Machine) checkSNP() error {
	if _, ok := snpCPUs[m.cfg.Product]; !ok {
		return fmt.Errorf("product %q, want one of %q", m.cfg.Product, slices.Sorted(maps.Keys(snpCPUs)))
	}
	switch o := m.cfg.SNP; {
	case !slices.Contains([]uint32{0, snp.Version2, snp.Version3, snp.Version5}, o.Report):
		return fmt.Errorf("report version %d, want 2, 3 or 5", o.Report)
	case o.Mitigation != 0 && o.Report != snp.Version5:
		return fmt.Errorf("mitigations in a report of version %d, want 5", m.reportVersion())
	}
	return nil
}

func (m *Machine) product() snp.Product { return snpCPUs[m.cfg.Product].line }

func (m *Machine) reportVersion() uint32 {
	if m.cfg.SNP.Report == 0 {
		return snp.Version3
	}
	return m.cfg.SNP.Report
}

// signingKey is the kind of key that the machine's reports are signed with.
func (m *Machine) signingKey() snp.SigningKey {
	if m.cfg.SNP.Provider != "" {
		return snp.VLEK
	}
	return snp.VCEK
}

// provider is the CSP id in the certificate of the machine's VLEK.
func (m *Machine) provider() string {
	if v, ok := m.fault("provider"); ok {
		return v
	}
	return m.cfg.SNP.Provider
}

// The digests of the keys that signed the machine's ID block.
func (m *Machine) idKey() []byte     { return m.cfg.Vendor.bytes("snp/id-key", 48) }
func (m *Machine) authorKey() []byte { return m.cfg.Vendor.bytes("snp/author-key", 48) }
