package verifier

import (
	"fmt"
	"slices"
	"strings"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// FrozenArrays returns the names of the arrays that a run freezes, sorted, as its statement
// has them: they stay as they are in the initial model, and nobody sends them. config is the
// run's, encoded; names are those of all arrays of its model. The setting
// [policy.KeyFrozen] is a list with commas between its items: a name, or the beginning of
// names with a * after it. An empty list freezes nothing. Enclave and nodes take the names
// from here.
func FrozenArrays(config []byte, names []string) ([]string, error) {
	var values map[string]any
	if err := cose.Unmarshal(config, &values); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	setting, isString := values[policy.KeyFrozen].(string)
	if _, given := values[policy.KeyFrozen]; given && !isString {
		return nil, fmt.Errorf("config: %s is no string", policy.KeyFrozen)
	}
	if setting == "" {
		return nil, nil
	}
	var frozen []string
	for item := range strings.SplitSeq(setting, ",") {
		item = strings.TrimSpace(item)
		start, isStart := strings.CutSuffix(item, "*")
		known := false
		for _, n := range names {
			if n == item || isStart && strings.HasPrefix(n, start) {
				frozen, known = append(frozen, n), true
			}
		}
		if !known {
			return nil, fmt.Errorf("config: %s: the model has no array %.80q", policy.KeyFrozen, item)
		}
	}
	slices.Sort(frozen)
	frozen = slices.Compact(frozen)
	if len(frozen) == len(names) {
		return nil, fmt.Errorf("config: %s: all %d arrays of the model, so that there is nothing to train", policy.KeyFrozen, len(names))
	}
	return frozen, receipt.CheckFrozen(frozen)
}
