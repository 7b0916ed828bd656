package flower

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

func config(words ...string) object.ConfigRecord {
	c := object.ConfigRecord{}
	for i := 0; i < len(words); i += 2 {
		c = append(c, object.ValueItem{Key: words[i], Value: object.String(words[i+1])})
	}
	return c
}

func oneArray(t *testing.T, n int) object.ArrayRecord {
	t.Helper()
	a, err := object.NewArray(object.NPY{Descr: "<f8", Shape: []int{n}}, make([]byte, 8*n))
	if err != nil {
		t.Fatal(err)
	}
	return object.ArrayRecord{{Name: "w", Array: a}}
}

// TestAddress: each node gets what is for it, in its order, from what all are sent; that
// has what is for all once, whoever is named first.
func TestAddress(t *testing.T) {
	t.Parallel()
	last := uint64(1<<64 - 1)
	content := func(word string) object.RecordDict {
		return object.RecordDict{
			{Name: "5.config", Record: config("stage", word)},
			{Name: "arrays", Record: oneArray(t, 3)},
			{Name: "same", Record: config("lr", "0.1")},
			{Name: "", Record: object.MetricRecord{{Key: "m", Value: object.Sint(len(word))}}},
		}
	}
	words := map[uint64]string{7: "a", last: "bcd", 2: "ef"}
	sent, err := Address([]uint64{7, last, 2}, []object.RecordDict{content(words[7]), content(words[last]), content(words[2])})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, it := range sent {
		names = append(names, it.Name)
	}
	if want := "concordat.to.2.5.config concordat.to.7.5.config concordat.to.18446744073709551615.5.config arrays same " +
		"concordat.to.2. concordat.to.7. concordat.to.18446744073709551615."; strings.Join(names, " ") != want {
		t.Errorf("records %q", names)
	}
	again, err := Address([]uint64{2, 7, last}, []object.RecordDict{content(words[2]), content(words[7]), content(words[last])})
	if err != nil || !reflect.DeepEqual(again, sent) {
		t.Errorf("in another order: %v, %v", again, err)
	}
	for n, w := range words {
		got, addressed, err := ContentFor(append(sent, object.RecordItem{Name: RecordTerms, Record: config()}), n)
		if err != nil || !addressed || !reflect.DeepEqual(got, content(w)) {
			t.Errorf("node %d gets %v, %v, %v", n, got, addressed, err)
		}
	}
	if got, addressed, err := ContentFor(sent, 9); err != nil || !addressed || len(got) != 2 {
		t.Errorf("a node that was told nothing gets %v, %v, %v", got, addressed, err)
	}
	alike, err := Address([]uint64{2, 7}, []object.RecordDict{content("x"), content("x")})
	if err != nil || !reflect.DeepEqual(alike, content("x")) {
		t.Errorf("the same for all became %v, %v", alike, err)
	}
	if got, addressed, err := ContentFor(alike, 2); err != nil || addressed || !reflect.DeepEqual(got, alike) {
		t.Errorf("what is for all: %v, %v, %v", got, addressed, err)
	}
}

func TestAddressRefused(t *testing.T) {
	t.Parallel()
	base := func() object.RecordDict {
		return object.RecordDict{{Name: "arrays", Record: oneArray(t, 3)}, {Name: "config", Record: config("k", "v")}}
	}
	for name, change := range map[string]func(d object.RecordDict) object.RecordDict{
		"other arrays":  func(d object.RecordDict) object.RecordDict { d[0].Record = oneArray(t, 4); return d },
		"another name":  func(d object.RecordDict) object.RecordDict { d[1].Name = "c"; return d },
		"another kind":  func(d object.RecordDict) object.RecordDict { d[1].Record = object.MetricRecord{}; return d },
		"another order": func(d object.RecordDict) object.RecordDict { d[0], d[1] = d[1], d[0]; return d },
		"a record less": func(d object.RecordDict) object.RecordDict { return d[:1] },
		"a record more": func(d object.RecordDict) object.RecordDict {
			return append(d, object.RecordItem{Name: "x", Record: config()})
		},
		"nothing at all": func(object.RecordDict) object.RecordDict { return nil },
	} {
		if got, err := Address([]uint64{2, 3}, []object.RecordDict{base(), change(base())}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, d := range map[string]object.RecordDict{
		"arrays for one":    {{Name: "concordat.to.2.arrays", Record: oneArray(t, 1)}},
		"for no node":       {{Name: "concordat.to.x.config", Record: config()}},
		"without a name":    {{Name: "concordat.to.2", Record: config()}},
		"too large a node":  {{Name: "concordat.to.18446744073709551616.c", Record: config()}},
		"twice":             {{Name: "concordat.to.2.c", Record: config()}, {Name: "concordat.to.2.c", Record: config("k", "v")}},
		"beside one of all": {{Name: "c", Record: config()}, {Name: "concordat.to.2.c", Record: config()}},
	} {
		if got, _, err := ContentFor(d, 2); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// FuzzContentFor: no name makes an app get a record of the enclave's, or arrays that are
// for it alone.
func FuzzContentFor(f *testing.F) {
	f.Add("concordat.to.2.config", "config", false)
	f.Add("concordat.to.3.", "concordat.message", true)
	f.Add("concordat.to.2.concordat.to.2.x", "arrays", false)
	f.Add("concordat.to.2.a", "a", true)
	f.Fuzz(func(t *testing.T, a, b string, arrays bool) {
		d := object.RecordDict{{Name: a, Record: config()}, {Name: b, Record: object.MetricRecord{}}}
		if arrays {
			d[0].Record = object.ArrayRecord{}
		}
		got, _, err := ContentFor(d, 2)
		if err != nil {
			return
		}
		for _, it := range got {
			if _, is := it.Record.(object.ArrayRecord); strings.HasPrefix(it.Name, RecordOwn) || is && it.Name != a {
				t.Errorf("the app gets %q of %q and %q", it.Name, a, b)
			}
		}
	})
}
