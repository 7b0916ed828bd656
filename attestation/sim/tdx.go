package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/policy"
)

// tdxFaults are what can be wrong with a TDX machine.
var tdxFaults = []string{
	"debug",               // TD attributes with DEBUG
	"sept-ve",             // without SEPT_VE_DISABLE
	"migration",           // with MIGRATABLE
	"perfmon",             // with PERFMON
	"attribute",           // with an attribute that nobody knows
	"xfam",                // with a CPU feature that the policy does not allow
	"measurement",         // another MRTD; value: 48 bytes in hex, default: the last bit flipped
	"image",               // another RTMR; value 0 to 2 (default)
	"owner",               // MROWNER set by the host
	"service-td",          // version 5: bound to a service TD
	"module-downgrade",    // version 5: the module went back after launch
	"module-update",       // version 5: the module was updated after launch; no fault of the TD
	"stale-tcb",           // OutOfDate; value "platform" (default), "module", "qe"
	"unknown-tcb",         // below every level; value as above
	"tcb-status",          // the platform's status by Intel's word; value such as "SWHardeningNeeded"
	"module-signer",       // a TDX module that is not Intel's
	"qe-signer",           // a quoting enclave that is not Intel's
	"qe-debug",            // a quoting enclave under debug
	"qe-report-data",      // the quoting enclave vouches for another key
	"qe-signature",        // its report is signed by another PCK key
	"bad-signature",       // one bit of the TD's signature flipped
	"expired",             // PCK certificate that is out of date
	"expired-collateral",  // TCB info and QE identity that are out of date
	"expired-crl",         // revocation lists that are out of date
	"missing-crl",         // no revocation lists
	"missing-collateral",  // nothing from Intel at all
	"missing-qe-identity", // TCB info alone
	"old-evaluation",      // collateral in force, but from before the newest TCB recovery
	"tampered-tcb-info",   // TCB info changed after it was signed; value "qe": QE identity
	"other-family",        // TCB info of another FMSPC
	"revoked",             // value "pck" (default), "ca", "signer": on a revocation list
	"forged-root",         // Intel's names under another root key
	"forged-collateral",   // the same, of the collateral alone
	"forged-ca",           // the real root above a Platform CA that it did not sign
	"forged-pck",          // the real CA above a PCK certificate that it did not sign
	"forged-signer",       // the real root above a TCB signing certificate that it did not sign
	"expired-signer",      // TCB signing certificate that is out of date
	"unmarked",            // certificates without the marks of a simulation
	"processor-ca",        // PCK certificate by the CA of machines without TDX
	"quote-version",       // value 4 (default) or 5
}

type tdxState struct {
	chain []byte // PEM, PCK certificate first
	refs  []attestation.Digest
}

// What a TDX machine without faults is. The platform reaches the first level of
// the TCB info that [Machine.tcbInfo] issues.
var (
	tdxComponents = [16]uint8{2, 2, 2, 2, 3, 1, 0, 5}
	tdxSVN        = [16]uint8{6, 1, 3} // minor, major, SEAM loader: judged by the identity "TDX_01"
	tdxFMSPC      = [6]byte{0xb0, 0xc0, 0x6f}
	tdQE          = [32]byte{0xdc, 0x9e, 0x2a, 0x7c, 0x6f, 0x94, 0x8f, 0x17, 0x47, 0x4e, 0x34, 0xa7, 0xfc, 0x43, 0xed, 0x03, // MRSIGNER of Intel's quoting enclaves
		0x0f, 0x7c, 0x15, 0x63, 0xf1, 0xba, 0xbd, 0xdf, 0x63, 0x40, 0xc8, 0x2e, 0x0e, 0x54, 0xa8, 0xc5}
)

const (
	tdxPCESVN     = 11
	tdxQESVN      = 6
	tdxXFAM       = 0x602e7 // x87, SSE, AVX, AVX-512, PKRU, AMX
	tdxEvaluation = 17
	qeAttributes  = 0x15 // INIT, MODE64BIT, PROVISIONKEY
)

func (m *Machine) issueTDX(at time.Time) ([]attestation.Endorsement, error) {
	pki, err := m.issueIntel(at)
	if err != nil {
		return nil, err
	}
	m.tdx = tdxState{chain: pki.quoteChain()}
	if m.has("missing-collateral") {
		return nil, nil
	}
	c, err := m.collateral(at, pki)
	if err != nil {
		return nil, err
	}
	e := attestation.Endorsement{Type: attestation.TypeIntelCollateral, Data: c.Marshal()}
	m.tdx.refs = []attestation.Digest{e.Digest()}
	return []attestation.Endorsement{e}, nil
}

func (m *Machine) collectTDX(reportData [64]byte) (attestation.Item, error) {
	q, err := m.quote(reportData)
	if err != nil {
		return attestation.Item{}, err
	}
	return attestation.Item{Kind: attestation.KindTDX, Raw: q.Marshal(), Endorsements: m.tdx.refs}, nil
}

// quote makes the quote of the machine for reportData: what the TDX module
// reports, signed by the quoting enclave, whose report the PCK key signs.
func (m *Machine) quote(reportData [64]byte) (*tdx.Quote, error) {
	q := &tdx.Quote{Version: tdx.V4, BodyType: tdx.TDX10, Vendor: tdx.VendorIntel, Body: m.tdBody(reportData)}
	copy(q.UserData[:], m.chipBytes("tdx/qe-id", 16))
	switch v, _ := m.fault("quote-version"); v {
	case "", "4":
	case "5":
		q.Version, q.BodyType = tdx.V5, tdx.TDX15
		q.Extra.TEETCBSVN2 = q.Body.TEETCBSVN
	default:
		return nil, fmt.Errorf("quote version %q, want 4 or 5", v)
	}
	if err := m.breakTD(q); err != nil {
		return nil, err
	}
	ak, pck := m.chipKey("tdx/attestation", elliptic.P256()), m.chipKey("tdx/pck", elliptic.P256())
	if m.has("qe-signature") {
		pck = m.chipKey("tdx/other-pck", elliptic.P256())
	}
	point, err := ak.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	copy(q.AttestationKey[:], point[1:]) // without the 04 of an uncompressed point
	q.AuthData = m.chipBytes("tdx/auth", 32)
	q.Chain = m.tdx.chain
	q.QEReport = m.qeReport(q.AttestationKey, q.AuthData)
	if q.QESignature, err = signRaw(pck, q.QEReport.Marshal()); err != nil {
		return nil, err
	}
	if q.Signature, err = signRaw(ak, q.Signed()); err != nil {
		return nil, err
	}
	if m.has("bad-signature") {
		q.Signature[0] ^= 1
	}
	return q, nil
}

func (m *Machine) tdBody(reportData [64]byte) tdx.Body {
	b := tdx.Body{TEETCBSVN: tdxSVN, TDAttributes: tdx.SeptVEDisable, XFAM: tdxXFAM, ReportData: reportData}
	copy(b.MRSEAM[:], m.cfg.Vendor.bytes("tdx/mrseam", 48))
	copy(b.MRTD[:], m.cfg.Measurement)
	copy(b.MRConfigID[:], m.cfg.HostData)
	for i := range 3 {
		copy(b.RTMR[i][:], m.cfg.Vendor.bytes(fmt.Sprintf("tdx/rtmr/%d", i), 48))
	}
	return b
}

// breakTD puts the faults of the TD and its module into q.
func (m *Machine) breakTD(q *tdx.Quote) error {
	b := &q.Body
	for fault, bit := range map[string]tdx.TDAttributes{"debug": tdx.Debug, "migration": tdx.Migratable, "perfmon": tdx.PerfMon, "attribute": 1 << 40, "sept-ve": tdx.SeptVEDisable} {
		if m.has(fault) {
			b.TDAttributes ^= bit
		}
	}
	if m.has("xfam") {
		b.XFAM |= 1 << 14 // user interrupts
	}
	if v, ok := m.fault("measurement"); ok {
		b.MRTD[47] ^= 1
		if v != "" {
			raw, err := hex.DecodeString(v)
			if err != nil || len(raw) != len(b.MRTD) {
				return fmt.Errorf("measurement %.100q, want %d bytes in hex", v, len(b.MRTD))
			}
			copy(b.MRTD[:], raw)
		}
	}
	if v, ok := m.fault("image"); ok {
		i := 2
		if len(v) == 1 && v[0] >= '0' && v[0] <= '2' {
			i = int(v[0] - '0')
		} else if v != "" {
			return fmt.Errorf("image %.20q, want 0, 1 or 2", v)
		}
		b.RTMR[i][0] ^= 1
	}
	if m.has("owner") {
		b.MROwner[0] = 1
	}
	if m.has("module-signer") {
		b.MRSignerSEAM[0] = 1
	}
	if v, ok := m.fault("stale-tcb"); ok && v == "module" {
		b.TEETCBSVN[0] = 2
	}
	if v, ok := m.fault("unknown-tcb"); ok && v == "module" {
		b.TEETCBSVN[0] = 0
	}
	if q.BodyType != tdx.TDX15 {
		return nil
	}
	q.Extra.TEETCBSVN2 = b.TEETCBSVN
	switch {
	case m.has("module-update"):
		q.Extra.TEETCBSVN2[0]++
	case m.has("module-downgrade"):
		q.Extra.TEETCBSVN2[0]--
	}
	if m.has("service-td") {
		q.Extra.MRServiceTD[0] = 1
	}
	return nil
}

// qeReport is the quoting enclave's report, which vouches for its key.
func (m *Machine) qeReport(key [64]byte, auth []byte) tdx.QEReport {
	r := tdx.QEReport{MRSigner: tdQE, ISVProdID: 2, ISVSVN: tdxQESVN, Attributes: [16]byte{qeAttributes, 8: 0xe7}}
	copy(r.CPUSVN[:], m.cfg.Vendor.bytes("tdx/cpusvn", 16))
	copy(r.MREnclave[:], m.cfg.Vendor.bytes("tdx/qe", 32))
	sum := sha256.Sum256(append(key[:len(key):len(key)], auth...))
	copy(r.ReportData[:], sum[:])
	if m.has("qe-report-data") {
		r.ReportData[0] ^= 1
	}
	if m.has("qe-signer") {
		r.MRSigner[0] ^= 1
	}
	if m.has("qe-debug") {
		r.Attributes[0] |= 2
	}
	if v, ok := m.fault("stale-tcb"); ok && v == "qe" {
		r.ISVSVN = 3
	}
	if v, ok := m.fault("unknown-tcb"); ok && v == "qe" {
		r.ISVSVN = 0
	}
	return r
}

func (m *Machine) describeTDX(d *Description) error {
	root, err := spki(m.intelRoot().Public())
	if err != nil {
		return err
	}
	d.Roots = append(d.Roots, root)
	good := m.tdBody([64]byte{})
	d.Platforms.TDX = &policy.TDX{
		MRTD:          []policy.Hex{good.MRTD[:]},
		RTMRs:         []policy.RTMRs{{RTMR0: good.RTMR[0][:], RTMR1: good.RTMR[1][:], RTMR2: good.RTMR[2][:]}},
		Statuses:      []string{string(tdx.UpToDate)},
		MinEvaluation: tdxEvaluation,
		PIIDs:         []policy.Hex{m.piid()},
		XFAMMask:      tdxXFAM,
		MRSignerSEAM:  make([]byte, 48),
	}
	return nil
}

func (m *Machine) piid() []byte { return m.chipBytes("tdx/piid", 16) }

func (m *Machine) intelRoot() *ecdsa.PrivateKey {
	return m.cfg.Vendor.Key("intel/root", elliptic.P256())
}
