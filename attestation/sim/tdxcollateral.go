package sim

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/json"
	"time"

	"github.com/concordat/concordat/attestation/tdx"
)

// collateral is what Intel would publish for the machine at the time at.
func (m *Machine) collateral(at time.Time, p *intelPKI) (*tdx.Collateral, error) {
	issued, next := at.Add(-intelDocAge), at.Add(intelDoc)
	if m.has("expired-collateral") {
		issued, next = at.Add(-2*intelDoc), at.Add(-time.Hour)
	}
	issued, next = issued.UTC().Truncate(time.Second), next.UTC().Truncate(time.Second)
	evaluation := uint64(tdxEvaluation)
	if m.has("old-evaluation") {
		evaluation--
	}
	chain := chainPEM(p.signer, p.docRoot)
	c := &tdx.Collateral{PCKCRLChain: chainPEM(p.ca, p.root)}
	var err error
	if c.TCBInfo, err = signJSON(p.signerKey, m.tcbInfo(issued, next, evaluation), chain); err != nil {
		return nil, err
	}
	if !m.has("missing-qe-identity") {
		if c.QEIdentity, err = signJSON(p.signerKey, qeIdentity(issued, next, evaluation), chain); err != nil {
			return nil, err
		}
	}
	if v, ok := m.fault("tampered-tcb-info"); ok {
		s := c.TCBInfo
		if v == "qe" {
			s = c.QEIdentity
		}
		s.Doc = bytes.ReplaceAll(s.Doc, []byte(tdx.OutOfDate), []byte(tdx.UpToDate))
	}
	if !m.has("missing-crl") {
		if c.RootCRL, c.PCKCRL, err = m.revocation(at, p); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func signJSON(key *ecdsa.PrivateKey, doc any, chain []byte) (*tdx.Signed, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	s := &tdx.Signed{Doc: b, Chain: chain}
	s.Signature, err = signRaw(key, b)
	return s, err
}

// tcbInfo has a level for every state of a machine: up to date, out of date, and
// revoked for a platform; the machine without faults reaches the first.
func (m *Machine) tcbInfo(issued, next time.Time, evaluation uint64) *tdx.TCBInfo {
	fmspc := tdxFMSPC
	if m.has("other-family") {
		fmspc[0] ^= 1
	}
	intel := tdx.ModuleSigner{MRSigner: make([]byte, 48), Attributes: make([]byte, 8), AttributesMask: bytes.Repeat([]byte{0xff}, 8)}
	status := tdx.UpToDate
	if v, ok := m.fault("tcb-status"); ok {
		status = tdx.Status(v)
	}
	good := level(status, 2024)
	if status != tdx.UpToDate {
		good.Advisories = []string{"INTEL-SA-00837"}
	}
	return &tdx.TCBInfo{
		ID: tdx.TCBInfoID, Version: tdx.TCBInfoVersion, IssueDate: issued, NextUpdate: next, FMSPC: fmspc[:], PCEID: []byte{0, 0}, Evaluation: evaluation,
		Module: intel,
		Modules: []tdx.Module{
			{ID: "TDX_03", ModuleSigner: intel, Levels: []tdx.EnclaveTCB{enclave(3, level(tdx.UpToDate, 2024))}},
			{ID: "TDX_01", ModuleSigner: intel, Levels: []tdx.EnclaveTCB{enclave(4, level(tdx.UpToDate, 2024)), enclave(2, level(tdx.OutOfDate, 2023, "INTEL-SA-01036"))}},
		},
		Levels: []tdx.PlatformTCB{
			platform(tdxPCESVN, good),
			platform(5, level(tdx.OutOfDate, 2018, "INTEL-SA-00106", "INTEL-SA-00837")),
			platform(3, level(tdx.Revoked, 2017)),
		},
	}
}

// qeIdentity is the identity of the quoting enclave, with Intel's masks: all
// attributes count but MODE64BIT, and so DEBUG must be clear.
func qeIdentity(issued, next time.Time, evaluation uint64) *tdx.QEIdentity {
	return &tdx.QEIdentity{
		ID: tdx.QEIdentityID, Version: tdx.QEIdentityVersion, IssueDate: issued, NextUpdate: next, Evaluation: evaluation,
		MiscSelect: make([]byte, 4), MiscSelectMask: bytes.Repeat([]byte{0xff}, 4),
		Attributes:     append([]byte{0x11}, make([]byte, 15)...),
		AttributesMask: append([]byte{0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, make([]byte, 8)...),
		MRSigner:       tdQE[:], ISVProdID: 2,
		Levels: []tdx.EnclaveTCB{enclave(4, level(tdx.UpToDate, 2024)), enclave(2, level(tdx.OutOfDate, 2023, "INTEL-SA-00615"))},
	}
}

func level(s tdx.Status, year int, advisories ...string) tdx.Level {
	return tdx.Level{Date: time.Date(year, time.March, 13, 0, 0, 0, 0, time.UTC), Status: s, Advisories: advisories}
}

func enclave(isvsvn uint16, l tdx.Level) tdx.EnclaveTCB {
	e := tdx.EnclaveTCB{Level: l}
	e.TCB.ISVSVN = isvsvn
	return e
}

func platform(pcesvn uint16, l tdx.Level) tdx.PlatformTCB {
	p := tdx.PlatformTCB{Level: l}
	p.TCB.PCESVN = pcesvn
	for i := range tdxComponents {
		p.TCB.SGX = append(p.TCB.SGX, tdx.Component{SVN: tdxComponents[i]})
		p.TCB.TDX = append(p.TCB.TDX, tdx.Component{SVN: []uint8{5, 0, 2, 15: 0}[i]})
	}
	return p
}
