// Command concordat-enclave-sim is concordat-enclave on a machine that does not exist:
// the same supervisor, with evidence made by package attestation/sim under vendor keys
// of its own. A policy of a real federation accepts none of it. It is never released.
//
//	concordat-enclave-sim machine  --out FILE --platform snp|tdx [--gpus N] [--chip NAME] [--fault NAME[=VALUE]]...
//	concordat-enclave-sim machine  --from FILE --out FILE [--fault NAME[=VALUE]]...
//	concordat-enclave-sim describe --machine FILE
//	concordat-enclave-sim evidence --machine FILE < CLAIMS
//	concordat-enclave-sim --link ADDR --policy FILE --machine FILE [--config FILE] [--crash-after EVENT:SEQ] [--flower DIR [--isolation none]]
//
// A machine file holds the simulated vendors' private keys. "describe" prints, as
// JSON, what a policy must hold to accept the machine; "evidence" prints the CPU's
// evidence for encoded claims, for measurements. "--crash-after" is the host that
// pulls the plug: the process kills itself when the event happens. "--flower" is the
// Python environment that a real image has at /opt/concordat/flower, for runs whose own
// ServerApp aggregates.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/enclave/apps"
	"github.com/concordat/concordat/enclave/boot"
	"github.com/concordat/concordat/internal/daemon"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/policy"
)

func main() {
	sandbox.Init()
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	if len(args) > 0 {
		switch args[0] {
		case "machine":
			return report(makeMachine(args[1:]))
		case "describe":
			return report(describe(args[1:], os.Stdout))
		case "evidence":
			return report(evidence(args[1:], os.Stdin, os.Stdout))
		}
	}
	ctx, stop := daemon.Signals(context.Background())
	defer stop()
	var (
		file string
		plug plug
		own  serverApps
	)
	return boot.Main(ctx, boot.Program{
		Name: "concordat-enclave-sim",
		Flags: func(fs *flag.FlagSet) {
			fs.StringVar(&file, "machine", "", "machine file")
			fs.Var(&plug, "crash-after", `kill this process after an event of the enclave, such as "acked:4"`)
			fs.StringVar(&own.environment, "flower", "", "Python environment with flwr: what ServerApps run in")
			fs.StringVar(&own.isolation, "isolation", string(sandbox.Sandbox), `of ServerApps: "sandbox" or "none"`)
		},
		Machine: func(c *policy.Chain) (enclave.Machine, error) { return launch(file, c) },
		Apps:    own.open,
		Observe: plug.observe,
	}, args, os.Stderr)
}

// serverApps are the flags about ServerApps.
type serverApps struct{ environment, isolation string }

func (s *serverApps) open() (enclave.ServerApps, error) {
	switch i := sandbox.Isolation(s.isolation); {
	case i != sandbox.Sandbox && i != sandbox.None:
		return nil, usageError{fmt.Errorf("--isolation is %q, want %q or %q", s.isolation, sandbox.Sandbox, sandbox.None)}
	case s.environment == "":
		return nil, nil
	default:
		return apps.Open(apps.Config{Environment: s.environment, Isolation: i})
	}
}

// launch starts the simulated machine as its host would: bound to the federation,
// where the machine file does not say to what.
func launch(file string, c *policy.Chain) (enclave.Machine, error) {
	if file == "" {
		return nil, errors.New("no --machine")
	}
	cfg, err := sim.ReadConfig(file)
	if err != nil {
		return nil, err
	}
	if cfg.HostData == nil {
		fed := c.Federation()
		cfg.HostData = fed[:]
	}
	return sim.New(cfg, time.Now())
}

// report prints err, if there is one, and returns the exit status.
func report(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 2
	}
	fmt.Fprintln(os.Stderr, "concordat-enclave-sim:", err)
	var misuse usageError
	if errors.As(err, &misuse) {
		return 2
	}
	return 1
}

// usageError is the caller's misuse of the command line.
type usageError struct{ error }
