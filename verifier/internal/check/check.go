// Package check is what the platform verifiers and package verifier share: one
// vocabulary of verdicts, named checks, and the recorder that a platform writes
// them into.
//
// A platform package (snp, tdx, nvgpu) exports one function:
//
//	func Appraise(raw []byte, ends *attestation.Endorsements, refs []attestation.Digest,
//		p *policy.Policy, want check.Expect, r *check.Recorder)
//
// It records every check that it makes or cannot make under a fixed name, in a
// fixed order, and never panics on raw or ends. refs are the endorsements that
// the evidence names; [attestation.Endorsements.ByType] puts them first. It
// calls [Recorder.Authentic] once the vendor's chain reaches an accepted root
// and the vendor's signature over the evidence verifies.
//
// # Without a policy
//
// A nil policy is the built-in one of `appraise` without --policy: genuine
// hardware, no debug, VMPL 0, nothing expired or revoked as far as endorsements
// were given, any measurement. A missing revocation list is then
// [Recorder.NotChecked], a missing certificate [Recorder.Missing]; with a policy
// both are Missing (Expect.AllowMissingCollateral says which).
//
// # Simulated roots
//
// A root is accepted by the SHA-256 of its SubjectPublicKeyInfo alone, and only
// if it is in Expect.Roots; names and key identifiers accept nothing. For a
// simulated federation these are the policy's SimulatedRoots, else the vendor's,
// compiled in. Every certificate that is used must then satisfy
// [CheckMark]: all marks of attestation.FullyMarked if simulated, none of
// attestation.Marked if not. So a simulated chain fails in a real federation
// even if somebody pinned its root there, and the other way round.
package check

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/concordat/concordat/attestation"
)

// Verdict is the outcome of a check, or of a whole appraisal.
type Verdict uint8

// The verdicts. The zero value is Fail.
const (
	Fail          Verdict = iota // contradicts what is demanded
	Pass                         // checked and good
	PassSimulated                // good under a simulator's roots; only of a whole appraisal
	Incomplete                   // something that is needed to decide is missing
	Unsupported                  // genuine or not: this verifier cannot judge it
	NotChecked                   // not demanded here and not looked at; only of a check
)

var verdicts = [...]string{"fail", "pass", "pass-simulated", "incomplete", "unsupported", "not-checked"}

// String returns the verdict as JSON output spells it.
func (v Verdict) String() string {
	if int(v) < len(verdicts) {
		return verdicts[v]
	}
	return "fail"
}

// MarshalText returns [Verdict.String].
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText accepts what [Verdict.MarshalText] returns.
func (v *Verdict) UnmarshalText(b []byte) error {
	i := slices.Index(verdicts[:], string(b))
	if i < 0 {
		return fmt.Errorf("verdict %.40q is unknown", b)
	}
	*v = Verdict(i)
	return nil
}

// Check is one line of a verdict. Name is stable; the texts are for people.
type Check struct {
	Name     string  `json:"name"`
	Verdict  Verdict `json:"verdict"`
	Expected string  `json:"expected,omitempty"`
	Got      string  `json:"got,omitempty"`
	Advice   string  `json:"advice,omitempty"` // what a reader can do about it
}

// Expect is what a platform's evidence must show, beside the policy.
type Expect struct {
	// ReportData must be in the evidence in full: 64 bytes for a CPU, the nonce of
	// 32 bytes for a GPU. Empty only where a single item is appraised without
	// claims: the check is then NotChecked.
	ReportData []byte
	Federation attestation.Digest   // what the launch binding must hold; none: do not look
	At         time.Time            // the judged time
	Simulated  bool                 // see the package comment
	Roots      []attestation.Digest // accepted roots, SHA-256 of SubjectPublicKeyInfo; see [Expect.Accepts]
	// AllowMissingCollateral makes missing revocation lists and the like
	// NotChecked instead of Incomplete.
	AllowMissingCollateral bool
}

// Accepts reports whether c is one of the accepted roots. vendor are the
// platform's compiled-in roots; they count only in a real appraisal whose Roots
// is empty.
func (w *Expect) Accepts(c *x509.Certificate, vendor []attestation.Digest) bool {
	roots := w.Roots
	if len(roots) == 0 && !w.Simulated {
		roots = vendor
	}
	return slices.Contains(roots, SPKI(c))
}

// SPKI returns the SHA-256 of the DER SubjectPublicKeyInfo of c.
func SPKI(c *x509.Certificate) attestation.Digest { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }

// CheckMark says why c may not be used in a simulated, or in a real, appraisal.
func CheckMark(c *x509.Certificate, simulated bool) error {
	switch {
	case simulated && !attestation.FullyMarked(c):
		return fmt.Errorf("certificate %.80q lacks the mark of a simulator", c.Subject.CommonName)
	case !simulated && attestation.Marked(c):
		return fmt.Errorf("certificate %.80q is marked as simulated", c.Subject.CommonName)
	}
	return nil
}
