package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

// Bounds of --nodes: case c of the refusals needs a third member to leave out, and
// every node starts processes of its own on this machine.
const (
	minDemoNodes = 3
	maxDemoNodes = 16
)

func newDemoCommand() *cobra.Command {
	d := demo{result: demoResult{Refusals: []refusalResult{}}}
	var bin string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a whole simulated federation on this machine, and show what it refuses",
		Long: `Demo runs a link, an enclave on a simulated machine and a node for each of three hospitals, as processes of
their own over TLS on loopback. The hospitals train one classifier on the Breast Cancer Wisconsin data, of
which each holds a part; the bundle of the run is verified; and then five things are tried that must be
refused. It fails if the classifier is worse than one trained in one place, or if anything is not refused.

The hardware is simulated: the same code judges its evidence as would judge AMD's, Intel's and NVIDIA's, but
what it proves is worth nothing, and every verdict says so.`,
		Example: `  concordat demo
  concordat demo --platform tdx --gpu=false --rounds 5 --out /tmp/demo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.nodes < minDemoNodes || d.nodes > maxDemoNodes {
				return usagef("--nodes is %d, want %d to %d", d.nodes, minDemoNodes, maxDemoNodes)
			}
			if d.platform != "snp" && d.platform != "tdx" {
				return usagef("--platform is %q, want snp or tdx", d.platform)
			}
			if d.rounds < minDemoRounds {
				return usagef("--rounds is %d, want at least %d", d.rounds, minDemoRounds)
			}
			d.out = newTranscript(cmd.OutOrStdout())
			if out, _ := cmd.Flags().GetString("output"); out == outputJSON {
				d.out = newTranscript(nil)
			}
			if err := d.places(bin); err != nil {
				return err
			}
			if err := d.run(cmd.Context()); err != nil {
				return err
			}
			if out, _ := cmd.Flags().GetString("output"); out == outputJSON {
				return writeJSON(cmd.OutOrStdout(), d.result)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&d.nodes, "nodes", 3, "hospitals, each a member with one node")
	f.Uint64Var(&d.rounds, "rounds", 10, "rounds of training")
	f.StringVar(&d.platform, "platform", "snp", "simulated platform: snp or tdx")
	f.BoolVar(&d.gpu, "gpu", true, "a simulated NVIDIA GPU beside the CPU")
	f.StringVarP(&d.dir, "out", "o", filepath.Join("out", "demo"), "directory for the results; its state and logs are wiped first")
	f.StringVar(&bin, "bin", "", "directory of concordat-enclave-sim and breast-cancer (default where this program is)")
	return cmd
}

// demo is one run of the demo.
type demo struct {
	nodes    int
	rounds   uint64
	platform string
	gpu      bool
	dir      string // results
	state    string // everything that the parties keep; wiped at the start
	self     string // this program
	sim      string // concordat-enclave-sim
	app      string // breast-cancer
	appArgs  []string
	deadline policy.Seconds // of a step
	flower   *demoFlower    // nil: no Flower app bundles are run

	out    *transcript
	ctx    context.Context
	procs  processes
	events *feed[nodeEvent]
	result demoResult

	isolation string
	sockets   string // directory of the nodes' control sockets
	machine   string // file of the genuine machine
	chain     string // file of the signed policy
	link      string // address
	members   []*hospital
	enclave   *process // the genuine one that runs now
}

// demoResult is what --output json prints.
type demoResult struct {
	Platform      string          `json:"platform"`
	GPU           bool            `json:"gpu"`
	Nodes         int             `json:"nodes"`
	Federation    cose.Digest     `json:"federation"`
	Isolation     string          `json:"isolation"` // of the apps
	Rounds        []roundLine     `json:"rounds"`
	Accuracy      float64         `json:"accuracy"`         // held out, of the federation's model
	Central       float64         `json:"central_accuracy"` // of the same kind of model trained in one place
	Bundle        string          `json:"bundle"`
	Trust         string          `json:"trust"`
	Model         string          `json:"model"`
	Verdict       string          `json:"verdict"`
	Refusals      []refusalResult `json:"refusals"`
	TrainSeconds  float64         `json:"train_seconds"`
	WholeSeconds  float64         `json:"seconds"`
	SetupSeconds  float64         `json:"setup_seconds"`
	RefuseSeconds float64         `json:"refuse_seconds"`
}

// refusalResult is one thing that was tried and refused.
type refusalResult struct {
	Case   string `json:"case"`
	Tried  string `json:"tried"`
	By     string `json:"by"`
	Reason string `json:"reason"`
}

// places finds the programs and makes the directories absolute.
func (d *demo) places(bin string) (err error) {
	if d.deadline == 0 {
		d.deadline = demoStepDeadline
	}
	if d.appArgs == nil {
		d.appArgs = []string{"--once"}
	}
	if d.self, err = os.Executable(); err != nil {
		return err
	}
	if bin == "" {
		bin = filepath.Dir(d.self)
	}
	for _, p := range []struct {
		path *string
		name string
	}{{&d.sim, "concordat-enclave-sim"}, {&d.app, "breast-cancer"}} {
		if *p.path, err = filepath.Abs(filepath.Join(bin, p.name)); err != nil {
			return err
		}
		if _, err := os.Stat(*p.path); err != nil {
			return hinted(exitIncomplete, err, "\"make demo\" builds it; --bin says where it is")
		}
	}
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	d.state = filepath.Join(d.dir, "state")
	d.procs.dir = filepath.Join(d.dir, "logs")
	for _, wiped := range []string{d.state, d.procs.dir} {
		if err := os.RemoveAll(wiped); err != nil {
			return err
		}
		if err := os.MkdirAll(wiped, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// run does it all. Whatever it started has ended when it returns.
func (d *demo) run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	d.ctx, d.procs.fail, d.events = ctx, fail, newFeed[nodeEvent]()
	var err error
	if d.sockets, err = os.MkdirTemp("", "concordat-demo-"); err != nil { // a socket's path is short; --out may not be
		return err
	}
	defer os.RemoveAll(d.sockets)
	defer d.procs.stop()
	begin := time.Now()
	since := func(t time.Time) float64 { return time.Since(t).Round(time.Millisecond).Seconds() }
	d.result.Platform, d.result.GPU, d.result.Nodes = d.platform, d.gpu, d.nodes
	for _, part := range []struct {
		seconds *float64
		do      func() error
	}{{&d.result.SetupSeconds, d.setUp}, {&d.result.TrainSeconds, d.train}, {&d.result.RefuseSeconds, d.refusals}} {
		t := time.Now()
		if err := part.do(); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause // a child that ended explains more than a wait that was broken off
			}
			if errors.Is(err, context.Canceled) {
				return errors.New("interrupted")
			}
			return hinted(exitFail, err, "the logs of all processes are in %s", d.procs.dir)
		}
		*part.seconds = since(t)
	}
	d.result.WholeSeconds = since(begin)
	d.out.heading("Done")
	d.out.line("in %.1f s. What is left is in %s:", d.result.WholeSeconds, d.dir)
	d.out.line("bundle.cbor and trust.json for \"concordat verify\", the model, and the logs of all processes.")
	return nil
}

// command runs a public command of this program, in this process, and reads the JSON
// that it prints into v, if v is not nil. A command that fails may have printed why.
func (d *demo) command(v any, args ...string) error {
	root := newRootCommand()
	var out, errs bytes.Buffer
	root.SetArgs(append(args, "--output", outputJSON))
	root.SetOut(&out)
	root.SetErr(&errs)
	err := root.ExecuteContext(d.ctx)
	if v != nil && (err == nil || out.Len() > 0) {
		err = errors.Join(err, json.Unmarshal(out.Bytes(), v))
	}
	if err != nil {
		return fmt.Errorf("concordat %s: %w", strings.Join(args[:min(2, len(args))], " "), err)
	}
	return nil
}
