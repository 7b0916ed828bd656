package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain is the program itself where a test starts it under its name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "concordat-enclave-apps" {
		main()
	}
	os.Exit(m.Run())
}

// TestUsage: the program starts, and says what it wants.
func TestUsage(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "concordat-enclave-apps")
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(string(out), "concordat-enclave-apps: no --policy") {
		t.Errorf("%v: %s", err, out)
	}
}
