package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Isolation says whether an app is confined. The zero value is refused: nobody
// runs an app unconfined by forgetting a field.
type Isolation string

// The two isolations.
const (
	Sandbox Isolation = "sandbox" // all that the package comment lists, or no start
	None    Isolation = "none"    // a process group with a clean environment and limits; it can do what its user can
)

// Config says what to start and what it may reach. All paths are absolute and
// clean.
type Config struct {
	Command []string // the executable's path, then its arguments; reachable through ReadOnly or Dir
	Dir     string   // the app's home and working directory, all that it can change; exists, its owner removes it
	Socket  string   // the Unix socket that the app may connect to; it must exist; empty for none
	// Loopback gives a confined app a network of one address, [LoopbackAddress], on which
	// [Process.Loopback] accepts: for apps that cannot use a Unix socket. An unconfined app
	// has the machine's, and must be given a listener of the caller's.
	Loopback bool

	// Env is added to the app's environment as KEY=VALUE; of a key that occurs
	// twice the last counts. The app inherits nothing: without Env it sees HOME,
	// PATH, TMPDIR and LANG.
	Env []string

	ReadOnly []string // files and directories that the app may read and execute, see [System]
	Devices  []string // device nodes beside /dev/null and its like that the app may open, such as /dev/nvidia0

	Isolation Isolation
	Limits    Limits

	// Cgroup is a cgroup v2 directory that was delegated to the daemon. The app
	// then runs in a child of it. Limits.Memory needs it.
	Cgroup string

	Stdout, Stderr io.Writer     // nil discards; written by a goroutine that [Process.Wait] outlives
	KillGrace      time.Duration // from SIGTERM to SIGKILL; 0 kills at once
}

// Limits bound what an app uses; a zero leaves it to the system. Core dumps are
// never written.
type Limits struct {
	OpenFiles    uint64 // RLIMIT_NOFILE
	Processes    uint64 // threads count too: pids.max with a cgroup, else RLIMIT_NPROC
	FileBytes    uint64 // of one file, RLIMIT_FSIZE
	AddressSpace uint64 // bytes of one process, RLIMIT_AS; frameworks reserve far more than they use
	Memory       uint64 // bytes of all processes, memory.max; needs Config.Cgroup
	TempBytes    uint64 // of /tmp and of /dev/shm each, in memory; 0 means 64 MiB; of a confined app only
}

// LoopbackAddress is where a confined app reaches its daemon, if Config.Loopback is set.
// No other process is in its network.
const LoopbackAddress = "127.0.0.1:8000"

const loopbackPort = 8000 // of LoopbackAddress

const defaultTemp = 64 << 20 // as container engines give /dev/shm

// Refused says that the kernel, or how the machine is set up, does not allow a
// confinement that was asked for. The app was not started.
type Refused struct {
	Confinement string // what was refused, such as "landlock"
	Err         error
}

// Error says what to do about it, too.
func (r *Refused) Error() string {
	return fmt.Sprintf("sandbox: %s refused: %v (allow it on this machine, or set `isolation: none` to run apps unconfined)", r.Confinement, r.Err)
}

// Unwrap returns the cause.
func (r *Refused) Unwrap() error { return r.Err }

// System returns those of the usual places of programs and libraries that exist
// on this machine, for Config.ReadOnly. It holds nothing of /etc but the
// linker's cache.
func System() []string {
	var out []string
	for _, p := range []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache"} {
		if exists(p) {
			out = append(out, p)
		}
	}
	return out
}

// Start starts an app and returns when it is running: confinement and execution
// have succeeded. A refused confinement is a [*Refused]. When ctx ends, the app is
// stopped as by [Process.Stop]. The caller owns the Process and must Wait or Stop.
func Start(ctx context.Context, cfg Config) (*Process, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	return start(ctx, &cfg)
}

func (c *Config) check() error {
	if len(c.Command) == 0 {
		return errors.New("no command")
	}
	if c.Isolation != Sandbox && c.Isolation != None {
		return fmt.Errorf("isolation %q, want %q or %q", c.Isolation, Sandbox, None)
	}
	if c.Limits.Memory > 0 && c.Cgroup == "" {
		return errors.New("a memory limit needs a cgroup")
	}
	if c.Loopback && c.Isolation != Sandbox {
		return errors.New("a loopback of its own needs a network of its own: isolation sandbox")
	}
	if c.KillGrace < 0 {
		return fmt.Errorf("kill grace %v", c.KillGrace)
	}
	paths := slices.Concat([]string{c.Command[0], c.Dir}, c.ReadOnly, c.Devices)
	for _, p := range []string{c.Socket, c.Cgroup} {
		if p != "" {
			paths = append(paths, p)
		}
	}
	for _, p := range paths {
		if !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" || strings.ContainsRune(p, 0) {
			return fmt.Errorf("path %q is not absolute and clean, or is the root", p)
		}
	}
	for _, e := range c.Env {
		if k, _, ok := strings.Cut(e, "="); !ok || k == "" || strings.ContainsRune(e, 0) {
			return fmt.Errorf("environment entry of %d bytes is not KEY=VALUE", len(e)) // may be a secret: not printed
		}
	}
	return nil
}

// environment returns the app's whole environment.
func (c *Config) environment() []string {
	temp := "/tmp"
	if c.Isolation == None {
		temp = c.Dir
	}
	env := []string{"HOME=" + c.Dir, "PATH=/usr/local/bin:/usr/bin:/bin", "TMPDIR=" + temp, "LANG=C.UTF-8"}
	for _, e := range c.Env {
		key, _, _ := strings.Cut(e, "=")
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, key+"=") })
		env = append(env, e)
	}
	return env
}
