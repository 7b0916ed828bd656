package enclave

import (
	"errors"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/serverapp"
	"github.com/concordat/concordat/policy"
)

// TestCustomContent: what a ServerApp sends after its first message has the arrays of that,
// by their bytes, and little else.
func TestCustomContent(t *testing.T) {
	p := &policy.Policy{Release: policy.Release{MaxMetricBytes: 200}}
	batch := func(d object.RecordDict) *serverapp.Batch {
		t.Helper()
		objects, err := object.Objects(d)
		if err != nil {
			t.Fatal(err)
		}
		b := &serverapp.Batch{Objects: map[object.ID][]byte{}, To: []uint64{2}, Contents: []object.ID{objects[len(objects)-1].ID}}
		for _, o := range objects {
			b.Objects[o.ID] = o.Raw
		}
		return b
	}
	outline := func(b *serverapp.Batch) object.RecordDict {
		t.Helper()
		n, err := object.Inflate(b.Contents[0], b.Get, object.Limits{Objects: 100, Bytes: 1 << 20, Outline: true})
		if err != nil {
			t.Fatal(err)
		}
		return n.(object.RecordDict)
	}
	with := func(change func(d object.RecordDict) object.RecordDict) object.RecordDict {
		return change(object.RecordDict{{Name: "arrays", Record: arrays(t, "w", "b")}, {Name: "config", Record: object.ConfigRecord{{Key: "lr", Value: object.Double(0.1)}}}})
	}
	same := func(d object.RecordDict) object.RecordDict { return d }
	array := func(d object.RecordDict, i int) *object.ArrayItem { return &d[0].Record.(object.ArrayRecord)[i] }
	x := new(custom)
	first := batch(with(same))
	if err := x.learn(outline(first), first); err != nil {
		t.Fatal(err)
	}
	if x.bytes != int64(len(array(with(same), 0).Array.Bytes())+len(array(with(same), 1).Array.Bytes())) {
		t.Errorf("the first message's arrays have %d bytes", x.bytes)
	}
	chunks := func(sizes ...int64) (list []chunkstore.Entry) {
		for _, n := range sizes {
			list = append(list, chunkstore.Entry{Size: n})
		}
		return list
	}
	limit := 8*x.bytes + 64<<20
	for _, c := range []struct {
		reply []chunkstore.Entry
		good  bool
	}{{chunks(), true}, {chunks(1, limit-1), true}, {chunks(2, limit-1), false}, {chunks(1<<40, 1), false}} {
		if err := x.bounded(c.reply); (err == nil) != c.good {
			t.Errorf("a reply of %v: %v", c.reply, err)
		}
	}
	longer := arrays(t, "x", "y", "z")[2].Array
	for name, c := range map[string]struct {
		change func(d object.RecordDict) object.RecordDict
		good   bool
	}{
		"the same": {same, true},
		"fewer":    {func(d object.RecordDict) object.RecordDict { d[0].Record = arrays(t, "w"); return d }, false},
		"all twice": {func(d object.RecordDict) object.RecordDict {
			return append(d, object.RecordItem{Name: "again", Record: d[0].Record})
		}, false},
		"another word beside an array": {func(d object.RecordDict) object.RecordDict {
			a := *array(d, 0).Array
			a.SType = "secret"
			array(d, 0).Array = &a
			return d
		}, false},
		"chunks cut otherwise": {func(d object.RecordDict) object.RecordDict {
			a := *array(d, 0).Array
			whole := a.Bytes()
			a.Chunks = []object.Chunk{{Data: whole[:20]}, {Data: whole[20:]}}
			array(d, 0).Array = &a
			return d
		}, false},
		"nothing":       {func(object.RecordDict) object.RecordDict { return object.RecordDict{} }, true},
		"other records": {func(d object.RecordDict) object.RecordDict { d[0].Name = "evaluateins.parameters"; return d }, true},
		"another name":  {func(d object.RecordDict) object.RecordDict { array(d, 0).Name = "v"; return d }, false},
		"another shape": {func(d object.RecordDict) object.RecordDict { array(d, 0).Array = longer; return d }, false},
		"another shape than is written beside it": {func(d object.RecordDict) object.RecordDict {
			a := *array(d, 0).Array
			a.Chunks = longer.Chunks
			array(d, 0).Array = &a
			return d
		}, false},
		"more bytes than its header says": {func(d object.RecordDict) object.RecordDict {
			a := *array(d, 0).Array
			a.Chunks = append(append([]object.Chunk(nil), a.Chunks...), object.Chunk{Data: []byte("more")})
			array(d, 0).Array = &a
			return d
		}, false},
		"no .npy": {func(d object.RecordDict) object.RecordDict {
			a := *array(d, 0).Array
			a.Chunks = []object.Chunk{{Data: []byte("pickle")}}
			array(d, 0).Array = &a
			return d
		}, false},
		"a large config": {func(d object.RecordDict) object.RecordDict {
			d[1].Record = object.ConfigRecord{{Key: "x", Value: object.Bytes(make([]byte, 300))}}
			return d
		}, false},
		"a record of the enclave's": {func(d object.RecordDict) object.RecordDict {
			return append(d, object.RecordItem{Name: flower.RecordState + "m", Record: object.ConfigRecord{}})
		}, false},
	} {
		b := batch(with(c.change))
		d := outline(b)
		err := errors.Join(flower.CheckCustomContent(d, 10, p), x.fits(d, b))
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAddressedContent: where the policy lets a ServerApp tell each node something of its
// own, all nodes are sent all of it; arrays are one for all, may come late, and may become
// float64 once.
func TestAddressedContent(t *testing.T) {
	p := &policy.Policy{Release: policy.Release{MaxMetricBytes: 400}}
	batch := func(kind string, arrays object.ArrayRecord, words ...string) *serverapp.Batch {
		t.Helper()
		b := &serverapp.Batch{Type: kind, Group: "1", Objects: map[object.ID][]byte{}}
		for i, w := range words {
			d := object.RecordDict{{Name: "config", Record: object.ConfigRecord{{Key: "k", Value: object.String(w)}}}}
			if arrays != nil {
				d = append(d, object.RecordItem{Name: "arrays", Record: arrays})
			}
			objects, err := object.Objects(d)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				b.Objects[o.ID] = o.Raw
			}
			b.To, b.Contents = append(b.To, uint64(i)+2), append(b.Contents, objects[len(objects)-1].ID)
		}
		return b
	}
	of := func(descr string, shapes ...int) (out object.ArrayRecord) {
		t.Helper()
		for i, n := range shapes {
			a, err := object.NewArray(object.NPY{Descr: descr, Shape: []int{n}}, make([]byte, n*int(descr[2]-'0')))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, object.ArrayItem{Name: string(rune('a' + i)), Array: a})
		}
		return out
	}
	sent, err := contentOf(batch("train", of("<f4", 3), "one", "two", "two"), p)
	if err != nil || len(sent) != 4 {
		t.Fatalf("nodes are sent %v, %v", sent, err)
	}
	if got, addressed, err := flower.ContentFor(sent, 4); err != nil || !addressed || len(got) != 2 || got.Get("config").(object.ConfigRecord).Get("k") != object.String("two") {
		t.Errorf("the third is told %v, %v", got, err)
	}
	if sent, err := contentOf(batch("train", nil, "one", "one"), p); err != nil || len(sent) != 1 || sent[0].Name != "config" {
		t.Errorf("the same for all became %v, %v", sent, err)
	}
	large := strings.Repeat("x", 500)
	if _, err := contentOf(batch("train", nil, "one", large), p); !errors.Is(err, serverapp.ErrRefused) {
		t.Errorf("more than the policy allows, for one node: %v", err)
	}
	if _, err := contentOf(batch("train", nil, "one", strings.Repeat("x", maxTold)), &policy.Policy{Release: policy.Release{MaxMetricBytes: 1 << 30}}); !errors.Is(err, serverapp.ErrRefused) {
		t.Errorf("more than nodes read: %v", err)
	}
	other := batch("train", of("<f4", 3), "one", "two")
	more := batch("train", of("<f4", 4), "one")
	other.Contents[0] = more.Contents[0]
	for id, raw := range more.Objects {
		other.Objects[id] = raw
	}
	if _, err := contentOf(other, p); !errors.Is(err, serverapp.ErrRefused) {
		t.Errorf("a model for one node: %v", err)
	}

	// Steps of a run: what the arrays of each are, and whether it goes on.
	type step struct {
		arrays object.ArrayRecord
		good   bool
	}
	for name, c := range map[string]struct {
		addressed bool
		steps     []step
	}{
		"late, and wider once": {true, []step{{nil, true}, {of("<f4", 3, 2), true}, {nil, true}, {of("<f8", 3, 2), true}, {of("<f8", 3, 2), true}, {of("<f4", 3, 2), false}}},
		"integers too":         {true, []step{{of("<i8", 3), true}, {of("<f8", 3), true}}},
		"another type":         {true, []step{{of("<f4", 3), true}, {of("<f2", 3), false}}},
		"another shape":        {true, []step{{of("<f4", 3), true}, {of("<f8", 4), false}}},
		"some of them":         {true, []step{{of("<f4", 3, 2), true}, {append(of("<f8", 3), of("<f4", 3, 2)[1]), false}}},
		"fewer":                {true, []step{{of("<f4", 3, 2), true}, {of("<f8", 3), false}}},
		"the policy does not":  {false, []step{{of("<f4", 3), true}, {of("<f4", 3), true}, {of("<f8", 3), false}}},
		"nor late, then":       {false, []step{{nil, true}, {of("<f4", 3), false}}},
	} {
		r := &run{custom: &custom{addressed: c.addressed}}
		for i, s := range c.steps {
			b := batch("train", s.arrays, "w")
			d, err := contentOf(b, p)
			if err != nil {
				t.Fatal(err)
			}
			err = r.custom.judge(d, b, i == 0)
			if (err == nil) != s.good {
				t.Errorf("%s: message %d: %v", name, i+1, err)
			}
		}
		if want := int64(len(of("<f8", 3)[0].Array.Bytes()) + len(of("<f8", 2)[0].Array.Bytes())); name == "late, and wider once" && r.custom.bytes != want {
			t.Errorf("%d bytes of arrays, want %d", r.custom.bytes, want)
		}
	}

	x := &custom{addressed: true}
	for i, c := range []struct {
		kind, group string
		round       uint64
	}{{"train", "1", 1}, {"train", "1", 1}, {"train", "1", 1}, {"train", "1", 1}, {"evaluate", "1", 1}, {"train", "1", 2}, {"train", "2", 3}, {"train", "2", 3}, {"query", "", 3}, {"train", "2", 4}, {"train", "3", 5}} {
		if x.count(&serverapp.Batch{Type: c.kind, Group: c.group}); x.rounds != c.round {
			t.Errorf("message %d is of round %d, want %d", i+1, x.rounds, c.round)
		}
	}
	x = new(custom)
	for range 3 {
		x.count(&serverapp.Batch{Type: "train", Group: "1"})
	}
	if x.rounds != 3 {
		t.Errorf("three trainings are %d rounds where the policy does not say addressed", x.rounds)
	}
}
