package aggregate

import (
	"errors"
	"math"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

func TestMetricsEqualFlower(t *testing.T) {
	t.Parallel()
	for _, c := range references(t) {
		var in []object.MetricRecord
		var cs []Contribution
		for k, n := range c.Examples { // as testdata/generate.py makes them
			m := object.MetricRecord{
				{Key: ExamplesKey, Value: object.Sint(n)},
				{Key: "loss", Value: object.Double(0.1 * float64(k+1))},
				{Key: "count", Value: object.Sint(3*k + 1)},
				{Key: "list", Value: object.Doubles{0.5, 1 / float64(k+1)}},
			}
			w, err := Weigh(m, ExamplesKey)
			if err != nil || w.Examples != n {
				t.Fatalf("%s: weight %v, %v", c.Name, w, err)
			}
			in, cs = append(in, m), append(cs, w)
		}
		out, err := Metrics(cs, ExamplesKey, in)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) != 3 || out[0].Key != "loss" || out[2].Key != "list" {
			t.Fatalf("%s: %v", c.Name, out)
		}
		list, ok := c.Metrics["list"].([]any)
		if !ok || len(list) != 2 {
			t.Fatalf("%s: reference without list", c.Name)
		}
		got := out.Get("list").(object.Doubles)
		if float64(out.Get("loss").(object.Double)) != c.Metrics["loss"] || float64(out.Get("count").(object.Double)) != c.Metrics["count"] ||
			got[0] != list[0] || got[1] != list[1] {
			t.Errorf("%s: got %v, Flower computes %v", c.Name, out, c.Metrics)
		}
	}
}

func TestMetricsRefuse(t *testing.T) {
	t.Parallel()
	record := func(items ...object.ValueItem) object.MetricRecord {
		return append(object.MetricRecord{{Key: ExamplesKey, Value: object.Sint(1)}}, items...)
	}
	good := record(object.ValueItem{Key: "loss", Value: object.Double(1)}, object.ValueItem{Key: "l", Value: object.Sints{1, 2}})
	for name, bad := range map[string]object.MetricRecord{
		"missing key":   good[:2],
		"more keys":     append(good[:3:3], object.ValueItem{Key: "x", Value: object.Double(1)}),
		"other key":     record(object.ValueItem{Key: "lost", Value: object.Double(1)}, good[2]),
		"no weight":     append(object.MetricRecord{{Key: "n", Value: object.Sint(1)}}, good[1:]...),
		"shorter list":  record(good[1], object.ValueItem{Key: "l", Value: object.Sints{1}}),
		"no list":       record(good[1], object.ValueItem{Key: "l", Value: object.Sint(1)}),
		"a list":        record(object.ValueItem{Key: "loss", Value: object.Doubles{1}}, good[2]),
		"not a number":  record(object.ValueItem{Key: "loss", Value: object.Double(math.NaN())}, good[2]),
		"infinite":      record(object.ValueItem{Key: "loss", Value: object.Double(math.Inf(-1))}, good[2]),
		"text":          record(object.ValueItem{Key: "loss", Value: object.String("1")}, good[2]),
		"nothing":       nil,
		"nothing there": record(object.ValueItem{Key: "loss"}, good[2]),
	} {
		_, err := Metrics(contributions(1, 1, 1), ExamplesKey, []object.MetricRecord{good, bad, good})
		var r *Refused
		if !errors.As(err, &r) || r.Index != 1 {
			t.Errorf("%s: %v, want contribution 1 refused", name, err)
		}
	}
	for name, v := range map[string]object.Value{"negative": object.Sint(-1), "fraction": object.Double(1e-9), "absent": nil, "list": object.Sints{1}} {
		if w, err := Weigh(object.MetricRecord{{Key: ExamplesKey, Value: v}}, ExamplesKey); err == nil {
			t.Errorf("%s weight: %v", name, w)
		}
	}
}
