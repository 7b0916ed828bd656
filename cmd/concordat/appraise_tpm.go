package main

import (
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tpm"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/crosscheck"
)

// appraiseVTPM judges what a machine on Azure sends: a quote of its vTPM with the
// SEV-SNP report that vouches for the vTPM's key.
func (f *appraiseFlags) appraiseVTPM(raw []byte, p *policy.Policy, nonce []byte, at time.Time) (*appraised, error) {
	v := &appraised{Platform: f.platform, at: at, policy: p != nil}
	given := new(endorsementFiles)
	a, err := tpm.ParseAzure(raw)
	if err != nil {
		v.Checks = []verifier.Check{{
			Name: "input.evidence", Verdict: verifier.Fail, Expected: "JSON with a quote and the report that vouches for its key", Got: err.Error(),
			Advice: "a quote alone proves nothing, as anybody can run a TPM: collect the CPU's report with it",
		}}
		return v, nil
	}
	if a.HCL.Type != tpm.HCLSNP {
		v.Verdict = verifier.Unsupported
		v.Checks = []verifier.Check{{Name: "input.evidence", Verdict: verifier.Unsupported, Got: "a TDREPORT", Advice: "only the machine that made a TDREPORT can check it: have it turned into a quote"}}
		return v, nil
	}
	if a.VCEK != nil {
		certs, err := parseCertificates(a.VCEK)
		if err != nil {
			given.refuse("cert", "certificates in PEM", "evidence", err)
		}
		given.certs = certs
	}
	if err := given.read(f); err != nil {
		return nil, err
	}
	cpu := attestation.Item{Kind: attestation.KindSNP, Raw: a.HCL.Hardware}
	quote := attestation.Item{Kind: attestation.KindTPM, Raw: a.Evidence.Encode()}
	r, err := verifier.AppraiseVTPM(cpu, quote, given.set, p, nonce, at)
	if err != nil {
		return nil, err
	}
	v.Verdict, v.Authentic, v.Checks = r.Verdict(), r.Authentic(), append(given.checks, r.Checks()...)
	if given.bad {
		v.Verdict = verifier.Fail
	}
	binding := tpm.Binding(a.HCL.Runtime)
	v.second(func() crosscheck.Outcome { return crosscheck.SNP(cpu.Raw, given.set, nil, p, binding[:], at) }, r)
	v.second(func() crosscheck.Outcome { return crosscheck.TPM(quote.Raw, nonce) }, r)
	return v, nil
}
