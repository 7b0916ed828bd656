package verifier

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

func TestFrozenArrays(t *testing.T) {
	model := []string{"w", "enc.1.b", "emb", "enc.0.w", "enc", "odd*", "", "with, comma"}
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
		got, err := FrozenArrays(cose.Marshal(config), model)
		if c.bad == "" && (err != nil || !slices.Equal(got, c.want)) || c.bad != "" && (err == nil || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%v: %q, %v; want %q, %q", c.setting, got, err, c.want, c.bad)
		}
	}
	if _, err := FrozenArrays([]byte("no config"), model); err == nil {
		t.Error("garbage taken for a config")
	}
	many := []string{"w"}
	for i := range 513 {
		many = append(many, fmt.Sprintf("layer.%03d", i))
	}
	if _, err := FrozenArrays(cose.Marshal(map[string]any{policy.KeyFrozen: "layer.*"}), many); err == nil || !strings.Contains(err.Error(), "limit 512") {
		t.Errorf("more than a statement holds: %v", err)
	}
}
