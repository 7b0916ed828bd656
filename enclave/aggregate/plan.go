package aggregate

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Step is what is aggregated.
type Step struct {
	Round uint64 // from 1
	// Contributions are in the order of summation, which [Plan.Array], [Survey] and
	// [Metrics] share. The caller must not change them.
	Contributions []Contribution
	// Survey is of the same contributions, and complete; nil where [Strategy.Survey]
	// returns nil.
	Survey *Survey
	// Secret is what noise is made of: known to nobody who sees results, and another for
	// every other set of contributions. Ignored unless [Strategy.Noisy].
	Secret [32]byte
}

// Plan is one step, ready to be computed array by array. It does not change and is safe
// for concurrent use.
type Plan struct {
	s      *Strategy
	n      int      // contributions
	parts  []uint64 // effective weights, of whole
	whole  uint64
	used   []int // contributions that are combined, in order
	w32    []float32
	w64    []float64 // of used
	scale  []float64 // of updates, where they are clipped
	order  *order    // of values, where they are sorted
	keep   int       // values nearest to the median
	sumH   float64   // qfedavg's
	step   float64   // the learning rate of the server's optimizer in this round
	sigma  float64   // of the noise
	secret [32]byte
}

// Plan decides how one step is computed. Weights that cannot be used are a [*Refused] if
// one contribution is the reason.
func (s *Strategy) Plan(step Step) (*Plan, error) {
	in := step.Contributions
	if len(in) == 0 || len(in) > MaxContributions {
		return nil, fmt.Errorf("aggregate: %d contributions, want 1 to %d", len(in), MaxContributions)
	}
	if s.form.survey != nothing && (step.Survey == nil || step.Survey.s != s || step.Survey.n != len(in)) {
		return nil, fmt.Errorf("aggregate: internal error: %s is planned without its survey", s.name)
	}
	p := &Plan{s: s, n: len(in), used: all(len(in)), secret: step.Secret}
	if s.form.survey == distances {
		if err := p.choose(step.Survey); err != nil {
			return nil, err
		}
	}
	switch s.form.combine {
	case weighted:
		if err := p.weigh(in); err != nil {
			return nil, err
		}
	case fair:
		p.weighByLoss(in, step.Survey)
	default:
		p.parts = make([]uint64, p.n)
		for _, i := range p.used {
			p.parts[i] = 1
		}
		p.whole = uint64(len(p.used))
	}
	switch s.form.combine {
	case middle:
		p.order = newOrder(p.n, (p.n-1)/2, p.n/2+1)
	case trimmed:
		cut := int(s.args["beta"] * float64(p.n))
		p.order = newOrder(p.n, cut, p.n-cut)
	case nearest:
		p.order = newOrder(len(p.used), 0, len(p.used))
		p.keep = len(p.used) - 2*int(s.args["num_malicious_nodes"])
	}
	if s.name == DPFedAvg {
		p.clip(step.Survey)
	}
	p.step = s.rate(step.Round)
	return p, nil
}

func all(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

// weigh is FedAvg's: contribution k of those used has n_k/N.
func (p *Plan) weigh(in []Contribution) error {
	p.parts = make([]uint64, len(in))
	for _, i := range p.used {
		n := in[i].Examples
		if n > maxExamples-p.whole {
			return &Refused{Index: i, Reason: "sum of num-examples exceeds 2^53"}
		}
		p.parts[i] = n
		p.whole += n
	}
	if p.whole == 0 {
		return errors.New("aggregate: num-examples of all contributions are zero")
	}
	for _, i := range p.used {
		// Flower divides first and multiplies then; numpy 2 (NEP 50) casts the Python
		// float n/N to the array's type before the product.
		w := float64(p.parts[i]) / float64(p.whole)
		p.w64 = append(p.w64, w)
		p.w32 = append(p.w32, float32(w))
	}
	return nil
}

// weighByLoss is q-fair averaging: update k is multiplied by F_k^q, and the sum divided
// by the sum of h_k (algorithm 2 of arXiv:1905.10497).
func (p *Plan) weighByLoss(in []Contribution, v *Survey) {
	q, lipschitz := p.s.args["q"], 1/p.s.args["client_learning_rate"]
	for i, c := range in {
		f := c.Loss + 1e-10
		power := math.Pow(f, q)
		p.w64 = append(p.w64, power)
		p.sumH += q*math.Pow(f, q-1)*v.norms[i] + lipschitz*power
	}
	p.parts, p.whole = quantized(p.w64)
}

// clip says by what each update is multiplied, and how large the noise is. Its standard
// deviation is z*C times the largest n/N: what one contribution can move the mean by.
// That is Flower's z*C/n where all weights are equal; where they are not, Flower's would
// be less than one contribution moves.
func (p *Plan) clip(v *Survey) {
	limit := p.s.args["clipping_norm"]
	effective := make([]float64, p.n)
	var largest float64
	for i := range p.n {
		scale := 1.0
		if norm := math.Sqrt(v.norms[i]); norm > limit {
			scale = limit / norm
		}
		p.scale = append(p.scale, scale)
		effective[i] = scale * p.w64[i]
		largest = max(largest, p.w64[i])
	}
	p.parts, p.whole = quantized(effective)
	p.sigma = p.s.args["noise_multiplier"] * limit * largest
}

// quantized makes whole parts of effective weights that are not negative, to about one
// in 2^40.
func quantized(weights []float64) (parts []uint64, whole uint64) {
	var sum float64
	for _, w := range weights {
		sum += w
	}
	for _, w := range weights {
		n := uint64(0)
		if sum > 0 {
			n = uint64(math.Round(w / sum * (1 << 40)))
		}
		parts = append(parts, n)
		whole += n
	}
	if whole == 0 { // all updates were clipped to nothing
		return slices.Repeat([]uint64{1}, len(weights)), uint64(len(weights))
	}
	return parts, whole
}

// Shares returns the effective weight of each contribution, after selection and
// clipping, in the order of the [Step], as parts of a whole: contribution i has
// parts[i]/whole. The parts of one member's nodes may be added; the sum of all is whole,
// at most 2^53.
func (p *Plan) Shares() (parts []uint64, whole uint64) { return slices.Clone(p.parts), p.whole }

// Used returns the contributions that are combined, in the order in which they are:
// those that Krum and its kin chose, all of others. Metrics are aggregated over the same.
func (p *Plan) Used() []int { return slices.Clone(p.used) }
