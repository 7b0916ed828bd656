package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/concordat/concordat/internal/cose"
)

// Class says what a strategy's outputs depend on (protocol F4). A class is fixed
// in code: no policy and no app can claim another.
type Class string

const (
	// ClassMixing: every output depends on all admitted inputs.
	ClassMixing Class = "mixing"
	// ClassSelecting: an output may be one member's value, by definition.
	ClassSelecting Class = "selecting"
	// ClassCustom: the app's own code aggregates, and sees every update.
	ClassCustom Class = "custom"
)

// StrategyCustom stands in a policy and in a run for an app that aggregates by
// itself; every other name is native code of the enclave.
const StrategyCustom = "custom"

// The median and its kin release single members' coordinates, Krum whole
// updates, tree bagging whole trees; q-fair averaging lets one large loss carry
// nearly all the weight.
var strategies = map[string]Class{
	"dpfedavg":   ClassMixing, // clipped mean with noise
	"fedadagrad": ClassMixing,
	"fedadam":    ClassMixing,
	"fedavg":     ClassMixing,
	"fedavgm":    ClassMixing,
	"fedprox":    ClassMixing,
	"fedyogi":    ClassMixing,

	"bulyan":        ClassSelecting,
	"fedmedian":     ClassSelecting,
	"fedtrimmedavg": ClassSelecting,
	"fedxgbbagging": ClassSelecting,
	"fedxgbcyclic":  ClassSelecting,
	"krum":          ClassSelecting,
	"multikrum":     ClassSelecting,
	"qfedavg":       ClassSelecting,

	StrategyCustom: ClassCustom,
}

// StrategyClass returns the class of the named strategy, and whether there is
// one of that name.
func StrategyClass(name string) (Class, bool) {
	c, ok := strategies[name]
	return c, ok
}

// Strategies returns every name that a policy may list, sorted.
func Strategies() []string { return slices.Sorted(maps.Keys(strategies)) }

// The keys of a run's configuration that are Concordat's begin with ConfigPrefix. Those
// of TrainPrefix go into the config record of train messages, KeyStrategy and KeyRounds
// say what a request says too, and KeyFrozen which arrays nobody sends
// (internal/flower.Frozen); all others are arguments of the native strategy.
const (
	ConfigPrefix = "concordat."
	TrainPrefix  = ConfigPrefix + "train."
	KeyStrategy  = ConfigPrefix + "strategy"
	KeyRounds    = ConfigPrefix + "rounds"
	KeyFrozen    = ConfigPrefix + "frozen"
)

// StrategyArguments returns the arguments of the native strategy that a run's
// configuration holds, by name without prefix. The strategy says whether it takes them.
func StrategyArguments(config map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range config {
		name, ours := strings.CutPrefix(k, ConfigPrefix)
		if ours && k != KeyStrategy && k != KeyRounds && k != KeyFrozen && !strings.HasPrefix(k, TrainPrefix) {
			out[name] = v
		}
	}
	return out
}

// AppConfig returns a run's configuration without the keys that are Concordat's: what an
// app's own ServerApp gets, and what stands in the request of such a run.
func AppConfig(config map[string]any) map[string]any {
	out := maps.Clone(config)
	maps.DeleteFunc(out, func(k string, _ any) bool { return strings.HasPrefix(k, ConfigPrefix) })
	return out
}

// ConfigDigest is what a policy's configs and a run's request name an effective
// configuration by. Its values are bool, int64, float64 or string.
func ConfigDigest(config map[string]any) Digest { return cose.Sum(cose.Marshal(config)) }
