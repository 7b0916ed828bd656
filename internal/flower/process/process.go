package process

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"

	"github.com/concordat/concordat/internal/sandbox"
)

// Program is what is started, before it is told where.
type Program struct {
	Command  []string // flags that say where follow
	ReadOnly []string // paths that it sees beside the system's
	Env      []string
	Dialect  Dialect
	Part     Part
}

// Config says where.
type Config struct {
	Program   Program
	Dir       string // homes are made in it, empty, one a process; it is made if need be
	Token     string // that the process is to show
	Isolation sandbox.Isolation
	Output    io.Writer // both streams
}

// Process is a program that was started. Its methods are those of the sandbox's, and of
// one goroutine.
type Process struct {
	*sandbox.Process
	// Listener is where the process expects to be served. Whoever serves it closes it.
	Listener      net.Listener
	home, sockets string
}

// Start starts a program in a place of its own. It ends with ctx at the latest.
//
// Processes that speak HTTP cannot use a Unix socket: they get a loopback of their own, or
// the machine's where they are not confined.
func Start(ctx context.Context, c Config) (*Process, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	home, err := os.MkdirTemp(c.Dir, "home-")
	if err != nil {
		return nil, err
	}
	p := &Process{home: home}
	if err := p.start(ctx, c); err != nil {
		p.Remove()
		return nil, err
	}
	return p, nil
}

func (p *Process) start(ctx context.Context, c Config) (err error) {
	x := c.Program
	box := sandbox.Config{Dir: p.home, ReadOnly: append(sandbox.System(), x.ReadOnly...), Env: append(slices.Clone(x.Env), "FLWR_HOME="+p.home),
		Isolation: c.Isolation, Stdout: c.Output, Stderr: c.Output}
	var address string
	switch {
	case x.Dialect.Runtime && c.Isolation == sandbox.Sandbox:
		box.Loopback, address = true, sandbox.LoopbackAddress
	case x.Dialect.Runtime:
		if p.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		address = p.Listener.Addr().String()
	default:
		// A Unix socket's path is short; Dir's may not be.
		if p.sockets, err = os.MkdirTemp("", "concordat-"); err != nil {
			return err
		}
		box.Socket = filepath.Join(p.sockets, "app.sock")
		if p.Listener, err = net.Listen("unix", box.Socket); err != nil {
			return err
		}
		address = "unix://" + box.Socket
	}
	box.Command = append(slices.Clone(x.Command), "--insecure", x.Dialect.flag(x.Part), address)
	if x.Dialect.Runtime {
		// Other users of the machine read argument lists, and may reach its loopback.
		file := filepath.Join(p.home, "token")
		if err := os.WriteFile(file, []byte(c.Token), 0o600); err != nil {
			return err
		}
		box.Command = append(box.Command, "--token-file", file)
	} else {
		box.Command = append(box.Command, "--token", c.Token)
	}
	if p.Process, err = sandbox.Start(ctx, box); err != nil {
		return err
	}
	if box.Loopback {
		p.Listener = p.Process.Loopback()
	}
	return nil
}

// Remove removes what the process leaves. The process has ended.
func (p *Process) Remove() {
	if p.Listener != nil {
		p.Listener.Close() // whoever served it has closed it before
	}
	os.RemoveAll(p.home)
	if p.sockets != "" {
		os.RemoveAll(p.sockets)
	}
}
