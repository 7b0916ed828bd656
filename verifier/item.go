package verifier

import (
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	"github.com/concordat/concordat/verifier/internal/nvgpu"
	"github.com/concordat/concordat/verifier/internal/snp"
	"github.com/concordat/concordat/verifier/internal/tdx"
)

// AppraiseItem judges one piece of evidence alone, without claims.
//
// A nil policy stands for the built-in one: genuine hardware, no debug, VMPL 0,
// nothing expired or revoked as far as endorsements were given, any measurement.
// reportData is what the evidence must hold: 64 bytes for a CPU, the nonce of 32
// bytes for a GPU; empty leaves that check out, and says so. The result never
// becomes a [Passed].
func AppraiseItem(kind attestation.Kind, raw []byte, ends *attestation.Endorsements, p *policy.Policy, reportData []byte, at time.Time) (*Result, error) {
	if at.IsZero() {
		return nil, errors.New("appraise: no time")
	}
	want := check.Expect{ReportData: reportData, At: at, AllowMissingCollateral: p == nil}
	if p != nil {
		if err := p.Check(); err != nil {
			return nil, fmt.Errorf("appraise: %w", err)
		}
		want.Federation, want.Simulated = p.FederationID(), p.Simulated
		if p.Simulated {
			want.Roots = p.SimulatedRoots
		}
	}
	res := &Result{simulated: want.Simulated, at: at}
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
	default:
		r = check.NewRecorder("item")
		r.Unsupported("kind", fmt.Sprintf("%.40q", string(kind)), "this verifier does not judge such evidence")
	}
	res.authentic = r.IsAuthentic()
	res.add(r)
	return res, nil
}
