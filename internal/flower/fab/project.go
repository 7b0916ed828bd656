package fab

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/concordat/concordat/policy"
	"github.com/pelletier/go-toml/v2"
)

// Project is what a bundle's pyproject.toml says.
type Project struct {
	Publisher, Name, Version string
	ServerApp, ClientApp     string // "module:attribute"
	// Config is [tool.flwr.app.config], nested tables joined by dots. Values are bool,
	// int64, float64 or string.
	Config map[string]any
	// Strategy, Rounds and Frozen are of [tool.concordat]; empty and 0 where it has none.
	// Frozen is as policy.KeyFrozen has it; in the table it may be a list of strings, too.
	// All other keys are arguments of the strategy, with values as Config's.
	Strategy  string
	Rounds    uint64
	Frozen    string
	Arguments map[string]any
}

// ID is Flower's name of the app.
func (p *Project) ID() string { return p.Publisher + "/" + p.Name }

// Words of pyproject.toml that become parts of paths and of output.
var (
	wordForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$`)
	objectForm  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$`)
	maxConfig   = 1024 // keys
	maxConfigKV = 4096 // bytes of a key, and of a string
)

func parseProject(raw []byte) (Project, error) {
	if len(raw) == 0 || len(raw) > maxProject {
		return Project{}, badf("%s of %d bytes, want 1 to %d", projectName, len(raw), maxProject)
	}
	var doc struct {
		Project struct {
			Name    string `toml:"name"`
			Version string `toml:"version"`
		} `toml:"project"`
		Tool struct {
			Flwr struct {
				App struct {
					Publisher  string         `toml:"publisher"`
					Config     map[string]any `toml:"config"`
					Components struct {
						ServerApp string `toml:"serverapp"`
						ClientApp string `toml:"clientapp"`
					} `toml:"components"`
				} `toml:"app"`
			} `toml:"flwr"`
			Concordat map[string]any `toml:"concordat"`
		} `toml:"tool"`
	}
	if err := toml.Unmarshal(raw, &doc); err != nil {
		return Project{}, badf("%s: %w", projectName, err)
	}
	app := doc.Tool.Flwr.App
	p := Project{Publisher: app.Publisher, Name: doc.Project.Name, Version: doc.Project.Version,
		ServerApp: app.Components.ServerApp, ClientApp: app.Components.ClientApp,
		Config: map[string]any{}, Arguments: map[string]any{}}
	for field, v := range map[string]string{"project.name": p.Name, "project.version": p.Version, "tool.flwr.app.publisher": p.Publisher} {
		if !wordForm.MatchString(v) {
			return Project{}, badf("%s: %s is %.80q, want letters, digits and ._+-", projectName, field, v)
		}
	}
	for field, v := range map[string]string{"serverapp": p.ServerApp, "clientapp": p.ClientApp} {
		if !objectForm.MatchString(v) {
			return Project{}, badf("%s: tool.flwr.app.components.%s is %.80q, want \"module:attribute\"", projectName, field, v)
		}
	}
	if err := p.concordat(doc.Tool.Concordat); err != nil {
		return Project{}, badf("%s: tool.concordat: %w", projectName, err)
	}
	if err := flatten(p.Config, "", app.Config); err != nil {
		return Project{}, badf("%s: tool.flwr.app.config: %w", projectName, err)
	}
	return p, nil
}

// concordat reads [tool.concordat].
func (p *Project) concordat(table map[string]any) error {
	if list, ok := table["frozen"].([]any); ok {
		frozen, err := joined(list)
		if err != nil {
			return err
		}
		table["frozen"] = frozen
	}
	if err := flatten(p.Arguments, "", table); err != nil {
		return err
	}
	if v, ok := p.Arguments["strategy"]; ok {
		if p.Strategy, ok = v.(string); !ok {
			return fmt.Errorf("strategy is %v, want a name", v)
		}
	}
	if v, ok := p.Arguments["rounds"]; ok {
		n, isInt := v.(int64)
		if !isInt || n < 0 {
			return fmt.Errorf("rounds is %v, want a number", v)
		}
		p.Rounds = uint64(n)
	}
	if v, ok := p.Arguments["frozen"]; ok {
		if p.Frozen, ok = v.(string); !ok {
			return fmt.Errorf("frozen is %v, want names of arrays", v)
		}
	}
	delete(p.Arguments, "frozen")
	delete(p.Arguments, "strategy")
	delete(p.Arguments, "rounds")
	return nil
}

// joined makes one setting of a list of names.
func joined(list []any) (string, error) {
	names := make([]string, len(list))
	for i, v := range list {
		n, ok := v.(string)
		if !ok || n == "" || strings.Contains(n, ",") {
			return "", fmt.Errorf("frozen has the item %v, want the name of an array, without a comma", v)
		}
		names[i] = n
	}
	return strings.Join(names, ","), nil
}

// flatten joins nested tables by dots (flwr.common.config.flatten_dict).
func flatten(out map[string]any, prefix string, in map[string]any) error {
	for _, k := range slices.Sorted(maps.Keys(in)) {
		key := prefix + k
		if table, ok := in[k].(map[string]any); ok {
			if err := flatten(out, key+".", table); err != nil {
				return err
			}
			continue
		}
		if err := checkValue(key, in[k]); err != nil {
			return err
		}
		if _, twice := out[key]; twice {
			return fmt.Errorf("%.80q is there twice", key)
		}
		out[key] = in[k]
		if len(out) > maxConfig {
			return fmt.Errorf("more than %d keys", maxConfig)
		}
	}
	return nil
}

// checkValue takes what a run config may hold.
func checkValue(key string, v any) error {
	if key == "" || len(key) > maxConfigKV {
		return fmt.Errorf("a key of %d bytes, want 1 to %d", len(key), maxConfigKV)
	}
	switch v := v.(type) {
	case bool, int64:
		return nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%.80q is no finite number", key)
		}
		return nil
	case string:
		if len(v) > maxConfigKV {
			return fmt.Errorf("%.80q is a string of %d bytes, limit %d", key, len(v), maxConfigKV)
		}
		return nil
	}
	return fmt.Errorf("%.80q is no bool, integer, float or string", key)
}

// Fuse returns the app's config with overrides in it. As with Flower, an override
// must be of a key that the app has, and may have another type; or it is Concordat's own
// (policy.ConfigPrefix).
func (p *Project) Fuse(overrides map[string]any) (map[string]any, error) {
	out := maps.Clone(p.Config)
	for _, k := range slices.Sorted(maps.Keys(overrides)) {
		if _, has := p.Config[k]; !has && !strings.HasPrefix(k, policy.ConfigPrefix) {
			return nil, fmt.Errorf("run config: the app has no key %.80q; it has %s", k, strings.Join(slices.Sorted(maps.Keys(p.Config)), ", "))
		}
		if err := checkValue(k, overrides[k]); err != nil {
			return nil, fmt.Errorf("run config: %w", err)
		}
		out[k] = overrides[k]
	}
	return out, nil
}

// ParseOverrides reads overrides of a run config, each a key of TOML and its value, as
// "flwr run" takes them.
func ParseOverrides(lines []string) (map[string]any, error) {
	out := map[string]any{}
	for _, l := range lines {
		var table map[string]any
		if err := toml.Unmarshal([]byte(l), &table); err != nil {
			return nil, fmt.Errorf("%.200q: %w", l, err)
		}
		if err := flatten(out, "", table); err != nil {
			return nil, fmt.Errorf("%.200q: %w", l, err)
		}
	}
	return out, nil
}

// Terms are what a run needs to be told beside its config.
type Terms struct {
	Strategy  string
	Rounds    uint64         // 0: as many as the policy allows, for an app that aggregates by itself
	Frozen    string         // arrays that nobody sends, as policy.KeyFrozen has them
	Arguments map[string]any // of the strategy
}

// KeyFlowerRounds is the key of the number of rounds in Flower's own templates.
const KeyFlowerRounds = "num-server-rounds"

// Terms reads strategy, rounds, frozen arrays and arguments: from the fused config first,
// then from [tool.concordat]. The arguments of that table are meant for the strategy that it names,
// and left out with another. fallback is the strategy of an app that names none, and may
// be empty.
func (p *Project) Terms(config map[string]any, fallback string) (Terms, error) {
	t := Terms{Strategy: p.Strategy, Rounds: p.Rounds, Frozen: p.Frozen, Arguments: policy.StrategyArguments(config)}
	for key, to := range map[string]*string{policy.KeyStrategy: &t.Strategy, policy.KeyFrozen: &t.Frozen} {
		v, ok := config[key]
		if !ok {
			continue
		}
		if *to, ok = v.(string); !ok {
			return t, fmt.Errorf("run config: %s is no string", key)
		}
	}
	if t.Strategy == p.Strategy {
		for k, v := range p.Arguments {
			if _, overridden := t.Arguments[k]; !overridden {
				t.Arguments[k] = v
			}
		}
	}
	if t.Strategy == "" {
		t.Strategy = fallback
	}
	if t.Strategy == "" {
		return t, fmt.Errorf("the app names no native strategy: add `strategy = \"fedavg\"` under [tool.concordat] in pyproject.toml, or run with -c '%s=\"fedavg\"'", policy.KeyStrategy)
	}
	for _, key := range []string{policy.KeyRounds, KeyFlowerRounds} {
		v, ok := config[key]
		if !ok || key == KeyFlowerRounds && t.Rounds > 0 {
			continue
		}
		n, isInt := v.(int64)
		if !isInt || n < 1 {
			return t, fmt.Errorf("run config: %s is %v, want a number above 0", key, v)
		}
		t.Rounds = uint64(n)
		break
	}
	if t.Rounds == 0 && t.Strategy != policy.StrategyCustom {
		return t, fmt.Errorf("the app does not say how many rounds: add `%s` to [tool.flwr.app.config], or `rounds` to [tool.concordat]", KeyFlowerRounds)
	}
	return t, nil
}
