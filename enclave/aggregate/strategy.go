package aggregate

import (
	"errors"
	"fmt"
	"slices"
)

// Class says what the outputs of a strategy depend on. It is fixed in code: no
// policy and no caller chooses it.
type Class string

const (
	// Mixing: every output value depends on every contribution with weight > 0.
	Mixing Class = "mixing"
	// Selecting: an output value can be one contribution's value, as it was sent.
	Selecting Class = "selecting"
)

// Names of the strategies, as policies list them.
const (
	FedAvg    = "fedavg"    // weighted mean
	FedProx   = "fedprox"   // the same; the apps add a proximal term, by "proximal-mu" of their config
	FedMedian = "fedmedian" // coordinate-wise median
)

// MaxContributions bounds one step. The median holds a tile of each.
const MaxContributions = 1 << 14

// maxExamples bounds the sum of all weights, so that sums and quotients of
// weights are exact in float64 as they are in Flower's Python integers.
const maxExamples = 1 << 53

// ErrStrategy is wrapped by the error of [Plan] about an unknown name.
var ErrStrategy = errors.New("unknown strategy")

// Contribution is what a strategy must know of one contribution beside its
// tensors.
type Contribution struct {
	// Examples is the weight: Flower's "num-examples". Zero is legal; such a
	// contribution is an input that changes nothing, and its caller does not count
	// it as a contributor.
	Examples uint64
}

// Strategy aggregates one step. It is made by [Plan], does not change, and is
// safe for concurrent use.
type Strategy interface {
	// Name returns the name that policies list.
	Name() string
	// Class returns the strategy's class.
	Class() Class
	// Profile names the arithmetic and the order of summation, for the step
	// statement: with the same inputs, an equal profile promises equal bytes.
	Profile() string
	// Shares returns the effective weight of each contribution, in the order of
	// [Plan], as parts of a whole: contribution i has parts[i]/whole. The parts of
	// one member's nodes may be added; the sum of all is whole, at most 2^53.
	Shares() (parts []uint64, whole uint64)

	// float32s and float64s set out to the aggregate of in: one tile for each
	// contribution, in order, all as long as out and not overlapping it.
	float32s(out []float32, in [][]float32)
	float64s(out []float64, in [][]float64)
}

// Plan returns the strategy of that name for one step over the given
// contributions. Their order is the order of summation; [Array] and [Metrics]
// take the same. An unknown name is [ErrStrategy]; weights that cannot be used
// are a [*Refused] if one contribution is the reason.
func Plan(name string, contributions []Contribution) (Strategy, error) {
	if len(contributions) == 0 || len(contributions) > MaxContributions {
		return nil, fmt.Errorf("aggregate: %d contributions, want 1 to %d", len(contributions), MaxContributions)
	}
	switch name {
	case FedAvg, FedProx:
		return planMean(name, contributions)
	case FedMedian:
		return median{n: len(contributions)}, nil
	}
	return nil, fmt.Errorf("aggregate: %w %.40q", ErrStrategy, name)
}

// ClassOf returns the class of the named strategy, and whether [Plan] knows it.
func ClassOf(name string) (Class, bool) {
	switch name {
	case FedAvg, FedProx:
		return Mixing, true
	case FedMedian:
		return Selecting, true
	}
	return "", false
}

// Refused says that one contribution cannot be aggregated and why. Found at
// admission, its sender is excluded with the others unharmed.
type Refused struct {
	Index  int    // of the contribution, as given to [Plan]; -1 if the caller knows which ([Check])
	Array  string // name of the array; empty if it is not about one
	Reason string // never holds a value of the tensor
}

func (r *Refused) Error() string {
	s := "aggregate: "
	if r.Index >= 0 {
		s += fmt.Sprintf("contribution %d: ", r.Index)
	}
	if r.Array != "" {
		s += fmt.Sprintf("array %.80q: ", r.Array)
	}
	return s + r.Reason
}

// mean is FedAvg, and the server's part of FedProx: sum over k of x_k * (n_k/N), in
// order.
type mean struct {
	name  string
	parts []uint64
	whole uint64
	w64   []float64
	w32   []float32
}

func planMean(name string, contributions []Contribution) (*mean, error) {
	m := &mean{name: name}
	for i, c := range contributions {
		if c.Examples > maxExamples-m.whole {
			return nil, &Refused{Index: i, Reason: "sum of num-examples exceeds 2^53"}
		}
		m.parts = append(m.parts, c.Examples)
		m.whole += c.Examples
	}
	if m.whole == 0 {
		return nil, errors.New("aggregate: num-examples of all contributions are zero")
	}
	for _, n := range m.parts {
		w := float64(n) / float64(m.whole)
		m.w64 = append(m.w64, w)
		m.w32 = append(m.w32, float32(w))
	}
	return m, nil
}

func (m *mean) Name() string { return m.name }
func (*mean) Class() Class   { return Mixing }

// Profile: Flower divides first and multiplies then; numpy 2 (NEP 50) casts the
// Python float n/N to the array's type before the product.
func (m *mean) Profile() string { return m.name + "/1;order=node-id;x*T(n/N)+acc;round=T" }

func (m *mean) Shares() ([]uint64, uint64) { return slices.Clone(m.parts), m.whole }

func (m *mean) float32s(out []float32, in [][]float32) { weigh32(out, in, m.w32) }
func (m *mean) float64s(out []float64, in [][]float64) { weigh64(out, in, m.w64) }

// median is Flower's FedMedian: numpy.median over the contributions. Weights
// play no part in it.
type median struct{ n int }

func (median) Name() string    { return FedMedian }
func (median) Class() Class    { return Selecting }
func (median) Profile() string { return "fedmedian/1;(lo+hi)/2;round=T" }

func (m median) Shares() ([]uint64, uint64) {
	return slices.Repeat([]uint64{1}, m.n), uint64(m.n)
}

func (m median) float32s(out []float32, in [][]float32) { medians(out, in) }
func (m median) float64s(out []float64, in [][]float64) { medians(out, in) }
