package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// namespaces are those that a confined app has of its own.
const namespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// appID is the user and group id that a confined app sees as its own.
const appID = 1000

// drainTime is how long output may still come after an unconfined app ended,
// from a process that left its group and kept the pipe.
const drainTime = time.Second

// initCalled is whether [Init] ran, without which a second copy of the daemon
// would start in the place of an app.
var initCalled atomic.Bool

// start runs the app in a goroutine that owns its thread: the kernel delivers the
// parent-death signal when the starting *thread* ends (prctl(2)).
func start(ctx context.Context, cfg *Config) (*Process, error) {
	if !initCalled.Load() {
		return nil, errors.New("sandbox: Init was not called at the start of main")
	}
	p := &Process{grace: cfg.KillGrace, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		own(p, cfg, started)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { p.Stop() })
	go func() { <-p.done; stop() }()
	return p, nil
}

// own starts the app, reports on started, and waits for its end.
func own(p *Process, cfg *Config, started chan<- error) {
	group, err := enterCgroup(cfg)
	if err != nil {
		started <- err
		return
	}
	err = run(p, cfg, group, started)
	group.remove()
	if err != nil {
		started <- err
		return
	}
	close(p.done)
}

// run starts the app, sends nil to started and returns after its end; or it
// returns why it did not start.
func run(p *Process, cfg *Config, group *cgroup, started chan<- error) error {
	orders, ordersW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	defer ordersW.Close()
	status, statusW, err := os.Pipe()
	if err != nil {
		orders.Close()
		return fmt.Errorf("sandbox: %w", err)
	}
	defer status.Close()
	files := []*os.File{orders, statusW}
	var sent *os.File // the end at which the listener arrives
	if cfg.Loopback {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			orders.Close()
			statusW.Close()
			return fmt.Errorf("sandbox: %w", err)
		}
		sent = os.NewFile(uintptr(pair[0]), "listener")
		defer sent.Close()
		files = append(files, os.NewFile(uintptr(pair[1]), "listener"))
	}

	p.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initName}, Env: []string{}, Dir: cfg.Dir,
		Stdout: cfg.Stdout, Stderr: cfg.Stderr, ExtraFiles: files,
		SysProcAttr: attributes(cfg, group), WaitDelay: drainTime,
	}
	err = p.cmd.Start()
	for _, f := range files {
		f.Close()
	}
	if err != nil {
		if cfg.Isolation == Sandbox {
			return &Refused{"namespaces (user, mount, pid, network, ipc, uts)", err}
		}
		return fmt.Errorf("sandbox: %w", err)
	}
	if err := brief(cfg, ordersW, status); err != nil {
		p.reap()
		return err
	}
	if sent != nil {
		if p.loopback, err = receiveListener(sent); err != nil {
			p.signal(syscall.SIGKILL)
			p.reap()
			return fmt.Errorf("sandbox: loopback: %w", err)
		}
	}
	started <- nil
	p.exit = p.reap()
	return nil
}

// receiveListener takes what openLoopback sent: it is there by now.
func receiveListener(from *os.File) (net.Listener, error) {
	b, control := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(from.Fd()), b, control, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%d descriptors: %w", len(fds), err)
	}
	f := os.NewFile(uintptr(fds[0]), "loopback")
	defer f.Close()
	return net.FileListener(f)
}

// attributes returns how to fork.
func attributes(cfg *Config, group *cgroup) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if group != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(group.dir.Fd())
	}
	if cfg.Isolation == Sandbox {
		a.Cloneflags = namespaces
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: appID, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: appID, HostID: os.Getegid(), Size: 1}}
		// What Init needs to build the root, limited to the new namespaces.
		a.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP, unix.CAP_SYS_RESOURCE}
		if cfg.Loopback {
			a.AmbientCaps = append(a.AmbientCaps, unix.CAP_NET_ADMIN)
		}
	}
	return a
}

// brief sends Init its orders and waits until it has executed the app, which
// closes its end of status.
func brief(cfg *Config, orders io.WriteCloser, status io.Reader) error {
	err := json.NewEncoder(orders).Encode(order{
		Command: cfg.Command, Dir: cfg.Dir, Socket: cfg.Socket, Env: cfg.environment(), ReadOnly: cfg.ReadOnly,
		Devices: cfg.Devices, Isolation: cfg.Isolation, Limits: cfg.Limits, Cgroup: cfg.Cgroup != "", Loopback: cfg.Loopback,
	})
	orders.Close()
	b, rerr := io.ReadAll(io.LimitReader(status, 64<<10))
	switch {
	case len(b) == 0 && err == nil && rerr == nil:
		return nil
	case len(b) == 0:
		return fmt.Errorf("sandbox: start: %w", errors.Join(err, rerr))
	}
	var f failure
	if err := json.Unmarshal(b, &f); err != nil {
		return fmt.Errorf("sandbox: start: answer of %d bytes: %w", len(b), err)
	}
	if f.Confinement != "" {
		return &Refused{f.Confinement, &f}
	}
	return fmt.Errorf("sandbox: start %s: %w", cfg.Command[0], &f)
}

// reap waits for the end of the app. It first learns of the end without taking
// the process id out of use, so that no signal can hit a stranger, and kills what
// is left of the group.
func (p *Process) reap() Exit {
	for {
		err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.signal(syscall.SIGKILL)
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	err := p.cmd.Wait()
	return exitOf(p.cmd.ProcessState, err)
}
