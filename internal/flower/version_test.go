package flower

import (
	"os"
	"path/filepath"
	"testing"
)

// TestVersionOf: an environment holds one version, and which it is.
func TestVersionOf(t *testing.T) {
	t.Parallel()
	env := t.TempDir()
	install := func(python, version string) {
		if err := os.MkdirAll(filepath.Join(env, "lib", python, "site-packages", "flwr-"+version+".dist-info"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := VersionOf(env); err == nil {
		t.Errorf("of none %s", v)
	}
	install("python3.11", "1.29.0")
	if v, err := VersionOf(env); err != nil || v != (Version{1, 29, "1.29.0"}) || v.String() != "1.29.0" || !v.Between(26, 29) || v.Between(26, 28) || v.Between(30, 99) {
		t.Errorf("%+v, %v", v, err)
	}
	install("python3.12", "1.28.0")
	if v, err := VersionOf(env); err == nil {
		t.Errorf("of two %s", v)
	}
	for _, s := range []string{"", "x", "1", "1.x"} {
		if v, err := ParseVersion(s); err == nil {
			t.Errorf("%q is %+v", s, v)
		}
	}
	if v, err := ParseVersion("2.30.0"); err != nil || v.Between(0, 99) {
		t.Errorf("%+v, %v", v, err)
	}
}
