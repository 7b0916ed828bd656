package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Without numpy the lines are there, and say that nothing was measured.
func TestBenchWithoutNumpy(t *testing.T) {
	for name, script := range map[string]string{
		"no python3": "",
		"no numpy":   "#!/bin/sh\nexit 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", pythonOf(t, script))
			all, err := benchSorted(t.Context(), t.TempDir())
			if err != nil || len(all) != len(numpyRatios) {
				t.Fatalf("%v, %v", all, err)
			}
			for _, m := range all {
				b, err := json.Marshal(m)
				if err != nil || m.Met != nil || !strings.Contains(string(b), `"met":null`) || m.Why != "no python3 with numpy" {
					t.Errorf("%s, %v", b, err)
				}
			}
		})
	}
}

// A process that stops answering is an error, not a figure.
func TestBenchNumpyFails(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"at once":      {"exit 0", "EOF"},
		"in the first": {"echo numpy 0; read line; exit 3", "exit status 3"},
		"by word":      {"echo numpy 0; while read line; do echo no; done", `"no\n"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := pythonOf(t, "#!/bin/sh\ntest \"$2\" = 'import numpy' && exit 0\n"+c.script+"\n")
			t.Setenv("PATH", path)
			if all, err := benchSorted(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v; want an error with %q", all, err, c.want)
			}
		})
	}
}

// pythonOf returns a directory with a python3 that is a script, or with none.
func pythonOf(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if script == "" {
		return dir
	}
	if err := os.WriteFile(filepath.Join(dir, "python3"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}
