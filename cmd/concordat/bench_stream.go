package main

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/verifier/receipt"
)

// streamRow is how many elements a row of the synthetic model has: 4 KiB of float32.
const streamRow = 1 << 10

// streamCopies is how many times nodes and apps hold the model: each of the three members
// about four times.
const streamCopies = 4 * minDemoNodes

// streamRounds are the rounds of training whose time is taken.
const streamRounds = 3

func newBenchStreamCommand() *cobra.Command {
	var size, bin string
	var generated bool
	cmd := &cobra.Command{
		Use:   "stream",
		Short: "Measure a model of any size on its way through node, link and enclave",
		Long: `Stream starts the demo's federation, a process for each party, and trains a model of float32 of the given
size for three rounds, with an app that returns every model as it came: what is measured is Concordat. It
prints how fast the members' contributions go into the aggregate, against SHA-256 on one core over as many
bytes, and how much memory link and enclave ever had. Nodes and apps hold the model, about four times in
all for each of the three members.

A model that fits no memory is generated: three nodes seal it as they make it, a link stores it, and a process
that does what an enclave does, sessions and statements excepted, reads it, aggregates it, and stores the next
model. All of them have constant memory; the disk needs four times the model.`,
		Example: `  concordat bench stream --size 256MiB
  concordat bench stream --size 100GiB`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := parseSize(size)
			if err != nil {
				return usagef("--size %q: %w", size, err)
			}
			if has, err := availableMemory(); err == nil && n > has/streamCopies && !generated {
				fmt.Fprintf(cmd.ErrOrStderr(), "apps and their nodes would hold %d times %s, and this machine has %.0f GB of memory to give: contributions are generated as they are sent, without apps\n", streamCopies, size, float64(has)/1e9)
				generated = true
			}
			if generated {
				return withPassage(cmd, bin, func(p *passage, say func(string, ...any)) ([]benchValue, error) { return p.stream(n, say) })
			}
			dir, err := os.MkdirTemp("", "concordat-bench-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			d := demo{nodes: minDemoNodes, rounds: streamRounds, platform: "snp", dir: dir, out: newTranscript(nil), appArgs: []string{"echo", "--once"}, deadline: 24 * 3600}
			if err := d.places(bin); err != nil {
				return err
			}
			rows := max(1, n/(4*streamRow))
			values, err := benchStream(cmd.Context(), &d, rows, func(format string, a ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", a...) })
			if err != nil {
				return err
			}
			return emit(cmd, values, func(w io.Writer) { printBenchTable(w, values) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&size, "size", "256MiB", "`size` of the model, such as 64MiB or 4GiB")
	f.BoolVar(&generated, "generated", false, "without apps, in constant memory, also where there is more")
	f.StringVar(&bin, "bin", "", "directory of concordat-enclave-sim and breast-cancer (default where this program is)")
	return cmd
}

// parseSize reads a number of bytes with a unit.
func parseSize(s string) (int64, error) {
	units := map[string]int64{"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
	digits := strings.TrimRight(s, "BkKMGTi")
	unit, ok := units[s[len(digits):]]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 1 || n > math.MaxInt64/unit {
		return 0, errors.New("want a number with B, KiB, MiB, GiB or TiB, or kB, MB, GB or TB")
	}
	return n * unit, nil
}

// benchStream trains a model of so many rows.
func benchStream(ctx context.Context, d *demo, rows int64, say func(string, ...any)) ([]benchValue, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	d.ctx, d.procs.fail, d.events, d.sockets = ctx, fail, newFeed[nodeEvent](), d.dir
	defer d.procs.stop()
	if err := d.setUp(); err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	link, enclave := d.process("link"), d.enclave
	if link == nil || enclave == nil {
		return nil, errors.New("bench: internal error: no link or enclave")
	}
	_, idle, unmeasured := peakMemory(enclave.pid())
	size := rows * streamRow * 4
	say("three members, a model of %d MiB, %d rounds", size>>20, d.rounds)
	model := filepath.Join(d.dir, "model.npz")
	if err := writeSynthetic(model, int(rows)); err != nil {
		return nil, err
	}
	start := time.Now()
	var v struct{ Request string }
	if err := d.command(&v, "run", "start", "--control", d.members[0].control, "--app", appName, "--policy", d.chain,
		"--rounds", strconv.FormatUint(d.rounds, 10), "--initial", model); err != nil {
		return nil, err
	}
	say("%6.1f s  initial model stored", time.Since(start).Seconds())
	var samples []float64
	var last nodeEvent
	outcome := ""
	err := d.events.await(ctx, 0, func(e nodeEvent) bool {
		if e.node != d.members[0] {
			return false
		}
		if e.GetEvent() == "step" {
			say("%6.1f s  step %d released: %d contributions, %d MiB moved here", e.at.Sub(start).Seconds(), e.GetSeq(), e.GetInputs(), e.GetBytesMoved()>>20)
			if e.GetInputs() > 0 && last.GetOpens() == receipt.OpensTrain {
				// From the model handed out to the next one: three members answer with as much.
				samples = append(samples, 3*float64(size)/e.at.Sub(last.at).Seconds()/hashRate())
			}
			last = e
		}
		outcome = e.GetOutcome()
		return e.GetEvent() == "ended"
	})
	if err == nil && outcome != receipt.Completed {
		err = fmt.Errorf("bench: the run is %s", outcome)
	}
	if err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	unit := fmt.Sprintf("ratio of the rate of contributions, %d MiB from each of 3, to SHA-256 on one core", size>>20)
	if spent, err := spentBy(enclave.pid(), link.pid()); err == nil {
		all := float64(3*int64(d.rounds)*size) / 1e9 // so that seconds are nanoseconds a byte
		unit += fmt.Sprintf("; CPU for each of their bytes: enclave %.1f ns, link %.1f ns", spent[0].own.Seconds()/all, spent[1].own.Seconds()/all)
	}
	_, linkPeak, _ := peakMemory(link.pid())
	_, enclavePeak, _ := peakMemory(enclave.pid())
	return append([]benchValue{newBenchValue("stream", unit, "higher", streamTarget, samples)}, streamMemory(linkPeak, enclavePeak-idle, unmeasured)...), nil
}

// streamTarget is of the rate of contributions, as a part of SHA-256's.
const streamTarget = 0.40

// streamMemory are the lines of memory, in bytes; unmeasured says why they are not known.
func streamMemory(link, aboveIdle int64, unmeasured error) (values []benchValue) {
	for _, m := range []struct {
		name, unit string
		bytes      int64
		target     float64
	}{
		{"stream-link", "MB at most, while it relayed all of it", link, 128},
		{"stream-enclave", "MB at most above idle", aboveIdle, 40},
	} {
		if unmeasured != nil {
			values = append(values, notMeasured(m.name, m.unit, "lower", m.target, unmeasured.Error()))
			continue
		}
		values = append(values, newBenchValue(m.name, m.unit, "lower", m.target, []float64{float64(m.bytes) / 1e6}))
	}
	return values
}

// stream takes one round of a model of that size from the nodes, who make it as they seal
// it, to the next model, which lies at the link.
func (p *passage) stream(size int64, say func(string, ...any)) ([]benchValue, error) {
	elements := int(max(1, size/4))
	say("three members, a model of %d MiB, generated; one round", size>>20)
	begin := time.Now()
	all, err := p.depositSaying(passageNodes, elements, say)
	if err != nil {
		return nil, err
	}
	use, err := p.enclaveEnd(&memoryTask{Link: p.address, Contributions: all, Elements: elements, Members: len(all), Strategy: aggregate.FedAvg}, say)
	if err != nil {
		return nil, err
	}
	bytes := float64(passageNodes) * 4 * float64(elements)
	rate := bytes / time.Since(begin).Seconds() / hashRate()
	unit := fmt.Sprintf("ratio of the rate of contributions, %d MiB from each of 3, generated and without apps, to SHA-256 on one core", size>>20)
	_, link, unmeasured := peakMemory(p.link.pid())
	return append([]benchValue{newBenchValue("stream", unit, "higher", streamTarget, []float64{rate})}, streamMemory(link, use.Peak-use.Idle, unmeasured)...), nil
}

// writeSynthetic writes a model of one array, w, of numbers below one, as numpy.savez
// does.
func writeSynthetic(file string, rows int) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	z := zip.NewWriter(f)
	w, err := z.CreateHeader(&zip.FileHeader{Name: "w.npy", Method: zip.Store})
	if err != nil {
		return err
	}
	if _, err := w.Write(object.NPY{Descr: "<f4", Shape: []int{rows, streamRow}}.Append(nil)); err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(1, 2))
	row := make([]byte, 0, 4*streamRow)
	for range rows {
		row = row[:0]
		for range streamRow {
			row = binary.LittleEndian.AppendUint32(row, math.Float32bits(random.Float32()))
		}
		if _, err := w.Write(row); err != nil {
			return err
		}
	}
	return errors.Join(z.Close(), f.Close())
}

// hashRate is SHA-256 on one core, now, in bytes a second.
func hashRate() float64 {
	const n = 8
	chunk := benchChunk()
	start := time.Now()
	for range n {
		sha256.Sum256(chunk)
	}
	return float64(n*len(chunk)) / time.Since(start).Seconds()
}

// process returns the running child of that name, or nil.
func (d *demo) process(name string) *process {
	i := slices.IndexFunc(d.procs.all, func(p *process) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return d.procs.all[i]
}
