package sandbox

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is a started app. It is safe for concurrent use.
type Process struct {
	cmd   *exec.Cmd
	grace time.Duration
	done  chan struct{} // closed when exit is set
	exit  Exit

	loopback net.Listener // nil unless Config.Loopback

	mu   sync.Mutex // held while a signal is sent; guards gone
	gone bool       // the app has ended: its number may be another process's soon
}

// Exit says how an app ended.
type Exit struct {
	Code   int            // exit status; -1 if a signal ended it
	Signal syscall.Signal // that ended it, or 0
	Err    error          // the app ended, but what it wrote was not all copied
}

// OK reports whether the app ended by itself with status 0.
func (e Exit) OK() bool { return e.Code == 0 && e.Signal == 0 }

// String says it in words.
func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("ended by signal %d (%v)", int(e.Signal), e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Loopback returns the listener at [LoopbackAddress] of the app's own network, if
// Config.Loopback was set. The caller closes it.
func (p *Process) Loopback() net.Listener { return p.loopback }

// PID returns the app's process id outside its namespace.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the app and all that it started have ended and its output
// is written.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for Done and says how the app ended. Any number of callers may.
func (p *Process) Wait() Exit {
	<-p.done
	return p.exit
}

// Stop asks the app to end with SIGTERM, kills it and its process group after the
// grace, and waits. An app that has ended is left alone.
func (p *Process) Stop() Exit {
	if p.grace > 0 {
		p.signal(syscall.SIGTERM)
		t := time.NewTimer(p.grace)
		defer t.Stop()
		select {
		case <-p.done:
			return p.exit
		case <-t.C:
		}
	}
	p.signal(syscall.SIGKILL)
	return p.Wait()
}

// signal signals the app's process group, unless it is gone.
func (p *Process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		// The only error is that the group is not there, and then all is well.
		_ = syscall.Kill(-p.cmd.Process.Pid, s)
	}
}

// exitOf translates what exec tells about a process that was waited for.
func exitOf(state *os.ProcessState, err error) Exit {
	e := Exit{Code: state.ExitCode()}
	if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		e.Signal = w.Signal()
	}
	if _, ended := err.(*exec.ExitError); !ended {
		e.Err = err
	}
	return e
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
