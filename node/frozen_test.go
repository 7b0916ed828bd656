package node

import (
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

func bytesOf(t *testing.T, names ...string) (r object.ArrayRecord) {
	t.Helper()
	for i, n := range names {
		a, err := object.NewArray(object.NPY{Descr: "|u1", Shape: []int{1}}, []byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		r = append(r, object.ArrayItem{Name: n, Array: a})
	}
	return r
}

// replyOf is what an app process answered.
func replyOf(t *testing.T, arrays object.ArrayRecord) *flower.Reply {
	t.Helper()
	dict := object.RecordDict{{Name: "own name", Record: arrays}, {Name: "metrics", Record: object.MetricRecord{{Key: "num-examples", Value: object.Sint(1)}}}}
	objects, err := object.Objects(dict)
	if err != nil {
		t.Fatal(err)
	}
	r := &flower.Reply{Objects: map[object.ID][]byte{}}
	for _, o := range objects {
		r.Root, r.Objects[o.ID] = o.ID, o.Raw
	}
	if r.Content, err = inflate(r.Root, func(id object.ID) ([]byte, error) { return lookup(r.Objects, id) }); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFrozenReply: what leaves of a reply is exactly the arrays that the run trains, and no
// object of any other.
func TestFrozenReply(t *testing.T) {
	t.Parallel()
	w := work{r: &run{body: &receipt.Run{Frozen: []string{"b", "emb"}}}, asked: object.RecordDict{{Name: flower.RecordArrays, Record: bytesOf(t, "emb", "w", "b", "head")}}}
	for _, c := range []struct {
		names []string
		bad   string
	}{
		{[]string{"emb", "w", "b", "head"}, ""},
		{[]string{"w", "head"}, ""}, // an app may leave them out by itself
		{[]string{"emb", "w", "b"}, `no array "head"`},
		{[]string{"emb", "head", "b", "w"}, `the model's is "w"`},
		{[]string{"emb", "w", "b", "head", "new"}, `"new", which the model does not have`},
	} {
		got, err := w.trained(replyOf(t, bytesOf(t, c.names...)))
		if c.bad != "" {
			if err == nil || !strings.Contains(err.Error(), c.bad) {
				t.Errorf("%q: %v, want %q", c.names, err, c.bad)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		p := chunkstore.NewParcelWriter(chunkstore.NewUplink([32]byte{1}, Digest{2}, 1), nil)
		for id, raw := range got.Objects {
			if id != got.Root {
				err = p.Add(raw)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Add(got.Objects[got.Root]); err != nil {
			t.Fatal(err)
		}
		if s, err := p.Close(); err != nil || s.Count != 1+2 { // it refuses what is not below the root
			t.Errorf("%q: %d chunks, %v; want a manifest and two arrays", c.names, s.Count, err)
		}
		dict, err := inflate(got.Root, func(id object.ID) ([]byte, error) { return lookup(got.Objects, id) })
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, a := range dict.Get("own name").(object.ArrayRecord) {
			names = append(names, a.Name)
		}
		if !slices.Equal(names, []string{"w", "head"}) || dict.Get("metrics") == nil {
			t.Errorf("%q: %q leave", c.names, names)
		}
	}
	w.r.body.Frozen = nil
	whole := replyOf(t, bytesOf(t, "emb", "w", "b", "head"))
	if got, err := w.trained(whole); err != nil || got != whole {
		t.Errorf("nothing is frozen: another reply, %v", err)
	}
}

// TestFrozenAsConfigSays: a node works on no step of a run whose statement freezes other
// arrays than the config that members approve.
func TestFrozenAsConfigSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		setting any
		frozen  []string
		bad     string
	}{
		{nil, nil, ""},
		{"", nil, ""},
		{"emb", []string{"emb"}, ""},
		{"emb", nil, "freezes other arrays"},
		{nil, []string{"emb"}, "freezes other arrays"},
		{"e*", []string{"emb"}, "freezes other arrays"},
		{"emb", []string{"enc"}, "freezes other arrays"},
		{"x", []string{"emb"}, `no array "x"`},
	} {
		config := map[string]any{}
		if c.setting != nil {
			config[policy.KeyFrozen] = c.setting
		}
		w := work{r: &run{config: cose.Marshal(config), body: &receipt.Run{Frozen: c.frozen}}, asked: object.RecordDict{{Name: flower.RecordArrays, Record: bytesOf(t, "emb", "w", "enc")}}}
		err := w.checkFrozen()
		if c.bad == "" && err != nil || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%v, frozen %q: %v, want %q", c.setting, c.frozen, err, c.bad)
		}
	}
}
