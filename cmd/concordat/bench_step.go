package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/grpcapp"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/verifier/receipt"
)

// benchRuns is how many runs are timed; between them the apps are timed alone.
const benchRuns = 4

// benchSteps times the steps of whole runs, with three nodes over TLS on loopback,
// and the same work by the same apps without Concordat: started and confined as a node
// does it, all three at once. A step has them train or evaluate, takes in what they
// answer, aggregates, has everybody sign for it, and hands out the result.
func benchSteps(ctx context.Context, d *demo) ([]benchValue, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	d.ctx, d.procs.fail, d.events, d.sockets = ctx, fail, newFeed[nodeEvent](), d.dir
	defer d.procs.stop()
	if err := d.setUp(); err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	var pids []int
	for _, p := range d.procs.all {
		pids = append(pids, p.cmd.Process.Pid)
	}
	var ratios, idle []float64
	var unmeasured error
	for range benchRuns {
		var probe *idleProbe
		if probe, unmeasured = startIdleProbe(ctx, pids); unmeasured == nil {
			spans, err := d.timeRun()
			probe.end()
			if err != nil {
				return nil, err
			}
			for _, s := range spans {
				share, _ := probe.between(s.from, s.to)
				idle = append(idle, share)
			}
		}
		steps, err := d.timeRun()
		if err != nil {
			return nil, err
		}
		var alone []float64
		for range len(steps) {
			t, err := d.timeApps(ctx)
			if err != nil {
				return nil, err
			}
			alone = append(alone, t.Seconds())
		}
		slices.Sort(alone)
		for _, s := range steps {
			ratios = append(ratios, s.to.Sub(s.from).Seconds()/alone[len(alone)/2])
		}
	}
	const unit = "share of a step in which nobody computes or writes"
	waits := notMeasured("step-idle", unit, "lower", maxIdle, fmt.Sprint(unmeasured))
	if len(idle) > 0 {
		waits = newBenchValue("step-idle", unit, "lower", maxIdle, idle)
	}
	return []benchValue{newBenchValue("step", "ratio to the three apps alone", "lower", 1.5, ratios), waits}, nil
}

// maxIdle is the aim for the share of a step that is polling or sleeping: none, but for
// what a probe sees between two threads that wake each other.
const maxIdle = 0.05

// span is when a step began and ended.
type span struct{ from, to time.Time }

// timeRun runs a training and returns when each of its steps began and ended, by the
// clock of the first hospital's users. Runs whose threads are looked at are not timed.
func (d *demo) timeRun() ([]span, error) {
	from := d.events.len()
	if _, err := d.request(d.rounds); err != nil {
		return nil, err
	}
	var steps []span
	var last time.Time
	outcome := ""
	err := d.await("a run to end", func(ctx context.Context) error {
		return d.events.await(ctx, from, func(e nodeEvent) bool {
			if e.node != d.members[0] {
				return false
			}
			if e.GetEvent() == "step" {
				if e.GetInputs() > 0 && e.GetOpens() != receipt.OpensNone { // the last also waits for the log
					steps = append(steps, span{last, e.at})
				}
				last = e.at
			}
			outcome = e.GetOutcome()
			return e.GetEvent() == "ended"
		})
	})
	if err == nil && outcome != receipt.Completed {
		err = fmt.Errorf("bench: a run is %s", outcome)
	}
	return steps, err
}

// timeApps has all apps train at once, each started for it and ended after it.
func (d *demo) timeApps(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for _, h := range d.members {
		g.Go(func() error { return d.runApp(ctx, h) })
	}
	err := g.Wait()
	return time.Since(start), err
}

// runApp has one hospital's app train once from a model of zeros.
func (d *demo) runApp(ctx context.Context, h *hospital) error {
	home, err := os.MkdirTemp(d.dir, "home-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	socket := filepath.Join(d.sockets, string(h.id)+".app")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	app, err := flower.NewApp(flower.Config{RunID: 1, NodeID: 2, NodeConfig: map[string]any{"data": h.data}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- grpcapp.Serve(ctx, l, app) }()
	defer func() { cancel(); <-served }()
	p, err := sandbox.Start(ctx, sandbox.Config{
		Command: []string{d.app, "--once", "--insecure", "--clientappio-api-address", "unix://" + socket, "--token", app.Token()},
		Dir:     home, Socket: socket, ReadOnly: append(sandbox.System(), filepath.Dir(d.app), h.data), Isolation: sandbox.Isolation(d.isolation),
	})
	if err != nil {
		return err
	}
	defer p.Stop()
	in, err := zeroInstruction()
	if err != nil {
		return err
	}
	if _, err := app.Do(ctx, in); err != nil {
		return err
	}
	p.Wait()
	return nil
}

// zeroInstruction asks for training from a model of zeros.
func zeroInstruction() (flower.Instruction, error) {
	model, err := newInitialModel("", []string{"weights=float64[30]", "bias=float64[]"})
	if err != nil {
		return flower.Instruction{}, err
	}
	byID := map[object.ID][]byte{}
	var last []byte
	if err := model.objects(func(raw []byte) error { last = bytes.Clone(raw); byID[object.Sum(last)] = last; return nil }); err != nil {
		return flower.Instruction{}, err
	}
	v, err := object.Inflate(object.Sum(last), func(id object.ID) ([]byte, error) { return byID[id], nil }, object.Limits{Objects: 100, Bytes: 1 << 20})
	if err != nil {
		return flower.Instruction{}, err
	}
	content := append(v.(object.RecordDict), object.RecordItem{Name: flower.RecordConfig, Record: object.ConfigRecord{{Key: flower.ConfigRound, Value: object.Sint(1)}}})
	objects, err := object.Objects(content)
	if err != nil {
		return flower.Instruction{}, err
	}
	for _, o := range objects {
		byID[o.ID] = o.Raw
	}
	return flower.Instruction{Type: receipt.OpensTrain, Round: 1, Content: objects[len(objects)-1].ID,
		Get: func(id object.ID) ([]byte, error) { return byID[id], nil }}, nil
}
