package sim

import "testing"

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
