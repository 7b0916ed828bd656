// Command concordat-enclave is the supervisor that a confidential VM measures and
// runs: see package enclave. It listens on nothing, writes nothing to disk and reads
// no environment.
//
//	concordat-enclave --link ADDR --policy FILE [--config FILE]
//
// This version cannot collect evidence from real hardware, and says so with exit
// status 4: it has no simulator to fall back on. Exit status 0 is a clean end, 1 a
// failure, 2 a misused command line.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/enclave/boot"
	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/policy"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := daemon.Signals(context.Background())
	defer stop()
	return boot.Main(ctx, boot.Program{Name: "concordat-enclave", Machine: machine}, os.Args[1:], os.Stderr)
}

// machine is the hardware that this program runs on.
func machine(*policy.Chain) (enclave.Machine, error) {
	return nil, fmt.Errorf("collecting evidence from SEV-SNP, TDX or GPU hardware is not in this version: %w", errors.ErrUnsupported)
}
