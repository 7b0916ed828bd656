package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/concordat/concordat/policy"
)

var update = flag.Bool("update", false, "rewrite generated files")

// current compares a generated file with what the program would write.
func current(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is not current; run the test with -update:\n%s", path, d)
	}
}

func example(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "example.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGenerated(t *testing.T) {
	t.Parallel()
	current(t, "schema.json", Schema())
	current(t, filepath.Join("..", "..", "docs", "reference", "policy.md"), Reference())
	if !json.Valid(Schema()) {
		t.Error("the schema is not JSON")
	}
}

// TestTableIsComplete: every field of the policy has a name and a meaning, once.
func TestTableIsComplete(t *testing.T) {
	t.Parallel()
	seen := make(map[reflect.Type]bool)
	var visit func(reflect.Type)
	visit = func(st reflect.Type) {
		if seen[st] {
			return
		}
		seen[st] = true
		in := make(map[string]int)
		for _, f := range fields[st] {
			in[f.goName]++
			in[f.flag]++
			if f.doc == "" || strings.HasSuffix(f.doc, ".") || f.name == "" {
				t.Errorf("%s.%s: name %q, meaning %q", st.Name(), f.goName, f.name, f.doc)
			}
		}
		for i := range st.NumField() {
			sf := st.Field(i)
			if in[sf.Name] != 1 {
				t.Errorf("%s.%s stands in the table %d times, want once", st.Name(), sf.Name, in[sf.Name])
			}
			ft := sf.Type
			for ft.Kind() == reflect.Pointer || isList(ft) {
				ft = ft.Elem()
			}
			if ft.Kind() == reflect.Struct && ft.PkgPath() == st.PkgPath() {
				visit(ft)
			}
		}
	}
	visit(reflect.TypeFor[policy.Policy]())
	if len(seen) != len(fields) {
		t.Errorf("the table has %d structs, the policy %d", len(fields), len(seen))
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	p, err := Parse(example(t))
	if err != nil {
		t.Fatal(err)
	}
	out := Render(p)
	again, err := Parse(out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if again.Digest() != p.Digest() {
		t.Error("rendering changed the policy")
	}
	if !bytes.Equal(Render(again), out) {
		t.Error("rendering twice differs")
	}
	current(t, filepath.Join("testdata", "example.rendered.yaml"), out)

	// The canonical form is the same, whatever the order and the spelling.
	if want := "ce7fa182f9467e22c60f44060b126f7b2d5eb5322b2578706469686ea536a198"; p.Digest().String() != want {
		t.Errorf("digest %s, want %s", p.Digest(), want)
	}
}

// TestProblems edits one line of the example at a time and looks for the
// complaint at that very line.
func TestProblems(t *testing.T) {
	t.Parallel()
	src := string(example(t))
	for _, c := range []struct{ old, new, field, text string }{
		{"max_age: 10m", "max_age: 10 minutes", "evidence.max_age", "want a time"},
		{"max_age: 10m", "max_age: 600", "evidence.max_age", "want a time"},
		{"max_age: 10m", "max_age: -10m", "evidence.max_age", "want a time"},
		{"max_age: 10m", "max_age: 10m5m", "evidence.max_age", "want a time"},
		{"max_age: 10m", "max_age: 0s", "evidence.max_age", "missing"},
		{"max_age: 10m", "max_age:", "evidence.max_age", "missing"},
		{"max_age: 10m", "max_age: [10m]", "evidence.max_age", "not a single value"},
		{"max_age: 10m", "maximum_age: 10m", "evidence.maximum_age", "unknown field"},
		{"max_age: 10m", "max_age: !!str 10m", "evidence.max_age", "not a single value"},
		{"max_age: 10m", "max_age: &a 10m", "evidence.max_age", "not a single value"},
		{"approvals: 2", "approvals: 1", "approvals", "more than half"},
		{"approvals: 2", "approvals: two", "approvals", "whole number"},
		{"approvals: 2", "approvals: 2.0", "approvals", "whole number"},
		{"approvals: 2", "approvals: 99999999999999999999", "approvals", "whole number"},
		{"simulated: false", "simulated: no", "simulated", "true or false"},
		{"microcode: 72", "microcode: 256", "platforms.snp.min_tcb[1].microcode", "at most 255"},
		{"max_weight_share: 0.6", "max_weight_share: 0.6001", "release.max_weight_share", "three decimals"},
		{"max_weight_share: 0.6", "max_weight_share: 60%", "release.max_weight_share", "a share"},
		{"max_weight_share: 0.6", "max_weight_share: 2", "release.max_weight_share", "1 to 1000"},
		{"xfam_mask: 0x602e7", "xfam_mask: 394983", "platforms.tdx.xfam_mask", "0x and hex"},
		{"chips: any", "chips: all", "platforms.snp.chips", "a list, or any"},
		{"chips: any", "chips: []", "platforms.snp.chips", "missing"},
		{"metric_keys: [loss, accuracy]", "metric_keys: []", "nodes.metric_keys", "write any"},
		{"exposure: aggregate", "exposure: everything", "apps[1].exposure", "aggregate"},
		{"strategies: [fedavg]", "strategies: [krum]", "apps[1].strategies[0]", "selecting"},
		{"id: hospital-a", "id: Hospital A", "members[0].id", "a-z"}, // as written, not as sorted
		{"cohort: fixed", "cohort: fixed\n  cohort: fixed", "", "already defined"},
		{"- \"" + strings.Repeat("01", 48), "- \"0101", "platforms.snp.measurements[0]", "2 bytes, want 48"},
		{"- \"" + strings.Repeat("01", 48), "- \"xyz", "platforms.snp.measurements[0]", "hex digits"},
	} {
		i := strings.Index(src, c.old)
		if i < 0 {
			t.Errorf("the example has no %q", c.old)
			continue
		}
		rest := src[i+len(c.old):]
		if strings.HasPrefix(c.old, "- \"") {
			rest = "\"" + rest[strings.IndexByte(rest, '\n'):]
		}
		line := strings.Count(src[:i], "\n") + 1 + strings.Count(c.new, "\n")
		_, err := Parse([]byte(src[:i] + c.new + rest))
		var ps Problems
		if !errors.As(err, &ps) {
			t.Errorf("%q: %v, want problems", c.new, err)
			continue
		}
		found := false
		for _, p := range ps {
			found = found || p.Field == c.field && p.Line == line && p.Column > 0 && strings.Contains(p.Text, c.text)
		}
		if !found {
			t.Errorf("%q: want %d: %s: … %s …, got\n%v", c.new, line, c.field, c.text, ps)
		}
	}
}

// TestEveryFieldIsRequired takes out one line of the rendered example at a time.
func TestEveryFieldIsRequired(t *testing.T) {
	t.Parallel()
	lines := strings.SplitAfter(string(example(t)), "\n")
	tried := 0
	for i, line := range lines {
		name, value, ok := strings.Cut(strings.TrimLeft(line, " -"), ":")
		if !ok || strings.HasPrefix(name, "#") || strings.TrimSpace(value) == "" || strings.HasPrefix(strings.TrimSpace(line), "-") {
			continue
		}
		tried++
		without := strings.Join(lines[:i], "") + strings.Join(lines[i+1:], "")
		if _, err := Parse([]byte(without)); err == nil || !strings.Contains(err.Error(), name+": missing") {
			t.Errorf("without line %d (%s): %v", i+1, name, err)
		}
	}
	if tried < 40 {
		t.Errorf("tried only %d lines", tried)
	}
}

// TestOptionalSNP writes what the example leaves out.
func TestOptionalSNP(t *testing.T) {
	t.Parallel()
	src := strings.Replace(string(example(t)), "    min_version: 3\n", `    min_version: 5
    providers: [CN=cc-us-east-2.amazonaws.com]
    denied_chips: ["`+strings.Repeat("ab", 64)+`"]
    allow_provisional: true
    allow_cxl: true
    allow_unchecked_alias: true
    guest_policy: [page-swap-disabled, ciphertext-hiding]
    platform_required: [ecc, ciphertext-hiding]
    platform_forbidden: [tio]
    mitigations: 0x5
    id_keys: ["`+strings.Repeat("cd", 48)+`"]
    author_keys: ["`+strings.Repeat("ef", 48)+`"]
`, 1)
	p, err := Parse([]byte(src))
	if err != nil {
		t.Fatal(err)
	}
	s := p.Platforms.SNP
	if s.Mitigations != 5 || s.GuestPolicy[0] != "ciphertext-hiding" || !s.AllowProvisional || !s.AllowCXL || !s.AllowUncheckedAlias || len(s.IDKeys) != 1 {
		t.Errorf("%+v", s)
	}
	out := Render(p)
	if again, err := Parse(out); err != nil || again.Digest() != p.Digest() {
		t.Errorf("rendering changed the policy: %v\n%s", err, out)
	}
	for old, want := range map[string]string{
		"mitigations: 0x5": "mitigations: 5",
		"[tio]":            "[debug]",
		"allow_cxl: true":  "allow_cxl: maybe",
		"min_version: 5":   "min_version: 4",
		"id_keys: [\"cdcd": "id_keys: [\"cd",
	} {
		if _, err := Parse([]byte(strings.Replace(src, old, want, 1))); err == nil {
			t.Errorf("%s accepted", want)
		}
	}
}

func TestRefusesYAML(t *testing.T) {
	t.Parallel()
	good := string(example(t))
	for name, src := range map[string]string{
		"nothing":       "",
		"comment":       "# nothing\n",
		"two documents": good + "\n---\n" + good,
		"a list":        "- 1\n",
		"a word":        "policy\n",
		"merge key":     "<<: {schema: 1}\n" + good,
		"alias":         strings.Replace(good, "schema: 1", "schema: *x", 1),
		"tabs":          "\tschema: 1\n",
		"deep flow":     strings.Repeat("[", 1000),
		"deep block":    strings.Repeat("- ", 1000) + "x",
		"deep maps":     strings.Repeat("? ", 1000) + "x",
		"oversized":     strings.Repeat("#", MaxSize+1),
		"NUL":           "schema: \x00\n",
	} {
		if _, err := Parse([]byte(src)); err == nil {
			t.Errorf("%s: accepted", name)
		} else if ps := (Problems)(nil); !errors.As(err, &ps) {
			t.Errorf("%s: %T %v", name, err, err)
		}
	}
}

func TestDraft(t *testing.T) {
	t.Parallel()
	// A draft renders, and parsing it says what is left to do, and nothing about its form.
	draft := &policy.Policy{Platforms: policy.Platforms{SNP: &policy.SNP{MinTCB: make([]policy.ProdTCB, 1)}}, Members: make([]policy.Member, 2), Apps: make([]policy.App, 1)}
	_, err := Parse(Render(draft))
	var ps Problems
	if !errors.As(err, &ps) || len(ps) < 20 {
		t.Fatal(err)
	}
	for _, p := range ps {
		if p.Line == 0 || strings.Contains(p.Text, "unknown") {
			t.Errorf("%s", p)
		}
	}
}

func TestMember(t *testing.T) {
	t.Parallel()
	p, err := Parse(example(t))
	if err != nil {
		t.Fatal(err)
	}
	out := RenderMember(p.Members[1])
	m, err := ParseMember(out)
	if err != nil || !reflect.DeepEqual(m, p.Members[1]) {
		t.Errorf("%+v, %v\n%s", m, err, out)
	}
	for _, bad := range []string{"", "members: []\n", string(out) + strings.TrimPrefix(string(out), "members:\n"), "members:\n  - id: x\n"} {
		if _, err := ParseMember([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]policy.Seconds{"1s": 1, "10m": 600, "1d12h": 129600, "90s": 90, "1d1h1m1s": 90061, "0s": 0} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "s", "1", "1.5h", "1m1h", "1h 1m", "+1s", "1w", "99999999999d"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("%q: %d", s, got)
		}
	}
	for n := uint64(1); n <= 1000; n++ {
		if got, err := parseShare(formatShare(n)); err != nil || got != n {
			t.Fatalf("share %d: %s, %d, %v", n, formatShare(n), got, err)
		}
	}
	for _, s := range []string{"", ".6", "0,6", "0.6666", "-0.6", "1e-1", "00.6", "+0.6"} {
		if got, err := parseShare(s); err == nil && s != "" {
			t.Errorf("%q: %d", s, got)
		}
	}
	for _, d := range []policy.Seconds{0, 1, 59, 60, 3600, 86399, 86400, 90061, 30 * 86400} {
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Errorf("%d: %s, %d, %v", d, FormatDuration(d), got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example(f))
	f.Add([]byte("schema: 1\nmembers:\n  - id: a\n"))
	f.Add([]byte("{schema: 1, members: [{id: a}]}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(Render(p))
		if err != nil || again.Digest() != p.Digest() {
			t.Errorf("rendering changed the policy: %v", err)
		}
	})
}

// TestSignedApps: signed_apps may be left out; where it stands, it is sorted as everything
// else, and comes back.
func TestSignedApps(t *testing.T) {
	t.Parallel()
	key := func(digit string) string { return keyPrefix + strings.Repeat(digit, 64) }
	entry := func(app, signers string) string {
		return "  - app: " + app + "\n    signers: [" + signers + "]\n    threshold: 1\n    configs: any\n    strategies: [fedavg]\n    max_rounds: 3\n"
	}
	block := "signed_apps:\n" + entry("b/b", key("3")) + entry("a/a", key("2")+", "+key("1"))
	p, err := Parse(append(example(t), block...))
	if err != nil {
		t.Fatal(err)
	}
	if len(p.SignedApps) != 2 || p.SignedApps[0].App != "a/a" || FormatKey(p.SignedApps[0].Signers[0]) != key("1") {
		t.Errorf("%+v", p.SignedApps)
	}
	again, err := Parse(Render(p))
	if err != nil || again.Digest() != p.Digest() {
		t.Errorf("rendered: %v\n%s", err, Render(p))
	}
	without, err := Parse(example(t))
	if err != nil || without.SignedApps != nil || strings.Contains(string(Render(without)), "signed_apps") {
		t.Errorf("without: %v\n%s", err, Render(without))
	}
	if _, err := Parse([]byte(string(example(t)) + strings.Replace(block, "[fedavg]", "[custom]", 1))); err == nil || !strings.Contains(err.Error(), "signed_apps[0].strategies[0]") {
		t.Errorf("custom: %v", err)
	}
}
