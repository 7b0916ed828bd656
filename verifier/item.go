package verifier

import (
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	"github.com/concordat/concordat/verifier/internal/nvgpu"
	"github.com/concordat/concordat/verifier/internal/snp"
	"github.com/concordat/concordat/verifier/internal/tdx"
	"github.com/concordat/concordat/verifier/internal/tpm"
)

// AppraiseItem judges one piece of evidence alone, without claims.
//
// A nil policy stands for the built-in one: genuine hardware, no debug, VMPL 0,
// nothing expired or revoked as far as endorsements were given, any measurement.
// reportData is what the evidence must hold: 64 bytes for a CPU, the nonce of 32
// bytes for a GPU, the challenge itself for a vTPM; empty leaves that check out,
// and says so. The result never becomes a [Passed]. A vTPM's quote alone fails:
// see [AppraiseVTPM].
func AppraiseItem(kind attestation.Kind, raw []byte, ends *attestation.Endorsements, p *policy.Policy, reportData []byte, at time.Time) (*Result, error) {
	want, digest, err := expectItem(p, reportData, at)
	if err != nil {
		return nil, err
	}
	res := &Result{simulated: want.Simulated, at: at, evidence: cose.Sum(raw), policy: digest}
	var r *check.Recorder
	switch kind {
	case attestation.KindSNP:
		r = check.NewRecorder("snp")
		snp.Appraise(raw, ends, nil, p, want, r)
	case attestation.KindTDX:
		r = check.NewRecorder("tdx")
		tdx.Appraise(raw, ends, nil, p, want, r)
	case attestation.KindGPU:
		r = check.NewRecorder("gpu")
		nvgpu.Appraise(raw, ends, nil, p, want, r)
	case attestation.KindTPM:
		r = check.NewRecorder("tpm")
		tpm.Appraise(raw, ends, nil, p, want, nil, r)
	default:
		r = check.NewRecorder("item")
		r.Unsupported("kind", fmt.Sprintf("%.40q", string(kind)), "this verifier does not judge such evidence")
	}
	res.authentic = r.IsAuthentic()
	res.add(r)
	return res, nil
}

// expectItem returns what a single item must show, and the digest of the policy, zero if
// there is none.
func expectItem(p *policy.Policy, reportData []byte, at time.Time) (want check.Expect, digest attestation.Digest, err error) {
	if at.IsZero() {
		return want, digest, errors.New("appraise: no time")
	}
	want = check.Expect{ReportData: reportData, At: at, AllowMissingCollateral: p == nil}
	if p == nil {
		return want, digest, nil
	}
	digest, err = checked(p)
	expectPolicy(&want, p, digest)
	return want, digest, err
}
