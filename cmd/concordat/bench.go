package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// benchValue is one line of the benchmark; the JSON is stable.
type benchValue struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"` // median
	Target float64 `json:"target"`
	Better string  `json:"better"` // "higher" or "lower"
	Met    *bool   `json:"met"`    // null: not measured here, or not what the target is about; Why says why
	Unit   string  `json:"unit"`
	Spread float64 `json:"spread"` // between the first and the third quartile
	Why    string  `json:"why,omitempty"`
	Allocs uint64  `json:"allocs,omitempty"` // of memory, in one call of what is measured
}

// notMeasured is the line of what this machine cannot measure: never a pass.
func notMeasured(name, unit, better string, target float64, why string) benchValue {
	return benchValue{Name: name, Target: target, Better: better, Unit: unit, Why: why}
}

// unjudged leaves open whether the target is met: the value is of something else than what
// the target is about.
func (m *benchValue) unjudged(why string) { m.Met, m.Why = nil, why }

// newBenchValue sums samples up.
func newBenchValue(name, unit, better string, target float64, samples []float64) benchValue {
	s := slices.Clone(samples)
	slices.Sort(s)
	q := func(part int) float64 { return s[min(len(s)*part/4, len(s)-1)] }
	m := benchValue{Name: name, Value: q(2), Target: target, Better: better, Unit: unit, Spread: q(3) - q(1)}
	met := m.Value >= target
	if better == "lower" {
		met = m.Value <= target
	}
	m.Met = &met
	return m
}

// ratio compares something of ours with the limit that it cannot beat: the same work
// by the standard library alone, or the machine itself. Both are timed in turn, so
// that whatever else the machine does meets both.
type ratio struct {
	name   string
	limit  string // what it is measured against
	better string // "lower": value is time of ours ÷ time of the limit; "higher": its inverse
	target float64
	// prepare, if set, puts things into the state that ours finds; it is not timed.
	prepare func() error
	ours    func() error
	bound   func() error
	allocs  uint64 // of memory, in one call of ours
}

const (
	benchRounds = 25 // odd, so that the median is one of them
	benchWarmup = 3
)

// sample times both once and returns the value.
func (r *ratio) sample() (float64, error) {
	if r.prepare != nil {
		if err := r.prepare(); err != nil {
			return 0, fmt.Errorf("%s: %w", r.name, err)
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	if err := r.ours(); err != nil {
		return 0, fmt.Errorf("%s: %w", r.name, err)
	}
	ours := time.Since(start)
	runtime.ReadMemStats(&after)
	r.allocs = after.Mallocs - before.Mallocs
	start = time.Now()
	if err := r.bound(); err != nil {
		return 0, fmt.Errorf("%s: limit: %w", r.name, err)
	}
	bound := time.Since(start)
	if r.better == "higher" {
		return bound.Seconds() / ours.Seconds(), nil
	}
	return ours.Seconds() / bound.Seconds(), nil
}

// measureRatios takes a sample of each in turn, round by round.
func measureRatios(ctx context.Context, all []ratio) ([]benchValue, error) {
	return measureRounds(ctx, benchRounds, all)
}

func measureRounds(ctx context.Context, rounds int, all []ratio) ([]benchValue, error) {
	samples := make([][]float64, len(all))
	for round := range benchWarmup + rounds {
		for i := range all {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v, err := all[i].sample()
			if err != nil {
				return nil, err
			}
			if round >= benchWarmup {
				samples[i] = append(samples[i], v)
			}
		}
	}
	var out []benchValue
	for i, r := range all {
		v := newBenchValue(r.name, "ratio to "+r.limit, r.better, r.target, samples[i])
		v.Allocs = r.allocs
		out = append(out, v)
	}
	return out, nil
}

func newBenchCommand() *cobra.Command {
	var out, bin string
	flower := flowerBench{size: 256 << 20, rounds: 3, samples: 3, say: func(string, ...any) {}}
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine, against limits measured in the same run",
		Long: `Bench measures, on this machine and now, how close the hot paths come to what bounds them: the same
signatures, hashes and ciphers by the standard library alone, reading memory, and the app's own time. Values
are medians of ratios whose two sides were timed in turn, so they can be compared between machines; spread is
the distance between the quartiles. A target that is missed is reported and is no failure. With a Python
environment that has Flower, whole runs are compared with Flower's own server too, and the way of replies with
its code, which takes minutes.`,
		Example: "  concordat bench --out bench.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := os.MkdirTemp("", "concordat-bench-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			d := demo{nodes: minDemoNodes, rounds: minDemoRounds, platform: "snp", dir: dir, out: newTranscript(nil)}
			if err := d.places(bin); err != nil {
				return err
			}
			all, err := bench(cmd.Context(), &d)
			if err != nil {
				return err
			}
			beside, err := flower.measure(cmd.Context(), filepath.Join(dir, "flower"), bin)
			if err != nil {
				return err
			}
			replies, err := benchReplies(cmd.Context(), &d, repliesBench{environment: flower.environment, size: repliesSize, rounds: repliesRounds, say: flower.say})
			if err != nil {
				return err
			}
			all = slices.Concat(all, beside, replies)
			if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
				return err
			}
			b, err := json.MarshalIndent(all, "", "  ")
			if err != nil {
				return err
			}
			if err := replaceFile(out, append(b, '\n')); err != nil {
				return err
			}
			return emit(cmd, all, func(w io.Writer) { printBench(w, all, out) })
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "out", "o", filepath.Join("out", "bench.json"), "file for the values")
	f.StringVar(&bin, "bin", "", "directory of concordat-enclave-sim and breast-cancer (default where this program is)")
	f.StringVar(&flower.environment, "flower", "", "`folder` of a Python environment with flwr, whose own server is measured against (default that of flower-superlink in PATH)")
	cmd.AddCommand(newBenchStreamCommand(), newBenchMemoryCommand(), newBenchRelayCommand(), newBenchFlowerCommand(), newBenchRepliesCommand(), newBenchEnclaveCommand())
	return cmd
}

// bench measures steps in a running federation first, and then, with nothing else
// running, everything that fits into this process.
func bench(ctx context.Context, d *demo) ([]benchValue, error) {
	steps, err := benchSteps(ctx, d)
	if err != nil {
		return nil, err
	}
	ratios := benchPrimitives()
	join, err := benchJoin(ctx, d)
	if err != nil {
		return nil, err
	}
	appraisals, err := benchAppraisals(ctx, d)
	if err != nil {
		return nil, err
	}
	all, err := measureRatios(ctx, slices.Concat(appraisals, join, ratios))
	if err != nil {
		return nil, err
	}
	sorted, err := benchSorted(ctx, d.dir)
	if err != nil {
		return nil, err
	}
	ingest, err := benchIngest(ctx, d.dir)
	if err != nil {
		return nil, err
	}
	transport, err := benchTransport(ctx)
	if err != nil {
		return nil, err
	}
	fleet, err := benchFleet(ctx, d)
	if err != nil {
		return nil, err
	}
	passage, err := benchPassage(ctx, d)
	return slices.Concat(all, sorted, ingest, transport, passage, []benchValue{fleet}, steps), err
}

func printBench(w io.Writer, all []benchValue, file string) {
	printBenchTable(w, all)
	fmt.Fprintf(w, "%s/%s, %d processors; wrote %s\n", runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), file)
}

func printBenchTable(w io.Writer, all []benchValue) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tVALUE\tSPREAD\tTARGET\tMET\tALLOCS\tUNIT")
	for _, m := range all {
		sign, met, unit := "≤", "no", m.Unit
		if m.Better == "higher" {
			sign = "≥"
		}
		switch {
		case m.Met == nil && m.Value == 0:
			fmt.Fprintf(t, "%s\t-\t-\t%s %s\t?\t\tnot measured: %s\n", m.Name, sign, figure(m.Target), m.Why)
			continue
		case m.Met == nil:
			met, unit = "?", m.Unit+"; not judged: "+m.Why
		case *m.Met:
			met = "yes"
		}
		allocs := ""
		if m.Allocs > 0 {
			allocs = fmt.Sprint(m.Allocs)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s %s\t%s\t%s\t%s\n", m.Name, figure(m.Value), figure(m.Spread), sign, figure(m.Target), met, allocs, unit)
	}
	t.Flush()
}

// figure words a value of the table: two digits after the point, or what tells small ones
// apart.
func figure(v float64) string {
	if v > 0 && v < 0.1 {
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
