package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	Init()
	if mode, ok := os.LookupEnv("SANDBOX_TEST"); ok {
		os.Exit(app(mode)) // this process is the app of a test
	}
	os.Exit(m.Run())
}

// config returns what runs this test binary as an app in the given mode.
func config(t *testing.T, mode string) Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Command: []string{self, "an argument"}, Dir: t.TempDir(), Env: []string{"SANDBOX_TEST=" + mode},
		ReadOnly: append(System(), self), Isolation: Sandbox, KillGrace: 10 * time.Second,
	}
}

// begin starts cfg; a machine whose kernel refuses a confinement skips the test
// and says which.
func begin(t *testing.T, cfg Config) *Process {
	t.Helper()
	p, err := Start(context.Background(), cfg)
	var r *Refused
	if errors.As(err, &r) && cfg.Isolation == Sandbox {
		t.Skipf("this machine cannot run the test: %v", r)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop() })
	return p
}

// output runs cfg to its end and returns what it wrote.
func output(t *testing.T, cfg Config) string {
	t.Helper()
	var out, errs bytes.Buffer
	cfg.Stdout, cfg.Stderr = &out, &errs
	if e := begin(t, cfg).Wait(); !e.OK() || e.Err != nil {
		t.Fatalf("%v, %v: %s", e, e.Err, errs.String())
	}
	return out.String()
}

// listen returns a Unix socket that answers "hello" to everyone.
func listen(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "hello")
			c.Close()
		}
	}()
}

func probe(t *testing.T, change func(*Config)) view {
	t.Helper()
	cfg := config(t, "look")
	change(&cfg)
	var v view
	if err := json.Unmarshal([]byte(output(t, cfg)), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestConfined has an app look around from inside.
func TestConfined(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	given := filepath.Join(t.TempDir(), "given")
	for _, f := range []string{secret, given} {
		if err := os.WriteFile(f, []byte("secret"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	sock, other := filepath.Join(t.TempDir(), "app.sock"), filepath.Join(outside, "other.sock")
	listen(t, sock)
	listen(t, other)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	// A descriptor that some library opened without close-on-exec.
	leak, err := unix.Open(secret, unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	t.Setenv("SECRET_TOKEN", "of the daemon")

	var dir string
	v := probe(t, func(c *Config) {
		c.Socket, dir = sock, c.Dir
		c.ReadOnly = append(c.ReadOnly, given)
		c.Env = append(c.Env, "LOOK_AT="+strings.Join([]string{secret, given, sock, other}, ":"), "TCP="+tcp.Addr().String(), "LANG=de_DE.UTF-8")
		c.Limits = Limits{OpenFiles: 123, Processes: 4096, FileBytes: 1 << 20}
	})

	if !slices.Equal(v.Interfaces, []string{"lo: down"}) {
		t.Errorf("interfaces %q, want lo alone and down", v.Interfaces)
	}
	for name, got := range map[string]string{
		"read outside": v.ReadSecret, "list outside": v.ListSecret, "list its root": v.ListRoot, "connect to another socket": v.DialOther,
		"connect to the address of another socket through /proc": v.ReadOldRoot,
		"write a read-only file":                                 v.WriteGiven, "write beside the home": v.WriteRoot, "write /usr": v.WriteUsr, "write /proc": v.WriteProc,
		"connect over TCP": v.DialTCP, "a user namespace": v.Unshare, "mount": v.Mount, "signal the daemon": v.SignalParent, "open a terminal": v.Terminal,
	} {
		if got == "" {
			t.Errorf("the app could: %s", name)
		}
	}
	for name, got := range map[string]string{
		"read a given file": v.ReadGiven, "connect to its socket": v.DialSocket, "write its home": v.WriteHome, "move between directories of its home": v.Rename,
		"write /tmp": v.WriteTemp, "write /dev/shm": v.WriteShm, "read /dev/urandom": v.Random,
	} {
		if got != "" {
			t.Errorf("the app could not: %s: %s", name, got)
		}
	}
	for name, got := range map[string]string{"personality": v.Personality, "keyrings": v.Keyring, "io_uring": v.Ring} {
		if got != unix.EPERM.Error() {
			t.Errorf("the app's call to %s: %q", name, got)
		}
	}
	for name, got := range map[string]string{"AF_ALG": v.Crypto, "AF_VSOCK": v.HostSocket, "AF_PACKET": v.Packet} {
		if got != unix.EAFNOSUPPORT.Error() {
			t.Errorf("the app's %s socket: %q", name, got)
		}
	}
	want := []string{"HOME=" + dir, "PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=/tmp", "SANDBOX_TEST=look"}
	if !slices.Equal(v.Env[:len(want)], want) || len(v.Env) != len(want)+3 || v.Env[len(v.Env)-1] != "LANG=de_DE.UTF-8" {
		t.Errorf("environment %q", v.Env)
	}
	if v.Dir != dir || v.PID != 1 || v.UID != appID || v.Host != "sandbox" || !slices.Equal(v.Processes, []string{"1"}) {
		t.Errorf("dir %s, pid %d, uid %d, host %q, processes %q", v.Dir, v.PID, v.UID, v.Host, v.Processes)
	}
	for _, line := range []string{"CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(v.Status, line+"\n") {
			t.Errorf("no %q in /proc/self/status", line)
		}
	}
	// 0 to 2 and what reading the directory needs.
	if v.Files > 6 || slices.Contains(v.Open, secret) {
		t.Errorf("open descriptors: %q", v.Open)
	}
	if v.NoFile != 123 || v.NProc != 4096 || v.FSize != 1<<20 || v.Core != 0 {
		t.Errorf("limits: files %d, processes %d, file size %d, core %d", v.NoFile, v.NProc, v.FSize, v.Core)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "b", "moved")); err != nil || string(b) != "x" {
		t.Errorf("what the app wrote: %q, %v", b, err)
	}
	if left, err := os.ReadDir("/proc/self/task"); err != nil || len(left) == 0 {
		t.Error("this process lost its own /proc")
	}
}

// TestLoopback: each app has a network of its own with its daemon in it, at one address,
// and nobody else.
func TestLoopback(t *testing.T) {
	t.Parallel()
	outside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	for range 2 {
		c := config(t, "call "+outside.Addr().String())
		c.Loopback = true
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		p := begin(t, c)
		l := p.Loopback()
		if l.Addr().String() != LoopbackAddress {
			t.Errorf("listens at %s", l.Addr())
		}
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(said), "hello") || strings.Contains(string(said), "<nil>") {
			t.Errorf("the app said %q, %v", said, err)
		}
		conn.Close()
		l.Close()
		if e := p.Wait(); !e.OK() {
			t.Errorf("%v: %s", e, out.String())
		}
	}
	c := config(t, "exit 0")
	c.Loopback, c.Isolation = true, None
	if p, err := Start(t.Context(), c); err == nil {
		p.Stop()
		t.Error("an unconfined app has a loopback of its own")
	}
}

// TestNone: an unconfined app still inherits nothing.
func TestNone(t *testing.T) {
	t.Setenv("SECRET_TOKEN", "of the daemon")
	v := probe(t, func(c *Config) { c.Isolation = None; c.Limits.OpenFiles = 99 })
	if v.Personality != "" || strings.Contains(v.Status, "Seccomp:\t2\n") {
		t.Errorf("a filter where there is no sandbox: %q", v.Personality)
	}
	if len(v.Env) != 5 || !strings.HasPrefix(v.Env[0], "HOME=") || v.PID == 1 || v.NoFile != 99 || !strings.Contains(v.Status, "NoNewPrivs:\t1\n") {
		t.Errorf("environment %q, pid %d, files %d", v.Env, v.PID, v.NoFile)
	}
}

// TestRefused runs a launcher inside a sandbox, where the kernel allows no
// further namespaces: the start fails by name, and `none` is the way out.
func TestRefused(t *testing.T) {
	got := output(t, config(t, "nest"))
	for _, want := range []string{"refused: namespaces", "no space left on device", "isolation: none", "none: ok"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

func TestExit(t *testing.T) {
	cfg := config(t, "exit 3")
	if e := begin(t, cfg).Wait(); e.Code != 3 || e.Signal != 0 || e.OK() || e.String() != "exit status 3" {
		t.Errorf("%+v", e)
	}
	cfg = config(t, "exit 0")
	p := begin(t, cfg)
	if e := p.Wait(); !e.OK() || e != p.Stop() {
		t.Errorf("%+v", e)
	}
	cfg = config(t, "exit 0")
	cfg.Stdout = failing{}
	cfg.Env = []string{"SANDBOX_TEST=look"}
	if e := begin(t, cfg).Wait(); e.Err == nil {
		t.Error("lost output was not reported")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

// waiting starts an app that connects to a socket and stays; the connection ends
// with the last process that holds it.
func waiting(t *testing.T, cfg Config, start func(Config)) net.Conn {
	t.Helper()
	cfg.Socket = filepath.Join(t.TempDir(), "s")
	cfg.Env = append(cfg.Env, "SOCKET="+cfg.Socket)
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	start(cfg)
	l.(*net.UnixListener).SetDeadline(time.Now().Add(20 * time.Second))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil { // "ready"
		t.Fatal(err)
	}
	return c
}

func ended(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("a process of the app lives on: %d, %v", n, err)
	}
}

func TestStop(t *testing.T) {
	for _, iso := range []Isolation{Sandbox, None} {
		t.Run(string(iso), func(t *testing.T) {
			for _, c := range []struct {
				mode  string
				grace time.Duration
				ok    func(Exit) bool
			}{
				{"wait politely", time.Minute, func(e Exit) bool { return e.Code == 7 && e.Signal == 0 }},
				{"wait deaf", 50 * time.Millisecond, func(e Exit) bool { return e.Signal == syscall.SIGKILL && e.Code == -1 }},
				{"wait with child", 0, func(e Exit) bool { return e.Signal == syscall.SIGKILL }},
			} {
				cfg := config(t, c.mode)
				cfg.Isolation, cfg.KillGrace = iso, c.grace
				var p *Process
				conn := waiting(t, cfg, func(cfg Config) { p = begin(t, cfg) })
				if e := p.Stop(); !c.ok(e) {
					t.Errorf("%s: %v", c.mode, e)
				}
				ended(t, conn)
				if e := p.Stop(); !c.ok(e) { // again, with nothing there
					t.Errorf("%s, stopped twice: %v", c.mode, e)
				}
			}
		})
	}
}

func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var p *Process
	cfg := config(t, "wait deaf")
	cfg.KillGrace = 0
	conn := waiting(t, cfg, func(cfg Config) {
		var err error
		p, err = Start(ctx, cfg)
		var r *Refused
		if errors.As(err, &r) {
			t.Skipf("this machine cannot run the test: %v", r)
		} else if err != nil {
			t.Fatal(err)
		}
	})
	cancel()
	ended(t, conn)
	if e := p.Wait(); e.Signal != syscall.SIGKILL {
		t.Error(e)
	}
	if _, err := Start(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("started under a dead context: %v", err)
	}
}

// TestDaemonDies kills a daemon: its app must not survive it.
func TestDaemonDies(t *testing.T) {
	cfg := config(t, "daemon")
	cfg.Isolation = None // the daemon of this test is itself started by Start
	self := cfg.Command[0]
	var p *Process
	conn := waiting(t, cfg, func(cfg Config) {
		cfg.Env = append(cfg.Env, "SELF="+self)
		p = begin(t, cfg)
	})
	// The daemon alone: not its process group.
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ended(t, conn)
}

func TestStartRefuses(t *testing.T) {
	good := config(t, "exit 0")
	for name, c := range map[string]struct {
		change func(*Config)
		words  string
	}{
		"no command":       {func(c *Config) { c.Command = nil }, "no command"},
		"no isolation":     {func(c *Config) { c.Isolation = "" }, `isolation ""`},
		"relative home":    {func(c *Config) { c.Dir = "home" }, "not absolute"},
		"no home":          {func(c *Config) { c.Dir = "" }, "not absolute"},
		"the root":         {func(c *Config) { c.ReadOnly = []string{"/"} }, "is the root"},
		"dots":             {func(c *Config) { c.ReadOnly = []string{"/usr/../etc"} }, "not absolute and clean"},
		"relative socket":  {func(c *Config) { c.Socket = "s" }, "not absolute"},
		"environment":      {func(c *Config) { c.Env = []string{"=x"} }, "not KEY=VALUE"},
		"memory, no group": {func(c *Config) { c.Limits.Memory = 1 }, "needs a cgroup"},
		"missing home":     {func(c *Config) { c.Dir = "/no/such/home" }, "no such file"},
		"missing command":  {func(c *Config) { c.Command = []string{c.Dir + "/nothing"} }, "no such file"},
		"missing socket":   {func(c *Config) { c.Socket = c.Dir + "-gone/s" }, "no such file"},
		"missing cgroup":   {func(c *Config) { c.Cgroup = c.Dir + "/cgroup" }, "cgroup refused"},
		"no cgroup":        {func(c *Config) { c.Cgroup, c.Limits.Memory = c.Dir, 1 }, "cgroup limits refused"},
	} {
		cfg := good
		c.change(&cfg)
		p, err := Start(context.Background(), cfg)
		if err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	initCalled.Store(false)
	defer initCalled.Store(true)
	if _, err := Start(context.Background(), good); err == nil || !strings.Contains(err.Error(), "Init was not called") {
		t.Errorf("without Init: %v", err)
	}
}

// TestNothingLeaks: neither goroutines nor descriptors, of apps that ran and of
// some that did not start.
func TestNothingLeaks(t *testing.T) {
	cfg := config(t, "exit 0")
	bad := cfg
	bad.Command = []string{"/no/such/app"}
	output(t, cfg)
	files := func() int { d, _ := os.ReadDir("/proc/self/fd"); return len(d) }
	before, open := runtime.NumGoroutine(), files()
	for range 5 {
		output(t, cfg)
		if _, err := Start(context.Background(), bad); err == nil {
			t.Fatal("started nothing")
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	if n := files(); n > open {
		t.Errorf("%d descriptors, %d before", n, open)
	}
}

func TestCgroup(t *testing.T) {
	var parent string
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			parent = filepath.Join(dir, "concordat-sandbox-test")
		}
	}
	if parent == "" {
		t.Skip("no cgroup v2 is mounted")
	}
	if err := os.Mkdir(parent, 0o755); err != nil {
		t.Skipf("no cgroup is delegated to this user: %v", err)
	}
	defer os.Remove(parent)
	cfg := config(t, "cgroup")
	cfg.Cgroup = parent
	if got := output(t, cfg); !strings.Contains(got, "0::/concordat-sandbox-test/app-") {
		t.Errorf("the app is in %q", got)
	}
	if left, err := filepath.Glob(parent + "/app-*"); err != nil || len(left) > 0 {
		t.Errorf("left over: %q, %v", left, err)
	}
	cfg.Limits.Memory = 64 << 20
	_, err := os.Stat(parent + "/memory.max")
	p, serr := Start(context.Background(), cfg)
	var r *Refused
	if err != nil { // no memory controller here
		if !errors.As(serr, &r) || r.Confinement != "cgroup limits" {
			t.Errorf("a memory limit without a controller: %v", serr)
		}
	} else if serr != nil {
		t.Error(serr)
	} else {
		p.Wait()
	}
}

// TestCallFilter runs the filter's program as the kernel would: every call on the list is
// refused, all others pass but those of another architecture, and of sockets some.
func TestCallFilter(t *testing.T) {
	const allow, refuse, unknown, kill = unix.SECCOMP_RET_ALLOW, unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM), unix.SECCOMP_RET_ERRNO | uint32(unix.EAFNOSUPPORT), uint32(unix.SECCOMP_RET_KILL_PROCESS)
	run := func(arch, number, argument uint32) uint32 {
		data := map[uint32]uint32{dataNumber: number, dataArch: arch, dataArgument: argument}
		program, a := callFilter(), uint32(0)
		for pc := 0; ; pc++ { // jumps go forward alone
			i, yes := program[pc], false
			switch i.Code {
			case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
				a = data[i.K]
				continue
			case unix.BPF_RET | unix.BPF_K:
				return i.K
			case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
				yes = a == i.K
			case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
				yes = a >= i.K
			default:
				t.Fatalf("instruction %+v", i)
			}
			if yes {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		}
	}
	for number := range uint32(600) {
		want := uint32(allow)
		if slices.Contains(refusedCalls, number) {
			want = refuse
		} else if number == unix.SYS_SOCKET {
			want = unknown // family 0
		}
		if got := run(auditArch, number, 0); got != want {
			t.Errorf("call %d: %#x, want %#x", number, got, want)
		}
		if got := run(unix.AUDIT_ARCH_I386, number, 0); got != kill {
			t.Errorf("call %d of another architecture: %#x", number, got)
		}
	}
	if foreignCalls != 0 && run(auditArch, foreignCalls|1, 0) != kill {
		t.Error("a call by its other number passes")
	}
	for family := range uint32(50) {
		want := unknown
		if slices.Contains(families, family) {
			want = allow
		}
		if got := run(auditArch, unix.SYS_SOCKET, family); got != want {
			t.Errorf("socket of family %d: %#x, want %#x", family, got, want)
		}
	}
}
