package superlink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/concordat/concordat/internal/flower"
)

// ErrNoFlower is in the error of an environment that has nothing to run.
var ErrNoFlower = errors.New("no Flower 1.26 to 1.29, or 1.40 and later")

// Config says what to run.
type Config struct {
	// Environment is the folder of a Python environment with flwr.
	Environment string
	// Dir takes the logs, and what Flower keeps: a folder for this federation alone.
	Dir string
	// Nodes holds the node_config of each SuperNode. Values are strings and integers.
	Nodes []map[string]any
}

// Federation is a SuperLink with its SuperNodes, on loopback, without TLS: processes of
// one user on one machine, for tests and benchmarks.
type Federation struct {
	address string
	all     []*process // the SuperLink first
}

// process is a child, in a process group of its own.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it was waited for
}

// Start starts a federation and returns once every node is known to the SuperLink. ctx
// bounds the start alone: whoever gets a federation stops it.
func Start(ctx context.Context, cfg Config) (f *Federation, err error) {
	_, http, err := version(cfg.Environment)
	if err != nil {
		return nil, err
	}
	free, err := ports(3 + len(cfg.Nodes))
	if err != nil {
		return nil, err
	}
	f = &Federation{address: free[0]}
	defer func() {
		if err != nil {
			f.Stop()
		}
	}()
	fleet := free[1]
	server := []string{"--insecure", "--control-api-address", f.address, "--fleet-api-address", fleet, "--serverappio-api-address", free[2]}
	if http {
		fleet = f.address
		server = []string{"--insecure", "--disable-runtime-dependency-installation", "--host", "127.0.0.1", "--port", port(f.address)}
	}
	if err := f.start(cfg, "superlink", server); err != nil {
		return nil, err
	}
	for _, address := range []string{f.address, fleet} {
		if err := f.await(ctx, f.all[0], "to listen", func() bool { return listens(address) }); err != nil {
			return nil, err
		}
	}
	for i, config := range cfg.Nodes {
		own := free[3+i]
		node := []string{"--insecure", "--superlink", fleet, "--node-config", nodeConfig(config), "--clientappio-api-address", own}
		if http {
			node = append(node[:len(node)-2], "--host", "127.0.0.1", "--port", port(own))
		}
		if err := f.start(cfg, "supernode-"+strconv.Itoa(i), node); err != nil {
			return nil, err
		}
	}
	for _, p := range f.all[1:] {
		known := func() bool {
			b, err := os.ReadFile(p.log)
			return err == nil && strings.Contains(string(b), "SuperNode ID: ")
		}
		if err := f.await(ctx, p, "to be known to the SuperLink", known); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// Address is where the flwr command of the same environment connects, insecurely.
func (f *Federation) Address() string { return f.address }

// Processes are the ids of the SuperLink, whose descendants are the ServerApps, and then
// of the SuperNodes, whose descendants are the ClientApps.
func (f *Federation) Processes() (ids []int) {
	for _, p := range f.all {
		ids = append(ids, p.cmd.Process.Pid)
	}
	return ids
}

// Environ is the environment of Flower's programs that keep what they keep in dir and
// tell nobody.
func Environ(dir string) []string {
	return []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "FLWR_HOME=" + filepath.Join(dir, "flwr"), "FLWR_TELEMETRY_ENABLED=0",
		"FLWR_DISABLE_UPDATE_CHECK=1", "PYTHONUNBUFFERED=1", "COLUMNS=200", "LANG=C.UTF-8"}
}

// Version returns the version of Flower in a Python environment. The error of one that
// [Start] cannot run, or that has none, wraps [ErrNoFlower].
func Version(environment string) (string, error) {
	v, _, err := version(environment)
	return v.String(), err
}

// version also says whether that version's processes speak HTTP with each other, rather
// than gRPC.
func version(environment string) (v flower.Version, http bool, err error) {
	if v, err = flower.VersionOf(environment); err != nil {
		return v, false, fmt.Errorf("%w: %q: %w", ErrNoFlower, environment, err)
	}
	switch {
	case v.Between(26, 29):
		return v, false, nil
	case v.Between(40, math.MaxInt):
		return v, true, nil
	}
	return v, false, fmt.Errorf("%w: %q has flwr %.40s", ErrNoFlower, environment, v)
}

// ports returns addresses on loopback where nobody listened a moment ago.
func ports(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // once all are chosen, so that they differ
		all = append(all, l.Addr().String())
	}
	return all, nil
}

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

func listens(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// nodeConfig words a node_config for the command line.
func nodeConfig(config map[string]any) string {
	var words []string
	for _, k := range slices.Sorted(maps.Keys(config)) {
		if s, ok := config[k].(string); ok {
			words = append(words, fmt.Sprintf("%s=%q", k, s))
		} else {
			words = append(words, fmt.Sprintf("%s=%v", k, config[k]))
		}
	}
	return strings.Join(words, " ")
}

// start starts flower-superlink or flower-supernode; name is that of its log and folder.
func (f *Federation) start(cfg Config, name string, args []string) error {
	home := filepath.Join(cfg.Dir, name)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	p := &process{log: filepath.Join(cfg.Dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	kind, _, _ := strings.Cut(name, "-")
	p.cmd = exec.Command(filepath.Join(cfg.Environment, "bin", "flower-"+kind), args...)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = home, log, log
	// They start others by name.
	p.cmd.Env = append(Environ(home), "PATH="+filepath.Join(cfg.Environment, "bin")+":/usr/local/bin:/usr/bin:/bin")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f.all = append(f.all, p)
	go func() {
		_ = p.cmd.Wait() // however it ends; await and Stop see that it has
		close(p.done)
	}()
	return nil
}

// await waits until something is so, as long as the process runs.
func (f *Federation) await(ctx context.Context, p *process, what string, so func() bool) error {
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for !so() {
		select {
		case <-t.C:
			continue
		case <-p.done:
		case <-ctx.Done():
		}
		said, err := os.ReadFile(p.log)
		return errors.Join(fmt.Errorf("waited for %s %s: %w; it said: %s", filepath.Base(p.cmd.Path), what, cause(ctx), last(said)), err)
	}
	return nil
}

// cause is why a wait ended: its time, or the process.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return errors.New("it ended")
}

// last returns the end of a log.
func last(said []byte) string { return strings.TrimSpace(string(said[max(0, len(said)-2000):])) }

// patience is how long a process has to end when it is asked to.
const patience = 10 * time.Second

// Stop ends all processes and waits for them, the nodes first.
func (f *Federation) Stop() {
	for _, p := range slices.Backward(f.all) {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
	}
	limit := time.After(patience)
	for _, p := range f.all {
		select {
		case <-p.done:
		case <-limit:
			limit = nil
			for _, p := range f.all {
				_ = p.cmd.Process.Kill()
			}
			<-p.done
		}
	}
	// Their children end when they see that their parent has. What is still in the
	// groups, which are named after processes that this program started, is ended here.
	for _, p := range f.all {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// Log copies everything that the processes said, for whoever looks for a mistake.
func (f *Federation) Log(w io.Writer) error {
	for _, p := range f.all {
		b, err := os.ReadFile(p.log)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "== %s\n%s\n", filepath.Base(p.log), b); err != nil {
			return err
		}
	}
	return nil
}
