package policy

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/concordat/concordat/ci/tamper"
	"github.com/concordat/concordat/internal/cose"
)

// withSigned is the example with an app whose bundles two of three signers let in.
func withSigned() *Policy {
	p := example()
	a := SignedApp{App: "hospital-a/tumour", Threshold: 2, Configs: []Digest{{5}}, Strategies: []string{"fedadam", "fedavg"}, MaxRounds: 50}
	for _, name := range []string{"ada", "bob", "eve"} {
		a.Signers = append(a.Signers, signer("app", name).Public())
	}
	slices.SortFunc(a.Signers, func(a, b cose.Key) int { return bytes.Compare(a.Encode(), b.Encode()) })
	p.SignedApps = []SignedApp{a, {App: "lab-b/other", Signers: []cose.Key{signer("app", "zoe").Public()}, Threshold: 1, Strategies: []string{"fedavg"}, MaxRounds: 1}}
	return p
}

func signApp(t testing.TB, s *cose.Signer, a AppSignature) []byte {
	t.Helper()
	raw, err := SignApp(s, a)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSignedApps(t *testing.T) {
	t.Parallel()
	p := withSigned()
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	back, err := Decode(p.Encode())
	if err != nil || back.Digest() != p.Digest() {
		t.Fatalf("round trip: %v", err)
	}
	golden(t, "policy-signed-apps", p.Encode())
	fed, bundle := p.FederationID(), Digest{77}
	a := AppSignature{Federation: fed, App: "hospital-a/tumour", Version: "1.2.0", Digest: bundle}
	ada := signApp(t, signer("app", "ada"), a)
	golden(t, "app-signature", ada)
	bob := signApp(t, signer("app", "bob"), a)
	again := a
	again.Version = "1.2.1" // ada once more, in other words
	elsewhere, other := a, a
	elsewhere.Federation = Digest{1}
	other.App = "lab-b/other"

	terms := RunTerms{App: bundle, Config: Digest{5}, Exposure: ExposureAggregate, Strategy: "fedavg", Rounds: 50, Cohort: memberIDs}
	for name, c := range map[string]struct {
		in   [][]byte
		good bool
		junk []int // of in
	}{
		"nobody":           {nil, false, nil},
		"one of two":       {[][]byte{ada}, false, nil},
		"two":              {[][]byte{ada, bob}, true, nil},
		"with a stranger":  {[][]byte{signApp(t, signer("mallory"), a), bob, ada}, true, []int{0}},
		"one, twice":       {[][]byte{ada, ada, signApp(t, signer("app", "ada"), again)}, false, nil},
		"of a federation":  {[][]byte{ada, signApp(t, signer("app", "bob"), elsewhere)}, false, []int{1}},
		"of another app":   {[][]byte{ada, signApp(t, signer("app", "bob"), other)}, false, []int{1}},
		"by other signers": {[][]byte{ada, signApp(t, signer("app", "zoe"), a)}, false, []int{1}},
		"the other app":    {[][]byte{signApp(t, signer("app", "zoe"), other)}, false, nil}, // found, with terms of its own
	} {
		var s AppSignatures
		for i, raw := range c.in {
			if s.Add(p, raw) == slices.Contains(c.junk, i) {
				t.Errorf("%s: entry %d is taken for a signature, or is not", name, i)
			}
		}
		if err := p.AllowRun(terms, &s); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
		if app := p.App(bundle, &s); c.good && (app == nil || app.Name != a.App || app.Exposure != ExposureAggregate || len(p.SignersOf(bundle, &s)) != 2) {
			t.Errorf("%s: app %+v by %v", name, app, p.SignersOf(bundle, &s))
		}
		if p.App(Digest{78}, &s) != nil || p.App(Digest{1}, &s) != &p.Apps[0] {
			t.Errorf("%s: another bundle", name)
		}
	}
	if p.App(bundle, nil) != nil {
		t.Error("an app without signatures")
	}

	both := func() *AppSignatures {
		s := new(AppSignatures)
		s.Add(p, ada)
		s.Add(p, bob)
		return s
	}
	for name, change := range map[string]func(*RunTerms){
		"another config":      func(r *RunTerms) { r.Config = Digest{6} },
		"single updates":      func(r *RunTerms) { r.Exposure = ExposureIndividual },
		"another strategy":    func(r *RunTerms) { r.Strategy = "fedmedian" },
		"more rounds":         func(r *RunTerms) { r.Rounds = 51 },
		"its own aggregation": func(r *RunTerms) { r.Strategy, r.Exposure = StrategyCustom, ExposureIndividual },
	} {
		r := terms
		change(&r)
		if err := p.AllowRun(r, both()); err == nil {
			t.Errorf("%s: allowed", name)
		}
	}

	// One member denies a signer's key: what it signed counts no more.
	s := both()
	s.Denials = new(Denials)
	key := signer("app", "bob").Public().ID()
	if _, err := s.Denials.Add(p, deny(t, p, "lab-b", DenyKey, key[:])); err != nil {
		t.Fatal(err)
	}
	if p.App(bundle, s) != nil {
		t.Error("a denied key still counts")
	}
	s.Add(p, signApp(t, signer("app", "eve"), a))
	if p.App(bundle, s) == nil {
		t.Error("a third signer does not take its place")
	}

	// A version of the policy without a signer, asked about the same log.
	later := clone(p)
	later.SignedApps[0].Signers = slices.DeleteFunc(slices.Clone(p.SignedApps[0].Signers), func(k cose.Key) bool { return k == signer("app", "ada").Public() })
	later.Federation, later.Version = fed, 2
	if later.App(bundle, both()) != nil {
		t.Error("a signer that the policy dropped still counts")
	}

	for _, raw := range [][]byte{nil, []byte("text"), deny(t, p, "lab-b", DenyApp, bundle[:]), ada[:len(ada)-1]} {
		if s.Add(p, raw) {
			t.Errorf("%.20x is taken for a signature", raw)
		}
	}
	// What strangers write, and what one signer writes again, takes nobody's place.
	crowded := new(AppSignatures)
	for i := range 200 {
		x := a
		x.Version = fmt.Sprint(i)
		crowded.Add(p, signApp(t, signer("mallory"), x))
		crowded.Add(p, signApp(t, signer("app", "ada"), x))
	}
	if crowded.count != 1 || !crowded.Add(p, bob) || p.App(bundle, crowded) == nil {
		t.Errorf("%d signatures are kept, and a good one does not count", crowded.count)
	}
}

func TestSignedAppRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		field string
		edit  func(p *Policy, a *SignedApp)
	}{
		{"signed_apps[1]", func(p *Policy, _ *SignedApp) { slices.Reverse(p.SignedApps) }},
		{"signed_apps[0].app", func(_ *Policy, a *SignedApp) { a.App = "" }},
		{"signed_apps[0].signers", func(_ *Policy, a *SignedApp) { a.Signers = nil }},
		{"signed_apps[0].signers[1]", func(_ *Policy, a *SignedApp) { a.Signers[1] = a.Signers[0] }},
		{"signed_apps[0].signers[0]", func(p *Policy, a *SignedApp) { a.Signers[0] = p.Members[0].IssuerKey }},
		{"signed_apps[1].signers[0]", func(p *Policy, a *SignedApp) { p.SignedApps[1].Signers[0] = a.Signers[0] }},
		{"signed_apps[0].threshold", func(_ *Policy, a *SignedApp) { a.Threshold = 0 }},
		{"signed_apps[0].threshold", func(_ *Policy, a *SignedApp) { a.Threshold = 4 }},
		{"signed_apps[0].strategies", func(_ *Policy, a *SignedApp) { a.Strategies = nil }},
		{"signed_apps[0].strategies[0]", func(_ *Policy, a *SignedApp) { a.Strategies = []string{"fedmedian"} }},
		{"signed_apps[0].strategies[0]", func(_ *Policy, a *SignedApp) { a.Strategies = []string{StrategyCustom} }},
		{"signed_apps[0].max_rounds", func(_ *Policy, a *SignedApp) { a.MaxRounds = 0 }},
	} {
		p := withSigned()
		c.edit(p, &p.SignedApps[0])
		ps, _ := p.Check().(Problems)
		if !slices.ContainsFunc(ps, func(x Problem) bool { return x.Field == c.field }) {
			t.Errorf("%v, want a problem at %s", ps, c.field)
		}
	}
	p := withSigned()
	for name, a := range map[string]AppSignature{
		"no federation": {App: "a/b", Version: "1", Digest: Digest{1}},
		"no app":        {Federation: p.FederationID(), Version: "1", Digest: Digest{1}},
		"a line break":  {Federation: p.FederationID(), App: "a/b", Version: "1\n", Digest: Digest{1}},
		"no bundle":     {Federation: p.FederationID(), App: "a/b", Version: "1"},
	} {
		if _, err := SignApp(signer("app", "ada"), a); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

// TestAppSignatureTamper: whatever is changed in a signature, it counts no more.
func TestAppSignatureTamper(t *testing.T) {
	t.Parallel()
	p := withSigned()
	raw := signApp(t, signer("app", "ada"), AppSignature{Federation: p.FederationID(), App: "hospital-a/tumour", Version: "1.2.0", Digest: Digest{77}})
	if _, key, err := p.VerifyAppSignature(raw); err != nil || key != signer("app", "ada").Public().ID() {
		t.Fatal(key, err)
	}
	n := 0
	tamper.Each(raw, func(path string, mutated []byte) {
		n++
		if _, _, err := p.VerifyAppSignature(mutated); err == nil {
			t.Errorf("%s: accepted", path)
		}
	})
	if n < 40 {
		t.Errorf("only %d changes", n)
	}
}

// FuzzAppSignatures: whatever a log holds, it is taken for a signature or not, and counts
// for no app that nobody signed.
func FuzzAppSignatures(f *testing.F) {
	p := withSigned()
	a := AppSignature{Federation: p.FederationID(), App: "lab-b/other", Version: "1", Digest: Digest{1, 2}}
	f.Add(signApp(f, signer("mallory"), a))
	f.Add(signApp(f, signer("app", "ada"), a))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s AppSignatures
		s.Add(p, raw)
		if app := p.App(Digest{1, 2}, &s); app != nil {
			t.Errorf("app %+v", app)
		}
	})
}
