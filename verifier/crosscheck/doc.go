// Package crosscheck asks a second verifier: the same evidence goes through
// Google's go-sev-guest, go-tdx-guest and go-tpm, which share no code with package
// verifier. Native programs count evidence as passed only if both agree, where
// the other one supports the case; use [Evidence] for an envelope, [SNP],
// [TDX] and [TPM] for a single item, and then [Outcome.Agrees].
//
// Package verifier decides alone where these libraries do not build
// (WebAssembly), and where they have a known gap: an [Outcome] then says so, with
// the gap in words, and does not count against the evidence.
//
// Importing it links net/http, registers global flags and, on first use, silences
// the global logger of those libraries. Nothing here dials: fetching is switched
// off, and every root is given explicitly.
package crosscheck

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/google/logger"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

// Outcome is the opinion of another verifier about one piece of evidence.
type Outcome struct {
	Library string           // name and version
	Verdict verifier.Verdict // Pass, Fail, or Unsupported for a known gap of the library
	Reason  string           // its error, or the gap; empty for a pass
}

// Agrees returns an error with both reasons if ours is a pass and the other
// verifier refuses. It is nil if both pass, if ours is no pass (package verifier
// checks more than the libraries do), and for a known gap.
func (o Outcome) Agrees(ours *verifier.Result) error {
	v := ours.Verdict()
	if v != verifier.Pass && v != verifier.PassSimulated || o.Verdict == verifier.Pass || o.Verdict == verifier.Unsupported {
		return nil
	}
	return fmt.Errorf("crosscheck: verifiers disagree: ours says %s, %s says %s: %s", v, o.Library, o.Verdict, o.Reason)
}

// Check returns the outcome as a line of a verdict. A known gap is NotChecked.
func (o Outcome) Check() verifier.Check {
	c := verifier.Check{Name: "crosscheck", Verdict: o.Verdict, Got: o.Library}
	switch o.Verdict {
	case verifier.Pass:
	case verifier.Unsupported:
		c.Verdict = verifier.NotChecked
		c.Advice = "known gap of the library: " + o.Reason
	default:
		c.Verdict = verifier.Fail
		c.Expected, c.Got = "a pass by "+o.Library, o.Reason
	}
	return c
}

// Evidence asks about the CPU item of an envelope, bound to its claims, and first
// about the vTPM's quote where the policy wants one: the claims are then bound to
// the quote, and the CPU item to its key. The arguments are those of
// verifier.Appraise, whose result decides first.
func Evidence(e *attestation.Evidence, ends *attestation.Endorsements, p *policy.Policy, at time.Time) Outcome {
	const none = "no library"
	rd := attestation.ReportData(e.Claims, p.Simulated)
	if p.Platforms.TPM != nil {
		var o Outcome
		if rd, o = quoted(e, rd); o.Verdict != verifier.Pass {
			return o
		}
	}
	for _, it := range e.Items {
		switch it.Kind {
		case attestation.KindSNP:
			return SNP(it.Raw, ends, it.Endorsements, p, rd[:], at)
		case attestation.KindTDX:
			return TDX(it.Raw, ends, it.Endorsements, p, rd[:], at)
		}
	}
	return refused(none, errors.New("the envelope holds no CPU item"))
}

func passed(library string) Outcome { return Outcome{Library: library, Verdict: verifier.Pass} }

func refused(library string, err error) Outcome {
	return Outcome{Library: library, Verdict: verifier.Fail, Reason: err.Error()}
}

func gap(library, reason string) Outcome {
	return Outcome{Library: library, Verdict: verifier.Unsupported, Reason: reason}
}

// quiet silences the logger that both libraries write to.
var quiet = sync.OnceFunc(func() { logger.Init("", false, false, io.Discard) })
