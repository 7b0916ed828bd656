package sim

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/concordat/concordat/attestation/snp"
)

// snpFaults are what can be wrong with an SNP machine.
var snpFaults = []string{
	// The launch.
	"debug",        // guest policy with DEBUG
	"migration",    // guest policy with MIGRATE_MA
	"smt",          // guest policy with SMT
	"cxl",          // guest policy with CXL_ALLOW
	"guest-policy", // guest policy with further bits; value: hex
	"vmpl",         // report from another VMPL; value 1 (default) to 3
	"measurement",  // another measurement; value: 48 bytes in hex, default: the last bit flipped
	"guest-svn",    // GUEST_SVN 0
	"host-data",    // bound to another federation
	"id-key",       // ID block of another key
	"author-key",   // ID block certified by another author
	"no-author",    // ID block that nobody certified

	// The TCB and the host.
	"stale-tcb",            // every TCB one SNP version below the minimum
	"stale-launch-tcb",     // the same, at launch only
	"provisional-firmware", // newer firmware than committed; the committed one reaches the minimum
	"provisional-build",    // the same TCB, a newer build than committed
	"stale-committed-tcb",  // newer firmware than committed; the committed one does not reach the minimum
	"tcb-order",            // REPORTED above CURRENT
	"committed-order",      // COMMITTED above CURRENT
	"tcb-format",           // TCB with a reserved byte set
	"alias",                // no check for aliased memory (BadRAM)
	"platform-info",        // PLATFORM_INFO; value: hex
	"mitigations",          // mitigation vectors; value: launch and current in hex, with a comma between
	"masked-chip",          // CHIP_ID hidden by the host
	"unknown-product",      // a processor of a family to come
	"report-version",       // VERSION as in the value, fields as in the machine's own

	// The signature.
	"bad-signature",       // one bit of the signature flipped
	"signature-algorithm", // SIGNATURE_ALGO 2
	"unsigned",            // SIGNING_KEY says none
	"mask-chip-key",       // the host gives no key: the signature is zeros
	"reserved-key",        // SIGNING_KEY of a kind to come
	"reserved-byte",       // a reserved byte set, and signed
	"truncated",           // the last byte missing

	// The certificates.
	"certificate-tcb",     // of another TCB than reported
	"certificate-chip",    // of another chip
	"certificate-product", // of another product line; value: its name
	"certificate-version", // of a structure to come
	"certificate-kind",    // of a VLEK that names a chip
	"provider",            // of another provider's VLEK; value: its CSP id
	"expired",             // out of date
	"not-yet-valid",       // from the future
	"missing-certificate", // none of the signing key
	"forged-root",         // the vendor's names under another root key
	"unmarked",            // without the marks of a simulation

	// The revocation list.
	"revoked",     // names the certificate of the signing key; value "ca": of the CA above
	"expired-crl", // out of date
	"future-crl",  // from the future
	"partial-crl", // speaks for CAs alone
	"forged-crl",  // in the root's name, signed by another key
	"missing-crl", // none
}

// hexFault returns the value of a fault as a number, or def where it has none.
func (m *Machine) hexFault(name string, def uint64) (uint64, error) {
	v, _ := m.fault(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.ParseUint(v, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("fault %s: want hex: %w", name, err)
	}
	return n, nil
}

// breakTCB applies the faults of the four TCB versions.
func (m *Machine) breakTCB(t *snpTCBs) {
	switch {
	case m.has("stale-tcb"):
		for _, x := range []*snp.TCB{&t.reported, &t.current, &t.committed, &t.launch} {
			x.SNP--
		}
	case m.has("stale-launch-tcb"):
		t.launch.SNP--
	case m.has("provisional-firmware"):
		t.current.SNP++
	case m.has("stale-committed-tcb"):
		t.committed.SNP--
	case m.has("tcb-order"):
		t.current.Microcode--
		t.committed = t.current
	case m.has("committed-order"):
		t.committed.SNP++
	}
}

// breakReport applies the faults of single fields, before the report is signed.
func (m *Machine) breakReport(r *snp.Report) error {
	for name, apply := range map[string]func(){
		"guest-svn":           func() { r.GuestSVN = 0 },
		"host-data":           func() { r.HostData[31] ^= 1 },
		"id-key":              func() { r.IDKeyDigest[0] ^= 1 },
		"author-key":          func() { r.AuthorKeyDigest[0] ^= 1 },
		"no-author":           func() { r.SignerInfo &^= snp.SignerAuthorKey; r.AuthorKeyDigest = [48]byte{} },
		"provisional-build":   func() { r.Current.Build++ },
		"tcb-format":          func() { r.LaunchTCB[5] = 1 },
		"alias":               func() { r.PlatformInfo &^= snp.PlatformAliasCheck },
		"masked-chip":         func() { r.ChipID = [64]byte{} },
		"unknown-product":     func() { r.CPUID = snp.CPUID{Family: 0x1B, Model: 0x02} },
		"signature-algorithm": func() { r.SignatureAlgorithm = 2 },
		"unsigned":            func() { r.SignerInfo = snp.NewSignerInfo(snp.Unsigned, 0) },
		"mask-chip-key":       func() { r.SignerInfo |= snp.SignerMaskChipKey },
		"reserved-key":        func() { r.SignerInfo = snp.NewSignerInfo(2, 0) },
	} {
		if m.has(name) {
			apply()
		}
	}
	for _, f := range []func(*snp.Report) error{m.breakVersion, m.breakLaunch, m.breakHost} {
		if err := f(r); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) breakVersion(r *snp.Report) error {
	v, ok := m.fault("report-version")
	if !ok {
		return nil
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		return fmt.Errorf("fault report-version: %w", err)
	}
	r.Version = uint32(n)
	if n == snp.Version2 {
		r.CPUID = snp.CPUID{}
	}
	return nil
}

func (m *Machine) breakLaunch(r *snp.Report) error {
	for fault, bit := range map[string]snp.Policy{
		"debug": snp.PolicyDebug, "migration": snp.PolicyMigrateMA, "smt": snp.PolicySMT, "cxl": snp.PolicyCXL,
	} {
		if m.has(fault) {
			r.Policy |= bit
		}
	}
	bits, err := m.hexFault("guest-policy", 0)
	if err != nil {
		return err
	}
	r.Policy |= snp.Policy(bits)
	if m.has("vmpl") {
		n, err := m.hexFault("vmpl", 1)
		if err != nil {
			return err
		}
		r.VMPL = uint32(n)
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
	return nil
}

func (m *Machine) breakHost(r *snp.Report) error {
	info, err := m.hexFault("platform-info", uint64(r.PlatformInfo))
	if err != nil {
		return err
	}
	r.PlatformInfo = snp.PlatformInfo(info)
	if v, ok := m.fault("mitigations"); ok {
		launch, current, _ := strings.Cut(v, ",")
		var err1, err2 error
		r.LaunchMitigations, err1 = strconv.ParseUint(launch, 16, 64)
		r.CurrentMitigations, err2 = strconv.ParseUint(current, 16, 64)
		if err1 != nil || err2 != nil {
			return fmt.Errorf("fault mitigations: %.40q, want two hex numbers with a comma between", v)
		}
	}
	return nil
}

// breakSigned applies the faults of a report's bytes after signing.
func (m *Machine) breakSigned(raw []byte) []byte {
	const sOffset = 0x2E8 // of S in a report (56860, SIGNATURE)
	switch {
	case m.has("bad-signature"):
		raw[sOffset] ^= 1
	case m.has("mask-chip-key"):
		clear(raw[len(snp.SignedPart(raw)):])
	case m.has("truncated"):
		raw = raw[:len(raw)-1]
	}
	return raw
}

// breakUnsigned applies the faults of a report's bytes before signing.
func (m *Machine) breakUnsigned(raw []byte) []byte {
	if m.has("reserved-byte") {
		const afterSignerInfo = 0x4C
		binary.LittleEndian.PutUint32(raw[afterSignerInfo:], 1)
	}
	return raw
}
