package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/enclave"
)

// TestMain lets the test binary be a process that the plug is pulled on.
func TestMain(m *testing.M) {
	if os.Getenv("CONCORDAT_TEST_PLUG") != "" {
		var p plug
		if err := p.Set("acked:4"); err != nil {
			fmt.Println(err)
		}
		for _, e := range []enclave.Event{{Kind: "acked", Seq: 3}, {Kind: "step", Seq: 4}, {Kind: "acked", Seq: 4}, {Kind: "released", Seq: 4}} {
			p.observe(e)
			fmt.Print(e.Kind, e.Seq, " ")
		}
		return
	}
	os.Exit(m.Run())
}

func TestPlug(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CONCORDAT_TEST_PLUG=1")
	out, err := cmd.Output()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL || string(out) != "acked3 step4 " {
		t.Errorf("ended with %v after %q", err, out)
	}
	for _, s := range []string{"", "acked", "acked:", "acked:-1", "acked:x", "nothing:1", ":1"} {
		if new(plug).Set(s) == nil {
			t.Errorf("%q accepted", s)
		}
	}
	p := plug{}
	p.observe(enclave.Event{Kind: "acked"}) // no plug is pulled that nobody named
	if p.String() != "" {
		t.Errorf("zero plug is %q", p.String())
	}
	if err := p.Set("evidence:2"); err != nil || p.String() != "evidence:2" {
		t.Errorf("%q, %v", p.String(), err)
	}
}

func TestMachineFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, bad, other := filepath.Join(dir, "good"), filepath.Join(dir, "bad"), filepath.Join(dir, "other")
	for _, args := range [][]string{
		{"--out", good, "--platform", "snp", "--gpus", "1"},
		{"--from", good, "--out", bad, "--fault", "debug", "--fault", "vmpl=2"},
		{"--from", good, "--out", other, "--platform", "tdx", "--gpus", "0"},
	} {
		if err := makeMachine(args); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	read := func(path string) (d description) {
		var b bytes.Buffer
		if err := describe([]string{"--machine", path}, &b); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	g, b, o := read(good), read(bad), read(other)
	if g.Platforms.SNP == nil || g.Platforms.GPU == nil || len(g.Roots) != 2 || len(g.Faults) != 0 {
		t.Errorf("good: %+v", g)
	}
	// What a policy must hold does not tell a broken machine from a good one.
	if fmt.Sprint(b.Roots) != fmt.Sprint(g.Roots) || b.Platforms.SNP.Chips[0].String() != g.Platforms.SNP.Chips[0].String() {
		t.Errorf("bad: %+v, good: %+v", b, g)
	}
	if fmt.Sprint(b.Faults) != "[debug vmpl]" {
		t.Errorf("faults %v", b.Faults)
	}
	if o.Platforms.TDX == nil || o.Platforms.SNP != nil || o.Platforms.GPU != nil || len(o.Roots) != 1 {
		t.Errorf("other: %+v", o)
	}
	c, err := sim.ReadConfig(bad)
	if err != nil || c.GPUs != 1 || c.Faults["vmpl"] != "2" {
		t.Errorf("%+v, %v", c, err)
	}
	for name, args := range map[string][]string{
		"no file":       {},
		"unknown fault": {"--from", good, "--out", filepath.Join(dir, "x"), "--fault", "gremlins"},
		"platform":      {"--from", good, "--out", filepath.Join(dir, "x"), "--platform", "sgx"},
		"argument":      {"--out", "x", "more"},
	} {
		var misuse usageError
		if err := makeMachine(args); !errors.As(err, &misuse) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil {
		t.Error("a refused machine was written")
	}
}
