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
	dialect  dialect        // of the process; the zero value is dialect A, also that of apps that are no bundles
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

// place is where one process runs: its home, and where it is served.
type place struct {
	home, sockets string
	address       string       // as the process is told
	listener      net.Listener // nil where the sandbox makes it (own)
	own           bool         // the process gets a network of its own, with this node at address
}

// place makes one. Processes that speak HTTP cannot use a Unix socket: they get a loopback
// of their own, or the machine's where they are not confined.
func (a *apps) place(runtime bool) (*place, error) {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp(a.dir, "home-")
	if err != nil {
		return nil, err
	}
	p := &place{home: home}
	switch {
	case runtime && a.isolation == sandbox.Sandbox:
		p.own, p.address = true, sandbox.LoopbackAddress
	case runtime:
		if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err == nil {
			p.address = p.listener.Addr().String()
		}
	default:
		// A Unix socket's path is short; the node's own directory may not be.
		if p.sockets, err = os.MkdirTemp("", "concordat-"); err == nil {
			p.listener, err = net.Listen("unix", p.socket())
			p.address = "unix://" + p.socket()
		}
	}
	if err != nil {
		p.remove()
		return nil, err
	}
	return p, nil
}

// socket is empty where there is none.
func (p *place) socket() string {
	if p.sockets == "" {
		return ""
	}
	return filepath.Join(p.sockets, "app.sock")
}

// remove removes what the process leaves.
func (p *place) remove() {
	if p.listener != nil {
		p.listener.Close() // whoever served it has closed it before
	}
	os.RemoveAll(p.home)
	if p.sockets != "" {
		os.RemoveAll(p.sockets)
	}
}

// launch starts a process in its place; address and token are given as Flower's processes
// take them. From then on it can be served.
func (a *apps) launch(ctx context.Context, x *program, p *place, flag, token string, out io.Writer) (*sandbox.Process, error) {
	command := append(slices.Clone(x.command), "--insecure", flag, p.address)
	if x.dialect.runtime {
		// Other users of the machine read argument lists, and may reach its loopback.
		file := filepath.Join(p.home, "token")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			return nil, err
		}
		command = append(command, "--token-file", file)
	} else {
		command = append(command, "--token", token)
	}
	box, err := sandbox.Start(ctx, sandbox.Config{
		Command: command,
		Dir:     p.home, Socket: p.socket(), Loopback: p.own, ReadOnly: append(sandbox.System(), x.readOnly...), Env: append(slices.Clone(x.env), "FLWR_HOME="+p.home),
		Isolation: a.isolation, Stdout: out, Stderr: out,
	})
	if err == nil && p.own {
		p.listener = box.Loopback()
	}
	return box, err
}
