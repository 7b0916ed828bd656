// Command concordat-enclave is the supervisor that a confidential VM measures and
// runs: see package enclave. It listens on nothing, writes nothing to disk and reads
// no environment.
//
//	concordat-enclave --link ADDR --policy FILE [--config FILE]
//
// Its evidence comes from the machine that it runs on, by package collect: SEV-SNP or
// TDX, and the NVIDIA GPUs that the policy demands. The one program that it starts is
// /usr/libexec/concordat-gpu, part of the same image, and only where the policy demands
// GPUs. It has no simulator to fall back on. Apps that aggregate by themselves are for
// concordat-enclave-apps, which is this and more.
//
// Exit status 0 is a clean end, 1 a failure, 2 a misused command line, 4 a machine
// that cannot attest itself as the policy demands.
package main

import (
	"context"
	"os"
	"time"

	"github.com/concordat/concordat/attestation/collect"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/enclave/boot"
	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/policy"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := daemon.Signals(context.Background())
	defer stop()
	return boot.Main(ctx, boot.Program{
		Name: "concordat-enclave",
		Machine: func(c *policy.Chain) (enclave.Machine, error) {
			return collect.Open(ctx, collect.Config{Policy: c.Head(), Now: time.Now})
		},
	}, os.Args[1:], os.Stderr)
}
