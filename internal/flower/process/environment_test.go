package process

import (
	"os"
	"path/filepath"
	"testing"
)

// flowerEnvironment is a folder that looks like a Python environment with flwr.
func flowerEnvironment(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"flwr-clientapp", "flwr-serverapp", "python3"} {
		if err := os.WriteFile(filepath.Join(dir, "bin", name), []byte("#!/bin/false\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "lib", "python3.11", "site-packages", "flwr-1.29.0.dist-info"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

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
		d, err := DialectOf(version)
		if (err == nil) != (want.flag != "") || err == nil && (d.Runtime != want.runtime || d.flag(ClientApp) != want.flag) {
			t.Errorf("%s: %+v, %v", version, d, err)
		}
	}
	env := flowerEnvironment(t)
	if v, err := versionOf(env); err != nil || v != "1.29.0" {
		t.Errorf("%q, %v", v, err)
	}
	if err := os.MkdirAll(filepath.Join(env, "lib", "python3.12", "site-packages", "flwr-1.28.0.dist-info"), 0o700); err != nil {
		t.Fatal(err)
	}
	if v, err := versionOf(env); err == nil {
		t.Errorf("of two versions %s", v)
	}
}
