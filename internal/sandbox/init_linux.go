package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// initName is the argument 0 under which a daemon's binary is the first process
// of a sandbox.
const initName = "concordat-sandbox-init"

// The descriptors that Init gets.
const (
	ordersFD = 3 // to read: one JSON order
	statusFD = 4 // to write: one JSON failure, or nothing
	listenFD = 5 // to send: the loopback's listener, if the order wants one
)

// order is what Init is to do.
type order struct {
	Command   []string
	Dir       string
	Socket    string
	Env       []string
	ReadOnly  []string
	Devices   []string
	Isolation Isolation
	Limits    Limits
	Cgroup    bool // limits of the whole app are the cgroup's
	Loopback  bool
}

// failure is what Init answers if it cannot execute the app.
type failure struct {
	Confinement string        // what was refused; empty if it was something else
	Text        string        // the error's text
	Errno       syscall.Errno // what the kernel said, 0 if it was not the kernel
}

func (f *failure) Error() string { return f.Text }

func (f *failure) Unwrap() error {
	if f.Errno == 0 {
		return nil
	}
	return f.Errno
}

// Init must be the first call in main of a program that calls [Start], and in
// TestMain. In the daemon it returns at once. In the process that Start forked it
// confines that process, executes the app and never returns.
func Init() {
	if len(os.Args) != 1 || os.Args[0] != initName {
		initCalled.Store(true)
		return
	}
	// Capabilities and the like are a thread's; exec keeps those of its caller.
	runtime.LockOSThread()
	err := become()
	f := failure{Text: err.Error()}
	_ = errors.As(err, &f.Errno)
	var r *Refused
	if errors.As(err, &r) {
		f.Confinement, f.Text = r.Confinement, r.Err.Error()
	}
	_ = json.NewEncoder(os.NewFile(statusFD, "status")).Encode(f)
	os.Exit(127)
}

// become turns this process into the app. It returns only on failure.
func become() error {
	// Whatever the daemon's own parent left open is not for the app.
	if err := unix.CloseRange(ordersFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	var o order
	if err := json.NewDecoder(os.NewFile(ordersFD, "orders")).Decode(&o); err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	if o.Isolation == Sandbox {
		if err := confine(&o); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return &Refused{"no_new_privs", err}
	}
	if err := os.Chdir(o.Dir); err != nil {
		return err
	}
	if err := limit(&o); err != nil {
		return err
	}
	if o.Isolation == Sandbox {
		if err := filterCalls(); err != nil {
			return &Refused{"system-call filter", err}
		}
	}
	return fmt.Errorf("execute: %w", syscall.Exec(o.Command[0], o.Command, o.Env))
}

// confine takes this process, the first of new namespaces, away from everything
// that is not in o.
func confine(o *order) error {
	for _, step := range []struct {
		name string
		do   func(*order) error
	}{
		{"loopback", openLoopback},
		{"root file system of its own", buildRoot},
		{"ban of user namespaces", banUserNamespaces},
		{"host name of its own", func(*order) error { return unix.Sethostname([]byte("sandbox")) }},
		{"landlock", restrictPaths},
		{"dropping of capabilities", dropCapabilities},
	} {
		if err := step.do(o); err != nil {
			return &Refused{step.name, err}
		}
	}
	return nil
}

// openLoopback brings the network's one interface up and hands a listener on it to the
// daemon: a socket stays in the network that it was made in.
func openLoopback(o *order) error {
	if !o.Loopback {
		return nil
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, lo); err != nil {
		return err
	}
	lo.SetUint16(lo.Uint16() | unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: loopbackPort, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(fd, 16); err != nil {
		return err
	}
	return unix.Sendmsg(listenFD, []byte{0}, unix.UnixRights(fd), nil, 0)
}

// banUserNamespaces stops the app from becoming root of a further namespace
// (namespaces(7), /proc/sys/user).
func banUserNamespaces(*order) error {
	return os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0)
}

// dropCapabilities gives up every capability for ever (capabilities(7)).
func dropCapabilities(*order) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return err
	}
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && c > 0 {
			break // one more than the kernel knows
		}
		if err != nil {
			return err
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&hdr, &none[0])
}

// limit sets the resource limits, the address space last: this process may
// already be above it.
func limit(o *order) error {
	processes := o.Limits.Processes
	if o.Cgroup {
		processes = 0 // pids.max
	}
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
		always   bool
	}{
		{"core", unix.RLIMIT_CORE, 0, true},
		{"open files", unix.RLIMIT_NOFILE, o.Limits.OpenFiles, false},
		{"file size", unix.RLIMIT_FSIZE, o.Limits.FileBytes, false},
		{"processes", unix.RLIMIT_NPROC, processes, false},
		{"address space", unix.RLIMIT_AS, o.Limits.AddressSpace, false},
	} {
		if l.value == 0 && !l.always {
			continue
		}
		// Package syscall, not unix: it remembers not to restore what Go raised.
		if err := syscall.Setrlimit(l.resource, &syscall.Rlimit{Cur: l.value, Max: l.value}); err != nil {
			return &Refused{"limit on " + l.name, err}
		}
	}
	return nil
}
