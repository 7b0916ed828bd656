package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// view is what an app sees. Texts are errors: empty means that it could.
type view struct {
	Interfaces, Env, Processes, Open                            []string
	ReadSecret, ListSecret, ListRoot, ReadGiven, WriteGiven     string
	DialSocket, DialOther, ReadOldRoot, DialTCP                 string
	WriteHome, Rename, WriteTemp, WriteShm, WriteRoot, WriteUsr string
	WriteProc, Random, Unshare, Mount, SignalParent, Terminal   string
	Dir, Host, Status                                           string
	Personality, Keyring, Ring, Crypto, HostSocket, Packet      string
	PID, UID, Files                                             int
	NoFile, NProc, FSize, Core                                  uint64
}

// app is what the test binary does as an app. It returns its exit status.
func app(mode string) int {
	verb, rest, _ := strings.Cut(mode, " ")
	switch verb {
	case "look":
		if err := json.NewEncoder(os.Stdout).Encode(look()); err != nil {
			return 1
		}
	case "exit":
		code, _ := strconv.Atoi(rest)
		return code
	case "wait":
		return wait(rest)
	case "hold": // the child of "wait with child": holds the inherited connection
		select {}
	case "nest":
		nest()
	case "daemon":
		daemon()
	case "call":
		return call(rest)
	case "cgroup":
		b, _ := os.ReadFile("/proc/self/cgroup")
		os.Stdout.Write(b)
	default:
		return 99
	}
	return 0
}

// call says hello at the loopback, and tries another address after that.
func call(other string) int {
	c, err := net.Dial("tcp", LoopbackAddress)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	_, err = net.Dial("tcp", other)
	fmt.Fprintf(c, "hello, and at the other address: %v", err)
	return 0
}

func try(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// The probes below must do no harm where they succeed: a test of a broken sandbox
// runs them on the machine itself, perhaps as root.

// open opens an existing file for writing and writes nothing.
func open(name string) string {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	return try(err)
}

// temp makes a file in dir and removes it.
func temp(dir string) string {
	f, err := os.CreateTemp(dir, "sandbox-test-")
	if err != nil {
		return err.Error()
	}
	f.Close()
	return try(os.Remove(f.Name()))
}

func read(name string) string { _, err := os.ReadFile(name); return try(err) }

func dial(path string) string {
	c, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	b := make([]byte, 5)
	_, err = c.Read(b)
	if err == nil && string(b) != "hello" {
		err = errors.New("no hello")
	}
	return try(err)
}

func look() view {
	v := view{Env: os.Environ(), PID: os.Getpid(), UID: os.Getuid()}
	v.Dir, _ = os.Getwd()
	v.Host, _ = os.Hostname()
	ifs, _ := net.Interfaces()
	for _, i := range ifs {
		state := "down"
		if i.Flags&net.FlagUp != 0 {
			state = "up"
		}
		v.Interfaces = append(v.Interfaces, i.Name+": "+state)
	}
	if p := strings.Split(os.Getenv("LOOK_AT"), ":"); len(p) == 4 {
		v.ReadSecret, v.ReadGiven, v.WriteGiven = read(p[0]), read(p[1]), open(p[1])
		_, err := os.ReadDir(filepath.Dir(p[0]))
		v.ListSecret = try(err)
		v.DialSocket, v.DialOther = dial(p[2]), dial(p[3])
		v.ReadOldRoot = dial("/proc/1/root" + p[3])
	}
	_, err := os.ReadDir("/") // mounted and readable: only Landlock says no
	v.ListRoot = try(err)
	home := os.Getenv("HOME")
	for _, d := range []string{"a", "b"} {
		os.Mkdir(filepath.Join(home, d), 0o755)
	}
	v.WriteHome = try(os.WriteFile(filepath.Join(home, "a", "new"), []byte("x"), 0o644))
	v.Rename = try(os.Rename(filepath.Join(home, "a", "new"), filepath.Join(home, "b", "moved")))
	v.WriteTemp, v.WriteShm = temp("/tmp"), temp("/dev/shm")
	v.WriteRoot, v.WriteUsr = try(unix.Access("/", unix.W_OK)), try(unix.Access("/usr", unix.W_OK))
	v.WriteProc = open("/proc/sys/kernel/hostname")
	_, err = rand.Read(make([]byte, 8))
	v.Random = try(errors.Join(err, func() error {
		f, err := os.Open("/dev/urandom")
		if err == nil {
			f.Close()
		}
		return err
	}()))
	c, err := net.Dial("tcp", os.Getenv("TCP"))
	if err == nil {
		c.Close()
	}
	v.DialTCP = try(err)
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER}
	v.Unshare = try(cmd.Run())
	fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC) // the first step of a mount
	if err == nil {
		unix.Close(fd)
	}
	v.Mount = try(err)
	v.SignalParent = try(unix.Kill(os.Getppid(), 0))
	if os.Getppid() == 0 {
		v.SignalParent = "no parent in sight"
	}
	v.Terminal = open("/dev/tty")
	// Calls that an unprivileged process may make, as far as the kernel has them: only the
	// filter says no. They change nothing.
	call := func(number, a, b, c uintptr) string {
		_, _, errno := unix.Syscall(number, a, b, c)
		if errno == 0 {
			return ""
		}
		return errno.Error()
	}
	socket := func(family int) string {
		fd, err := unix.Socket(family, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return try(err)
	}
	v.Personality = call(unix.SYS_PERSONALITY, 0xffffffff, 0, 0)
	v.Keyring = call(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(0), 0) // KEY_SPEC_THREAD_KEYRING
	v.Ring = call(unix.SYS_IO_URING_SETUP, 0, 0, 0)
	v.Crypto, v.HostSocket, v.Packet = socket(unix.AF_ALG), socket(unix.AF_VSOCK), socket(unix.AF_PACKET)
	status, _ := os.ReadFile("/proc/self/status")
	v.Status = string(status)
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		v.Processes = append(v.Processes, filepath.Base(p))
	}
	fds, _ := os.ReadDir("/proc/self/fd")
	v.Files = len(fds)
	for _, f := range fds {
		to, _ := os.Readlink("/proc/self/fd/" + f.Name())
		v.Open = append(v.Open, to)
	}
	for r, to := range map[int]*uint64{unix.RLIMIT_NOFILE: &v.NoFile, unix.RLIMIT_NPROC: &v.NProc, unix.RLIMIT_FSIZE: &v.FSize, unix.RLIMIT_CORE: &v.Core} {
		var l unix.Rlimit
		if unix.Getrlimit(r, &l) == nil {
			*to = l.Max
		}
	}
	return v
}

// wait connects, says ready and stays until it is told or killed.
func wait(how string) int {
	c, err := net.Dial("unix", os.Getenv("SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if how == "with child" {
		f, err := c.(*net.UnixConn).File()
		if err != nil {
			return 1
		}
		child := exec.Command("/proc/self/exe")
		child.Env, child.ExtraFiles = []string{"SANDBOX_TEST=hold"}, []*os.File{f}
		if err := child.Start(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if _, err := c.Write([]byte("ready")); err != nil {
		return 1
	}
	for range term {
		if how == "politely" {
			return 7
		}
	}
	return 0
}

// nest starts an app from inside a sandbox.
func nest() {
	self, _ := os.Executable()
	cfg := Config{
		Command: []string{self}, Dir: os.Getenv("HOME"), Env: []string{"SANDBOX_TEST=exit 0"},
		ReadOnly: append(System(), self), Isolation: Sandbox,
	}
	p, err := Start(context.Background(), cfg)
	var r *Refused
	if errors.As(err, &r) && errors.Is(err, syscall.ENOSPC) {
		fmt.Println("refused:", r.Confinement)
	}
	fmt.Println(p, err)
	cfg.Isolation = None
	if p, err = Start(context.Background(), cfg); err != nil {
		fmt.Println("none:", err)
	} else if p.Wait().OK() {
		fmt.Println("none: ok")
	}
}

// daemon starts a confined app that connects in its own name, and stays.
func daemon() {
	self, dir := os.Getenv("SELF"), filepath.Join(os.Getenv("HOME"), "app")
	os.Mkdir(dir, 0o700)
	cfg := Config{
		Command: []string{self}, Dir: dir, Socket: os.Getenv("SOCKET"), Env: []string{"SANDBOX_TEST=wait deaf", "SOCKET=" + os.Getenv("SOCKET")},
		ReadOnly: append(System(), self), Isolation: Sandbox,
	}
	var r *Refused
	p, err := Start(context.Background(), cfg)
	if errors.As(err, &r) { // a machine that cannot: the parent-death signal is the same
		cfg.Isolation = None
		p, err = Start(context.Background(), cfg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	p.Wait()
}
