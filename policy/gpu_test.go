package policy

import (
	"slices"
	"strings"
	"testing"
)

// TestGPURules: what the fields of a GPU entry demand of each other.
func TestGPURules(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*GPU)
		field  string // of the one problem; empty: none
	}{
		"as it is":               {func(g *GPU) {}, ""},
		"manifests alone":        {func(g *GPU) { g.RIM, g.Measurements = true, nil }, ""},
		"neither":                {func(g *GPU) { g.Measurements = nil }, "measurements"},
		"hold without manifests": {func(g *GPU) { g.AllowRIMHold = true }, "allow_rim_hold"},
		"hold":                   {func(g *GPU) { g.RIM, g.AllowRIMHold = true, true }, ""},
		"an unknown mode":        {func(g *GPU) { g.Modes = []string{"devtools"} }, "modes"},
		"modes unsorted":         {func(g *GPU) { g.Modes = []string{"spt", "mpt"} }, "modes"},
		"ppcie without switches": {func(g *GPU) { g.Modes = []string{"ppcie"} }, "min_switches"},
		"ppcie": {func(g *GPU) {
			g.Modes, g.MinSwitches, g.MinSwitchVBIOS = []string{"ppcie"}, 4, "96.10.55.00.01"
		}, ""},
		"switches without a floor": {func(g *GPU) { g.MinSwitches = 4 }, "min_switch_vbios"},
		"a floor without switches": {func(g *GPU) { g.MinSwitchVBIOS = "96.10.55.00.01" }, "min_switch_vbios"},
		"denied":                   {func(g *GPU) { g.Denied = []Hex{{1}} }, ""},
		"denied twice":             {func(g *GPU) { g.Denied = []Hex{{1}, {1}} }, "denied"},
		"denied nothing":           {func(g *GPU) { g.Denied = []Hex{{}} }, "denied"},
	} {
		p := example()
		c.change(p.Platforms.GPU)
		err := p.Check()
		switch {
		case c.field == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.field != "" && (err == nil || !strings.Contains(err.Error(), "platforms.gpu."+c.field)):
			t.Errorf("%s: %v, want a problem with %s", name, err, c.field)
		}
	}
	if g := (&GPU{}); !slices.Equal(g.AcceptedModes(), []string{"mpt", "spt", "unstated"}) {
		t.Errorf("an empty list accepts %v", g.AcceptedModes())
	}
	if g := (&GPU{Modes: []string{"spt"}}); !slices.Equal(g.AcceptedModes(), g.Modes) {
		t.Errorf("spt alone accepts %v", g.AcceptedModes())
	}
	p := example()
	if p.OCSPAge() != p.Evidence.MaxCollateralAge {
		t.Error("the age of OCSP responses is not that of other collateral")
	}
	if p.Platforms.GPU.MaxOCSPAge = 7; p.OCSPAge() != 7 {
		t.Error("the age of OCSP responses is not its own")
	}
}

// TestGPUDiff: every field of a GPU entry shows in a diff, with what it does.
func TestGPUDiff(t *testing.T) {
	t.Parallel()
	old := example()
	now := example()
	g := now.Platforms.GPU
	g.RIM, g.AllowRIMHold, g.Modes, g.Denied = true, true, []string{"mpt", "ppcie", "spt", "unstated"}, []Hex{{1}}
	g.MaxOCSPAge, g.MinSwitches, g.MinSwitchVBIOS = 60, 4, "96.10.55.00.01"
	want := map[string]Effect{
		"rim": EffectWeaker, "modes": EffectWeaker, "denied": EffectStricter, "max_ocsp_age": EffectNone,
		"allow_rim_hold": EffectWeaker, "min_switches": EffectStricter, "min_switch_vbios": EffectNone,
	}
	for _, c := range Diff(old, now) {
		name := strings.TrimPrefix(c.Field, "platforms.gpu.")
		if e, ok := want[name]; !ok || e != c.Effect {
			t.Errorf("%+v", c)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("not shown: %v", want)
	}
}
