// Package tdx judges Intel TDX quotes: the chain from the PCK certificate to
// Intel's root, the quoting enclave, the platform's TCB, and what the TD shows of
// itself. [Appraise] is the only door; package check says how its answers read.
//
// It fetches nothing: collateral and event logs come with the evidence or from
// the caller.
//
// Sources: Intel, "TDX DCAP Quoting Library API" (formats), PCS API v4 (the rules
// under "TCB info" that pick a level), Intel's quote verification library, file
// TcbLevelCheck (convergence of platform, module and QE status).
package tdx

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// judge is one appraisal.
type judge struct {
	r      *check.Recorder
	policy *policy.Policy // nil: the built-in one
	tdx    *policy.TDX    // policy.Platforms.TDX; nil with policy
	want   check.Expect

	quote   *tdx.Quote
	parsed  certificates
	pck     chain
	genuine bool              // pck reaches an accepted root
	sgx     *tdx.SGXExtension // nil if the PCK certificate has none that can be read
}

// Appraise judges the quote raw and records every check in r. It is safe for
// concurrent use with different recorders and does not keep or change raw.
func Appraise(raw []byte, ends *attestation.Endorsements, refs []attestation.Digest, p *policy.Policy, want check.Expect, r *check.Recorder) {
	j := &judge{r: r, policy: p, want: want, parsed: certificates{}}
	if p != nil {
		j.tdx = p.Platforms.TDX
		if j.tdx == nil {
			r.Fail("platform", "a platform of the policy", "Intel TDX", "the policy has no reference values for TDX: use another machine, or adopt a policy that accepts TDX")
			return
		}
	}
	if !j.parse(raw) {
		return
	}
	j.genuine = j.chain()
	if signed := j.signatures(); j.genuine && signed {
		r.Authentic()
	}
	j.collateral(ends, refs)
	j.attributes()
	j.measurements()
	j.events(ends, refs)
	j.binding()
}

func (j *judge) parse(raw []byte) bool {
	q, err := tdx.Parse(raw)
	switch {
	case errors.Is(err, tdx.ErrUnsupported):
		j.r.Unsupported("quote", err.Error(), "quotes of version 4 and 5 with an ECDSA P-256 key and a TDX 1.0 or 1.5 body are understood")
		return false
	case err != nil:
		j.r.Fail("quote", "a TDX quote", err.Error(), "check that the evidence is the quote itself, whole and not re-encoded")
		return false
	}
	body := "TDX 1.0"
	if q.BodyType == tdx.TDX15 {
		body = "TDX 1.5"
	}
	j.quote = q
	j.r.Pass("quote", fmt.Sprintf("version %d, %s body", q.Version, body))
	j.r.That(q.Vendor == tdx.VendorIntel, "qe-vendor", hex.EncodeToString(tdx.VendorIntel[:]), hex.EncodeToString(q.Vendor[:]), "only Intel's quoting enclave is accepted")
	return true
}

// skip records checks that could not be made, and why; something else already
// says so in the verdict.
func (j *judge) skip(why string, names ...string) {
	for _, n := range names {
		j.r.NotChecked(n, why)
	}
}

// window says why at is outside [from, to), or "" if it is inside.
func window(from, to, at time.Time) string {
	switch {
	case at.Before(from):
		return fmt.Sprintf("not valid before %s", stamp(from))
	case !at.Before(to):
		return fmt.Sprintf("expired at %s", stamp(to))
	}
	return ""
}

// lifetime is window for certificates, whose last moment counts (RFC 5280
// 4.1.2.5).
func lifetime(at time.Time, certs ...*x509.Certificate) string {
	for _, c := range certs {
		if s := window(c.NotBefore, c.NotAfter.Add(time.Second), at); s != "" {
			return fmt.Sprintf("certificate %q %s", c.Subject.CommonName, s)
		}
	}
	return ""
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
