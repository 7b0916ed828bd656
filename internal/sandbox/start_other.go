//go:build !linux

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Init must be the first call in main of a program that calls [Start]. It has
// something to do on Linux only.
func Init() {}

// start starts an unconfined app; other systems confine none. Limits and devices
// have no effect here.
func start(ctx context.Context, cfg *Config) (*Process, error) {
	if cfg.Isolation != None || cfg.Cgroup != "" || cfg.Limits != (Limits{}) {
		return nil, &Refused{"confinement on " + runtime.GOOS, errors.ErrUnsupported}
	}
	p := &Process{grace: cfg.KillGrace, done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path: cfg.Command[0], Args: cfg.Command, Env: cfg.environment(), Dir: cfg.Dir, Stdout: cfg.Stdout, Stderr: cfg.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}, WaitDelay: time.Second,
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	go func() {
		err := p.cmd.Wait()
		p.mu.Lock()
		p.gone = true
		p.mu.Unlock()
		p.exit = exitOf(p.cmd.ProcessState, err)
		close(p.done)
	}()
	stop := context.AfterFunc(ctx, func() { p.Stop() })
	go func() { <-p.done; stop() }()
	return p, nil
}
