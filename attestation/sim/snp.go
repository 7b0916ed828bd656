package sim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"encoding/asn1"
	"math/big"
	"slices"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
)

type snpState struct {
	refs []attestation.Digest
}

// snpTCBs are the four TCB versions of a report.
type snpTCBs struct{ reported, current, committed, launch snp.TCB }

// snpTCB is the TCB of a machine without faults, and the minimum that
// [Machine.Describe] names.
func (m *Machine) snpTCB() snp.TCB {
	t := snp.TCB{BootLoader: 10, TEE: 1, SNP: 23, Microcode: 84}
	if m.product() == snp.Turin {
		t.FMC = 1
	}
	return t
}

// chipID returns the chip's own id, in the length of its product line.
func (m *Machine) chipID() []byte { return m.chipBytes("snp/chip-id", m.product().ChipIDSize()) }

// chipSigner is the key that signs reports: of the chip, or of its provider.
func (m *Machine) chipSigner() *ecdsa.PrivateKey {
	if m.signingKey() == snp.VLEK {
		return m.cfg.Vendor.Key("snp/vlek/"+string(m.product())+"/"+m.cfg.SNP.Provider, elliptic.P384())
	}
	return m.chipKey("snp/vcek/"+string(m.product()), elliptic.P384())
}

// snpReport returns the unsigned report that the machine would make now.
func (m *Machine) snpReport(reportData [64]byte) (*snp.Report, error) {
	good, p := m.snpTCB(), m.product()
	t := &snpTCBs{good, good, good, good}
	m.breakTCB(t)
	r := &snp.Report{
		Version: m.reportVersion(), GuestSVN: 1, SignatureAlgorithm: snp.ECDSAP384SHA384,
		Policy:       snp.NewPolicy(0),
		CurrentTCB:   t.current.Encode(p),
		ReportedTCB:  t.reported.Encode(p),
		CommittedTCB: t.committed.Encode(p),
		LaunchTCB:    t.launch.Encode(p),
		PlatformInfo: snp.PlatformECC | snp.PlatformAliasCheck,
		SignerInfo:   snp.NewSignerInfo(m.signingKey(), 0),
		ReportData:   reportData,
		Current:      snp.Firmware{Build: 4, Minor: 55, Major: 1},
		Committed:    snp.Firmware{Build: 4, Minor: 55, Major: 1},
	}
	if r.Version >= snp.Version3 {
		r.CPUID = snpCPUs[m.cfg.Product].cpuid
	}
	if r.Version >= snp.Version5 {
		r.LaunchMitigations, r.CurrentMitigations = m.cfg.SNP.Mitigation, m.cfg.SNP.Mitigation
	}
	copy(r.Measurement[:], m.cfg.Measurement)
	copy(r.HostData[:], m.cfg.HostData)
	copy(r.ReportID[:], m.chipBytes("snp/report-id", 32))
	for i := range r.ReportIDMA {
		r.ReportIDMA[i] = 0xFF // no migration agent
	}
	if m.cfg.SNP.IDBlock {
		r.SignerInfo |= snp.SignerAuthorKey
		copy(r.IDKeyDigest[:], m.idKey())
		copy(r.AuthorKeyDigest[:], m.authorKey())
	}
	if !m.cfg.SNP.MaskChip {
		copy(r.ChipID[:], m.chipID())
	}
	return r, m.breakReport(r)
}

func (m *Machine) collectSNP(reportData [64]byte) (attestation.Item, error) {
	r, err := m.snpReport(reportData)
	if err != nil {
		return attestation.Item{}, err
	}
	raw := m.breakUnsigned(r.Marshal())
	if err := m.signSNP(raw); err != nil {
		return attestation.Item{}, err
	}
	return attestation.Item{Kind: attestation.KindSNP, Raw: m.breakSigned(raw), Endorsements: m.snp.refs}, nil
}

// signSNP puts the signature into a report: R and S, little-endian, in 72 bytes
// each (56860, SIGNATURE).
func (m *Machine) signSNP(raw []byte) error {
	h := sha512.Sum384(snp.SignedPart(raw))
	der, err := m.chipSigner().Sign(nil, h[:], crypto.SHA384)
	if err != nil {
		return err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return err
	}
	at := raw[len(snp.SignedPart(raw)):]
	for i, n := range []*big.Int{sig.R, sig.S} {
		b := n.FillBytes(make([]byte, 72))
		slices.Reverse(b)
		copy(at[72*i:], b)
	}
	return nil
}

func (m *Machine) issueSNP(at time.Time) ([]attestation.Endorsement, error) {
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
	root, err := spki(m.cfg.Vendor.amdKey(keyARK).Public())
	if err != nil {
		return err
	}
	d.Roots = append(d.Roots, root)
	line, t, o := string(m.product()), m.snpTCB(), m.cfg.SNP
	ref := &policy.SNP{
		Products:     []string{line},
		Measurements: []policy.Hex{policy.Hex(m.cfg.Measurement)},
		MinTCB: []policy.ProdTCB{{
			Product: line, FMC: t.FMC, BootLoader: t.BootLoader, TEE: t.TEE, SNP: t.SNP, Microcode: t.Microcode,
		}},
		MinGuestSVN: 1,
		MinVersion:  uint64(m.reportVersion()),
		Mitigations: o.Mitigation,
	}
	if o.MaskChip {
		ref.AnyChip = true
	} else {
		ref.Chips = []policy.Hex{m.chipID()}
	}
	if o.Provider != "" {
		ref.Providers = []string{o.Provider}
	}
	if o.IDBlock {
		ref.IDKeys, ref.AuthorKeys = []policy.Hex{m.idKey()}, []policy.Hex{m.authorKey()}
	}
	d.Platforms.SNP = ref
	return nil
}
