package verifier

import "github.com/concordat/concordat/verifier/internal/check"

// Verdict is the outcome of a check, or of a whole appraisal. The zero value is
// [Fail].
type Verdict = check.Verdict

// The verdicts. PassSimulated is only ever that of a whole appraisal, NotChecked
// only that of a check.
const (
	Fail          = check.Fail
	Pass          = check.Pass
	PassSimulated = check.PassSimulated
	Incomplete    = check.Incomplete
	Unsupported   = check.Unsupported
	NotChecked    = check.NotChecked
)

// Check is one line of a verdict: what was demanded, what was found, and what a
// reader can do about it.
type Check = check.Check

// Seen is the number of a vendor document that an appraisal relied on.
type Seen = check.Seen
