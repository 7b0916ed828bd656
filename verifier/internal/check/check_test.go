package check

import (
	"crypto/x509"
	"math/big"
	"testing"

	"github.com/concordat/concordat/attestation"
)

func TestSummary(t *testing.T) {
	line := func(vs ...Verdict) (out []Check) {
		for _, v := range vs {
			out = append(out, Check{Verdict: v})
		}
		return out
	}
	for _, c := range []struct {
		checks []Check
		want   Verdict
	}{
		{nil, Fail},
		{line(NotChecked), Fail},
		{line(Pass), Pass},
		{line(Pass, NotChecked), Pass},
		{line(Pass, Incomplete), Incomplete},
		{line(Incomplete), Incomplete},
		{line(Pass, Incomplete, Unsupported), Unsupported},
		{line(Pass, Incomplete, Unsupported, Fail), Fail},
		{line(Pass, Verdict(99)), Fail},
		{[]Check{{}}, Fail},
	} {
		if got := Summary(c.checks); got != c.want {
			t.Errorf("%v: %s, want %s", c.checks, got, c.want)
		}
	}
}

func TestVerdictText(t *testing.T) {
	for v := Fail; v <= NotChecked; v++ {
		b, err := v.MarshalText()
		var back Verdict
		if err != nil || back.UnmarshalText(b) != nil || back != v {
			t.Errorf("%s does not round-trip", b)
		}
	}
	if Verdict(99).String() != "fail" || new(Verdict).UnmarshalText([]byte("ok")) == nil {
		t.Error("unknown verdict")
	}
}

func TestRecorder(t *testing.T) {
	var zero Recorder
	if Summary(zero.Checks()) != Fail || zero.IsAuthentic() {
		t.Error("the zero recorder passes")
	}
	r := NewRecorder("x")
	if !r.That(true, "a", "1", "2", "no") || r.That(false, "b", "1", "2", "no") {
		t.Error("That does not return its argument")
	}
	r.Missing("c", "1", "get it")
	r.Unsupported("d", "2", "no")
	r.NotChecked("e", "why")
	want := []Check{
		{Name: "x.a", Verdict: Pass, Got: "2"}, {Name: "x.b", Verdict: Fail, Expected: "1", Got: "2", Advice: "no"},
		{Name: "x.c", Verdict: Incomplete, Expected: "1", Got: "missing", Advice: "get it"},
		{Name: "x.d", Verdict: Unsupported, Got: "2", Advice: "no"}, {Name: "x.e", Verdict: NotChecked, Advice: "why"},
	}
	for i, c := range r.Checks() {
		if c != want[i] {
			t.Errorf("got %+v, want %+v", c, want[i])
		}
	}
	if len(r.Problems()) != 3 {
		t.Errorf("problems %v", r.Problems())
	}
}

func TestAccepts(t *testing.T) {
	c := &x509.Certificate{RawSubjectPublicKeyInfo: []byte("key"), SerialNumber: big.NewInt(1)}
	own, other := []attestation.Digest{SPKI(c)}, []attestation.Digest{{1}}
	for name, k := range map[string]struct {
		want   Expect
		vendor []attestation.Digest
		ok     bool
	}{
		"vendor's root":              {Expect{}, own, true},
		"stranger":                   {Expect{}, other, false},
		"simulation knows no vendor": {Expect{Simulated: true}, own, false},
		"simulated root":             {Expect{Simulated: true, Roots: own}, nil, true},
		"list replaces the vendor's": {Expect{Roots: other}, own, false},
		"simulated, another's root":  {Expect{Simulated: true, Roots: other}, own, false},
	} {
		if got := k.want.Accepts(c, k.vendor); got != k.ok {
			t.Errorf("%s: %v", name, got)
		}
	}
	if CheckMark(c, false) != nil || CheckMark(c, true) == nil {
		t.Error("an unmarked certificate is taken for simulated")
	}
	c.SerialNumber.SetBytes([]byte(attestation.SimulatedSerial + "12345678"))
	if CheckMark(c, false) == nil || CheckMark(c, true) != nil {
		t.Error("a marked certificate is taken for real")
	}
}
