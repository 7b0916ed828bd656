package process

import (
	"testing"

	"github.com/concordat/concordat/internal/flower"
)

// TestVersions: which versions are served, and how.
func TestVersions(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]struct {
		runtime bool
		flag    string // of a ClientApp; empty: the version is not served
	}{
		"1.26.0": {false, "--clientappio-api-address"}, "1.29.1": {false, "--clientappio-api-address"}, "1.35.0": {true, "--clientappio-api-address"},
		"1.36.0": {true, "--runtime-api-address"}, "1.42.0": {true, "--runtime-api-address"}, "1.100.0rc1": {true, "--runtime-api-address"},
		"1.25.9": {}, "1.30.0": {}, "1.34.0": {}, "2.0.0": {}, "x": {}, "": {},
	} {
		v, err := flower.ParseVersion(version)
		var d Dialect
		if err == nil {
			d, err = dialectOf(v)
		}
		if (err == nil) != (want.flag != "") || err == nil && (d.Runtime != want.runtime || d.flag(ClientApp) != want.flag) {
			t.Errorf("%s: %+v, %v", version, d, err)
		}
	}
}
