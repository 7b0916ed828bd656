package snp

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// checkPlatform checks the host and the chip.
func checkPlatform(rep *snp.Report, product snp.Product, ref *policy.SNP, r *check.Recorder) {
	if ref == nil {
		r.NotChecked("alias-check", "no policy was given; PLATFORM_INFO is "+rep.PlatformInfo.String())
		r.NotChecked("platform-info", "no policy was given; PLATFORM_INFO is "+rep.PlatformInfo.String())
		r.NotChecked("mitigations", "no policy was given; "+mitigations(rep))
		r.NotChecked("chip", "any chip is accepted; the report says "+chipText(rep, product))
		r.NotChecked("chip-denied", "no policy was given")
		return
	}
	checkAlias(rep, ref, r)
	checkPlatformInfo(rep, ref, r)
	checkMitigations(rep, ref, r)
	checkChip(rep, product, ref, r)
}

func checkAlias(rep *snp.Report, ref *policy.SNP, r *check.Recorder) {
	const name = "alias-check"
	if !rep.PlatformInfo.Has(snp.PlatformAliasCheck) && ref.AllowUncheckedAlias {
		r.NotChecked(name, "the policy accepts hosts that did not check their memory for aliases (BadRAM)")
		return
	}
	r.That(rep.PlatformInfo.Has(snp.PlatformAliasCheck), name, "complete", "PLATFORM_INFO "+rep.PlatformInfo.String(),
		"the host has not checked its memory for aliases (BadRAM, AMD-SB-3015): update its firmware")
}

func checkPlatformInfo(rep *snp.Report, ref *policy.SNP, r *check.Recorder) {
	const name = "platform-info"
	if len(ref.PlatformRequired)+len(ref.PlatformForbidden) == 0 {
		r.NotChecked(name, "the policy demands nothing of PLATFORM_INFO, which is "+rep.PlatformInfo.String())
		return
	}
	var want, wrong []string
	if len(ref.PlatformRequired) > 0 {
		want = append(want, strings.Join(ref.PlatformRequired, ", "))
	}
	if len(ref.PlatformForbidden) > 0 {
		want = append(want, "not "+strings.Join(ref.PlatformForbidden, ", "))
	}
	if lacks := rep.PlatformInfo.Lacks(ref.PlatformRequired); len(lacks) > 0 {
		wrong = append(wrong, "lacks "+strings.Join(lacks, ", "))
	}
	if has := rep.PlatformInfo.AnyOf(ref.PlatformForbidden); len(has) > 0 {
		wrong = append(wrong, "has "+strings.Join(has, ", "))
	}
	got := strings.Join(append([]string{rep.PlatformInfo.String()}, wrong...), "; ")
	r.That(wrong == nil, name, strings.Join(want, "; "), got, "change the settings of the host's firmware, or use another host")
}

func mitigations(rep *snp.Report) string {
	if rep.Version < snp.Version5 {
		return fmt.Sprintf("a report of version %d states no mitigations", rep.Version)
	}
	return fmt.Sprintf("launch 0x%x, current 0x%x", rep.LaunchMitigations, rep.CurrentMitigations)
}

func checkMitigations(rep *snp.Report, ref *policy.SNP, r *check.Recorder) {
	const name = "mitigations"
	got, want := mitigations(rep), ref.Mitigations
	if want == 0 {
		r.NotChecked(name, "the policy demands none; "+got)
		return
	}
	advice := "update the host's firmware, and start the guest anew"
	if missing := want &^ rep.CurrentMitigations; missing != 0 {
		got += fmt.Sprintf("; current lacks 0x%x", missing)
	} else if missing := want &^ rep.LaunchMitigations; missing != 0 {
		got += fmt.Sprintf("; launch lacks 0x%x", missing)
		advice = "the host was updated after the guest started: start the guest anew"
	}
	have := rep.LaunchMitigations & rep.CurrentMitigations
	r.That(rep.Version >= snp.Version5 && have&want == want, name, fmt.Sprintf("0x%x in both vectors", want), got, advice)
}

func chipText(rep *snp.Report, product snp.Product) string {
	if masked(rep) {
		return "none: the host masks CHIP_ID"
	}
	return short(chipID(rep, product))
}

func checkChip(rep *snp.Report, product snp.Product, ref *policy.SNP, r *check.Recorder) {
	id := chipID(rep, product)
	byProvider := rep.SignerInfo.Key() == snp.VLEK
	const unmask = "have the host show its CHIP_ID (MASK_CHIP_ID off)"
	switch {
	case masked(rep) && byProvider && ref.AnyChip:
		r.NotChecked("chip", "the provider masks CHIP_ID, and the policy accepts any chip: its key forges every enclave")
	case masked(rep):
		r.Fail("chip", "a chip id", "masked", unmask)
	case ref.AnyChip:
		r.NotChecked("chip", "the policy accepts any chip: one extracted chip key forges every enclave; this is "+short(id))
	default:
		r.That(listed(ref.Chips, id), "chip", oneOf(ref.Chips), hex.EncodeToString(id),
			"a chip that the members did not list: run on a listed one, or have the members add it")
	}

	const name = "chip-denied"
	switch {
	case len(ref.Denied) == 0:
		r.NotChecked(name, "the policy denies no chip")
	case masked(rep):
		r.Fail(name, "a chip id, to hold against the list", "masked", unmask)
	default:
		denied := listed(ref.Denied, rep.ChipID[:product.ChipIDSize()])
		r.That(!denied, name, fmt.Sprintf("none of %d denied chips", len(ref.Denied)), hex.EncodeToString(id),
			"the members deny this chip: run on another one")
	}
}
