// Command concordat-enclave-apps is concordat-enclave for federations whose policy lists an
// app that aggregates by itself, with exposure individual: it also runs ServerApps, in the
// sandbox, from the Python environment that its image has at /opt/concordat/flower. It is
// a program of its own so that all other federations measure, and trust, one that starts
// no process for a run.
//
//	concordat-enclave-apps --link ADDR --policy FILE [--config FILE]
//
// Exit status 0 is also the end of an instance that ran a ServerApp and serves no second
// run, or that makes room for such a run: whoever started it starts the next. All else is
// as for concordat-enclave.
package main

import (
	"context"
	"os"
	"time"

	"github.com/concordat/concordat/attestation/collect"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/enclave/apps"
	"github.com/concordat/concordat/enclave/boot"
	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/policy"
)

// environment is where the image has Flower and what ServerApps import.
const environment = "/opt/concordat/flower"

func main() {
	sandbox.Init()
	os.Exit(run())
}

func run() int {
	ctx, stop := daemon.Signals(context.Background())
	defer stop()
	return boot.Main(ctx, boot.Program{
		Name: "concordat-enclave-apps",
		Machine: func(c *policy.Chain) (enclave.Machine, error) {
			return collect.Open(ctx, collect.Config{Policy: c.Head(), Now: time.Now})
		},
		Apps: func() (enclave.ServerApps, error) {
			return apps.Open(apps.Config{Environment: environment, Isolation: sandbox.Sandbox})
		},
	}, os.Args[1:], os.Stderr)
}
