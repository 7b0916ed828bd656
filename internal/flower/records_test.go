package flower

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/policy"
)

// TestCheckReply: what may leave a node, and be averaged.
func TestCheckReply(t *testing.T) {
	t.Parallel()
	n := object.ValueItem{Key: "num-examples", Value: object.Sint(3)}
	reply := func(items ...object.ValueItem) object.RecordDict {
		return object.RecordDict{{Name: "any name", Record: object.MetricRecord(items)}}
	}
	with := func(v object.Value) object.RecordDict { return reply(n, object.ValueItem{Key: "loss", Value: v}) }
	examples := func(v object.Value) object.RecordDict {
		return reply(object.ValueItem{Key: "num-examples", Value: v})
	}
	for what, c := range map[string]struct {
		reply object.RecordDict
		err   string // empty: it may
	}{
		"numbers":             {with(object.Double(-1e300)), ""},
		"beyond 2^63":         {with(object.Uint(math.MaxUint64)), ""},
		"a list":              {with(object.Doubles{0.5, 5e-324}), ""},
		"an empty list":       {with(object.Doubles{}), ""},
		"no examples":         {examples(object.Sint(0)), ""},
		"most examples":       {examples(object.Uint(1 << 53)), ""},
		"too many examples":   {examples(object.Sint(1<<53 + 1)), "no whole number from 0 to 2^53"},
		"far too many":        {examples(object.Uint(1 << 63)), "no whole number from 0 to 2^53"},
		"negative examples":   {examples(object.Sint(-1)), "no whole number from 0 to 2^53"},
		"half an example":     {examples(object.Double(0.5)), "no whole number from 0 to 2^53"},
		"no weight":           {reply(), "no whole number from 0 to 2^53"},
		"NaN":                 {with(object.Double(math.NaN())), `metric "loss" is not finite`},
		"infinite":            {with(object.Double(math.Inf(-1))), `metric "loss" is not finite`},
		"infinite as a mean":  {with(object.Double(0x1p1023)), `metric "loss" is not finite`},
		"NaN in a list":       {with(object.Doubles{0, math.NaN()}), `metric "loss" is not finite`},
		"an unknown key":      {reply(n, object.ValueItem{Key: "secret", Value: object.Sint(1)}), `metric "secret" is not among those`},
		"a large record":      {with(make(object.Doubles, 200)), "metrics of "},
		"two records":         {append(reply(n), reply(n)...), "2 metric records"},
		"a config":            {append(reply(n), object.RecordItem{Name: "c", Record: object.ConfigRecord{}}), "a reply holds a ConfigRecord"},
		"arrays nobody wants": {append(reply(n), object.RecordItem{Name: "a", Record: object.ArrayRecord{}}), "1 array"},
	} {
		p := &policy.Policy{}
		p.Release.MaxMetricBytes, p.Nodes.MetricKeys = 1000, []string{"loss", "num-examples"}
		err := CheckReply(c.reply, false, p)
		if (err == nil) != (c.err == "") || err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", what, err, c.err)
		}
	}
}

// TestTerms: what a message's terms say comes back, and nobody but those that they name is
// asked.
func TestTerms(t *testing.T) {
	with := func(c object.ConfigRecord) object.RecordDict {
		return object.RecordDict{{Name: "arrays", Record: object.ArrayRecord{}}, {Name: RecordTerms, Record: c}}
	}
	for _, want := range []Terms{
		{Type: "train", Group: "1"},
		{Type: "train.again", Group: "", To: []uint64{5}},
		{Type: "train", Group: "ründe", To: []uint64{2, 7, 1<<64 - 1}},
	} {
		// As it arrives: through its objects.
		objects, err := object.Objects(with(want.Record()))
		if err != nil {
			t.Fatal(err)
		}
		raw := map[object.ID][]byte{}
		for _, o := range objects {
			raw[o.ID] = o.Raw
		}
		n, err := object.Inflate(objects[len(objects)-1].ID, func(id object.ID) ([]byte, error) { return raw[id], nil }, object.Limits{Objects: 100, Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		got, err := TermsOf(n.(object.RecordDict), "train")
		if err != nil || got.Type != want.Type || got.Group != want.Group || !slices.Equal(got.To, want.To) || (got.To == nil) != (want.To == nil) {
			t.Errorf("%+v became %+v, %v", want, got, err)
		}
		for _, n := range []uint64{2, 5, 6, 7} {
			if asked := got.To == nil || slices.Contains(got.To, n); got.Asks(n) != asked {
				t.Errorf("%+v asks node %d: %v", got, n, !asked)
			}
		}
	}
	text := func(k, v string) object.ValueItem { return object.ValueItem{Key: k, Value: object.String(v)} }
	to := func(v object.Value) object.ConfigRecord {
		return object.ConfigRecord{text(termsType, "train"), text(termsGroup, ""), {Key: termsTo, Value: v}}
	}
	for name, c := range map[string]object.ConfigRecord{
		"none":           nil,
		"no group":       {text(termsType, "train")},
		"another type":   {text(termsType, "evaluate"), text(termsGroup, "")},
		"something more": {text(termsType, "train"), text(termsGroup, ""), text("more", "")},
		"to nobody":      to(object.Uints{}),
		"to a string":    to(object.String("2")),
		"out of order":   to(object.Uints{7, 2}),
		"one node twice": to(object.Uints{2, 2}),
	} {
		if got, err := TermsOf(with(c), "train"); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		}
	}
}
