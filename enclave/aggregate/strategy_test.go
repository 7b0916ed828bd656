package aggregate

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
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
		"a weight":     {FedAvg, []uint64{1, 1<<53 + 1}, 1},
		"the sum":      {FedAvg, []uint64{1 << 52, 1, 1 << 52}, 2},
		"wraps around": {FedAvg, []uint64{2, math.MaxUint64, 3}, 1},
		"too many":     {FedMedian, make([]uint64, MaxContributions+1), -1},
		"no survey":    {Krum, []uint64{1, 1, 1}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := New(c.strategy, nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Plan(Step{Round: 1, Contributions: contributions(c.examples...)})
			if err == nil {
				t.Fatal("planned")
			}
			var r *Refused
			if got := errors.As(err, &r); got != (c.index >= 0) || got && r.Index != c.index {
				t.Errorf("%v: want contribution %d to be the reason", err, c.index)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		strategy string
		args     map[string]any
		want     error
		text     string
	}{
		"unknown name":       {"fedsum", nil, ErrStrategy, "fedsum"},
		"python's":           {"custom", nil, ErrStrategy, "custom"},
		"takes none":         {FedAvg, map[string]any{"eta": 0.1}, ErrArgument, `"eta"; it takes none`},
		"another's":          {FedAvgM, map[string]any{"eta": 0.1}, ErrArgument, "it takes server_learning_rate, server_momentum"},
		"not given":          {DPFedAvg, map[string]any{"noise_multiplier": 1.0}, ErrArgument, "clipping_norm is not given"},
		"nor that":           {QFedAvg, nil, ErrArgument, "client_learning_rate is not given"},
		"text":               {FedAdam, map[string]any{"eta": "0.1"}, ErrArgument, "eta is 0.1, want above 0"},
		"zero":               {FedAdam, map[string]any{"tau": int64(0)}, ErrArgument, "tau"},
		"infinite":           {FedAdam, map[string]any{"eta": math.Inf(1)}, ErrArgument, "eta"},
		"no number":          {FedAdam, map[string]any{"eta": math.NaN()}, ErrArgument, "eta"},
		"one":                {FedYogi, map[string]any{"beta_2": 1.0}, ErrArgument, "beta_2"},
		"half":               {FedTrimmedAvg, map[string]any{"beta": 0.5}, ErrArgument, "beta"},
		"negative":           {DPFedAvg, map[string]any{"noise_multiplier": -1.0, "clipping_norm": 1.0}, ErrArgument, "not negative"},
		"fraction of a node": {Krum, map[string]any{"num_malicious_nodes": 1.5}, ErrArgument, "whole"},
		"a float":            {Krum, map[string]any{"num_malicious_nodes": 1.0}, ErrArgument, "whole"},
		"nobody":             {MultiKrum, map[string]any{"num_nodes_to_select": int64(0)}, ErrArgument, "num_nodes_to_select"},
		"krum selects one":   {Krum, map[string]any{"num_nodes_to_select": int64(1)}, ErrArgument, "num_nodes_to_select"},
		"loss key":           {QFedAvg, map[string]any{"client_learning_rate": 0.1, "train_loss_key": int64(1)}, ErrArgument, "train_loss_key"},
	} {
		if s, err := New(c.strategy, c.args); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, %v; want %v with %q", name, s, err, c.want, c.text)
		}
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
		parts, whole := plan(t, c.strategy, contributions(c.examples...)).Shares()
		if !slices.Equal(parts, c.parts) || whole != c.whole {
			t.Errorf("%s: %d of %d, want %d of %d", name, parts, whole, c.parts, c.whole)
		}
	}
}

// Formats for ever: profiles go into signed statements.
func TestProfilesAreFrozen(t *testing.T) {
	t.Parallel()
	profiles := map[string]string{
		FedAvg:        "fedavg/1;order=node-id;x*T(n/N)+acc;round=T",
		FedProx:       "fedprox/1;order=node-id;x*T(n/N)+acc;round=T",
		FedMedian:     "fedmedian/1;(lo+hi)/2;round=T",
		FedAvgM:       "fedavgm/1;a=fedavg/1;u=mu*u+(w-a);w-lr*u;round=T",
		FedAdagrad:    "fedadagrad/1;a=fedavg/1;d=a-w;v=v+d*d;w+eta*d/(sqrt(v)+tau);round=T",
		FedAdam:       "fedadam/1;a=fedavg/1;d=a-w;m=b1*m+(1-b1)*d;v=b2*v+(1-b2)*d*d;w+f64(eta_t*m/(sqrt(v)+tau));round=T",
		FedYogi:       "fedyogi/1;a=fedavg/1;d=a-w;m=b1*m+(1-b1)*d;v=v-(1-b2)*d*d*sign(v-d*d);w+eta*m/(sqrt(v)+tau);round=T",
		QFedAvg:       "qfedavg/1;order=node-id;d=sum((w-x)*L*F^q);w-d/h;norm=f64;round=T",
		FedTrimmedAvg: "fedtrimmedavg/1;order=ascending;sum=f64;round=T",
		Krum:          "krum/1;distance=f64;argsort=stable;fedavg/1;order=score",
		MultiKrum:     "multikrum/1;distance=f64;argsort=stable;fedavg/1;order=score",
		Bulyan:        "bulyan/1;multikrum/1;nearest(fedmedian/1),lower-first;order=ascending;sum=f64;round=T",
		DPFedAvg:      "dpfedavg/1;w+(x-w)*T(min(1,C/norm));fedavg/1;+N(0,z*C*max(n/N));norm=f64;round=T",
	}
	needed := map[string]map[string]any{
		QFedAvg:  {"client_learning_rate": 0.1},
		DPFedAvg: {"noise_multiplier": 1.0, "clipping_norm": int64(1)},
	}
	for name := range forms {
		s, err := New(name, needed[name])
		if err != nil {
			t.Fatal(err)
		}
		class, known := policy.StrategyClass(name)
		if ours, ok := ClassOf(name); !ok || !known || string(class) != string(ours) || s.Class() != ours {
			t.Errorf("%s is %q, policies know %q", name, ours, class)
		}
		if p := s.Profile(); len(p) > 128 || strings.ContainsAny(p, " ") {
			t.Errorf("%s: statements hold no profile %q", name, p)
		}
		if s.Name() != name || s.Profile() != profiles[name] {
			t.Errorf("%s: %s, %q", name, s.Name(), s.Profile())
		}
	}
	if len(forms) != len(profiles) {
		t.Errorf("%d strategies, want %d", len(forms), len(profiles))
	}
}

// docs/strategies.md has a line for every strategy, with its class, arguments and defaults.
func TestDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/strategies.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range forms {
		var args []string
		for _, a := range f.args {
			standard := fmt.Sprintf("%g", a.standard)
			if math.IsNaN(a.standard) {
				standard = "must be given"
			}
			args = append(args, fmt.Sprintf("`%s` (%s)", a.name, standard))
		}
		if f.loss {
			args = append(args, fmt.Sprintf("`%s` (`%s`)", lossArgument, lossStandard))
		}
		want := strings.ReplaceAll(fmt.Sprintf("| `%s` | %s | %s | ", name, f.class, strings.Join(args, ", ")), "|  |", "| |")
		if !strings.Contains(string(page), "\n"+want) {
			t.Errorf("docs/strategies.md has no line %q", want)
		}
	}
}
