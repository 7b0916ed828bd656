package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/internal/daemon/config"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// hospital is a member of the demo's federation with its one node.
type hospital struct {
	id      policy.MemberID
	dir     string // of everything that is the member's
	data    string // its rows
	rows    int
	control string // address of the node's socket
	node    *process
}

// at returns a path in the member's directory.
func (h *hospital) at(name string) string { return filepath.Join(h.dir, name) }

const (
	logOrigin = "demo.invalid/hospitals" // RFC 2606: names nobody
	appName   = "breast-cancer"
	// A step that misses somebody goes on without them after this long; case c of the
	// refusals waits for it.
	demoStepDeadline = 8
	demoAckDeadline  = 5
)

// setUp makes keys, policy and machine as the parties would, each with the public
// command for it, and starts the processes.
func (d *demo) setUp() error {
	hardware := map[string]string{"snp": "AMD SEV-SNP", "tdx": "Intel TDX"}[d.platform]
	if d.gpu {
		hardware += " with an NVIDIA GPU"
	}
	d.out.line("%s", d.out.paint(bold, fmt.Sprintf("%d hospitals train one classifier, and none shows its rows to anybody.", d.nodes)))
	d.out.line("Enclave: %s, simulated, so that nothing here proves anything about hardware.", hardware)
	d.out.heading("Setting up")
	machine := make(chan error, 1)
	d.machine = filepath.Join(d.state, "machine.json")
	go func() { machine <- d.makeMachine() }() // two RSA keys of 4096 bits: seconds
	for _, step := range []func() error{d.dealRows, d.confinement, d.makeKeys} {
		if err := step(); err != nil {
			return errors.Join(err, <-machine)
		}
	}
	if err := <-machine; err != nil {
		return err
	}
	for _, step := range []func() error{d.agree, d.startLink, d.startFederation} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// makeMachine makes the genuine machine.
func (d *demo) makeMachine() error {
	args := []string{d.sim, "machine", "--out", d.machine, "--platform", d.platform}
	if d.gpu {
		args = append(args, "--gpus", "1")
	}
	_, err := output(d.ctx, args...)
	return err
}

// confinement finds out whether this machine lets apps be confined.
func (d *demo) confinement() error {
	home, err := os.MkdirTemp("", "concordat-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	d.isolation = string(sandbox.Sandbox)
	p, err := sandbox.Start(d.ctx, sandbox.Config{
		Command: []string{d.app, "partition", "--out", filepath.Join(home, "probe")}, Dir: home,
		ReadOnly: append(sandbox.System(), filepath.Dir(d.app)), Isolation: sandbox.Sandbox,
	})
	var refused *sandbox.Refused
	if errors.As(err, &refused) {
		d.isolation = string(sandbox.None)
		d.out.row("apps", "run unconfined: this machine refuses %s (%v)", refused.Confinement, refused.Err)
	} else if err != nil {
		return err
	} else if exit := p.Wait(); !exit.OK() {
		return fmt.Errorf("a confined app does not run: %s", exit)
	}
	d.result.Isolation = d.isolation
	return nil
}

// startLink starts the link and learns its address.
func (d *demo) startLink() error {
	data := filepath.Join(d.state, "link")
	file := filepath.Join(d.state, "link.yaml")
	if err := os.WriteFile(file, []byte("log:\n  format: json\n"), 0o600); err != nil {
		return err
	}
	p, err := d.procs.start("link", d.self, "link", "--data", data, "--listen", "127.0.0.1:0", "--policy", d.chain, "--config", file)
	if err != nil {
		return err
	}
	if err := d.awaitLine(p, "to be ready", func(l logLine) bool { return l.Msg == "link is ready" }); err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(data, "address"))
	if err != nil {
		return err
	}
	d.link = strings.TrimSpace(string(b))
	host, _, _ := strings.Cut(d.link, "#")
	d.out.row("link", "%s, over TLS; nobody trusts it", host)
	return nil
}

// startFederation starts the enclave and the nodes, and waits until they have joined.
func (d *demo) startFederation() (err error) {
	if d.enclave, err = d.startEnclave("enclave", d.machine); err != nil {
		return err
	}
	for _, h := range d.members {
		if err := d.configure(h); err != nil {
			return err
		}
		if err := d.startNode(h); err != nil {
			return err
		}
	}
	if err := d.awaitJoined(0, d.members...); err != nil {
		return err
	}
	d.out.row("enclave", "joined by all %d nodes, each after its own appraisal of the evidence", d.nodes)
	for _, h := range d.members {
		d.out.row(string(h.id), "%d rows that never leave it", h.rows)
	}
	return nil
}

// startEnclave starts an enclave on a machine.
func (d *demo) startEnclave(name, machine string, more ...string) (*process, error) {
	return d.procs.start(name, append([]string{d.sim, "--link", d.link, "--policy", d.chain, "--machine", machine}, more...)...)
}

// configure writes the file that a hospital's engineer would write.
func (d *demo) configure(h *hospital) error {
	app, err := fileDigest(d.app)
	if err != nil {
		return err
	}
	h.control = unixPrefix + filepath.Join(d.sockets, string(h.id))
	s := nodeSettings{
		Link: d.link, Key: h.at("node/node.key"), Policy: d.chain, Data: h.at("node/data"), Control: h.control,
		Apps: []node.App{{Digest: app, Command: append([]string{d.app}, d.appArgs...), ReadOnly: []string{h.data}, NodeConfig: map[string]string{"data": h.data}}},
		// The demo's owners approve in advance what the policy allows; a node's default
		// asks for each run.
		Approve: node.ApprovePolicy, Isolation: d.isolation, Log: daemon.LogConfig{Format: "json"},
	}
	if d.flower != nil {
		d.flower.configure(&s, slices.Index(d.members, h))
	}
	var b bytes.Buffer
	if err := config.Print(&b, s); err != nil {
		return err
	}
	return os.WriteFile(h.at("node.yaml"), b.Bytes(), 0o600)
}

// startNode starts a hospital's node and follows what it tells its users.
func (d *demo) startNode(h *hospital) (err error) {
	if h.node, err = d.procs.start(string(h.id), d.self, "node", "--config", h.at("node.yaml")); err != nil {
		return err
	}
	if err := d.awaitLine(h.node, "to start", func(l logLine) bool { return l.Msg == "node started" }); err != nil {
		return err
	}
	return d.watch(h)
}

// awaitLine waits for a line of a child's log.
func (d *demo) awaitLine(p *process, what string, want func(logLine) bool) error {
	return d.await(p.name+" "+what, func(ctx context.Context) error { return p.lines.await(ctx, 0, want) })
}

// maxWait is how long the demo waits for anything before it gives up; whatever it
// waits for takes seconds.
const maxWait = 60 * time.Second

func (d *demo) await(what string, wait func(context.Context) error) error {
	return d.awaitFor(maxWait, what, wait)
}

func (d *demo) awaitFor(limit time.Duration, what string, wait func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(d.ctx, limit, fmt.Errorf("waited %s for %s", limit, what))
	defer cancel()
	return wait(ctx)
}

// awaitJoined waits until each of the nodes has joined an enclave since the place in
// the events.
func (d *demo) awaitJoined(since int, members ...*hospital) error {
	left := slices.Clone(members)
	return d.await("all nodes to join the enclave", func(ctx context.Context) error {
		return d.events.await(ctx, since, func(e nodeEvent) bool {
			if e.GetEvent() == "joined" {
				left = slices.DeleteFunc(left, func(h *hospital) bool { return h == e.node })
			}
			return len(left) == 0
		})
	})
}
