package flower

import (
	"fmt"
	"slices"
	"strings"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// Frozen returns the names of the arrays of a model that a run freezes, sorted, as its
// statement has them: they stay as they began, and nobody sends them. config is the run's,
// encoded. Its setting [policy.KeyFrozen] is a list with commas between its items: a name,
// or the beginning of names with a * after it. An empty list freezes nothing. Enclave and
// nodes take the names from here.
func Frozen(config []byte, model object.ArrayRecord) ([]string, error) {
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
		for _, a := range model {
			if a.Name == item || isStart && strings.HasPrefix(a.Name, start) {
				frozen, known = append(frozen, a.Name), true
			}
		}
		if !known {
			return nil, fmt.Errorf("config: %s: the model has no array %.80q", policy.KeyFrozen, item)
		}
	}
	slices.Sort(frozen)
	frozen = slices.Compact(frozen)
	if len(Trained(model, frozen)) == 0 {
		return nil, fmt.Errorf("config: %s: all %d arrays of the model, so that there is nothing to train", policy.KeyFrozen, len(model))
	}
	if err := receipt.CheckFrozen(frozen); err != nil {
		return nil, fmt.Errorf("config: %s: %w", policy.KeyFrozen, err)
	}
	if n := len(strings.Join(frozen, "")); n > maxFrozenNames {
		return nil, fmt.Errorf("config: %s: names of %d bytes in all, limit %d", policy.KeyFrozen, n, maxFrozenNames)
	}
	return frozen, nil
}

// maxFrozenNames is what a run statement surely has room for.
const maxFrozenNames = receipt.MaxStatement * 3 / 4

// Trained returns the places of the arrays of a record that a run does not freeze; frozen
// is sorted. Of a model they are what nodes send, in this order, and what is aggregated.
func Trained(arrays object.ArrayRecord, frozen []string) []int {
	places := make([]int, 0, len(arrays))
	for i, a := range arrays {
		if _, found := slices.BinarySearch(frozen, a.Name); !found {
			places = append(places, i)
		}
	}
	return places
}

// CheckTrained says by name in what the arrays that a node sends are not those of the model
// that the run trains, in the model's order.
func CheckTrained(sent, model object.ArrayRecord, trained []int) error {
	for k, a := range sent {
		if k < len(trained) && a.Name == model[trained[k]].Name {
			continue
		}
		i := slices.IndexFunc(model, func(m object.ArrayItem) bool { return m.Name == a.Name })
		switch {
		case i < 0:
			return fmt.Errorf("%w: array %.80q, which the model does not have", ErrRefused, a.Name)
		case !slices.Contains(trained, i):
			return fmt.Errorf("%w: array %.80q, which the run freezes", ErrRefused, a.Name)
		case k == len(trained):
			return fmt.Errorf("%w: %d arrays, the run trains %d", ErrRefused, len(sent), len(trained))
		}
		return fmt.Errorf("%w: array %d is %.80q, the model's is %q", ErrRefused, k, a.Name, model[trained[k]].Name)
	}
	if len(sent) < len(trained) {
		return fmt.Errorf("%w: no array %.80q", ErrRefused, model[trained[len(sent)]].Name)
	}
	return nil
}
