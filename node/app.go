package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/grpcapp"
	"github.com/concordat/concordat/internal/sandbox"
)

// apps starts the owner's programs, each run's in processes of their own, and hands
// them instructions. It is safe for concurrent use; do serves one instruction of a
// run at a time.
type apps struct {
	installedApps []App
	isolation     sandbox.Isolation
	dir           string
	log           *slog.Logger

	mu      sync.Mutex                      // owns all below
	objects map[Digest]map[object.ID][]byte // per run: objects of the last step
	state   map[Digest][]byte               // per run: the app's state
}

func newApps(cfg Config, dir string) *apps {
	iso := sandbox.Sandbox
	if cfg.Isolation == string(sandbox.None) {
		iso = sandbox.None
	}
	return &apps{installedApps: cfg.Apps, isolation: iso, dir: filepath.Join(dir, "apps"), log: cfg.Log,
		objects: map[Digest]map[object.ID][]byte{}, state: map[Digest][]byte{}}
}

func (a *apps) find(digest Digest) *App {
	for i := range a.installedApps {
		if a.installedApps[i].Digest == digest {
			return &a.installedApps[i]
		}
	}
	return nil
}

// installed reports whether the app may be asked for on this node.
func (a *apps) installed(digest Digest) bool { return a.find(digest) != nil }

// cached returns an object of the run's last step, so that an unchanged model is not
// fetched twice.
func (a *apps) cached(run Digest, id object.ID) ([]byte, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	raw, ok := a.objects[run][id]
	return raw, ok
}

// cache keeps the objects of a run's newest step, and forgets those before.
func (a *apps) cache(run Digest, objects map[object.ID][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.objects[run] = objects
}

// finish forgets a run.
func (a *apps) finish(run Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.objects, run)
	delete(a.state, run)
}

// do starts the run's app for one instruction, waits for its reply, and for its end.
// The executable is the one that the policy lists, by digest, at every start.
func (a *apps) do(ctx context.Context, r *run, in flower.Instruction) (*flower.Reply, error) {
	app := a.find(r.body.App)
	if app == nil {
		return nil, fmt.Errorf("app %s is not installed on this node", r.body.App.Short())
	}
	if err := checkExecutable(app.Command[0], app.Digest); err != nil {
		return nil, err
	}
	var config map[string]any
	if err := cose.Unmarshal(r.config, &config); err != nil {
		return nil, fmt.Errorf("config of the run: %w", err)
	}
	nodeConfig := map[string]any{}
	for k, v := range app.NodeConfig {
		nodeConfig[k] = v
	}
	a.mu.Lock()
	state := a.state[r.digest]
	a.mu.Unlock()
	fl, err := flower.NewApp(flower.Config{RunID: r.body.RunID, NodeID: nodeNumber(r.n.id), NodeConfig: nodeConfig, RunConfig: runConfig(config), State: state})
	if err != nil {
		return nil, err
	}
	defer fl.Close()
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp(a.dir, "home-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(home)
	// A Unix socket's path is short; the node's own directory may not be.
	sockDir, err := os.MkdirTemp("", "concordat-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(sockDir)
	socket := filepath.Join(sockDir, "app.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- grpcapp.Serve(ctx, l, fl) }()
	defer func() { cancel(); <-served }()
	out := &lines{log: a.log.With("run", r.digest.Short())}
	p, err := sandbox.Start(ctx, sandbox.Config{
		Command: append(append([]string(nil), app.Command...), "--insecure", "--clientappio-api-address", "unix://"+socket, "--token", fl.Token()),
		Dir:     home, Socket: socket, ReadOnly: append(append(sandbox.System(), filepath.Dir(app.Command[0])), app.ReadOnly...),
		Isolation: a.isolation, Stdout: out, Stderr: out,
	})
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	type answer struct {
		reply *flower.Reply
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		reply, err := fl.Do(ctx, in)
		answered <- answer{reply, err}
	}()
	var got answer
	select {
	case got = <-answered:
	case <-p.Done():
		// The process is gone: whatever it pushed before has arrived.
		fl.Close()
		if got = <-answered; got.err != nil {
			return nil, errors.Join(flower.NewFailure(int64(flower.CodeCrashed), ""), fmt.Errorf("app process ended: %s", p.Wait()), got.err)
		}
	}
	if got.err != nil {
		return nil, got.err
	}
	// It pushes its state now and ends by itself; one that asks for more messages
	// instead is ended.
	grace := time.NewTimer(appGrace)
	defer grace.Stop()
	select {
	case <-fl.Done():
	case <-p.Done():
	case <-grace.C:
	case <-ctx.Done():
	}
	a.mu.Lock()
	a.state[r.digest] = fl.State()
	a.mu.Unlock()
	return got.reply, nil
}

// appGrace is how long an app has, after its answer, to hand over its state.
const appGrace = 5 * time.Second

// checkExecutable compares a program with the digest that the policy lists.
func checkExecutable(path string, want Digest) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("app: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("app: %w", err)
	}
	if got := Digest(h.Sum(nil)); got != want {
		return fmt.Errorf("app %s has digest %s, the policy lists %s", path, got.Short(), want.Short())
	}
	return nil
}

// nodeNumber is Flower's id of a node: 1 and 0 are taken.
func nodeNumber(id Digest) uint64 {
	var n uint64
	for _, b := range id[:8] {
		n = n<<8 | uint64(b)
	}
	return max(n, 2)
}

// runConfig gives the run's config in the types that Flower knows.
func runConfig(c map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range c {
		switch v := v.(type) {
		case uint64:
			out[k] = int64(v)
		default:
			out[k] = v
		}
	}
	return out
}

// lines logs an app's output line by line, bounded. It stays on this node.
type lines struct {
	log *slog.Logger
	buf []byte
}

const maxLine = 4096

func (l *lines) Write(b []byte) (int, error) {
	n := len(b)
	for {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			if len(l.buf) < maxLine {
				l.buf = append(l.buf, b[:min(len(b), maxLine-len(l.buf))]...)
			}
			return n, nil
		}
		line := append(l.buf, b[:min(i, maxLine)]...)
		l.log.Debug("app output", "line", string(line))
		l.buf, b = l.buf[:0], b[i+1:]
	}
}
