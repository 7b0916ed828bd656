package policy

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	if d := Diff(example(), example()); len(d) != 0 {
		t.Errorf("of equals: %v", d)
	}
	for want, edit := range map[string]func(*Policy){
		"release.min_contributors: 3 → 2 (weaker)":                                     func(p *Policy) { p.Release.MinContributors = 2 },
		"release.max_weight_share: 600 → 500 (stricter)":                               func(p *Policy) { p.Release.MaxWeightShare = 500 },
		"evidence.max_age: 600 s → 3600 s (weaker)":                                    func(p *Policy) { p.Evidence.MaxAge = 3600 },
		"approvals: 2 → 3 (stricter)":                                                  func(p *Policy) { p.Approvals = 3 },
		"name: Example consortium → x":                                                 func(p *Policy) { p.Name = "x" },
		"members: removed lab-b":                                                       func(p *Policy) { p.Members = p.Members[:2] },
		"platforms: removed tdx (stricter)":                                            func(p *Policy) { p.Platforms.TDX = nil },
		"platforms.snp.measurements: added " + fill(48, 9).String() + " (weaker)":      func(p *Policy) { p.Platforms.SNP.Measurements = append(p.Platforms.SNP.Measurements, fill(48, 9)) },
		"platforms.snp.chips: added any (weaker)":                                      func(p *Policy) { p.Platforms.SNP.Chips, p.Platforms.SNP.AnyChip = nil, true },
		"platforms.snp.chips: removed " + fill(8, 4).String():                          func(p *Policy) { p.Platforms.SNP.Chips, p.Platforms.SNP.AnyChip = nil, true },
		"platforms.snp.min_tcb[Genoa].microcode: 72 → 71 (weaker)":                     func(p *Policy) { p.Platforms.SNP.MinTCB[0].Microcode-- },
		"platforms.snp.providers: added CN=x (weaker)":                                 func(p *Policy) { p.Platforms.SNP.Providers = append(p.Platforms.SNP.Providers, "CN=x") },
		"platforms.snp.denied_chips: removed " + fill(8, 19).String() + " (weaker)":    func(p *Policy) { p.Platforms.SNP.Denied = p.Platforms.SNP.Denied[:1] },
		"platforms.snp.platform_forbidden: removed tio (weaker)":                       func(p *Policy) { p.Platforms.SNP.PlatformForbidden = nil },
		"platforms.snp.guest_policy: removed page-swap-disabled (weaker)":              func(p *Policy) { p.Platforms.SNP.GuestPolicy = p.Platforms.SNP.GuestPolicy[:1] },
		"platforms.snp.id_keys: added any (weaker)":                                    func(p *Policy) { p.Platforms.SNP.IDKeys = nil },
		"platforms.snp.allow_provisional: true → false (stricter)":                     func(p *Policy) { p.Platforms.SNP.AllowProvisional = false },
		"platforms.snp.mitigations: 0x3 → 0x1":                                         func(p *Policy) { p.Platforms.SNP.Mitigations = 1 },
		"platforms.snp.host_data: true → false (weaker)":                               func(p *Policy) { p.Platforms.SNP.HostData = false },
		"platforms.snp.allow_smt: false → true (weaker)":                               func(p *Policy) { p.Platforms.SNP.AllowSMT = true },
		"apps[" + (Digest{1}).String() + "].exposure: aggregate → individual (weaker)": func(p *Policy) { p.Apps[0].Exposure = ExposureIndividual },
		"apps[" + (Digest{1}).String() + "].configs: removed any (stricter)":           func(p *Policy) { p.Apps[0].Configs = []Digest{{1}} },
		"apps[" + (Digest{2}).String() + "].strategies: removed custom (stricter)":     func(p *Policy) { p.Apps[1].Strategies = p.Apps[1].Strategies[1:] },
		"apps[" + (Digest{2}).String() + "].addressed: false → true (weaker)":          func(p *Policy) { p.Apps[1].Addressed = true },
		`nodes.metric_keys: added any (weaker)`:                                        func(p *Policy) { p.Nodes.MetricKeys = nil },
		`nodes.metric_keys: added "any" (weaker)`:                                      func(p *Policy) { p.Nodes.MetricKeys = []string{"any"} },
		"release.dropouts: refuse → allow (weaker)":                                    func(p *Policy) { p.Release.Dropouts = DropoutsAllow },
		"release.cohort: fixed → sampled (weaker)":                                     func(p *Policy) { p.Release.Cohort = CohortSampled },
		"members[lab-b].witness_key: " + example().Members[2].WitnessKey + " → x":      func(p *Policy) { p.Members[2].WitnessKey = "x" },
	} {
		p := example()
		edit(p)
		var got []string
		for _, c := range Diff(example(), p) {
			got = append(got, c.String())
		}
		if !slices.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestDiffIsComplete changes every leaf of the policy's type in turn: a
// difference that Diff does not show would be signed unseen.
func TestDiffIsComplete(t *testing.T) {
	t.Parallel()
	leaves := 0
	var walk func(path string, v reflect.Value, p *Policy)
	check := func(path string, p *Policy) {
		leaves++
		if len(Diff(withSigned(), p)) == 0 || len(Diff(p, withSigned())) == 0 {
			t.Errorf("%s: a change is not shown", path)
		}
	}
	walk = func(path string, v reflect.Value, p *Policy) {
		switch x := v.Addr().Interface().(type) {
		case *cose.Key:
			old := *x
			*x = signer("other").Public()
			check(path, p)
			*x = old
			return
		case *Digest:
			x[0]++
			check(path, p)
			x[0]--
			return
		case *Hex:
			(*x)[0]++
			check(path, p)
			(*x)[0]--
			return
		}
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name, v.Field(i), p)
			}
		case reflect.Pointer:
			walk(path, v.Elem(), p)
			old := v.Elem().Addr()
			v.SetZero()
			check(path, p)
			v.Set(old)
		case reflect.Slice:
			for i := range v.Len() {
				walk(fmt.Sprintf("%s[%d]", path, i), v.Index(i), p)
			}
			if v.Len() > 0 {
				old := v.Slice(0, v.Len())
				v.Set(v.Slice(0, v.Len()-1))
				check(path, p)
				v.Set(old)
			}
		case reflect.Bool:
			v.SetBool(!v.Bool())
			check(path, p)
			v.SetBool(!v.Bool())
		case reflect.String:
			old := v.String()
			v.SetString(old + "x")
			check(path, p)
			v.SetString(old)
		case reflect.Uint64, reflect.Uint8:
			v.SetUint(v.Uint() + 1)
			check(path, p)
			v.SetUint(v.Uint() - 1)
		default:
			t.Fatalf("%s: %s", path, v.Type())
		}
	}
	p := withSigned()
	walk("policy", reflect.ValueOf(p).Elem(), p)
	if p.Digest() != withSigned().Digest() {
		t.Error("the walk left a change behind")
	}
	if leaves < 100 {
		t.Errorf("only %d leaves", leaves)
	}
}
