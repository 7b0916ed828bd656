package node

import (
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
)

// TestToldDifferentThings: a node hands its app nothing that is for it alone, unless the
// policy lets the app's ServerApp tell nodes different things.
func TestToldDifferentThings(t *testing.T) {
	t.Parallel()
	id := Digest{7: 5, 8: 1}
	word := func(s string) object.RecordDict {
		return object.RecordDict{{Name: "config", Record: object.ConfigRecord{{Key: "k", Value: object.String(s)}}}}
	}
	sent, err := flower.Address([]uint64{4, flower.NodeNumber(id)}, []object.RecordDict{word("theirs"), word("mine")})
	if err != nil {
		t.Fatal(err)
	}
	for _, allowed := range []bool{false, true} {
		w := work{n: &Node{id: id}, addressed: allowed}
		got, err := w.mine(sent)
		if (err == nil) != allowed {
			t.Errorf("allowed: %v; %v", allowed, err)
		}
		if allowed && (len(got) != 1 || got.Get("config").(object.ConfigRecord).Get("k") != object.String("mine")) {
			t.Errorf("the app gets %v", got)
		}
		if got, err := w.mine(word("all")); err != nil || len(got) != 1 {
			t.Errorf("what is for all: %v, %v", got, err)
		}
	}
}
