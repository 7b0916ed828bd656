package snp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// checkGuest checks what was launched and with which rights.
func checkGuest(rep *snp.Report, ref *policy.SNP, want *check.Expect, r *check.Recorder) {
	debug, migrate := rep.Policy.Has(snp.PolicyDebug), rep.Policy.Has(snp.PolicyMigrateMA)
	r.That(!debug, "debug", "off", onOff(debug), "the host can read a debug guest: launch it with a policy that forbids debugging")
	r.That(!migrate, "migration", "off", onOff(migrate), "a migration agent can take the guest's keys: launch it with a policy that forbids migration")
	r.That(rep.VMPL == 0, "vmpl", "0", fmt.Sprint(rep.VMPL),
		"the report was asked for from a lower privilege level, which does not speak for the guest: ask from VMPL 0, without a service module below it")
	if ref == nil {
		for _, name := range []string{"smt", "cxl", "guest-policy"} {
			r.NotChecked(name, "no policy was given; POLICY is "+rep.Policy.String())
		}
		r.NotChecked("measurement", "any measurement is accepted; the report says "+hex.EncodeToString(rep.Measurement[:]))
		for _, name := range []string{"id-key", "author-key", "guest-svn"} {
			r.NotChecked(name, "no policy was given")
		}
		r.NotChecked("host-data", "no policy was given; the report says "+hex.EncodeToString(rep.HostData[:]))
		return
	}
	smt, cxl := rep.Policy.Has(snp.PolicySMT), rep.Policy.Has(snp.PolicyCXL)
	r.That(!smt || ref.AllowSMT, "smt", "off", onOff(smt), "launch the guest with a policy that forbids SMT")
	r.That(!cxl || ref.AllowCXL, "cxl", "off", onOff(cxl), "launch the guest with a policy that forbids CXL")
	checkGuestPolicy(rep, ref, r)
	r.That(listed(ref.Measurements, rep.Measurement[:]), "measurement", oneOf(ref.Measurements), hex.EncodeToString(rep.Measurement[:]),
		"another image, firmware, command line or virtual machine shape than the members approved")
	checkKeys(rep, ref, r)
	r.That(uint64(rep.GuestSVN) >= ref.MinGuestSVN, "guest-svn", fmt.Sprintf("at least %d", ref.MinGuestSVN), fmt.Sprint(rep.GuestSVN),
		"the ID block that the guest was launched with is of an older image: launch the current one")
	checkHostData(rep, ref, want, r)
}

func checkGuestPolicy(rep *snp.Report, ref *policy.SNP, r *check.Recorder) {
	if len(ref.GuestPolicy) == 0 {
		r.NotChecked("guest-policy", "the policy demands no restriction; POLICY is "+rep.Policy.String())
		return
	}
	lacks := rep.Policy.Lacks(ref.GuestPolicy)
	got := "POLICY " + rep.Policy.String()
	if len(lacks) > 0 {
		got += " lacks " + strings.Join(lacks, ", ")
	}
	r.That(len(lacks) == 0, "guest-policy", strings.Join(ref.GuestPolicy, ", "), got,
		"launch the guest with these bits in its policy, on a host that has them")
}

// checkKeys checks whose ID block the guest was launched with. The firmware
// verified the block's signatures, and that it names the measurement.
func checkKeys(rep *snp.Report, ref *policy.SNP, r *check.Recorder) {
	key := func(name string, accepted []policy.Hex, there bool, digest []byte, advice string) {
		got := "none"
		if there {
			got = hex.EncodeToString(digest)
		}
		if len(accepted) == 0 {
			r.NotChecked(name, "the policy demands none; the report says "+got)
			return
		}
		r.That(there && listed(accepted, digest), name, oneOf(accepted), got, advice)
	}
	key("id-key", ref.IDKeys, rep.IDKeyDigest != [48]byte{}, rep.IDKeyDigest[:],
		"launch the guest with an ID block that one of the policy's id_keys signed")
	key("author-key", ref.AuthorKeys, rep.SignerInfo.Has(snp.SignerAuthorKey), rep.AuthorKeyDigest[:],
		"launch the guest with an ID block whose key one of the policy's author_keys signed")
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
