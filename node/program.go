package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/sandbox"
)

// program is what is started for an app, before it is told where its node is.
type program struct {
	command  []string
	readOnly []string
	env      []string
	config   flower.Config
	settings map[string]any // for the config record of train messages
	bundle   bool           // messages hold what Flower's strategies send, and no more
}

// program finds the app, and compares it with the digest that the policy lists.
func (a *apps) program(r *run) (*program, error) {
	var config map[string]any
	if err := cose.Unmarshal(r.config, &config); err != nil {
		return nil, fmt.Errorf("config of the run: %w", err)
	}
	p := &program{config: flower.Config{RunID: r.body.RunID, NodeID: nodeNumber(r.n.id), NodeConfig: map[string]any{}, RunConfig: runConfig(config)}}
	app := a.find(r.body.App)
	if app == nil {
		return p, a.bundles.program(p, r.body.App)
	}
	if err := checkExecutable(app.Command[0], app.Digest); err != nil {
		return nil, err
	}
	for k, v := range app.NodeConfig {
		p.config.NodeConfig[k] = v
	}
	p.command, p.readOnly = app.Command, append([]string{filepath.Dir(app.Command[0])}, app.ReadOnly...)
	return p, nil
}

// place is where one process runs: its home, and the socket that it is served on.
type place struct {
	home, sockets string
	listener      net.Listener
}

func (a *apps) place() (*place, error) {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp(a.dir, "home-")
	if err != nil {
		return nil, err
	}
	p := &place{home: home}
	// A Unix socket's path is short; the node's own directory may not be.
	if p.sockets, err = os.MkdirTemp("", "concordat-"); err == nil {
		p.listener, err = net.Listen("unix", p.socket())
	}
	if err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

func (p *place) socket() string { return filepath.Join(p.sockets, "app.sock") }

// remove removes what the process leaves; whoever serves the listener closes it.
func (p *place) remove() {
	os.RemoveAll(p.home)
	if p.sockets != "" {
		os.RemoveAll(p.sockets)
	}
}

// launch starts a process in its place; the socket and the token are given as Flower's
// processes take them.
func (a *apps) launch(ctx context.Context, x *program, p *place, flag, token string, out io.Writer) (*sandbox.Process, error) {
	return sandbox.Start(ctx, sandbox.Config{
		Command: append(slices.Clone(x.command), "--insecure", flag, "unix://"+p.socket(), "--token", token),
		Dir:     p.home, Socket: p.socket(), ReadOnly: append(sandbox.System(), x.readOnly...), Env: append(slices.Clone(x.env), "FLWR_HOME="+p.home),
		Isolation: a.isolation, Stdout: out, Stderr: out,
	})
}
