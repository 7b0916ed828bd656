package main

import (
	"fmt"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestIdleProbe looks at a process that sleeps and at one whose child computes.
func TestIdleProbe(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		idle   bool
	}{
		"sleeps":   {"echo; read x", true},
		"computes": {"(echo; while :; do :; done) & wait", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command("sh", "-c", c.script)
			cmd.WaitDelay = time.Second
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			in, err := cmd.StdinPipe() // stays open
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pids := []int{cmd.Process.Pid}
			defer func() {
				all := append(pids, childrenOf(cmd.Process.Pid, fmt.Sprint(cmd.Process.Pid))...)
				for _, pid := range all {
					syscall.Kill(pid, syscall.SIGKILL)
				}
				cmd.Wait()
			}()
			if _, err := out.Read(make([]byte, 1)); err != nil { // it has begun
				t.Fatal(err)
			}
			began := time.Now()
			p, err := startIdleProbe(t.Context(), pids)
			if err != nil {
				t.Skipf("NOT TESTED: %v", err)
			}
			for anyBusy(pids) == c.idle { // until it is at what it does
				if time.Since(began) > time.Minute {
					t.Fatal("never seen")
				}
			}
			from := time.Now()
			want := 0
			for range 1000 { // a few moments are enough, however slow the machine
				if anyBusy(pids) != c.idle {
					want++
				}
			}
			p.end()
			if want < 900 {
				t.Errorf("%d of 1000 moments as they were, want nearly all", want)
			}
			if share, n := p.between(from, time.Now()); n > 0 && (share > 0.5) != c.idle {
				t.Errorf("idle for %.2f of %d moments", share, n)
			}
			if _, n := p.between(began.Add(-time.Hour), began); n != 0 {
				t.Errorf("%d moments before the probe began", n)
			}
		})
	}
}
