package verifier

import (
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	fsnp "github.com/concordat/concordat/attestation/snp"
	ftdx "github.com/concordat/concordat/attestation/tdx"
	vtpm "github.com/concordat/concordat/attestation/tpm"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	"github.com/concordat/concordat/verifier/internal/snp"
	"github.com/concordat/concordat/verifier/internal/tdx"
	"github.com/concordat/concordat/verifier/internal/tpm"
)

// checkTPMs checks that a vTPM's quote is there exactly where the policy demands
// one: the CPU's report then describes the paravisor, without it the guest. One
// must never be taken for the other.
func (a *appraisal) checkTPMs(n int, r *check.Recorder) {
	const name = "tpm"
	got := fmt.Sprintf("%d TPM items", n)
	switch {
	case a.p.Platforms.TPM == nil && n == 0:
		// A federation without vTPMs: nothing to say.
	case a.p.Platforms.TPM == nil:
		r.Fail(name, "no TPM item", got, "the policy has no reference values for vTPMs: what the quote vouches for is not known")
	default:
		r.That(n == 1 && len(a.e.Items) > 1 && a.e.Items[1].Kind == attestation.KindTPM, name, "one TPM item, behind the CPU's", got,
			"the policy accepts only machines with a paravisor and its vTPM")
	}
}

// vtpm returns the vTPM's evidence where the policy wants one and it parses.
func (a *appraisal) vtpm() *vtpm.Evidence {
	if a.p.Platforms.TPM == nil {
		return nil
	}
	for _, it := range a.e.Items {
		if it.Kind != attestation.KindTPM {
			continue
		}
		if t, err := vtpm.Parse(it.Raw); err == nil {
			return t
		}
	}
	return nil
}

// cpuReportData returns the report data of a CPU item, or nil if it does not
// parse. It says nothing about their truth.
func cpuReportData(it attestation.Item) []byte {
	switch it.Kind {
	case attestation.KindSNP:
		if r, err := fsnp.Parse(it.Raw); err == nil {
			return r.ReportData[:]
		}
	case attestation.KindTDX:
		if q, err := ftdx.Parse(it.Raw); err == nil {
			return q.Body.ReportData[:]
		}
	}
	return nil
}

// AppraiseVTPM judges the quote of a vTPM with the CPU item that vouches for its
// key, without claims. challenge is what the quote's extraData must be, byte for
// byte; empty leaves that check out, and says so. Everything else is as in
// [AppraiseItem]: the result never becomes a [Passed].
func AppraiseVTPM(cpu, quote attestation.Item, ends *attestation.Endorsements, p *policy.Policy, challenge []byte, at time.Time) (*Result, error) {
	want, digest, err := expectItem(p, nil, at)
	if err != nil {
		return nil, err
	}
	both := attestation.Evidence{Items: []attestation.Item{cpu, quote}}
	res := &Result{simulated: want.Simulated, at: at, evidence: both.Digest(), policy: digest}
	if t, err := vtpm.Parse(quote.Raw); err == nil {
		binding := vtpm.Binding(t.Runtime)
		want.ReportData = binding[:]
	}
	var r *check.Recorder
	switch cpu.Kind {
	case attestation.KindSNP:
		r = check.NewRecorder("snp")
		snp.Appraise(cpu.Raw, ends, cpu.Endorsements, p, want, r)
	case attestation.KindTDX:
		r = check.NewRecorder("tdx")
		tdx.Appraise(cpu.Raw, ends, cpu.Endorsements, p, want, r)
	default:
		r = check.NewRecorder("item")
		r.Unsupported("kind", fmt.Sprintf("%.40q", string(cpu.Kind)), "only the evidence of a CPU vouches for a vTPM")
	}
	res.add(r)
	q := check.NewRecorder("tpm")
	want.ReportData = challenge
	tpm.Appraise(quote.Raw, ends, quote.Endorsements, p, want, &tpm.CPU{ReportData: cpuReportData(cpu), Authentic: r.IsAuthentic()}, q)
	res.add(q)
	res.authentic = r.IsAuthentic() && q.IsAuthentic()
	return res, nil
}
