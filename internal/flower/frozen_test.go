package flower

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

func named(names ...string) (r object.ArrayRecord) {
	for _, n := range names {
		r = append(r, object.ArrayItem{Name: n})
	}
	return r
}

func TestFrozen(t *testing.T) {
	t.Parallel()
	model := named("w", "enc.1.b", "emb", "enc.0.w", "enc", "odd*", "", "with, comma")
	for _, c := range []struct {
		setting any
		want    []string
		bad     string
	}{
		{nil, nil, ""},
		{"", nil, ""},
		{"emb", []string{"emb"}, ""},
		{" w , emb,w", []string{"emb", "w"}, ""},
		{"enc.*", []string{"enc.0.w", "enc.1.b"}, ""},
		{"enc*,enc", []string{"enc", "enc.0.w", "enc.1.b"}, ""},
		{"odd*", []string{"odd*"}, ""},
		{"with*", []string{"with, comma"}, ""},
		{"embed", nil, `no array "embed"`},
		{"emb,dec.*", nil, `no array "dec.*"`},
		{"*", nil, "nothing to train"},
		{"emb,,w", nil, "a name of 0 bytes"},
		{true, nil, "no string"},
		{[]any{"emb"}, nil, "no string"},
	} {
		config := map[string]any{"lr": 0.5}
		if c.setting != nil {
			config[policy.KeyFrozen] = c.setting
		}
		got, err := Frozen(cose.Marshal(config), model)
		if c.bad == "" && (err != nil || !slices.Equal(got, c.want)) || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%v: %q, %v; want %q, %q", c.setting, got, err, c.want, c.bad)
		}
	}
	if _, err := Frozen([]byte("no config"), model); err == nil {
		t.Error("garbage taken for a config")
	}
	for bad, size := range map[string][2]int{"limit 512": {513, 9}, "in all": {512, 100}} {
		many := []string{"w"}
		for i := range size[0] {
			many = append(many, fmt.Sprintf("layer.%0*d", size[1]-6, i))
		}
		if _, err := Frozen(cose.Marshal(map[string]any{policy.KeyFrozen: "layer.*"}), named(many...)); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("more than a statement holds: %v, want %q", err, bad)
		}
	}
}

// TestTrained: a node sends the arrays that a run does not freeze, in the model's order, and
// what is wrong with others is said by name.
func TestTrained(t *testing.T) {
	t.Parallel()
	whole := named("w", "emb", "b", "head")
	if got := Trained(whole, nil); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("nothing is frozen: %v", got)
	}
	trained := Trained(whole, []string{"b", "emb"})
	if !slices.Equal(trained, []int{0, 3}) {
		t.Errorf("b and emb are frozen: %v", trained)
	}
	for _, c := range []struct {
		sent object.ArrayRecord
		bad  string
	}{
		{named("w", "head"), ""},
		{named("w"), `no array "head"`},
		{named(), `no array "w"`},
		{named("head", "w"), `array 0 is "head", the model's is "w"`},
		{named("w", "emb", "b", "head"), `"emb", which the run freezes`},
		{named("w", "head", "b"), `"b", which the run freezes`},
		{named("w", "head", "x"), `"x", which the model does not have`},
		{named("w", "head", "head"), "3 arrays, the run trains 2"},
	} {
		err := CheckTrained(c.sent, whole, trained)
		if c.bad == "" && err != nil || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%d arrays: %v, want %q", len(c.sent), err, c.bad)
		}
	}
}
