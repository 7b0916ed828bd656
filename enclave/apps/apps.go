// Package apps runs ServerApps inside the enclave: Flower's unmodified process, from the
// Python environment that is part of the enclave's image, in the sandbox, with an empty
// home and no network but the enclave. What a process prints is dropped: it may quote what
// members sent, and whoever reads the enclave's log is not one of them.
package apps

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/internal/flower/process"
	"github.com/concordat/concordat/internal/flower/serverapp"
	"github.com/concordat/concordat/internal/sandbox"
)

// Config says what ServerApps run in.
type Config struct {
	Environment string // folder of a Python environment with flwr, and with what the apps import
	Isolation   sandbox.Isolation
}

// Apps starts ServerApps. It implements [enclave.ServerApps].
type Apps struct {
	env       *process.Environment
	isolation sandbox.Isolation
}

// Open looks at the environment.
func Open(c Config) (*Apps, error) {
	env, err := process.Open(c.Environment)
	if err != nil {
		return nil, fmt.Errorf("apps: environment: %w", err)
	}
	return &Apps{env: env, isolation: c.Isolation}, nil
}

// App is one process, with the server that it talks to.
type App struct {
	*serverapp.Server
	box    *process.Process
	cancel context.CancelFunc
	parts  sync.WaitGroup // that serve and watch
	once   sync.Once
}

// Start starts a process. It ends with ctx at the latest; the caller closes it. When the
// process is gone, [serverapp.Server.Next] returns an error that wraps
// [serverapp.ErrRefused], unless it has ended well before.
func (a *Apps) Start(ctx context.Context, c serverapp.Config) (enclave.ServerApp, error) {
	x := &App{Server: serverapp.New(c)}
	ctx, x.cancel = context.WithCancel(ctx)
	// Homes lie where everything temporary does: in the machine's memory.
	var err error
	x.box, err = process.Start(ctx, process.Config{Program: a.env.Program(process.ServerApp), Dir: os.TempDir(), Token: x.Token(), Isolation: a.isolation, Output: io.Discard})
	if err != nil {
		x.cancel()
		return nil, fmt.Errorf("apps: %w", err)
	}
	serve := x.Serve
	if a.env.Dialect().Runtime {
		serve = x.ServeRuntime
	}
	x.parts.Go(func() {
		if err := serve(ctx, x.box.Listener); err != nil {
			x.Fail(fmt.Errorf("apps: %w", err))
		}
	})
	x.parts.Go(func() {
		select {
		case <-x.box.Done():
			x.Fail(serverapp.Gone(x.box.Wait().String()))
		case <-ctx.Done():
		}
	})
	return x, nil
}

// ErrClosed is what [serverapp.Server.Next] returns once the App was closed.
var ErrClosed = errors.New("apps: the ServerApp was ended")

// Close ends the process and waits for all that belongs to it. It may be called again.
func (x *App) Close() {
	x.once.Do(func() {
		x.Fail(ErrClosed)
		x.box.Stop()
		x.cancel()
		x.parts.Wait()
		x.box.Remove()
	})
}
