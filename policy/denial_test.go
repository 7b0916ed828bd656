package policy

import (
	"bytes"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

func deny(t testing.TB, p *Policy, m MemberID, kind DenialKind, value []byte) []byte {
	t.Helper()
	raw, err := SignDenial(policyKey(m), m, Denial{Federation: p.FederationID(), Kind: kind, Value: value, Since: 1700000000})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestDenials(t *testing.T) {
	t.Parallel()
	p := example()
	chip := fill(64, 3)
	var s Denials
	if !s.Digest().IsZero() || s.Contains(DenyChip, chip) {
		t.Error("the zero set is not empty")
	}
	one, two := deny(t, p, "lab-b", DenyChip, chip), deny(t, p, "bank-c", DenyChip, chip)
	golden(t, "denial", one)
	for _, raw := range [][]byte{one, two, one} {
		d, err := s.Add(p, raw)
		if err != nil {
			t.Fatal(err)
		}
		if d.Kind != DenyChip || !bytes.Equal(d.Value, chip) || d.Since != 1700000000 {
			t.Errorf("got %+v", d)
		}
	}
	if !s.Contains(DenyChip, chip) || s.Contains(DenyGPU, chip) || s.Contains(DenyChip, chip[:8]) {
		t.Error("contains the wrong values")
	}
	var other Denials // the other order, the same set
	for _, raw := range [][]byte{two, one} {
		if _, err := other.Add(p, raw); err != nil {
			t.Fatal(err)
		}
	}
	if s.Digest() != other.Digest() || s.Digest().IsZero() || len(s.Statements()) != 2 {
		t.Errorf("digests %s and %s", s.Digest(), other.Digest())
	}
	golden(t, "denials-digest", func() []byte { d := s.Digest(); return d[:] }())

	lift := func(id Digest, members ...MemberID) (out [][]byte) {
		for _, m := range members {
			raw, err := SignLift(policyKey(m), m, p.FederationID(), id)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, raw)
		}
		return out
	}
	id1, id2 := cose.Sum(one), cose.Sum(two)
	if err := s.Lift(p, id1, lift(id1, "lab-b")); err == nil {
		t.Error("one member lifted a denial, its own")
	}
	if err := s.Lift(p, id1, lift(id2, "lab-b", "bank-c")); err == nil {
		t.Error("lifted by votes on another denial")
	}
	if err := s.Lift(p, Digest{1}, nil); err == nil {
		t.Error("lifted what was never denied")
	}
	if err := s.Lift(p, id1, lift(id1, "lab-b", "hospital-a")); err != nil {
		t.Fatal(err)
	}
	if !s.Contains(DenyChip, chip) || s.Digest() == other.Digest() {
		t.Error("lifting one denial lifted another member's")
	}
	for range 2 {
		if err := s.Lift(p, id2, lift(id2, "lab-b", "hospital-a")); err != nil {
			t.Fatal(err)
		}
	}
	if s.Contains(DenyChip, chip) {
		t.Error("still denied")
	}
	if _, err := s.Add(p, one); err != nil || s.Contains(DenyChip, chip) {
		t.Errorf("a lifted denial, shown again: %v", err)
	}
}

func TestDenialRefusals(t *testing.T) {
	t.Parallel()
	p := example()
	fed := p.FederationID()
	raw := deny(t, p, "lab-b", DenyKey, make([]byte, 32))
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if _, m, err := p.VerifyDenial(bad); err == nil || m != "" {
			t.Fatalf("byte %d is not covered", i)
		}
	}
	for name, d := range map[string]Denial{
		"kind":          {fed, "member", fill(32, 1), 0},
		"size":          {fed, DenyMeasurement, fill(32, 1), 0},
		"empty":         {fed, DenyGPU, nil, 0},
		"no federation": {Digest{}, DenyApp, fill(32, 1), 0},
		"far time":      {fed, DenyApp, fill(32, 1), maxUnix + 1},
	} {
		if _, err := SignDenial(policyKey("lab-b"), "lab-b", d); err == nil {
			t.Errorf("%s: signed", name)
		}
		forged, err := cose.Sign(policyKey("lab-b"), memberHeader(TypeDenial, "lab-b", fed), cose.Marshal(&d), fed[:])
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.VerifyDenial(forged); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, s := range map[string]*cose.Signer{"issuer key": issuerKey("lab-b"), "rival": policyKey("bank-c"), "stranger": signer("mallory")} {
		raw, err := SignDenial(s, "lab-b", Denial{fed, DenyApp, fill(32, 1), 0})
		if err != nil {
			t.Fatal(err)
		}
		var set Denials
		if _, err := set.Add(p, raw); err == nil || !set.Digest().IsZero() {
			t.Errorf("%s denies for lab-b", name)
		}
	}
	other := clone(p)
	other.Name = "another federation"
	if _, _, err := other.VerifyDenial(raw); err == nil {
		t.Error("accepted in another federation")
	}
}

func FuzzVerifyDenial(f *testing.F) {
	p := example()
	raw := deny(f, p, "lab-b", DenyKey, make([]byte, 32))
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := p.VerifyDenial(b); err == nil && !bytes.Equal(b, raw) {
			t.Error("forged")
		}
	})
}
