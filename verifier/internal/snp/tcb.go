package snp

import (
	"fmt"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// tcbs are the four TCB versions of a report.
type tcbs struct{ reported, current, committed, launch snp.TCB }

func decodeTCBs(rep *snp.Report, product snp.Product) (t tcbs, err error) {
	for _, v := range []struct {
		name string
		raw  snp.TCBVersion
		to   *snp.TCB
	}{
		{"REPORTED_TCB", rep.ReportedTCB, &t.reported}, {"CURRENT_TCB", rep.CurrentTCB, &t.current},
		{"COMMITTED_TCB", rep.CommittedTCB, &t.committed}, {"LAUNCH_TCB", rep.LaunchTCB, &t.launch},
	} {
		if *v.to, err = v.raw.Decode(product); err != nil {
			return tcbs{}, fmt.Errorf("%s: %w", v.name, err)
		}
	}
	return t, nil
}

// checkTCB checks the TCB versions of a report against each other and the
// policy's minimum.
func checkTCB(rep *snp.Report, product snp.Product, ref *policy.SNP, r *check.Recorder) {
	t, err := decodeTCBs(rep, product)
	if err != nil {
		r.Fail("tcb-format", "the layout of "+string(product), err.Error(), "the host's firmware and processor do not fit together: ask its operator")
		return
	}
	r.Pass("tcb-format", "layout of "+string(product))
	checkOrder(rep, &t, r)
	checkCommitted(rep, &t, ref, r)
	if ref == nil {
		r.NotChecked("minimum-tcb", "no policy was given; the report says "+t.reported.String())
		r.NotChecked("minimum-launch-tcb", "no policy was given; the report says "+t.launch.String())
		r.NotChecked("minimum-committed-tcb", "no policy was given; the report says "+t.committed.String())
		return
	}
	low, ok := minimum(ref, product)
	if !ok {
		r.Fail("minimum-tcb", "a minimum of the policy for "+string(product), "none", "members must agree on min_tcb for this product line")
		return
	}
	atLeast := func(name string, got snp.TCB, advice string) {
		text := got.String()
		if below := got.Below(low); below != nil {
			text += ": " + strings.Join(below, ", ")
		}
		r.That(got.AtLeast(low), name, "at least "+low.String(), text, advice)
	}
	atLeast("minimum-tcb", t.reported, "the firmware or microcode of the host is too old: update it, and have it report its current TCB")
	atLeast("minimum-launch-tcb", t.launch, "the guest was started under older firmware than the host runs now: start it anew")
	atLeast("minimum-committed-tcb", t.committed, "the host can go back to this firmware: have it commit the current one")
}

func minimum(ref *policy.SNP, product snp.Product) (snp.TCB, bool) {
	i := slices.IndexFunc(ref.MinTCB, func(m policy.ProdTCB) bool { return m.Product == string(product) })
	if i < 0 {
		return snp.TCB{}, false
	}
	m := &ref.MinTCB[i]
	return snp.TCB{FMC: m.FMC, BootLoader: m.BootLoader, TEE: m.TEE, SNP: m.SNP, Microcode: m.Microcode}, true
}

// checkOrder demands what the firmware guarantees: nothing is reported or
// committed that the host does not run.
func checkOrder(rep *snp.Report, t *tcbs, r *check.Recorder) {
	var wrong []string
	if below := t.current.Below(t.reported); below != nil {
		wrong = append(wrong, "CURRENT is below REPORTED_TCB: "+strings.Join(below, ", "))
	}
	if below := t.current.Below(t.committed); below != nil {
		wrong = append(wrong, "CURRENT is below COMMITTED_TCB: "+strings.Join(below, ", "))
	}
	if !rep.Current.AtLeast(rep.Committed) {
		wrong = append(wrong, fmt.Sprintf("firmware %s is below the committed %s", rep.Current, rep.Committed))
	}
	if wrong == nil {
		r.Pass("tcb-order", "current "+t.current.String())
		return
	}
	r.Fail("tcb-order", "REPORTED and COMMITTED at most CURRENT", strings.Join(wrong, "; "), "no sound firmware says this: refuse the host")
}

// checkCommitted records whether the host can go back to older firmware.
func checkCommitted(rep *snp.Report, t *tcbs, ref *policy.SNP, r *check.Recorder) {
	const name, advice = "provisional-firmware", "the host can go back to older firmware: have it commit the current one"
	current := fmt.Sprintf("current %s (%s)", t.current, rep.Current)
	committed := fmt.Sprintf("committed %s (%s)", t.committed, rep.Committed)
	switch {
	case t.committed == t.current && rep.Committed == rep.Current:
		r.Pass(name, committed)
	case ref == nil:
		r.NotChecked(name, advice+"; it runs "+current)
	case ref.AllowProvisional:
		r.Pass(name, "permitted by the policy: "+current+", "+committed)
	default:
		r.Fail(name, current, committed, advice)
	}
}
