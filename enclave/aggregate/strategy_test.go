package aggregate

import (
	"errors"
	"math"
	"testing"

	"github.com/concordat/concordat/policy"
)

func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		strategy string
		examples []uint64
		index    int // of the contribution that is the reason; -1 if none is
	}{
		"nobody":       {FedAvg, nil, -1},
		"only zeros":   {FedAvg, []uint64{0, 0}, -1},
		"unknown name": {"fedsum", []uint64{1}, -1},
		"python's":     {"custom", []uint64{1}, -1},
		"a weight":     {FedAvg, []uint64{1, 1<<53 + 1}, 1},
		"the sum":      {FedAvg, []uint64{1 << 52, 1, 1 << 52}, 2},
		"wraps around": {FedAvg, []uint64{2, math.MaxUint64, 3}, 1},
		"too many":     {FedMedian, make([]uint64, MaxContributions+1), -1},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Plan(c.strategy, contributions(c.examples...))
			if err == nil {
				t.Fatalf("planned %s", s.Profile())
			}
			var r *Refused
			if got := errors.As(err, &r); got != (c.index >= 0) || got && r.Index != c.index {
				t.Errorf("%v: want contribution %d to be the reason", err, c.index)
			}
			if _, known := ClassOf(c.strategy); known == errors.Is(err, ErrStrategy) {
				t.Errorf("%v: strategy is known: %v", err, known)
			}
		})
	}
}

func TestShares(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		strategy string
		examples []uint64
		parts    []uint64
		whole    uint64
	}{
		"mean":   {FedAvg, []uint64{281, 0, 178, 110}, []uint64{281, 0, 178, 110}, 569},
		"prox":   {FedProx, []uint64{281, 178}, []uint64{281, 178}, 459},
		"median": {FedMedian, []uint64{281, 0, 178}, []uint64{1, 1, 1}, 3},
	} {
		s, err := Plan(c.strategy, contributions(c.examples...))
		if err != nil {
			t.Fatal(err)
		}
		parts, whole := s.Shares()
		var sum uint64
		for i, p := range parts {
			if sum += p; p != c.parts[i] {
				t.Errorf("%s: part %d is %d, want %d", name, i, p, c.parts[i])
			}
		}
		if whole != c.whole || sum != whole {
			t.Errorf("%s: whole is %d, sum of parts %d, want %d", name, whole, sum, c.whole)
		}
	}
}

// Formats for ever: profiles go into signed statements.
func TestProfilesAreFrozen(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		class   Class
		profile string
	}{
		FedAvg:    {Mixing, "fedavg/1;order=node-id;x*T(n/N)+acc;round=T"},
		FedProx:   {Mixing, "fedprox/1;order=node-id;x*T(n/N)+acc;round=T"},
		FedMedian: {Selecting, "fedmedian/1;(lo+hi)/2;round=T"},
	} {
		s, err := Plan(name, contributions(1))
		if err != nil {
			t.Fatal(err)
		}
		class, ok := ClassOf(name)
		if p, known := policy.StrategyClass(name); !known || string(p) != string(class) {
			t.Errorf("%s is %q, policies know %q", name, class, p)
		}
		if s.Name() != name || s.Class() != want.class || !ok || class != want.class || s.Profile() != want.profile {
			t.Errorf("%s: %s, %s, %q", name, s.Name(), s.Class(), s.Profile())
		}
	}
}
