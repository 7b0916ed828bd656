package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// flowerOf returns an environment with that version of flwr, and with a Python that is a
// script.
func flowerOf(t *testing.T, version, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "lib", "python3.11", "site-packages", "flwr-"+version+".dist-info"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bin", "python"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Without Flower, or with another version, the lines are there, and say that nothing was
// measured.
func TestBenchRepliesWithoutFlower(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for name, c := range map[string]struct{ environment, why string }{
		"not in PATH": {"", "there is no flower-superlink in PATH"},
		"none":        {t.TempDir(), "holds flwr 0 times"},
		"older":       {flowerOf(t, "1.26.1", ""), "about flwr 1.29.x"},
		"newer":       {flowerOf(t, "1.42.0", ""), "about flwr 1.29.x"},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := benchReplies(t.Context(), nil, repliesBench{environment: c.environment, size: 4, rounds: 1})
			if err != nil || len(all) != len(replyLines) {
				t.Fatalf("%+v, %v", all, err)
			}
			for _, m := range all {
				b, err := json.Marshal(m)
				if err != nil || m.Met != nil || m.Value != 0 || !strings.Contains(string(b), `"met":null`) || !strings.Contains(m.Why, c.why) {
					t.Errorf("%s, %v", b, err)
				}
			}
		})
	}
}

// Both sides of a line are compared, and a Python process that does not answer is an error.
func TestReplyRuns(t *testing.T) {
	for name, c := range map[string]struct{ script, want string }{
		"answers":      {"echo flwr 0; while read line; do echo done 0.5; done", ""},
		"at once":      {"exit 0", "EOF"},
		"in the first": {"echo flwr 0; read line; exit 3", "exit status 3"},
		"by word":      {"echo flwr 0; while read line; do echo no; done", "no answer"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := flowerOf(t, "1.29.0", c.script)
			r := &replyRuns{repliesBench: repliesBench{size: 1 << 16, rounds: 1}, passage: &passage{ctx: t.Context()}, program: filepath.Join(dir, "bin", "python"), version: "1.29.0", dir: dir}
			m, err := r.compareMean()
			if c.want == "" {
				if err != nil || m.Name != "flower-aggregate" || m.Met == nil || !(m.Value > 0) || !strings.Contains(m.Unit, "flwr 1.29.0, 10 replies") {
					t.Errorf("%+v, %v", m, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%+v, %v; want an error with %q", m, err, c.want)
			}
		})
	}
}

// The value of an expression is a number, or there is none.
func TestTimed(t *testing.T) {
	dir := flowerOf(t, "1.29.0", "echo flwr 0; read a; echo done 1.25; read b; echo done x")
	r := &replyRuns{repliesBench: repliesBench{size: 4}, passage: &passage{ctx: t.Context()}, program: filepath.Join(dir, "bin", "python"), dir: dir}
	if err := r.withPython(func(n *python) error {
		if _, err := spentBy(n.cmd.Process.Pid); err != nil {
			t.Skip("NOT TESTED: ", err)
		}
		if v, took, err := timed(n, "a()"); v != 1.25 || took < 0 || err != nil {
			t.Errorf("%g, %g, %v", v, took, err)
		}
		if v, _, err := timed(n, "b()"); err == nil {
			t.Errorf("%g", v)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// The certificate that Flower's server shows is one for this machine alone.
func TestCertify(t *testing.T) {
	t.Parallel()
	r := &replyRuns{dir: filepath.Join(t.TempDir(), "replies")}
	if err := r.certify(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"cert.pem": "CERTIFICATE", "key.pem": "PRIVATE KEY"} {
		file := filepath.Join(r.dir, name)
		b, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(b), "-----BEGIN "+want+"-----\n") {
			t.Errorf("%s: %.40q, %v", name, b, err)
		}
		if i, err := os.Stat(file); err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, i.Mode(), err)
		}
	}
}
