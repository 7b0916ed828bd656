package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower/superlink"
	"github.com/concordat/concordat/node"
)

// benchApp is the Flower app whose runs are timed. An embedded folder leaves out files
// that begin with "_", unless they are asked for.
//
//go:embed all:benchapp
var benchApp embed.FS

// demoFlower has the demo's nodes run a Flower app bundle, and the first of them serve the
// flwr command.
type demoFlower struct {
	environment string
	digest      cose.Digest
}

// configure gives a node, the i-th, what it runs bundles with.
func (f *demoFlower) configure(s *nodeSettings, i int) {
	s.Flower = &node.Flower{Environment: f.environment, NodeConfig: map[string]any{"partition-id": i}}
	if i == 0 {
		s.FlowerCtl = "127.0.0.1:0"
	}
}

// flowerBench says what is compared with Flower's own server.
type flowerBench struct {
	environment string // folder of a Python environment; empty: where flower-superlink in PATH is
	size        int64  // of the large model, in bytes
	rounds      int
	samples     int // runs of the trivial model
	say         func(format string, a ...any)
}

// The lines, and what they should be.
var flowerLines = []struct {
	name, unit string
	target     float64
}{
	{"flower-run", "ratio to the wall time of Flower's own SuperLink and SuperNodes", 1.0 / 3},
	{"flower-large", "ratio to the wall time of Flower's own SuperLink and SuperNodes, with a large model", 1.0 / 2},
	{"flower-memory", "ratio of the enclave's memory at most to that of the SuperLink and what it starts", 1.0 / 10},
}

func newBenchFlowerCommand() *cobra.Command {
	b := flowerBench{}
	var size, bin string
	cmd := &cobra.Command{
		Use:   "flower",
		Short: "Measure runs against Flower's own server, with the same app and command",
		Long: `Flower runs one app, by one flwr command, in turn on Flower's own SuperLink with three SuperNodes, and on the
demo's federation with three nodes: first with a model of 4 KiB, then with one of the given size. It prints
the ratios of wall time, from the command's start to its end, and how much memory the enclave had at most
against the SuperLink and the processes that it starts. Both sides run their ClientApps in the same Python
environment; one run of each side before the first is not timed. What else the machine has to do meets both
sides unequally: beside wall time stands what processors spent. Flower's processes hold a large model up to
thirty times in all: have twenty times its size of memory for one round, and forty for more.`,
		Example: "  concordat bench flower --environment /opt/concordat/venv --size 1GiB --rounds 1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if b.size, err = parseSize(size); err != nil {
				return usagef("--size %q: %w", size, err)
			}
			if b.size%4 != 0 || b.rounds < 1 || b.rounds > 100 || b.samples < 1 {
				return usagef("--size is a multiple of 4, --rounds 1 to 100, and --samples at least 1")
			}
			dir, err := os.MkdirTemp("", "concordat-bench-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			b.say = func(format string, a ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", a...) }
			values, err := b.measure(cmd.Context(), dir, bin)
			if err != nil {
				return err
			}
			return emit(cmd, values, func(w io.Writer) { printBenchTable(w, values) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&size, "size", "256MiB", "`size` of the large model, such as 64MiB or 1GiB")
	f.IntVar(&b.rounds, "rounds", 3, "rounds of training in each run")
	f.IntVar(&b.samples, "samples", 3, "runs with the small model on each side")
	f.StringVar(&b.environment, "environment", "", "`folder` of a Python environment with flwr and numpy (default that of flower-superlink in PATH)")
	f.StringVar(&bin, "bin", "", "directory of concordat-enclave-sim and breast-cancer (default where this program is)")
	return cmd
}

// measure returns the lines; where there is no Flower, they say so.
func (b *flowerBench) measure(ctx context.Context, dir, bin string) ([]benchValue, error) {
	version, err := b.find()
	if errors.Is(err, superlink.ErrNoFlower) {
		var all []benchValue
		for _, l := range flowerLines {
			all = append(all, notMeasured(l.name, l.unit, "lower", l.target, err.Error()))
		}
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	c := flowerRuns{flowerBench: b, version: version, home: filepath.Join(dir, "user"), done: make(map[string]int),
		d: demo{nodes: minDemoNodes, rounds: uint64(b.rounds), platform: "snp", dir: filepath.Join(dir, "demo"), out: newTranscript(nil), deadline: 24 * 3600}}
	if err := c.d.places(bin); err != nil {
		return nil, err
	}
	return c.measure(ctx, filepath.Join(dir, "superlink"))
}

// find makes the environment an absolute path, and returns the version of Flower in it.
func (b *flowerBench) find() (version string, err error) {
	b.environment, version, err = findFlower(b.environment)
	return version, err
}

// findFlower returns the absolute path of an environment, or of that of flower-superlink in
// PATH, and the version of Flower in it.
func findFlower(environment string) (path, version string, err error) {
	if environment == "" {
		program, err := exec.LookPath("flower-superlink")
		if err != nil {
			return "", "", fmt.Errorf("%w: no environment is named, and there is no flower-superlink in PATH", superlink.ErrNoFlower)
		}
		environment = filepath.Dir(filepath.Dir(program))
	}
	if path, err = filepath.Abs(environment); err != nil {
		return "", "", err
	}
	version, err = superlink.Version(path)
	return path, version, err
}

// flowerRuns are two federations that run the same app in turn.
type flowerRuns struct {
	*flowerBench
	version string
	d       demo
	home    string           // of the user who has the flwr command
	seed    int              // of the newest run: the ledger refuses the same one twice
	done    map[string]int   // runs on either side
	pids    map[string][]int // of either side's processes
}

// The names of both sides, as the flwr command has them.
const (
	oursSide   = "my-node"
	theirsSide = "superlink"
)

func (c *flowerRuns) measure(ctx context.Context, dir string) (all []benchValue, err error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	d := &c.d
	d.ctx, d.procs.fail, d.events = ctx, fail, newFeed[nodeEvent]()
	if d.sockets, err = os.MkdirTemp("", "concordat-bench-"); err != nil { // a socket's path is short
		return nil, err
	}
	defer os.RemoveAll(d.sockets)
	bundle, err := c.build(ctx)
	if err != nil {
		return nil, err
	}
	defer d.procs.stop()
	if err := c.setUp(bundle); err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	theirs, err := c.startTheirs(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer theirs.Stop()
	if err := c.connect(theirs.Address()); err != nil {
		return nil, err
	}
	c.pids = map[string][]int{theirsSide: theirs.Processes()}
	for _, p := range d.procs.all {
		c.pids[oursSide] = append(c.pids[oursSide], p.pid())
	}
	all, err = c.timeBoth(ctx, theirs)
	if err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	return all, nil
}

// setUp starts the demo's federation with the bundle, approved everywhere.
func (c *flowerRuns) setUp(bundle string) error {
	d := &c.d
	digest, err := fileDigest(bundle)
	if err != nil {
		return err
	}
	d.flower = &demoFlower{environment: c.environment, digest: digest}
	if err := d.setUp(); err != nil {
		return err
	}
	for _, h := range d.members {
		if err := d.command(nil, "app", "approve", bundle, "--control", h.control); err != nil {
			return err
		}
	}
	return nil
}

// startTheirs starts Flower's own federation.
func (c *flowerRuns) startTheirs(ctx context.Context, dir string) (*superlink.Federation, error) {
	cfg := superlink.Config{Environment: c.environment, Dir: dir}
	for i := range c.d.nodes {
		cfg.Nodes = append(cfg.Nodes, map[string]any{"partition-id": i})
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxWait, fmt.Errorf("waited %s", maxWait))
	defer cancel()
	return superlink.Start(ctx, cfg)
}

// connect writes the flwr command's configuration.
func (c *flowerRuns) connect(theirs string) error {
	ours := ""
	if err := c.d.awaitLine(c.d.members[0].node, "to serve the flwr command", func(l logLine) bool {
		if strings.HasPrefix(l.Msg, "the flwr command may connect") {
			ours = l.Address
		}
		return ours != ""
	}); err != nil {
		return err
	}
	var config strings.Builder
	for name, address := range map[string]string{oursSide: ours, theirsSide: theirs} {
		fmt.Fprintf(&config, "[superlink.%s]\naddress = %q\ninsecure = true\n\n", name, address)
	}
	return os.WriteFile(filepath.Join(c.home, "flwr", "config.toml"), []byte(config.String()), 0o600)
}

// build writes the app and has Flower make a bundle of it.
func (c *flowerRuns) build(ctx context.Context) (string, error) {
	if err := os.MkdirAll(filepath.Join(c.home, "flwr"), 0o700); err != nil {
		return "", err
	}
	sub, err := fs.Sub(benchApp, "benchapp")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(filepath.Join(c.home, "app"), sub); err != nil {
		return "", err
	}
	if _, err := c.flwr(ctx, "build", "--app", "app"); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(c.home, "*.fab"))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("bench: flwr build left %d bundles", len(found))
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// flwr runs Flower's command.
func (c *flowerRuns) flwr(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.environment, "bin", "flwr"), args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = c.home, superlink.Environ(c.home), patience
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("flwr %s: %w: %s", args[0], err, out)
	}
	return out, nil
}

// timeBoth times runs on both sides in turn.
func (c *flowerRuns) timeBoth(ctx context.Context, theirs *superlink.Federation) ([]benchValue, error) {
	for _, side := range []string{theirsSide, oursSide} {
		took, err := c.run(ctx, side, smallModel, 1)
		if err != nil {
			return nil, err
		}
		c.say("%s: one run of one round, not counted: %s", side, took)
	}
	small, err := c.compare(ctx, 0, smallModel, c.samples)
	if err != nil {
		return nil, err
	}
	watch, unmeasured := watchMemory(ctx, theirs.Processes()[0])
	large, err := c.compare(ctx, 1, c.size, 1)
	if err != nil {
		return nil, err
	}
	if unmeasured != nil {
		return []benchValue{small, large, notMeasured(flowerLines[2].name, flowerLines[2].unit, "lower", flowerLines[2].target, unmeasured.Error())}, nil
	}
	memory, err := c.memory(watch.end())
	return []benchValue{small, large, memory}, err
}

// compare makes one of the lines of wall time.
func (c *flowerRuns) compare(ctx context.Context, line int, size int64, samples int) (benchValue, error) {
	var ratios []float64
	var ours, theirs [2][]float64 // wall and processors
	for range samples {
		t, o, err := c.pair(ctx, size)
		if err != nil {
			return benchValue{}, err
		}
		ratios = append(ratios, o.wall/t.wall)
		ours[0], ours[1] = append(ours[0], o.wall), append(ours[1], o.cpu)
		theirs[0], theirs[1] = append(theirs[0], t.wall), append(theirs[1], t.cpu)
	}
	l := flowerLines[line]
	unit := fmt.Sprintf("%s (flwr %s, %d KiB, %d rounds, 3 clients): here %s, there %s", l.unit, c.version, size>>10, c.rounds,
		cost{median(ours[0]), median(ours[1])}, cost{median(theirs[0]), median(theirs[1])})
	return newBenchValue(l.name, unit, "lower", l.target, ratios), nil
}

// memory compares what the enclave had at most with what theirs had, process by process.
func (c *flowerRuns) memory(theirs map[string]int64) (benchValue, error) {
	link := c.d.process("link")
	if link == nil {
		return benchValue{}, errors.New("bench: internal error: no link")
	}
	_, enclave, err := peakMemory(c.d.enclave.pid())
	if err != nil {
		return benchValue{}, err
	}
	_, relay, err := peakMemory(link.pid())
	if err != nil {
		return benchValue{}, err
	}
	var sum int64
	var each []string
	for _, name := range slices.Sorted(maps.Keys(theirs)) {
		sum += theirs[name]
		each = append(each, fmt.Sprintf("%s %d", name, theirs[name]/1e6))
	}
	l := flowerLines[2]
	unit := fmt.Sprintf("%s, with a model of %d MiB; in MB here: enclave %d, and beside it the link %d; there: %s", l.unit, c.size>>20, enclave/1e6, relay/1e6, strings.Join(each, ", "))
	return newBenchValue(l.name, unit, "lower", l.target, []float64{float64(enclave) / float64(sum)}), nil
}

// smallModel is the size of a model that takes no time, in bytes.
const smallModel = 4096

// pair has a run done on either side.
func (c *flowerRuns) pair(ctx context.Context, size int64) (theirs, ours cost, err error) {
	if theirs, err = c.run(ctx, theirsSide, size, c.rounds); err != nil {
		return cost{}, cost{}, err
	}
	if ours, err = c.run(ctx, oursSide, size, c.rounds); err != nil {
		return cost{}, cost{}, err
	}
	c.say("%d rounds with a model of %d KiB: here %s, on Flower's own server %s", c.rounds, size>>10, ours, theirs)
	return theirs, ours, nil
}

// cost is what a run took, in seconds: by the clock, from the start of "flwr run" until
// it has shown the run's end, and of processors, in all processes of the side but that
// command. What else a machine has to do moves the first and hardly the second.
type cost struct{ wall, cpu float64 }

func (c cost) String() string { return fmt.Sprintf("%.1f s (%.1f of processors)", c.wall, c.cpu) }

// run has one run done.
func (c *flowerRuns) run(ctx context.Context, side string, size int64, rounds int) (cost, error) {
	c.seed++
	spentBefore, _ := spentByTrees(c.pids[side]) // where the kernel does not say: 0
	config := fmt.Sprintf("num-server-rounds=%d size=%d seed=%d", rounds, size, c.seed)
	begin := time.Now()
	out, err := c.flwr(ctx, "run", "app", side, "--stream", "-c", config)
	took := cost{wall: time.Since(begin).Seconds()}
	spentAfter, _ := spentByTrees(c.pids[side])
	took.cpu = (spentAfter - spentBefore).Seconds()
	if err != nil {
		return cost{}, err
	}
	// The command ends well however the run ended.
	b, err := c.flwr(ctx, "list", side, "--format", "json")
	if err != nil {
		return cost{}, err
	}
	c.done[side]++
	completed, err := completedRuns(b)
	if err == nil && completed != c.done[side] {
		err = fmt.Errorf("%d runs completed, want %d", completed, c.done[side])
	}
	if err != nil {
		return cost{}, fmt.Errorf("bench: %s: %w: %s", side, err, out)
	}
	return took, nil
}

// completedRuns counts them in what "flwr list" says.
func completedRuns(out []byte) (n int, err error) {
	var v struct {
		Runs []struct {
			Status string `json:"status"`
		} `json:"runs"`
	}
	if err := json.Unmarshal(out[max(0, bytes.IndexByte(out, '{')):], &v); err != nil {
		return 0, fmt.Errorf("flwr list: %w: %.200q", err, out)
	}
	for _, r := range v.Runs {
		if r.Status == "finished:completed" {
			n++
		}
	}
	return n, nil
}

// median of samples, of which there is one.
func median(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	return s[len(s)/2]
}
