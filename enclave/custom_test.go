package enclave

import (
	"errors"
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
		b := &serverapp.Batch{Objects: map[object.ID][]byte{}, Content: objects[len(objects)-1].ID}
		for _, o := range objects {
			b.Objects[o.ID] = o.Raw
		}
		return b
	}
	outline := func(b *serverapp.Batch) object.RecordDict {
		t.Helper()
		n, err := object.Inflate(b.Content, b.Get, object.Limits{Objects: 100, Bytes: 1 << 20, Outline: true})
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
