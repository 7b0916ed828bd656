// Command concordat-enclave is the supervisor that a confidential VM measures and
// runs: see package enclave. It listens on nothing, writes nothing to disk and reads
// no environment.
//
//	concordat-enclave --link ADDR --policy FILE [--config FILE]
//
// Its evidence comes from the machine that it runs on, by package collect: SEV-SNP or
// TDX, and the NVIDIA GPUs that the policy demands. It starts two kinds of programs, both
// part of the same image: /usr/libexec/concordat-gpu, where the policy demands GPUs, and
// the ServerApp of a run whose policy entry has exposure individual, in the sandbox, from
// the Python environment at /opt/concordat/flower. Without that folder such runs are
// refused. It has no simulator to fall back on.
//
// Exit status 0 is a clean end, also that of an instance which ran a ServerApp and serves
// no second run: start the next, 1 a failure, 2 a misused command line, 4 a machine
// that cannot attest itself as the policy demands.
package main

import (
	"context"
	"errors"
	"io/fs"
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

// environment is where an image has Flower and what ServerApps import.
const environment = "/opt/concordat/flower"

func main() {
	sandbox.Init()
	os.Exit(run())
}

// serverApps returns what runs ServerApps, if the image has it.
func serverApps() (*apps.Apps, error) {
	if _, err := os.Stat(environment); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return apps.Open(apps.Config{Environment: environment, Isolation: sandbox.Sandbox})
}

func run() int {
	ctx, stop := daemon.Signals(context.Background())
	defer stop()
	return boot.Main(ctx, boot.Program{
		Name: "concordat-enclave",
		Machine: func(c *policy.Chain) (enclave.Machine, error) {
			return collect.Open(ctx, collect.Config{Policy: c.Head(), Now: time.Now})
		},
		Apps: serverApps,
	}, os.Args[1:], os.Stderr)
}
