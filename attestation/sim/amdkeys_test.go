package sim

import (
	"strings"
	"testing"
)

// TestRSAKey holds AMD's keys to the seed: the same in every process, and
// another for every label.
func TestRSAKey(t *testing.T) {
	t.Parallel()
	v := new(Vendor)
	copy(v.seed[:], "a seed of thirty-two bytes......")
	a := v.amdKey(keyASK)
	if a.N.BitLen() != amdKeyBits || a.E != rsaExponent {
		t.Errorf("%d bits, exponent %d", a.N.BitLen(), a.E)
	}
	got, err := spki(a.Public())
	if err != nil {
		t.Fatal(err)
	}
	if want := "031f88e91dad372fc1534f6bec462b2aee112bac8281ea74a0cd4facd591b72c"; got.String() != want {
		t.Errorf("key %s, want %s", got, want)
	}
	b := v.amdKey(keyASVK)
	if a.Equal(b) || !a.Equal(v.amdKey(keyASK)) {
		t.Error("keys do not follow their labels")
	}
}

// TestVendorFile writes the vendors and reads them back, with the keys that were
// derived and without.
func TestVendorFile(t *testing.T) {
	t.Parallel()
	v := new(Vendor)
	copy(v.seed[:], "a seed of thirty-two bytes......")
	fresh, err := v.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	want := v.amdKey(keyASK)
	used, err := v.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"fresh": fresh, "used": used} {
		again := new(Vendor)
		if err := again.UnmarshalJSON(b); err != nil {
			t.Fatal(err)
		}
		if derived := len(again.rsa) == 1; derived != (name == "used") || !want.Equal(again.amdKey(keyASK)) {
			t.Errorf("%s: other keys, or %d of them", name, len(again.rsa))
		}
	}
	for _, bad := range []string{`{}`, `{"seed":"00"}`, `{"seed":"` + strings.Repeat("00", 32) + `","amd":{"ask":"00"}}`, `x`} {
		if err := new(Vendor).UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s accepted", bad)
		}
	}
}
