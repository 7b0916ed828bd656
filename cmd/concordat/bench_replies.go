package main

import (
	"bytes"
	"context"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/flower/superlink"
)

// repliesScript drives Flower's own classes, as its clients, its SuperLink and its ServerApp
// do.
//
//go:embed bench_replies.py
var repliesScript string

// The lines, and what they should be.
var replyLines = []struct {
	name, unit string
	target     float64
}{
	{"flower-cpu", "ratio of what processors spend on both ends, from arrays at clients to their mean, to Flower's own code", 1.0 / 4},
	{"flower-aggregate", "ratio of the time of aggregation alone to that of Flower's aggregate_arrayrecords", 1.0 / 12},
	{"flower-server-memory", "ratio of the memory at most of a process that aggregates replies to that of one with Flower's code", 1.0 / 100},
}

const (
	repliesCount   = 10
	repliesSize    = 40e6 // bytes of each, where minutes must do
	repliesRounds  = 15
	repliesVersion = "1.29." // other versions have their classes in other places
)

// repliesBench says what is compared.
type repliesBench struct {
	environment string // as of flowerBench
	size        int64  // of a reply, in bytes
	rounds      int
	say         func(format string, a ...any)
}

func newBenchRepliesCommand() *cobra.Command {
	b := repliesBench{}
	var size, bin string
	cmd := &cobra.Command{
		Use:   "replies",
		Short: "Measure the way of replies to their mean, against Flower's own code",
		Long: `Replies takes ten replies from arrays at clients to their mean, in turn by Flower's own classes in a Python
process and by ours with a link in a process of its own, both over TLS, and compares what processors spent. It
compares the time of aggregation alone, and the memory that a process which aggregates has at most. Flower's
objects are pushed to its Fleet API and pulled from it once each, and lie in memory; the way from a ClientApp
to its node is in neither. Flower's process holds about fifteen times the size of a reply, and this one ten.`,
		Example: "  concordat bench replies --environment /opt/concordat/venv --size 400MB --rounds 1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if b.size, err = parseSize(size); err != nil {
				return usagef("--size %q: %w", size, err)
			}
			if b.size%4 != 0 || b.rounds < 1 {
				return usagef("--size is a multiple of 4, and --rounds at least 1")
			}
			return withDemo(cmd, bin, func(d *demo, say func(string, ...any)) ([]benchValue, error) {
				b.say = say
				return benchReplies(cmd.Context(), d, b)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&size, "size", "40MB", "`size` of a reply, such as 64MiB or 400MB")
	f.IntVar(&b.rounds, "rounds", repliesRounds, "times that both are measured")
	f.StringVar(&b.environment, "environment", "", "`folder` of a Python environment with flwr and numpy (default that of flower-superlink in PATH)")
	f.StringVar(&bin, "bin", "", "directory of concordat-enclave-sim and breast-cancer (default where this program is)")
	return cmd
}

// benchReplies returns the lines; where there is no Flower, they say so.
func benchReplies(ctx context.Context, d *demo, b repliesBench) (all []benchValue, err error) {
	environment, version, err := findFlower(b.environment)
	if err == nil && !strings.HasPrefix(version, repliesVersion) {
		err = fmt.Errorf("%w: the lines are about flwr %sx, and %q has %s", superlink.ErrNoFlower, repliesVersion, environment, version)
	}
	if err == nil {
		_, err = spentBy(os.Getpid())
		if err != nil {
			err = fmt.Errorf("%w: %w", superlink.ErrNoFlower, err)
		}
	}
	if errors.Is(err, superlink.ErrNoFlower) {
		for _, l := range replyLines {
			all = append(all, notMeasured(l.name, l.unit, "lower", l.target, err.Error()))
		}
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	p, err := startPassage(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	r := replyRuns{repliesBench: b, passage: p, program: filepath.Join(environment, "bin", "python"), version: version, dir: filepath.Join(d.dir, "replies")}
	all, err = r.measure()
	if err != nil {
		return nil, errors.Join(err, context.Cause(p.ctx))
	}
	return all, nil
}

// replyRuns are both sides.
type replyRuns struct {
	repliesBench
	*passage
	program string // Python
	version string
	dir     string // of the certificate, and of what Flower keeps
}

func (r *replyRuns) measure() ([]benchValue, error) {
	if err := r.certify(); err != nil {
		return nil, err
	}
	cpu, err := r.compareCPU()
	if err != nil {
		return nil, err
	}
	mean, err := r.compareMean()
	if err != nil {
		return nil, err
	}
	memory, err := r.compareMemory()
	return []benchValue{cpu, mean, memory}, err
}

// certify writes a certificate for Flower's server.
func (r *replyRuns) certify() error {
	cert, _, err := benchCertificate()
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	for name, block := range map[string]pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(r.dir, name), pem.EncodeToMemory(&block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// withPython has a Python process of its own do something.
func (r *replyRuns) withPython(do func(*python) error) error {
	cmd := exec.CommandContext(r.ctx, r.program, "-c", repliesScript, strconv.Itoa(repliesCount), strconv.FormatInt(r.size, 10), r.dir)
	cmd.Dir, cmd.Env, cmd.WaitDelay = r.dir, append(superlink.Environ(r.dir), "GRPC_VERBOSITY=NONE"), patience
	n, err := startPython(cmd)
	if err != nil {
		return err
	}
	return errors.Join(do(n), n.end())
}

// all bytes of one round.
func (r *replyRuns) bytes() float64 { return repliesCount * float64(r.size) }

func (r *replyRuns) compareCPU() (m benchValue, err error) {
	l := replyLines[0]
	var ratios, ours, theirs, pushed, app []float64
	err = r.withPython(func(n *python) error {
		for i := range r.rounds + 1 {
			before := r.spent.all()
			if err := r.round(repliesCount, int(r.size/4)); err != nil {
				return err
			}
			here := (r.spent.all() - before).Seconds()
			push, there, err := timed(n, "whole()")
			if err != nil {
				return err
			}
			alone, _, err := timed(n, "app()")
			if err != nil {
				return err
			}
			if here == 0 || there == 0 {
				return fmt.Errorf("bench: %d replies of %d bytes take less than the kernel counts: want a larger --size", repliesCount, r.size)
			}
			if i == 0 {
				continue // warms up
			}
			r.say("%d replies of %d MB: processors spent %.2f s here, %.2f s in Flower's code", repliesCount, r.size/1e6, here, there)
			ratios, ours, theirs = append(ratios, here/there), append(ours, here), append(theirs, there)
			pushed, app = append(pushed, push), append(app, alone)
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	each := func(s []float64) float64 { return median(s) / r.bytes() * 1e9 }
	unit := fmt.Sprintf("%s (flwr %s, %d replies of %d MB): in ns a byte here %.1f, there %.1f, of which %.1f until all lie in the SuperLink's store; an app spends %.1f of that wherever its reply goes",
		l.unit, r.version, repliesCount, r.size/1e6, each(ours), each(theirs), each(pushed), each(app))
	return newBenchValue(l.name, unit, "lower", l.target, ratios), nil
}

// timed has an expression computed, and returns its value and what the process spent on it,
// in seconds.
func timed(n *python, expression string) (value, took float64, err error) {
	before, err := spentBy(n.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	answer, err := n.ask(expression)
	if err != nil {
		return 0, 0, err
	}
	after, err := spentBy(n.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}
	value, err = strconv.ParseFloat(answer, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("bench: python: %s: %w", expression, err)
	}
	return value, (after[0].own - before[0].own).Seconds(), nil
}

// compareMean compares aggregation alone, of replies that lie in memory as each side has
// them there.
func (r *replyRuns) compareMean() (m benchValue, err error) {
	l := replyLines[1]
	tensor := syntheticTensor(int(r.size / 4))
	var in [][]byte // as many as there are replies: no cache holds what two of them have
	var weights []*opened
	for i := range repliesCount {
		data := object.NPY{Descr: tensor.Type, Shape: tensor.Shape}.Append(nil)
		for left := int(r.size); left > 0; left -= len(elementBlock()) {
			data = append(data, elementBlock()[:min(left, len(elementBlock()))]...)
		}
		in, weights = append(in, data), append(weights, &opened{weight: aggregate.Contribution{Examples: uint64(i + 1)}})
	}
	plan, err := planFor(aggregate.FedAvg, weights)
	if err != nil {
		return m, err
	}
	out := bytes.NewBuffer(make([]byte, 0, len(in[0])))
	var values []benchValue
	err = r.withPython(func(n *python) (err error) {
		if _, err := n.ask("load()"); err != nil {
			return err
		}
		values, err = measureRounds(r.ctx, r.rounds, []ratio{{name: l.name, better: "lower", target: l.target,
			ours: func() error {
				out.Reset()
				var from aggregate.Sources
				for _, data := range in {
					from.In = append(from.In, bytes.NewReader(data))
				}
				return plan.Array(tensor, from, out, nil)
			},
			bound: func() error { _, err := n.ask("mean()"); return err },
		}})
		return err
	})
	if err != nil {
		return m, err
	}
	values[0].Unit = fmt.Sprintf("%s (flwr %s, %d replies of %d MB that lie in memory)", l.unit, r.version, repliesCount, r.size/1e6)
	return values[0], nil
}

// compareMemory compares what both sides' processes that aggregate had at most, with all
// that is in them.
func (r *replyRuns) compareMemory() (m benchValue, err error) {
	l := replyLines[2]
	var there int64
	if err := r.withPython(func(n *python) error {
		if _, err := n.ask("server()"); err != nil {
			return err
		}
		_, there, err = peakMemory(n.cmd.Process.Pid)
		return err
	}); err != nil {
		return m, err
	}
	use, err := r.memoryUse(aggregate.FedAvg, r.size, repliesCount, r.say)
	if err != nil {
		return m, err
	}
	unit := fmt.Sprintf("%s (flwr %s, %d replies of %d MB): in MB here %d, of which idle %d, there %d", l.unit, r.version, repliesCount, r.size/1e6, use.Peak/1e6, use.Idle/1e6, there/1e6)
	m = newBenchValue(l.name, unit, "lower", l.target, []float64{float64(use.Peak) / float64(there)})
	if r.size < memorySize {
		m.unjudged("the target is about replies of 400 MB: concordat bench replies --size 400MB --rounds 1")
	}
	return m, nil
}
