package check

// Recorder collects the checks of one piece of evidence. The zero value works
// and is no pass. It is not safe for concurrent use.
type Recorder struct {
	prefix    string
	checks    []Check
	authentic bool
	seen      []Seen
}

// Seen is the number of a vendor document that was relied on. A caller keeps the
// highest it ever saw of an issuer and refuses a lower one (protocol F18).
type Seen struct {
	Issuer string `json:"issuer"` // such as "amd-crl/Genoa", "intel-tcb/00806f050000"
	Number uint64 `json:"number"` // CRL number, tcbEvaluationDataNumber
}

// NewRecorder returns a recorder that puts prefix and a dot before every name:
// "snp", "tdx", "gpu[0]".
func NewRecorder(prefix string) *Recorder { return &Recorder{prefix: prefix + "."} }

func (r *Recorder) add(c Check) {
	c.Name = r.prefix + c.Name
	r.checks = append(r.checks, c)
}

// Pass records a good check. got may be empty.
func (r *Recorder) Pass(name, got string) { r.add(Check{Name: name, Verdict: Pass, Got: got}) }

// Fail records a check that contradicts what is demanded.
func (r *Recorder) Fail(name, expected, got, advice string) {
	r.add(Check{Name: name, Verdict: Fail, Expected: expected, Got: got, Advice: advice})
}

// Missing records that something needed to decide is not there: the verdict is
// incomplete.
func (r *Recorder) Missing(name, expected, advice string) {
	r.add(Check{Name: name, Verdict: Incomplete, Expected: expected, Got: "missing", Advice: advice})
}

// Unsupported records evidence that this verifier cannot judge.
func (r *Recorder) Unsupported(name, got, advice string) {
	r.add(Check{Name: name, Verdict: Unsupported, Got: got, Advice: advice})
}

// NotChecked records a check that is not demanded here and was not made.
func (r *Recorder) NotChecked(name, advice string) {
	r.add(Check{Name: name, Verdict: NotChecked, Advice: advice})
}

// That records a pass with got if ok, else a failure, and returns ok.
func (r *Recorder) That(ok bool, name, expected, got, advice string) bool {
	if ok {
		r.Pass(name, got)
	} else {
		r.Fail(name, expected, got, advice)
	}
	return ok
}

// Authentic records that the vendor's chain and signature verify.
func (r *Recorder) Authentic() { r.authentic = true }

// IsAuthentic reports whether [Recorder.Authentic] was called.
func (r *Recorder) IsAuthentic() bool { return r.authentic }

// Rely records the number of a document that was relied on.
func (r *Recorder) Rely(issuer string, number uint64) {
	r.seen = append(r.seen, Seen{issuer, number})
}

// Seen returns what [Recorder.Rely] recorded.
func (r *Recorder) Seen() []Seen { return r.seen }

// Checks returns the checks in the order in which they were made.
func (r *Recorder) Checks() []Check { return r.checks }

// Summary returns the outcome of checks: Fail if one failed or there is none
// that passed, else Unsupported, else Incomplete, else Pass. An unknown verdict
// counts as Fail.
func Summary(checks []Check) Verdict {
	var n [len(verdicts)]int
	for _, c := range checks {
		if int(c.Verdict) >= len(verdicts) {
			return Fail
		}
		n[c.Verdict]++
	}
	switch {
	case n[Fail] > 0:
		return Fail
	case n[Unsupported] > 0:
		return Unsupported
	case n[Incomplete] > 0:
		return Incomplete
	case n[Pass]+n[PassSimulated] == 0:
		return Fail
	}
	return Pass
}

// Problems returns the checks that are neither
// Pass nor NotChecked.
func (r *Recorder) Problems() []Check {
	var out []Check
	for _, c := range r.checks {
		if c.Verdict != Pass && c.Verdict != NotChecked {
			out = append(out, c)
		}
	}
	return out
}
