package policy

import (
	"fmt"
	"slices"
)

// RunTerms is what a run asks for, as its request and its run statement say.
type RunTerms struct {
	App      Digest
	Config   Digest // of the effective configuration
	Exposure Exposure
	Strategy string // a name of [Strategies]
	Rounds   uint64
	Cohort   []MemberID // the members of the admitted nodes; repeats are fine
}

// Refusal says why a policy does not allow a run. Reason is a closed, coarse
// word that may be logged for all to see; Text is for the one who asked.
type Refusal struct {
	Reason string
	Text   string
}

// The reasons of a [Refusal].
const (
	RefusedApp      = "app"
	RefusedConfig   = "config"
	RefusedExposure = "exposure"
	RefusedStrategy = "strategy"
	RefusedRounds   = "rounds"
	RefusedCohort   = "cohort"
)

func (r *Refusal) Error() string { return "policy: run refused: " + r.Reason + ": " + r.Text }

func refuse(reason, format string, args ...any) error {
	return &Refusal{reason, fmt.Sprintf(format, args...)}
}

// AllowRun returns nil if p allows the run, and a [*Refusal] otherwise. It judges
// terms, not history: budgets, ledgers and denials are asked elsewhere. p has
// passed [Policy.Check]. signed are the signatures of apps in the log so far.
func (p *Policy) AllowRun(r RunTerms, signed *AppSignatures) error {
	a := p.App(r.App, signed)
	if a == nil || r.App.IsZero() {
		return refuse(RefusedApp, "%s is not in the policy, and not signed as it wants", r.App.Short())
	}
	// No configs listed means any, but never for an app that sees single updates.
	if anyConfig := len(a.Configs) == 0 && a.Exposure == ExposureAggregate; r.Config.IsZero() || !anyConfig && !slices.Contains(a.Configs, r.Config) {
		return refuse(RefusedConfig, "configuration %s of %s is not in the policy", r.Config.Short(), a.Name)
	}
	if r.Exposure != a.Exposure {
		return refuse(RefusedExposure, "asked for %q, %s has %q", r.Exposure, a.Name, a.Exposure)
	}
	class, known := StrategyClass(r.Strategy)
	if !known || !slices.Contains(a.Strategies, r.Strategy) {
		return refuse(RefusedStrategy, "%q is not among %v of %s", r.Strategy, a.Strategies, a.Name)
	}
	if class != ClassMixing && a.Exposure != ExposureIndividual {
		return refuse(RefusedStrategy, "%s is %s, which needs exposure %s", r.Strategy, class, ExposureIndividual)
	}
	if r.Rounds < 1 || r.Rounds > a.MaxRounds {
		return refuse(RefusedRounds, "%d rounds, want 1 to %d", r.Rounds, a.MaxRounds)
	}
	cohort := make(map[MemberID]bool) // members are counted, not nodes (protocol F4)
	for _, m := range r.Cohort {
		if p.Member(m) == nil {
			return refuse(RefusedCohort, "%q is not a member", string(m))
		}
		cohort[m] = true
	}
	if n := uint64(len(cohort)); n < p.Release.MinContributors {
		return refuse(RefusedCohort, "%d members, want at least %d", n, p.Release.MinContributors)
	}
	return nil
}
