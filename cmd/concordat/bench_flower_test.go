package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Without Flower the lines are there, and say that nothing was measured.
func TestBenchWithoutFlower(t *testing.T) {
	old := filepath.Join(t.TempDir(), "old")
	if err := os.MkdirAll(filepath.Join(old, "lib", "python3.11", "site-packages", "flwr-1.31.0.dist-info"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	for name, c := range map[string]struct{ environment, why string }{
		"not in PATH":     {"", "there is no flower-superlink in PATH"},
		"none":            {t.TempDir(), "holds flwr 0 times"},
		"another version": {old, "has flwr 1.31.0"},
	} {
		t.Run(name, func(t *testing.T) {
			b := flowerBench{environment: c.environment}
			all, err := b.measure(t.Context(), t.TempDir(), "")
			if err != nil || len(all) != len(flowerLines) {
				t.Fatalf("%+v, %v", all, err)
			}
			for _, m := range all {
				b, err := json.Marshal(m)
				if err != nil || m.Met != nil || !strings.Contains(string(b), `"met":null`) || !strings.Contains(m.Why, c.why) {
					t.Errorf("%s, %v", b, err)
				}
			}
		})
	}
}

// What "flwr list" prints before its JSON is no part of it, and runs that failed do not count.
func TestCompletedRuns(t *testing.T) {
	t.Parallel()
	for out, want := range map[string]int{
		"Using SuperLink: x\n" + `{"runs": [{"status": "finished:completed"}, {"status": "finished:failed"}, {"status": "running"}]}`: 1,
		`{"runs": []}`: 0,
	} {
		if n, err := completedRuns([]byte(out)); err != nil || n != want {
			t.Errorf("%s: %d, %v", out, n, err)
		}
	}
	for _, out := range []string{"", "no runs", "{"} {
		if n, err := completedRuns([]byte(out)); err == nil {
			t.Errorf("%q: %d", out, n)
		}
	}
}

// The memory of a process that has ended by the end of the watch counts as well, and an
// interpreter goes by the name of what it runs.
func TestWatchMemory(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "flower-something")
	if err := os.WriteFile(script, []byte("sleep 1\ncat\nexit 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: "/bin/sh", Args: []string{"/opt/bin/python3", script}}
	in, err := cmd.StdinPipe() // cat ends with it
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	m, err := watchMemory(t.Context(), cmd.Process.Pid)
	if err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	time.Sleep(1500 * time.Millisecond)
	all := m.end()
	if len(all) != 3 || all["flower-something"] == 0 || all["sleep"] == 0 || all["cat"] == 0 {
		t.Errorf("%v", all)
	}
	for name, peak := range all {
		if peak < 100<<10 || peak > 1<<30 {
			t.Errorf("%s had %d bytes", name, peak)
		}
	}
}
