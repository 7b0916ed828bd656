package flower

import (
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

func named(names ...string) (r object.ArrayRecord) {
	for _, n := range names {
		r = append(r, object.ArrayItem{Name: n})
	}
	return r
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
