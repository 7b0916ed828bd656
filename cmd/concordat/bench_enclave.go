package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/flower"
)

// memoryLine is about the memory of an enclave that aggregates.
type memoryLine struct {
	name, strategy string
	members        int     // that the target is about
	target         float64 // MB at most above idle, of contributions of memorySize
	small          int64   // size of contributions where seconds must do
}

// memorySize is the size of the contributions that the targets are about, in bytes.
const memorySize = 400e6

var memoryLines = []memoryLine{
	{"enclave-memory", aggregate.FedAvg, 10, 40, 16 << 20},
	{"enclave-memory-median", aggregate.FedMedian, 100, 64, 6 << 20},
}

func newBenchMemoryCommand() *cobra.Command {
	var size, strategy, bin string
	var members int
	cmd := &cobra.Command{
		Use:   "memory",
		Short: "Measure the memory that an enclave needs to aggregate",
		Long: `Memory has a process of its own aggregate contributions that lie at a link, as an enclave does: each is read
and checked once as it comes, and all of them side by side twice more, to name the outputs and to store them.
It prints how much memory that process had at most, above what it has before. All members' contributions are
one and the same at the link, which nobody who reads them knows: each is fetched, checked and opened by itself.`,
		Example: `  concordat bench memory --size 400MB --members 10 --strategy fedavg
  concordat bench memory --size 400MB --members 100 --strategy fedmedian`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := parseSize(size)
			if err != nil {
				return usagef("--size %q: %w", size, err)
			}
			line, err := memoryLineOf(strategy)
			if err != nil {
				return usage(err)
			}
			if members < 1 || members > maxMembers {
				return usagef("--members is 1 to %d", maxMembers)
			}
			return withPassage(cmd, bin, func(p *passage, say func(string, ...any)) ([]benchValue, error) {
				m, err := p.memory(line, n, members, say)
				return []benchValue{m}, err
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&size, "size", "32MiB", "`size` of a contribution, such as 64MiB or 400MB")
	f.IntVar(&members, "members", 10, "number of contributions")
	f.StringVar(&strategy, "strategy", aggregate.FedAvg, "fedavg or fedmedian")
	f.StringVar(&bin, "bin", "", "directory of concordat-enclave-sim and breast-cancer (default where this program is)")
	return cmd
}

// maxMembers bounds what one machine is asked to read.
const maxMembers = 1000

func memoryLineOf(strategy string) (*memoryLine, error) {
	var known []string
	for i, l := range memoryLines {
		if l.strategy == strategy {
			return &memoryLines[i], nil
		}
		known = append(known, l.strategy)
	}
	return nil, fmt.Errorf("--strategy %q, want %s", strategy, strings.Join(known, " or "))
}

// value makes the line; the target is judged by what it is about.
func (l *memoryLine) value(use memoryUse, size int64, members int) benchValue {
	unit := fmt.Sprintf("MB at most above idle, %s of %d contributions of %d MB, the same one at the link, read three times each; %d MB in all",
		l.strategy, members, size/1e6, use.Peak/1e6)
	m := newBenchValue(l.name, unit, "lower", l.target, []float64{float64(use.Peak-use.Idle) / 1e6})
	if members < l.members || size < memorySize {
		m.unjudged(fmt.Sprintf("the target is about %d of 400 MB: concordat bench memory --size 400MB --members %d --strategy %s", l.members, l.members, l.strategy))
	}
	return m
}

// memory deposits a contribution and has an enclave's process aggregate it, that many times
// over.
func (p *passage) memory(l *memoryLine, size int64, members int, say func(string, ...any)) (benchValue, error) {
	if _, _, err := peakMemory(os.Getpid()); err != nil {
		return notMeasured(l.name, "MB at most above idle", "lower", l.target, err.Error()), nil
	}
	use, err := p.memoryUse(l.strategy, size, members, say)
	if err != nil {
		return benchValue{}, err
	}
	m := l.value(use, size, members)
	if _, link, err := peakMemory(p.link.pid()); err == nil {
		m.Unit += fmt.Sprintf("; the link until then %d MB", link/1e6)
	}
	return m, nil
}

func (p *passage) memoryUse(strategy string, size int64, members int, say func(string, ...any)) (use memoryUse, err error) {
	elements := int(max(1, size/4))
	all, err := p.depositSaying(1, elements, say)
	if err != nil {
		return use, err
	}
	return p.enclaveEnd(&memoryTask{Link: p.address, Contributions: all, Elements: elements, Members: members, Strategy: strategy}, say)
}

// depositSaying is deposit that says how far it is.
func (p *passage) depositSaying(n, elements int, say func(string, ...any)) ([]deposited, error) {
	end := tell(p.ctx, say, "sealed and stored", 4*int64(n)*int64(elements), p.sealed.Load)
	defer end()
	return p.deposit(n, elements)
}

// enclaveEnd has a process of its own do a task.
func (p *passage) enclaveEnd(t *memoryTask, say func(string, ...any)) (use memoryUse, err error) {
	task, err := json.Marshal(t)
	if err != nil {
		return use, err
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(p.ctx, p.self, "bench", "enclave")
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = bytes.NewReader(task), &out, &saying{say: say, all: &errs}, patience
	if err := cmd.Run(); err != nil {
		return use, fmt.Errorf("bench: the enclave's end: %w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	if err := json.Unmarshal(out.Bytes(), &use); err != nil {
		return use, fmt.Errorf("bench: the enclave's end: %w: %.200q", err, out.Bytes())
	}
	return use, nil
}

// saying says each line that is written, and keeps all of it.
type saying struct {
	say  func(string, ...any)
	all  *bytes.Buffer
	line []byte
}

func (s *saying) Write(b []byte) (int, error) {
	s.all.Write(b)
	s.line = append(s.line, b...)
	for {
		line, rest, ended := bytes.Cut(s.line, []byte("\n"))
		if !ended {
			return len(b), nil
		}
		s.say("%s", line)
		s.line = rest
	}
}

// memoryTask is what the process of an enclave's end reads, as JSON.
type memoryTask struct {
	Link          string
	Contributions []deposited // of one run; where there are more members they share them in turn
	Elements      int
	Members       int
	Strategy      string
}

// memoryUse is what it prints, in bytes.
type memoryUse struct{ Idle, Peak int64 }

// newBenchEnclaveCommand is the process itself.
func newBenchEnclaveCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "enclave",
		Short:  "Aggregate contributions that lie at a link, for bench memory",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var task memoryTask
			if err := json.NewDecoder(cmd.InOrStdin()).Decode(&task); err != nil {
				return usagef("the task on standard input: %w", err)
			}
			use, err := task.run(cmd.Context(), func(format string, a ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", a...) })
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(use)
		},
	}
}

// run does what an enclave does with the contributions to one step, from their coming to
// the outputs that lie at the link, by the same packages and in the same order. Its
// sessions, statements and receipts, a few KB each, are not in it.
func (t *memoryTask) run(ctx context.Context, say func(string, ...any)) (use memoryUse, err error) {
	if len(t.Contributions) == 0 {
		return use, errors.New("bench: internal error: a task with no contributions")
	}
	debug.SetGCPercent(enclave.CollectAt)
	enclave, err := attachEnclave(ctx, t.Link, t.Contributions[0].Scope.Federation)
	if err != nil {
		return use, err
	}
	defer func() { err = errors.Join(err, enclave.close()) }()
	if use.Idle, _, err = peakMemory(os.Getpid()); err != nil {
		return use, err
	}
	var from []*transfer.Reader
	for _, c := range t.Contributions {
		from = append(from, transfer.NewReader(enclave.chunks, c.Scope))
	}
	end := tell(ctx, say, "read and checked, then aggregated twice", 3*int64(t.Members)*4*int64(t.Elements), func() (n int64) {
		for _, r := range from {
			n += int64(r.Bytes())
		}
		return n
	})
	all, err := t.check(ctx, from)
	if err == nil {
		err = t.produce(ctx, enclave, all)
	}
	end()
	if err == nil {
		_, use.Peak, err = peakMemory(os.Getpid())
	}
	return use, err
}

// check reads each contribution as it comes.
func (t *memoryTask) check(ctx context.Context, from []*transfer.Reader) ([]*opened, error) {
	all := make([]*opened, t.Members)
	g, ctx := errgroup.WithContext(ctx)
	turns := make(chan struct{}, enclave.FirstReadings)
	for i := range all {
		g.Go(func() (err error) {
			if all[i], err = t.Contributions[i%len(from)].open(ctx, from[i%len(from)]); err != nil {
				return err
			}
			turns <- struct{}{}
			defer func() { <-turns }()
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			return aggregate.Check(syntheticTensor(t.Elements), all[i].parcel.ArrayReader(ctx, all[i].array))
		})
	}
	return all, g.Wait()
}

// produce makes the step's outputs twice: to name them, and to store them.
func (t *memoryTask) produce(ctx context.Context, enclave *party, all []*opened) error {
	plan, err := planFor(t.Strategy, all)
	if err != nil {
		return err
	}
	named, err := t.outputs(ctx, plan, all, nil)
	if err != nil {
		return err
	}
	scope := t.Contributions[0].Scope
	put := enclave.chunks.Upload(ctx, chunkstore.Scope{Federation: scope.Federation, Run: scope.Run})
	stored, err := t.outputs(ctx, plan, all, put.Add)
	if err = errors.Join(err, put.Close()); err == nil && stored != named {
		err = errors.New("bench: the second outputs differ from the first")
	}
	return err
}

func (t *memoryTask) outputs(ctx context.Context, plan *aggregate.Plan, all []*opened, put func(chunkstore.ID, []byte) error) (chunkstore.Sealed, error) {
	p := chunkstore.NewParcelWriter(chunkstore.NewDownlink(t.Contributions[0].Secret, t.Contributions[0].Scope.Run, 1), put)
	w := object.NewChunkWriter(p.AddObject)
	if err := aggregateOnce(ctx, plan, syntheticTensor(t.Elements), all, w); err != nil {
		return chunkstore.Sealed{}, err
	}
	array, err := object.NewOutline(object.NPY{Descr: "<f4", Shape: []int{t.Elements}})
	if err != nil {
		return chunkstore.Sealed{}, err
	}
	if array.Chunks, err = w.Close(); err != nil {
		return chunkstore.Sealed{}, err
	}
	if _, err := object.Flatten(object.RecordDict{
		{Name: flower.RecordArrays, Record: object.ArrayRecord{{Name: syntheticArray, Array: array}}},
		{Name: flower.RecordConfig, Record: object.ConfigRecord{{Key: flower.ConfigRound, Value: object.Sint(1)}}},
	}, func(o object.Object) error { return p.Add(o.Raw) }); err != nil {
		return chunkstore.Sealed{}, err
	}
	return p.Close()
}
