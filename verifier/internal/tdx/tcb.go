package tdx

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation/tdx"
)

// tcbStatus judges the platform, its TDX module and its quoting enclave.
func (j *judge) tcbStatus(t *tdx.TCBInfo, q *tdx.QEIdentity) {
	if t == nil || q == nil {
		j.skip("no collateral that counts", "qe-report", "tdx-module", "tcb-status")
		return
	}
	j.qeReport(q)
	svn := j.quote.Body.TEETCBSVN
	module := findModule(t, svn)
	j.module(t, module, svn)

	// A status needs all three levels.
	var parts []string
	status, missing := tdx.Status(""), ""
	add := func(what string, l *tdx.Level) {
		if l == nil {
			missing = or(missing, what)
			parts = append(parts, what+" below every level")
			return
		}
		parts = append(parts, describe(what, l))
		if status == "" {
			status = l.Status
		} else {
			status = converge(status, l.Status)
		}
	}
	add("platform", platformLevel(t, j.sgx, svn))
	if svn[1] > 0 {
		name := moduleID(svn)
		if module == nil {
			add("module "+name+" unknown,", nil)
		} else {
			add("module "+name, enclaveLevel(module.Levels, uint16(svn[0])))
		}
	}
	add("QE", enclaveLevel(q.Levels, j.quote.QEReport.ISVSVN))
	accepted := []string{string(tdx.UpToDate)}
	if j.tdx != nil {
		accepted = j.tdx.Statuses
	}
	expected := strings.Join(accepted, ", ")
	if missing != "" {
		j.r.Fail("tcb-status", expected, "no status: "+strings.Join(parts, "; "), "Intel publishes no level for firmware this old: update the platform's BIOS, microcode and TDX module")
		return
	}
	// What Intel revoked, no policy accepts.
	j.r.That(status != tdx.Revoked && slices.Contains(accepted, string(status)), "tcb-status", expected, fmt.Sprintf("%s (%s)", status, strings.Join(parts, "; ")), advice[status])
}

var advice = map[tdx.Status]string{
	tdx.SWHardeningNeeded:                 "the platform is patched, but the advisories named need software mitigations in the guest: have them confirmed, then accept this status in the policy",
	tdx.ConfigurationNeeded:               "the platform is patched, but its BIOS settings expose it: apply the settings that the advisories name",
	tdx.ConfigurationAndSWHardeningNeeded: "the platform's BIOS settings expose it, and the guest needs software mitigations: see the advisories named",
	tdx.OutOfDate:                         "the platform runs firmware with known holes: its operator must update BIOS, microcode, TDX module or quoting enclave, as the parts named say",
	tdx.OutOfDateConfigurationNeeded:      "the platform runs firmware with known holes and its BIOS settings expose it: update and reconfigure it",
	tdx.Revoked:                           "Intel revoked this TCB: its keys may be in an attacker's hands",
}

// converge joins a platform status with that of a component, a module or QE: the
// component's age takes away what the platform's status promised, and it never
// improves it (Intel, quote verification library, TcbLevelCheck). A component is
// only ever UpToDate, OutOfDate or Revoked.
func converge(platform, component tdx.Status) tdx.Status {
	switch component {
	case tdx.UpToDate:
		return platform
	case tdx.OutOfDate:
		switch platform {
		case tdx.UpToDate, tdx.SWHardeningNeeded:
			return tdx.OutOfDate
		case tdx.ConfigurationNeeded, tdx.ConfigurationAndSWHardeningNeeded:
			return tdx.OutOfDateConfigurationNeeded
		}
		return platform
	}
	return tdx.Revoked
}

func describe(what string, l *tdx.Level) string {
	s := fmt.Sprintf("%s %s of %s", what, l.Status, day(l.Date))
	if len(l.Advisories) > 0 {
		s += ": " + strings.Join(l.Advisories, " ")
	}
	return s
}

// platformLevel returns the first level that the platform reaches (PCS API v4,
// TCB info V3). Of a module with an identity of its own, components 0 and 1 are
// judged there, not here.
func platformLevel(t *tdx.TCBInfo, p *tdx.SGXExtension, svn [16]byte) *tdx.Level {
	from := 0
	if svn[1] > 0 {
		from = 2
	}
	for i := range t.Levels {
		l := &t.Levels[i]
		if p.PCESVN >= l.TCB.PCESVN && reaches(p.Components[:], l.TCB.SGX) && reaches(svn[from:], l.TCB.TDX[from:]) {
			return &l.Level
		}
	}
	return nil
}

// reaches needs slices of one length; the parser counted the components.
func reaches(have []byte, need []tdx.Component) bool {
	for i, n := range need {
		if have[i] < n.SVN {
			return false
		}
	}
	return true
}

func enclaveLevel(levels []tdx.EnclaveTCB, isvsvn uint16) *tdx.Level {
	for i := range levels {
		if isvsvn >= levels[i].TCB.ISVSVN {
			return &levels[i].Level
		}
	}
	return nil
}

func moduleID(svn [16]byte) string { return fmt.Sprintf("TDX_%02X", svn[1]) }

// findModule returns the identity of the module's major version; nil if there is
// none. Intel spells the hex digits of an id in either case.
func findModule(t *tdx.TCBInfo, svn [16]byte) *tdx.Module {
	for i := range t.Modules {
		if strings.EqualFold(t.Modules[i].ID, moduleID(svn)) {
			return &t.Modules[i]
		}
	}
	return nil
}

// module checks who signed the TDX module.
func (j *judge) module(t *tdx.TCBInfo, m *tdx.Module, svn [16]byte) {
	b := &j.quote.Body
	signer := &t.Module
	if svn[1] > 0 {
		if m == nil {
			j.r.Fail("tdx-module", "an identity of "+moduleID(svn), "Intel's TCB info knows no such module", "fetch newer collateral; if it still does not know the module, the module is not Intel's")
			return
		}
		signer = &m.ModuleSigner
	}
	ok := bytes.Equal(b.MRSignerSEAM[:], signer.MRSigner) && masked(b.SEAMAttributes[:], signer.AttributesMask, signer.Attributes)
	j.r.That(ok, "tdx-module", fmt.Sprintf("MRSIGNERSEAM %x, SEAMATTRIBUTES %x under mask %x", signer.MRSigner, signer.Attributes, signer.AttributesMask),
		fmt.Sprintf("MRSIGNERSEAM %x, SEAMATTRIBUTES %x, MRSEAM %s, SVN %d.%d", b.MRSignerSEAM, b.SEAMAttributes, hex.EncodeToString(b.MRSEAM[:8]), svn[1], svn[0]), "the TDX module is not one that Intel signed, or a debug build")
}

// qeReport checks that the enclave that signed is Intel's TD quoting enclave.
func (j *judge) qeReport(q *tdx.QEIdentity) {
	e := &j.quote.QEReport
	misc := []byte{byte(e.MiscSelect), byte(e.MiscSelect >> 8), byte(e.MiscSelect >> 16), byte(e.MiscSelect >> 24)}
	ok := bytes.Equal(e.MRSigner[:], q.MRSigner) && e.ISVProdID == q.ISVProdID &&
		masked(e.Attributes[:], q.AttributesMask, q.Attributes) && masked(misc, q.MiscSelectMask, q.MiscSelect)
	j.r.That(ok, "qe-report", fmt.Sprintf("MRSIGNER %x, product %d, attributes %x under mask %x, MISCSELECT %x under mask %x", q.MRSigner, q.ISVProdID, q.Attributes, q.AttributesMask, q.MiscSelect, q.MiscSelectMask),
		fmt.Sprintf("MRSIGNER %x, product %d, attributes %x, MISCSELECT %x, SVN %d", e.MRSigner, e.ISVProdID, e.Attributes, misc, e.ISVSVN), "the quote was signed by something other than Intel's TD quoting enclave")
}

// masked reports whether have, under mask, is want. All have one length: the
// parser checked.
func masked(have, mask, want []byte) bool {
	for i := range have {
		if have[i]&mask[i] != want[i] {
			return false
		}
	}
	return true
}
