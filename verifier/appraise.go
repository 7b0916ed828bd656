package verifier

import (
	"fmt"
	"slices"
	"time"

	"github.com/concordat/concordat/attestation"
	vtpm "github.com/concordat/concordat/attestation/tpm"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	"github.com/concordat/concordat/verifier/internal/nvgpu"
	"github.com/concordat/concordat/verifier/internal/snp"
	"github.com/concordat/concordat/verifier/internal/tdx"
	"github.com/concordat/concordat/verifier/internal/tpm"
)

// Appraise judges an envelope under a consortium's policy at the time at: every
// item against its vendor's roots, the claims against the policy, the binding
// between them. ends may be nil; what is then missing makes the verdict
// [Incomplete].
//
// nonce is the caller's own challenge with the proof that it is under the
// evidence. It may be nil for an auditor, who looks at evidence that answered
// somebody else: such a result never becomes a [Passed].
//
// The result depends on the arguments alone: the same arguments give the same
// checks, byte for byte. An error means that p is no policy, or at no time;
// whatever is wrong with the evidence is in the result. Appraise keeps and
// changes none of its arguments.
func Appraise(e *attestation.Evidence, ends *attestation.Endorsements, p *policy.Policy, nonce *attestation.NonceProof, at time.Time) (*Result, error) {
	if p == nil {
		return nil, fmt.Errorf("appraise: no policy")
	}
	digest, err := checked(p)
	if err != nil {
		return nil, err
	}
	if at.IsZero() {
		return nil, fmt.Errorf("appraise: no time")
	}
	a := &appraisal{e: e, ends: ends, p: p, nonce: nonce, at: at, res: &Result{simulated: p.Simulated, at: at, policy: digest}}
	if e != nil {
		a.res.evidence = e.Digest()
	}
	if nonce != nil {
		a.res.challenge = &EARChallenge{Node: nonce.Node, Nonce: nonce.Nonce, Index: nonce.Index, Count: nonce.Count, Path: slices.Clone(nonce.Path)}
	}
	a.run()
	return a.res, nil
}

// soundPolicies remembers policies that passed their own check, by their digest.
var soundPolicies = check.NewMemory[struct{}](64)

// checked returns the digest of p, or why p is no policy.
func checked(p *policy.Policy) (attestation.Digest, error) {
	digest := p.Digest()
	if _, ok := soundPolicies.Get(digest); ok {
		return digest, nil
	}
	if err := p.Check(); err != nil {
		return digest, fmt.Errorf("appraise: %w", err)
	}
	soundPolicies.Put(digest, struct{}{})
	return digest, nil
}

// expectPolicy puts in what any evidence must show by the policy p of that digest.
func expectPolicy(want *check.Expect, p *policy.Policy, digest attestation.Digest) {
	want.Federation, want.Simulated = p.Federation, p.Simulated
	if p.Version == 1 { // as policy.Policy.FederationID, without encoding p again
		want.Federation = digest
	}
	if p.Simulated {
		want.Roots = p.SimulatedRoots
	}
}

type appraisal struct {
	e     *attestation.Evidence
	ends  *attestation.Endorsements
	p     *policy.Policy
	nonce *attestation.NonceProof
	at    time.Time
	res   *Result
}

// run records every check that can still be made after the ones before it.
func (a *appraisal) run() {
	r := check.NewRecorder("envelope")
	ok := a.checkEnvelope(r)
	a.res.add(r)
	if !ok {
		return
	}
	r = check.NewRecorder("claims")
	claims := a.checkClaims(r)
	a.res.add(r)
	if claims == nil {
		return
	}
	a.res.claims = claims
	a.appraiseItems(claims)
}

// checkEnvelope checks which items there are. It returns false if there is
// nothing to go on with.
func (a *appraisal) checkEnvelope(r *check.Recorder) bool {
	if a.e == nil {
		r.Missing("items", "evidence", "")
		return false
	}
	// The limits, also for an envelope that was not parsed.
	if _, err := attestation.ParseEvidence(a.e.Encode()); err != nil {
		r.Fail("items", "an envelope within the limits", err.Error(), "")
		return false
	}
	cpus, gpus, tpms := 0, 0, 0
	for _, it := range a.e.Items {
		switch {
		case it.Kind.IsCPU():
			cpus++
		case it.Kind == attestation.KindGPU:
			gpus++
		default:
			tpms++
		}
	}
	ok := r.That(cpus == 1 && a.e.Items[0].Kind.IsCPU(), "items", "one CPU item, first", fmt.Sprintf("%d CPU, %d GPU and %d TPM items", cpus, gpus, tpms), "")
	a.checkTPMs(tpms, r)
	missing := 0
	for _, it := range a.e.Items {
		for _, d := range it.Endorsements {
			if _, ok := a.ends.Get(d); !ok {
				missing++
			}
		}
	}
	if missing > 0 {
		// Not decisive: a platform says itself what it lacks.
		r.NotChecked("endorsements", fmt.Sprintf("%d of the documents that the evidence names were not given", missing))
	} else {
		r.Pass("endorsements", "")
	}
	return ok
}

// appraiseItems hands every item to its platform.
func (a *appraisal) appraiseItems(claims *attestation.Claims) {
	report := attestation.ReportData(a.e.Claims, a.p.Simulated)
	challenge := vtpm.ExtraData(report)
	if t := a.vtpm(); t != nil {
		// The paravisor took the CPU's report, before there were claims: it vouches
		// for the vTPM's key, and the vTPM's quote for the claims.
		report = vtpm.Binding(t.Runtime)
	}
	want := check.Expect{At: a.at}
	expectPolicy(&want, a.p, a.res.policy)
	gpu, authentic := 0, true
	gpus := nvgpu.NewSet(a.ends, a.p)
	var cpu *tpm.CPU
	for _, it := range a.e.Items {
		var r *check.Recorder
		switch it.Kind {
		case attestation.KindSNP:
			r = check.NewRecorder("snp")
			want.ReportData = report[:]
			snp.Appraise(it.Raw, a.ends, it.Endorsements, a.p, want, r)
		case attestation.KindTDX:
			r = check.NewRecorder("tdx")
			want.ReportData = report[:]
			tdx.Appraise(it.Raw, a.ends, it.Endorsements, a.p, want, r)
		case attestation.KindGPU:
			r = check.NewRecorder(fmt.Sprintf("gpu[%d]", gpu))
			nonce := attestation.GPUNonce(claims, gpu)
			want.ReportData = nonce[:]
			gpu++
			gpus.Appraise(it.Raw, it.Endorsements, want, r)
		case attestation.KindTPM:
			if a.p.Platforms.TPM == nil {
				authentic = false // the envelope's check refused it
				continue
			}
			r = check.NewRecorder("tpm")
			want.ReportData = challenge[:]
			tpm.Appraise(it.Raw, a.ends, it.Endorsements, a.p, want, cpu, r)
		}
		if it.Kind.IsCPU() {
			cpu = &tpm.CPU{ReportData: cpuReportData(it), Authentic: r.IsAuthentic()}
		}
		authentic = authentic && r.IsAuthentic()
		a.res.add(r)
	}
	a.res.authentic = authentic
	if a.p.Platforms.GPU != nil || gpu > 0 {
		r := check.NewRecorder("gpu")
		gpus.Judge(r)
		a.res.add(r)
	}
}

// Forget drops what the verifiers remember of signatures that were good. No result
// depends on it, only what the next appraisal costs: it is for measurements.
func Forget() { check.Forget() }
