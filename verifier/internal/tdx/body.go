package tdx

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/policy"
)

// tud are the attribute bits that put a TD under debug; 1 to 7 are reserved for
// more of the kind (TDX Module ABI, ATTRIBUTES, group TUD).
const tud tdx.TDAttributes = 0xff

// known are the bits that this verifier has an opinion on. Another one may
// weaken the TD in a way that nobody here has heard of.
const known = tud | tdx.SeptVEDisable | tdx.Migratable | tdx.PKS | tdx.KeyLocker | tdx.PerfMon

func (j *judge) attributes() {
	a := j.quote.Body.TDAttributes
	hex := fmt.Sprintf("%016x", uint64(a))
	j.r.That(a&tud == 0, "debug", "a TD that the host cannot look into", "attributes "+hex, "the TD was launched with debugging on: its memory is open to the host")
	j.r.That(a&tdx.SeptVEDisable != 0, "sept-ve-disable", "SEPT_VE_DISABLE set", "attributes "+hex, "launch the TD with SEPT_VE_DISABLE: without it the host can make pages vanish below the kernel")
	// Policy.Check refuses AllowMigration; a policy that nobody checked changes nothing here.
	j.r.That(a&tdx.Migratable == 0, "migratable", "MIGRATABLE clear", "attributes "+hex, "the TD may be moved to a machine that nobody appraised: launch it without MIGRATABLE")
	j.r.That(a&tdx.PerfMon == 0, "perfmon", "PERFMON clear", "attributes "+hex, "performance counters of the TD are a side channel: launch it without PERFMON")
	j.r.That(a&^known == 0, "attributes", "no unknown attribute", fmt.Sprintf("unknown bits %016x", uint64(a&^known)), "the TD uses a feature that is newer than this verifier")

	x := j.quote.Body.XFAM
	if j.tdx == nil {
		j.r.NotChecked("xfam", fmt.Sprintf("no policy limits the CPU features of the TD; here: %016x", x))
		return
	}
	j.r.That(x&^j.tdx.XFAMMask == 0, "xfam", fmt.Sprintf("no bit outside %016x", j.tdx.XFAMMask), fmt.Sprintf("%016x", x), "the TD was launched with CPU features that the policy does not allow")
}

// measurements checks what the TD was made of, and where it runs.
func (j *judge) measurements() {
	b := &j.quote.Body
	intel := make([]byte, 48)
	signer := intel
	if j.tdx != nil {
		signer = j.tdx.MRSignerSEAM
	}
	j.r.That(bytes.Equal(b.MRSignerSEAM[:], signer), "mrsignerseam", fmt.Sprintf("%x", signer), fmt.Sprintf("%x", b.MRSignerSEAM), "the TDX module was signed by somebody else; zeros are Intel's own")

	if j.tdx == nil {
		j.r.NotChecked("mrtd", fmt.Sprintf("no policy names the firmware; here: %x", b.MRTD))
		j.r.NotChecked("rtmr", fmt.Sprintf("no policy names the image; here: %x, %x, %x", b.RTMR[0], b.RTMR[1], b.RTMR[2]))
	} else {
		j.r.That(contains(j.tdx.MRTD, b.MRTD[:]), "mrtd", fmt.Sprintf("one of %d values of the policy", len(j.tdx.MRTD)), fmt.Sprintf("%x", b.MRTD), "the TD's firmware is not one that the policy names")
		j.rtmr()
	}

	zero := [48]byte{}
	got := fmt.Sprintf("MROWNER %x, MROWNERCONFIG %x", b.MROwner, b.MROwnerConfig)
	if j.tdx == nil {
		j.r.NotChecked("mrowner", "no policy is about the host's choices; here: "+got)
	} else {
		j.r.That(b.MROwner == zero && b.MROwnerConfig == zero, "mrowner", "zeros", got, "the host set owner values at launch that mean nothing here: launch without them")
	}
	j.migration()
	j.instance()
}

func (j *judge) rtmr() {
	r := &j.quote.Body.RTMR
	got := fmt.Sprintf("%x, %x, %x", r[0], r[1], r[2])
	sets := j.tdx.RTMRs
	if len(sets) == 0 {
		j.r.NotChecked("rtmr", "the policy names no image: any kernel and command line passes; here: "+got)
		return
	}
	ok := slices.ContainsFunc(sets, func(s policy.RTMRs) bool {
		return bytes.Equal(s.RTMR0, r[0][:]) && bytes.Equal(s.RTMR1, r[1][:]) && bytes.Equal(s.RTMR2, r[2][:])
	})
	advice := "the TD booted an image that the policy does not name"
	// Which one differs tells an operator where to look.
	for _, s := range sets {
		if bytes.Equal(s.RTMR1, r[1][:]) && bytes.Equal(s.RTMR2, r[2][:]) {
			advice = "the image is one of the policy, but RTMR0 differs: another memory size, number of CPUs or firmware setting"
		}
	}
	j.r.That(ok, "rtmr", fmt.Sprintf("one of %d sets of the policy", len(sets)), got, advice)
}

// migration checks what only a TDX 1.5 body shows.
func (j *judge) migration() {
	if j.quote.BodyType != tdx.TDX15 {
		j.skip("a TDX 1.0 body does not show it", "mrservicetd", "tcb-svn2")
		return
	}
	x, zero := &j.quote.Extra, [48]byte{}
	got := fmt.Sprintf("%x", x.MRServiceTD)
	switch {
	case x.MRServiceTD == zero:
		j.r.Pass("mrservicetd", "none")
	case j.tdx == nil:
		// Bound but powerless while MIGRATABLE is clear, which has its own check.
		j.r.NotChecked("mrservicetd", "the TD is bound to service TDs, which a policy would refuse; here: "+got)
	default:
		j.r.Fail("mrservicetd", "zeros", got, "the TD is bound to a service TD, which may move it: launch it without one")
	}
	now, then := x.TEETCBSVN2, j.quote.Body.TEETCBSVN
	older := now[1] < then[1] || now[1] == then[1] && now[0] < then[0]
	text := fmt.Sprintf("TDX module %d.%d", now[1], now[0])
	if now != then {
		text += fmt.Sprintf(", launched under %d.%d: relaunch the TD to benefit from the update", then[1], then[0])
	}
	j.r.That(!older, "tcb-svn2", fmt.Sprintf("a module at least as new as at launch, %d.%d", then[1], then[0]), text, "the TDX module went back to an older version")
}

func (j *judge) instance() {
	const name = "platform-instance"
	if j.sgx == nil {
		j.skip("the platform is not known", name)
		return
	}
	got := fmt.Sprintf("%x", j.sgx.InstanceID)
	switch {
	case j.tdx == nil:
		j.r.NotChecked(name, "no policy names the machines; here: "+got)
	case j.tdx.AnyPlatform:
		j.r.NotChecked(name, "the policy accepts any machine: whoever has the keys of one can pose as this TD; here: "+got)
	default:
		j.r.That(j.sgx.InstanceID != [16]byte{} && contains(j.tdx.PIIDs, j.sgx.InstanceID[:]), name, fmt.Sprintf("one of %d machines of the policy", len(j.tdx.PIIDs)), got, "the machine is not one that the policy names")
	}
}

// binding checks what ties the TD to this federation and to its claims.
func (j *judge) binding() {
	b := &j.quote.Body
	fed := j.want.Federation
	switch want := append(fed[:len(fed):len(fed)], make([]byte, 16)...); {
	case fed.IsZero():
		j.r.NotChecked("mrconfigid", fmt.Sprintf("no federation is expected; here: %x", b.MRConfigID))
	case bytes.Equal(b.MRConfigID[:], want):
		j.r.Pass("mrconfigid", "the federation's id, bound at launch")
	case b.MRConfigID == [48]byte{} && (j.tdx == nil || !j.tdx.MRConfigID):
		j.r.NotChecked("mrconfigid", "zeros: the launch is not bound to a federation, and the policy does not demand it")
	default:
		j.r.Fail("mrconfigid", fmt.Sprintf("%x", want), fmt.Sprintf("%x", b.MRConfigID), "launch the TD with the federation's id as MRCONFIGID, or this is the enclave of another federation")
	}
	if len(j.want.ReportData) == 0 {
		j.r.NotChecked("report-data", fmt.Sprintf("no claims were given; here: %x", b.ReportData))
		return
	}
	j.r.That(bytes.Equal(b.ReportData[:], j.want.ReportData), "report-data", fmt.Sprintf("%x", j.want.ReportData), fmt.Sprintf("%x", b.ReportData), "the evidence was made for other claims or another nonce: ask for fresh evidence")
}

func contains(set []policy.Hex, v []byte) bool {
	return slices.ContainsFunc(set, func(h policy.Hex) bool { return bytes.Equal(h, v) })
}
