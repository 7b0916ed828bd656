package aggregate

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
)

// measurement is what a strategy must know of all contributions before it combines any.
type measurement int

const (
	nothing   measurement = iota
	norms                 // the squared length of each update
	distances             // the squared distance of each two contributions
)

// Survey is a first pass over all arrays of all contributions. It is not safe for
// concurrent use.
type Survey struct {
	s     *Strategy
	n     int
	norms []float64 // by contribution
	pairs []float64 // n x n, the upper half
}

// Survey returns an empty survey of n contributions, for a pass over every array before
// [Strategy.Plan]; nil if the strategy needs none.
func (s *Strategy) Survey(n int) *Survey {
	v := &Survey{s: s, n: n}
	switch s.form.survey {
	case norms:
		v.norms = make([]float64, n)
	case distances:
		v.pairs = make([]float64, n*n)
	default:
		return nil
	}
	return v
}

// Array takes one array of every contribution, and of the model if the strategy
// [Strategy.NeedsModel]. Arrays are taken one after the other, in an order that is always
// the same. Errors and memory are as of [Plan.Array].
func (v *Survey) Array(want Tensor, model io.Reader, in []io.Reader) error {
	if len(in) != v.n {
		return fmt.Errorf("aggregate: %d readers for %d contributions", len(in), v.n)
	}
	w, err := openWindow(want, sources{needsModel: v.s.form.model, model: model, in: in, use: computes})
	if err != nil {
		return err
	}
	for w.left() > 0 {
		n, err := w.next()
		if err != nil {
			return err
		}
		if w.element.wide() == 4 {
			measure(v, columnsOf[float32](w, n))
		} else {
			measure(v, columnsOf[float64](w, n))
		}
	}
	return w.end()
}

func measure[F float](v *Survey, c columns[F]) {
	switch v.s.form.survey {
	case norms:
		factor, fair := F(0), v.s.form.combine == fair
		if fair {
			factor = F(1 / v.s.args["client_learning_rate"])
		}
		for k, x := range c.in {
			sum := v.norms[k]
			for i, w := range c.model {
				d := w - x[i]
				if fair {
					d = F(d * factor)
				}
				sum += float64(float64(d) * float64(d))
			}
			v.norms[k] = sum
		}
	case distances:
		for a, x := range c.in {
			for b := a + 1; b < len(c.in); b += together {
				others := c.in[b:min(b+together, len(c.in))]
				addDistances(v.pairs[a*v.n+b:][:len(others)], x, others)
			}
		}
	}
}

// together is how many distances the kernels measure side by side.
const together = 8

// addDistances adds the squared distances of x and others, at most together, to their sums,
// element by element.
func addDistances[F float](sums []float64, x []F, others [][]F) {
	n := 0
	if vectors {
		n = len(x) &^ 3
	}
	if n > 0 {
		var all [together]float64
		heads := make([]*F, together)
		for j := range heads { // where there are fewer, the last one again
			heads[j] = &others[min(j, len(others)-1)][:n][0]
		}
		copy(all[:], sums)
		switch heads := any(heads).(type) {
		case []*float32:
			distances32(&all[0], any(&x[0]).(*float32), heads, n)
		case []*float64:
			distances64(&all[0], any(&x[0]).(*float64), heads, n)
		}
		copy(sums, all[:])
	}
	for j, y := range others {
		addDistance(&sums[j], x[n:], y[n:])
	}
}

// addDistance is the reference of the kernels, and does what they leave over.
func addDistance[F float](sum *float64, x, y []F) {
	s := *sum
	y = y[:len(x)]
	for i := range x {
		d := float64(x[i]) - float64(y[i])
		s += float64(d * d)
	}
	*sum = s
}

// choose is MultiKrum's selection (flwr.serverapp.strategy.multikrum): the score of a
// contribution is the sum of its distances to the n-f-2 nearest others, and those with
// the lowest scores are used, in that order. Of equal ones the first is lower.
func (p *Plan) choose(v *Survey) error {
	malicious := int(p.s.args["num_malicious_nodes"])
	selected := 1
	switch p.s.name {
	case MultiKrum:
		selected = int(p.s.args["num_nodes_to_select"])
	case Bulyan:
		if p.n < 4*malicious+3 {
			return fmt.Errorf("aggregate: %d contributions, bulyan with num_malicious_nodes %d needs %d", p.n, malicious, 4*malicious+3)
		}
		selected = p.n - 2*malicious
	}
	nearest := max(1, p.n-malicious-2)
	scores := make([]float64, p.n)
	for a := range p.n {
		var to []float64
		for b := range p.n {
			if a != b {
				to = append(to, v.pairs[min(a, b)*p.n+max(a, b)])
			}
		}
		slices.Sort(to)
		for _, d := range to[:min(nearest, len(to))] {
			scores[a] += d
		}
		if math.IsNaN(scores[a]) {
			return fmt.Errorf("aggregate: internal error: distances of contribution %d are no numbers", a)
		}
	}
	slices.SortStableFunc(p.used, func(a, b int) int { return cmp.Compare(scores[a], scores[b]) })
	p.used = p.used[:min(selected, p.n)]
	return nil
}
