package verifier

import (
	"fmt"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/verifier/internal/check"
)

// checkClaims checks what the enclave says about itself against the policy and
// against the items. It returns nil if the claims are no claims. Whether the
// hardware vouches for them is checked with the CPU item ("report-data").
func (a *appraisal) checkClaims(r *check.Recorder) *attestation.Claims {
	c, err := attestation.ParseClaims(a.e.Claims)
	if err != nil {
		r.Fail("schema", "the claims of this version", err.Error(), "")
		return nil
	}
	r.Pass("schema", "")
	p := a.p
	same(r, "federation", p.FederationID(), c.Federation, "an enclave of another federation")
	same(r, "policy", p.Digest(), c.Policy, "the enclave works under another version of the policy")
	r.That(c.PolicyVersion == p.Version, "policy-version", fmt.Sprint(p.Version), fmt.Sprint(c.PolicyVersion), "")
	r.That(c.Simulated == p.Simulated, "simulated", yesNo(p.Simulated), yesNo(c.Simulated),
		"a federation is simulated or real by its genesis policy")
	r.Pass("role", c.Role)
	r.Pass("epoch", fmt.Sprint(c.Epoch))
	same(r, "gpu", attestation.GPUDigest(a.e.Items), c.GPU, "the claims name other GPU evidence than the envelope holds")
	a.checkNonce(c, r)
	return c
}

func (a *appraisal) checkNonce(c *attestation.Claims, r *check.Recorder) {
	if a.nonce == nil {
		r.NotChecked("nonce", "no challenge of one's own: freshness is not known")
		return
	}
	if err := a.nonce.Verify(c.NonceRoot, c.NonceCount); err != nil {
		r.Fail("nonce", "the own challenge under the nonce root of the claims", err.Error(), "the evidence was not made for this challenge")
		return
	}
	r.Pass("nonce", fmt.Sprintf("leaf %d of %d", a.nonce.Index, a.nonce.Count))
	a.res.fresh = true
}

func same(r *check.Recorder, name string, want, got attestation.Digest, advice string) {
	r.That(want == got, name, none(want), none(got), advice)
}

func none(d attestation.Digest) string {
	if d.IsZero() {
		return "none"
	}
	return d.String()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
