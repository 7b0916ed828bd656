package verifier

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/verifier/internal/check"
)

// Result is the outcome of one appraisal. Only [Appraise] and [AppraiseItem]
// make one; the zero value fails. It is immutable and safe for concurrent use.
type Result struct {
	checks    []Check
	seen      []Seen
	claims    *attestation.Claims
	authentic bool
	simulated bool
	fresh     bool // the caller's own nonce is under the claims
	at        time.Time

	// What was judged, for [Result.EAR].
	evidence  attestation.Digest
	policy    attestation.Digest
	challenge *EARChallenge
}

func (r *Result) add(rec *check.Recorder) {
	r.checks = append(r.checks, rec.Checks()...)
	r.seen = append(r.seen, rec.Seen()...)
}

// Verdict returns the outcome: [Fail] if one check failed or nothing was
// checked, else [Unsupported], else [Incomplete], else [Pass], which is
// [PassSimulated] under a simulator's roots.
func (r *Result) Verdict() Verdict {
	v := check.Summary(r.checks)
	switch {
	case v == Pass && !r.authentic:
		return Fail
	case v == Pass && r.simulated:
		return PassSimulated
	}
	return v
}

// Authentic reports whether every item bears a good signature under a chain to
// an accepted root. It says nothing about time, revocation or the policy.
func (r *Result) Authentic() bool { return r.authentic }

// Simulated reports whether the accepted roots are a simulator's.
func (r *Result) Simulated() bool { return r.simulated }

// Checks returns a copy of the checks, in a fixed order.
func (r *Result) Checks() []Check { return slices.Clone(r.checks) }

// Seen returns the numbers of the vendor documents that were relied on. A caller
// keeps the highest of every issuer and refuses a lower one (protocol F18).
func (r *Result) Seen() []Seen { return slices.Clone(r.seen) }

// At returns the time at which the evidence was judged.
func (r *Result) At() time.Time { return r.at }

// Claims returns a copy of the claims, or nil if there are none that parse.
// Only those of a [Passed] may be relied on.
func (r *Result) Claims() *attestation.Claims {
	if r.claims == nil {
		return nil
	}
	c := *r.claims
	c.KEMPub = slices.Clone(c.KEMPub)
	return &c
}

// ErrNotPassed is wrapped by [Result.Passed].
var ErrNotPassed = errors.New("verifier: evidence did not pass")

// Passed is an appraisal that passed, fresh: whoever holds one may join the
// enclave of its claims. The zero value holds none; only [Result.Passed] makes
// one.
type Passed struct{ r *Result }

// Passed returns r as a pass if its verdict is [Pass] or [PassSimulated] and the
// caller's own challenge was checked. The error names the first check that
// stands in the way and wraps [ErrNotPassed].
func (r *Result) Passed() (Passed, error) {
	v := r.Verdict()
	if v != Pass && v != PassSimulated {
		return Passed{}, fmt.Errorf("%w: %s: %s", ErrNotPassed, v, r.obstacle(v))
	}
	if !r.fresh {
		return Passed{}, fmt.Errorf("%w: no challenge of one's own was checked", ErrNotPassed)
	}
	return Passed{r}, nil
}

func (r *Result) obstacle(v Verdict) string {
	for _, c := range r.checks {
		if c.Verdict == v {
			return fmt.Sprintf("%s: want %s, got %s", c.Name, c.Expected, c.Got)
		}
	}
	return "no check passed"
}

// IsZero reports whether p is no pass.
func (p Passed) IsZero() bool { return p.r == nil }

// Claims returns a copy of the claims that the hardware vouches for, or nil for
// the zero value.
func (p Passed) Claims() *attestation.Claims {
	if p.r == nil {
		return nil
	}
	return p.r.Claims()
}

// Result returns the appraisal, or nil for the zero value.
func (p Passed) Result() *Result { return p.r }
