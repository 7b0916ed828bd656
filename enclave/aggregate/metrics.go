package aggregate

import (
	"fmt"
	"math"

	"github.com/concordat/concordat/chunkstore/object"
)

// ExamplesKey is the metric that Flower weighs by, unless its app says otherwise.
const ExamplesKey = "num-examples"

// Weigh returns the contribution that a MetricRecord declares under key. Only a
// whole number that is not negative is a weight: a fraction of an example would
// be a contributor that contributes nothing.
func Weigh(m object.MetricRecord, key string) (Contribution, error) {
	switch v := m.Get(key).(type) {
	case object.Sint:
		if v >= 0 {
			return Contribution{Examples: uint64(v)}, nil
		}
	case object.Uint:
		return Contribution{Examples: uint64(v)}, nil
	}
	return Contribution{}, &Refused{Index: -1, Reason: fmt.Sprintf("metric %.80q is no number of examples", key)}
}

// Metrics returns the mean of the records in, weighted by the examples of their
// contributions, as Flower computes it whatever the strategy: every key of the
// first record except the weight's, in its order; numbers become Doubles, lists
// are averaged element by element. All records have the same keys, of the same
// kind and length, and finite values. The first that differs from in[0] is a
// [*Refused]; which of the two is at fault, its caller knows from the policy.
func Metrics(contributions []Contribution, key string, in []object.MetricRecord) (object.MetricRecord, error) {
	if len(in) != len(contributions) || len(in) == 0 {
		return nil, fmt.Errorf("aggregate: %d metric records of %d contributions", len(in), len(contributions))
	}
	p := Plan{used: all(len(contributions))}
	if err := p.weigh(contributions); err != nil {
		return nil, err
	}
	w := p.w64
	var out object.MetricRecord
	for _, it := range in[0] {
		if it.Key == key {
			continue
		}
		var sum []float64
		_, list := numbers(it.Value)
		for k, record := range in {
			x, isList := numbers(record.Get(it.Key))
			switch {
			case len(record) != len(in[0]) || record.Get(key) == nil || x == nil:
				return nil, &Refused{Index: k, Reason: "metrics have other keys"}
			case isList != list || k > 0 && len(x) != len(sum):
				return nil, &Refused{Index: k, Reason: fmt.Sprintf("metric %.80q is of another form", it.Key)}
			}
			for i, v := range x {
				if !(math.Abs(v) < 0x1p1023) {
					return nil, &Refused{Index: k, Reason: fmt.Sprintf("metric %.80q: %s", it.Key, wild)}
				}
				if k == 0 {
					sum = append(sum, v*w[k])
				} else {
					sum[i] += float64(v * w[k])
				}
			}
		}
		if list {
			out = append(out, object.ValueItem{Key: it.Key, Value: object.Doubles(sum)})
		} else {
			out = append(out, object.ValueItem{Key: it.Key, Value: object.Double(sum[0])})
		}
	}
	return out, nil
}

// numbers returns v as Python's floats, and whether it is a list; nil if it is
// no metric.
func numbers(v object.Value) (x []float64, list bool) {
	switch v := v.(type) {
	case object.Double:
		return []float64{float64(v)}, false
	case object.Sint:
		return []float64{float64(v)}, false
	case object.Uint:
		return []float64{float64(v)}, false
	case object.Doubles:
		return convert(v), true
	case object.Sints:
		return convert(v), true
	case object.Uints:
		return convert(v), true
	}
	return nil, false
}

func convert[T float64 | int64 | uint64](v []T) []float64 {
	x := make([]float64, len(v))
	for i := range v {
		x[i] = float64(v[i])
	}
	return x
}
