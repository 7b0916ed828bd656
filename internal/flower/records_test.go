package flower

import (
	"slices"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

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
