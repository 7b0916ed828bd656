package snp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// checkTCB checks the four TCB versions of a report against each other and the
// policy's minimum. s may be nil.
func checkTCB(rep *snp.Report, product snp.Product, s *signer, ref *policy.SNP, r *check.Recorder) {
	var reported, current, committed, launch snp.TCB
	for _, v := range []struct {
		name string
		raw  snp.TCBVersion
		to   *snp.TCB
	}{
		{"REPORTED_TCB", rep.ReportedTCB, &reported}, {"CURRENT_TCB", rep.CurrentTCB, &current},
		{"COMMITTED_TCB", rep.CommittedTCB, &committed}, {"LAUNCH_TCB", rep.LaunchTCB, &launch},
	} {
		t, err := v.raw.Decode(product)
		if err != nil {
			r.Fail("tcb-format", v.name+" in the layout of "+string(product), err.Error(), "")
			return
		}
		*v.to = t
	}
	r.Pass("tcb-format", "")
	r.That(current.AtLeast(reported), "tcb-order", "REPORTED at most CURRENT: "+current.String(), reported.String(), "")

	final := committed == current && rep.Committed == rep.Current
	const nameFinal, adviceFinal = "provisional-firmware", "the host can go back to older firmware: have it commit the current one"
	state := fmt.Sprintf("committed %s (%s)", committed, rep.Committed)
	switch {
	case final:
		r.Pass(nameFinal, state)
	case ref == nil:
		r.NotChecked(nameFinal, adviceFinal+"; it runs "+current.String())
	default:
		r.Fail(nameFinal, fmt.Sprintf("current %s (%s)", current, rep.Current), state, adviceFinal)
	}
	if ref == nil {
		r.NotChecked("minimum-tcb", "no policy was given; the report says "+reported.String())
		r.NotChecked("minimum-launch-tcb", "no policy was given; the report says "+launch.String())
		return
	}
	low, ok := minimum(ref, product)
	if !ok {
		r.Fail("minimum-tcb", "a minimum of the policy for "+string(product), "none", "")
		return
	}
	const advice = "update the firmware of the host and start the guest anew"
	r.That(reported.AtLeast(low), "minimum-tcb", "at least "+low.String(), reported.String(), advice)
	r.That(launch.AtLeast(low), "minimum-launch-tcb", "at least "+low.String(), launch.String(), advice)
}

func minimum(ref *policy.SNP, product snp.Product) (snp.TCB, bool) {
	for _, m := range ref.MinTCB {
		if m.Product == string(product) {
			return snp.TCB{FMC: m.FMC, BootLoader: m.BootLoader, TEE: m.TEE, SNP: m.SNP, Microcode: m.Microcode}, true
		}
	}
	return snp.TCB{}, false
}

// checkGuest checks what was launched and with which rights.
func checkGuest(rep *snp.Report, ref *policy.SNP, want *check.Expect, r *check.Recorder) {
	r.That(!rep.Policy.Has(snp.PolicyDebug), "debug", "off", onOff(rep.Policy.Has(snp.PolicyDebug)), "the host can read a debug guest")
	r.That(!rep.Policy.Has(snp.PolicyMigrateMA), "migration", "off", onOff(rep.Policy.Has(snp.PolicyMigrateMA)), "a migration agent can take the guest's keys")
	r.That(rep.VMPL == 0, "vmpl", "0", fmt.Sprint(rep.VMPL), "the report was asked for from a lower privilege level")
	if ref == nil {
		r.NotChecked("smt", "no policy was given")
		r.NotChecked("cxl", "no policy was given")
		r.NotChecked("measurement", "any measurement is accepted; the report says "+hex.EncodeToString(rep.Measurement[:]))
		r.NotChecked("guest-svn", "no policy was given")
		r.NotChecked("host-data", "no policy was given; the report says "+hex.EncodeToString(rep.HostData[:]))
		return
	}
	smt := rep.Policy.Has(snp.PolicySMT)
	r.That(!smt || ref.AllowSMT, "smt", "off", onOff(smt), "launch the guest with a policy that forbids SMT")
	cxl := rep.Policy.Has(snp.PolicyCXL)
	r.That(!cxl, "cxl", "off", onOff(cxl), "launch the guest with a policy that forbids CXL")
	r.That(listed(ref.Measurements, rep.Measurement[:]), "measurement", oneOf(ref.Measurements), hex.EncodeToString(rep.Measurement[:]),
		"another image, firmware or virtual machine shape than the members approved")
	r.That(uint64(rep.GuestSVN) >= ref.MinGuestSVN, "guest-svn", fmt.Sprintf("at least %d", ref.MinGuestSVN), fmt.Sprint(rep.GuestSVN), "")
	checkHostData(rep, ref, want, r)
}

func checkHostData(rep *snp.Report, ref *policy.SNP, want *check.Expect, r *check.Recorder) {
	got := hex.EncodeToString(rep.HostData[:])
	switch {
	case !want.Federation.IsZero() && bytes.Equal(rep.HostData[:], want.Federation[:]):
		r.Pass("host-data", got)
	case !ref.HostData && rep.HostData == [32]byte{}:
		r.Pass("host-data", "none: the launch bound no federation, and the policy allows it")
	default:
		r.Fail("host-data", want.Federation.String(), got, "launch the guest with the federation id as HOST_DATA")
	}
}

// checkPlatform checks the host and the chip.
func checkPlatform(rep *snp.Report, product snp.Product, ref *policy.SNP, r *check.Recorder) {
	alias := rep.PlatformInfo.Has(snp.PlatformAliasCheck)
	if ref == nil {
		r.NotChecked("alias-check", "no policy was given; PLATFORM_INFO is "+rep.PlatformInfo.String())
		r.NotChecked("mitigations", "no policy was given")
		r.NotChecked("chip", "any chip is accepted; the report says "+short(chipID(rep, product)))
		return
	}
	r.That(alias, "alias-check", "complete", rep.PlatformInfo.String(),
		"firmware without the check for aliased memory (BadRAM, AMD-SB-3015): update the host")
	if rep.Version >= snp.Version5 {
		r.Unsupported("mitigations", fmt.Sprintf("launch 0x%x, current 0x%x", rep.LaunchMitigations, rep.CurrentMitigations),
			"policies of this version cannot judge mitigation vectors")
	}
	id := chipID(rep, product)
	switch {
	case rep.ChipID == [64]byte{}:
		r.Fail("chip", "a chip id", "masked", "the host must not mask CHIP_ID")
	case ref.AnyChip:
		r.NotChecked("chip", "the policy accepts any chip: one extracted chip key forges every enclave; this is "+short(id))
	default:
		r.That(listed(ref.Chips, id), "chip", oneOf(ref.Chips), hex.EncodeToString(id), "a chip that the members did not list")
	}
}

func listed(set []policy.Hex, v []byte) bool {
	return slices.ContainsFunc(set, func(h policy.Hex) bool { return bytes.Equal(h, v) })
}

// oneOf describes an allow list: the value if it is alone, else how many.
func oneOf(set []policy.Hex) string {
	if len(set) == 1 {
		return hex.EncodeToString(set[0])
	}
	return fmt.Sprintf("one of %d values of the policy", len(set))
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}
