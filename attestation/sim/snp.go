package sim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
)

// snpFaults are what can be wrong with an SNP machine.
var snpFaults = []string{
	"debug",                // guest policy with DEBUG
	"migration",            // guest policy with MIGRATE_MA
	"smt",                  // guest policy with SMT
	"cxl",                  // guest policy with CXL_ALLOW
	"vmpl",                 // report from another VMPL; value 1 (default) to 3
	"measurement",          // another measurement; value: 48 bytes in hex, default: the last bit flipped
	"stale-tcb",            // every TCB one SNP version below the minimum
	"stale-launch-tcb",     // the same, at launch only
	"provisional-firmware", // COMMITTED below CURRENT
	"tcb-order",            // REPORTED above CURRENT
	"certificate-tcb",      // chip certificate of another TCB than reported
	"certificate-chip",     // chip certificate of another chip
	"expired",              // chip certificate that is out of date
	"expired-crl",          // revocation list that is out of date
	"missing-crl",          // no revocation list
	"missing-certificate",  // no chip certificate
	"revoked",              // revocation list with the chip's certificate; value "ask": with the CA's
	"forged-root",          // the vendor's names under another root key
	"unmarked",             // certificates without the marks of a simulation
	"masked-chip",          // CHIP_ID hidden by the host
	"alias",                // no check for aliased memory (BadRAM)
	"bad-signature",        // one bit of the signature flipped
	"unsigned",             // SIGNING_KEY says none
	"report-version",       // value 2, 3 (default) or 5
}

type snpState struct {
	refs []attestation.Digest
}

// snpTCB is the TCB of a machine without faults, and the minimum that
// [Machine.Describe] names.
func (m *Machine) snpTCB() snp.TCB {
	t := snp.TCB{BootLoader: 10, TEE: 1, SNP: 23, Microcode: 84}
	if m.product() == snp.Turin {
		t.FMC = 1
	}
	return t
}

func (m *Machine) product() snp.Product { return snp.Product(m.cfg.Product) }

// snpCPUs is one processor of every product line.
var snpCPUs = map[snp.Product]snp.CPUID{
	snp.Milan: {Family: 0x19, Model: 0x01, Stepping: 1},
	snp.Genoa: {Family: 0x19, Model: 0x11, Stepping: 1},
	snp.Turin: {Family: 0x1A, Model: 0x02, Stepping: 1},
}

// chipID returns the chip's own id, in the length of its product line.
func (m *Machine) chipID() []byte { return m.chipBytes("snp/chip-id", m.product().ChipIDSize()) }

func (m *Machine) vcek() *ecdsa.PrivateKey {
	return m.chipKey("snp/vcek/"+m.cfg.Product, elliptic.P384())
}

// report returns the unsigned report that the machine would make now.
func (m *Machine) snpReport(reportData [64]byte) (*snp.Report, error) {
	good := m.snpTCB()
	tcb := good
	if m.has("stale-tcb") {
		tcb.SNP--
	}
	current, committed, launch := tcb, tcb, tcb
	if m.has("stale-launch-tcb") {
		launch.SNP--
	}
	if m.has("provisional-firmware") {
		committed.SNP--
	}
	if m.has("tcb-order") {
		current.Microcode--
		committed = current
	}
	p := m.product()
	r := &snp.Report{
		Version: snp.Version3, GuestSVN: 1, SignatureAlgorithm: snp.ECDSAP384SHA384,
		Policy:       snp.NewPolicy(m.snpPolicy()),
		CurrentTCB:   current.Encode(p),
		ReportedTCB:  tcb.Encode(p),
		CommittedTCB: committed.Encode(p),
		LaunchTCB:    launch.Encode(p),
		PlatformInfo: snp.PlatformECC | snp.PlatformAliasCheck,
		SignerInfo:   snp.NewSignerInfo(snp.VCEK, 0),
		ReportData:   reportData,
		CPUID:        snpCPUs[p],
		Current:      snp.Firmware{Build: 4, Minor: 55, Major: 1},
		Committed:    snp.Firmware{Build: 4, Minor: 55, Major: 1},
	}
	copy(r.Measurement[:], m.cfg.Measurement)
	copy(r.HostData[:], m.cfg.HostData)
	copy(r.ReportID[:], m.chipBytes("snp/report-id", 32))
	for i := range r.ReportIDMA {
		r.ReportIDMA[i] = 0xFF // no migration agent
	}
	copy(r.ChipID[:], m.chipID())
	return r, m.breakReport(r)
}

func (m *Machine) snpPolicy() (p snp.Policy) {
	for fault, bit := range map[string]snp.Policy{
		"debug": snp.PolicyDebug, "migration": snp.PolicyMigrateMA, "smt": snp.PolicySMT, "cxl": snp.PolicyCXL,
	} {
		if m.has(fault) {
			p |= bit
		}
	}
	return p
}

// breakReport applies the faults of single fields.
func (m *Machine) breakReport(r *snp.Report) error {
	if v, ok := m.fault("report-version"); ok {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil {
			return fmt.Errorf("fault report-version: %w", err)
		}
		r.Version = uint32(n)
		if n == snp.Version2 {
			r.CPUID = snp.CPUID{}
		}
		if n >= snp.Version5 {
			r.LaunchMitigations, r.CurrentMitigations = 1, 1
		}
	}
	if v, ok := m.fault("vmpl"); ok {
		r.VMPL = 1
		if v != "" {
			n, err := strconv.ParseUint(v, 10, 32)
			if err != nil {
				return fmt.Errorf("fault vmpl: %w", err)
			}
			r.VMPL = uint32(n)
		}
	}
	if v, ok := m.fault("measurement"); ok {
		r.Measurement[47] ^= 1
		if v != "" {
			b, err := hex.DecodeString(v)
			if err != nil || len(b) != len(r.Measurement) {
				return fmt.Errorf("fault measurement: want %d bytes in hex", len(r.Measurement))
			}
			copy(r.Measurement[:], b)
		}
	}
	if m.has("masked-chip") {
		r.ChipID = [64]byte{}
	}
	if m.has("alias") {
		r.PlatformInfo &^= snp.PlatformAliasCheck
	}
	if m.has("unsigned") {
		r.SignerInfo = snp.NewSignerInfo(snp.Unsigned, 0)
	}
	return nil
}

func (m *Machine) collectSNP(reportData [64]byte) (attestation.Item, error) {
	r, err := m.snpReport(reportData)
	if err != nil {
		return attestation.Item{}, err
	}
	h := sha512.Sum384(snp.SignedPart(r.Marshal()))
	der, err := m.vcek().Sign(nil, h[:], crypto.SHA384)
	if err != nil {
		return attestation.Item{}, err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return attestation.Item{}, err
	}
	sig.R.FillBytes(r.R[:])
	sig.S.FillBytes(r.S[:])
	if m.has("bad-signature") {
		r.S[47] ^= 1
	}
	return attestation.Item{Kind: attestation.KindSNP, Raw: r.Marshal(), Endorsements: m.snp.refs}, nil
}

func (m *Machine) issueSNP(at time.Time) ([]attestation.Endorsement, error) {
	if _, ok := snpCPUs[m.product()]; !ok {
		return nil, fmt.Errorf("product %q, want Milan, Genoa or Turin", m.cfg.Product)
	}
	docs, err := m.issueAMD(at)
	if err != nil {
		return nil, err
	}
	m.snp.refs = nil
	for _, d := range docs {
		m.snp.refs = append(m.snp.refs, d.Digest())
	}
	return docs, nil
}

func (m *Machine) describeSNP(d *Description) error {
	root, err := spki(m.cfg.Vendor.ark.Public())
	if err != nil {
		return err
	}
	d.Roots = append(d.Roots, root)
	t := m.snpTCB()
	d.Platforms.SNP = &policy.SNP{
		Products:     []string{m.cfg.Product},
		Measurements: []policy.Hex{policy.Hex(m.cfg.Measurement)},
		MinTCB: []policy.ProdTCB{{
			Product: m.cfg.Product, FMC: t.FMC, BootLoader: t.BootLoader, TEE: t.TEE, SNP: t.SNP, Microcode: t.Microcode,
		}},
		Chips:       []policy.Hex{m.chipID()},
		MinGuestSVN: 1,
		MinVersion:  snp.Version3,
	}
	return nil
}
