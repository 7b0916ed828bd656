package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// nodeEvent is what a node told its users.
type nodeEvent struct {
	node *hospital
	at   time.Time // when it arrived here
	*concordatv1.WatchRunsResponse
}

// minDemoRounds is what the comparison with training in one place needs.
const minDemoRounds = 3

// onePoint is how far the federation's accuracy may be from that of training in one
// place.
const onePoint = 0.01

// watch follows a node's events until it ends.
func (d *demo) watch(h *hospital) error {
	c, conn, err := dialControl(h.control)
	if err != nil {
		return err
	}
	go func() {
		defer conn.Close()
		// The stream ends with the node; whoever waits for more learns of that.
		_ = events(d.ctx, c, &concordatv1.WatchRunsRequest{Follow: true}, func(e *concordatv1.WatchRunsResponse) bool {
			d.events.add(nodeEvent{h, time.Now(), e})
			return false
		})
	}()
	return nil
}

// request asks the first hospital's node for a run and returns the request's digest.
func (d *demo) request(rounds uint64) (string, error) {
	var v struct{ Request string }
	err := d.command(&v, "run", "start", "--control", d.members[0].control, "--app", appName, "--policy", d.chain,
		"--rounds", strconv.FormatUint(rounds, 10), "--zeros", "weights=float64[30]", "--zeros", "bias=float64[]")
	return v.Request, err
}

// train runs the training, shows a line a round, and judges what came of it.
func (d *demo) train() error {
	d.out.heading(fmt.Sprintf("Training: %d rounds of FedAvg, each trained and then evaluated on rows that nobody trained on", d.rounds))
	central := make(chan error, 1)
	go func() { central <- d.trainCentrally() }()
	begin := time.Now()
	run, err := d.followTraining()
	took := time.Since(begin)
	if err != nil {
		return err
	}
	if err := <-central; err != nil {
		return err
	}
	rounds := d.result.Rounds
	d.result.Accuracy = rounds[len(rounds)-1].Metrics["accuracy"]
	d.out.line("%.1f s a round; held-out accuracy %.4f, of the same model trained in one place %.4f", took.Seconds()/float64(d.rounds), d.result.Accuracy, d.result.Central)
	if off := math.Abs(d.result.Accuracy - d.result.Central); off > onePoint {
		return fmt.Errorf("the federation's accuracy is %.4f away from that of training in one place, want at most %.2f", off, onePoint)
	}
	return d.verify(run)
}

// trainCentrally trains the same model on all rows in one place.
func (d *demo) trainCentrally() error {
	args := []string{d.app, "central", "--rounds", strconv.FormatUint(d.rounds, 10)}
	for _, h := range d.members {
		args = append(args, h.data)
	}
	out, err := output(d.ctx, args...)
	if err != nil {
		return err
	}
	var v struct{ Accuracy float64 }
	err = json.Unmarshal(out, &v)
	d.result.Central = v.Accuracy
	return err
}

// followTraining starts a run and shows its rounds as all nodes have told of them. It
// returns the run's digest in hex.
func (d *demo) followTraining() (run string, err error) {
	d.out.line("%5s  %-13s  %6s  %8s  %9s  %9s", "round", "contributions", "loss", "accuracy", "moved", "saved")
	from := d.events.len()
	request, err := d.request(d.rounds)
	if err != nil {
		return "", err
	}
	told := make(map[*hospital]*progress)
	for _, h := range d.members {
		told[h] = &progress{State: "requested"}
	}
	rounds := make(map[uint64][]roundLine)
	var failed error
	limit := maxWait + time.Duration(d.rounds)*2*demoStepDeadline*time.Second // a round is two steps
	err = d.awaitFor(limit, "the training", func(ctx context.Context) error {
		return d.events.await(ctx, from, func(e nodeEvent) bool {
			if r := hex.EncodeToString(e.GetRequest()); r == request && len(e.GetRun()) > 0 {
				run = hex.EncodeToString(e.GetRun())
			}
			mine := hex.EncodeToString(e.GetRequest()) == request || run != "" && hex.EncodeToString(e.GetRun()) == run
			if !mine {
				return false
			}
			p := told[e.node]
			if line := p.follow(e.WatchRunsResponse); line != nil {
				rounds[line.Round] = append(rounds[line.Round], *line)
				if all := rounds[line.Round]; len(all) == d.nodes {
					d.showRound(all)
				}
			}
			ended := 0
			for h, p := range told {
				if p.ended() {
					ended++
					if p.State != receipt.Completed && failed == nil {
						failed = fmt.Errorf("%s: the run is %s: %s", h.id, p.State, p.Reason)
					}
				}
			}
			return failed != nil || ended == d.nodes
		})
	})
	if err == nil {
		err = failed
	}
	if err == nil && len(d.result.Rounds) != int(d.rounds) {
		err = fmt.Errorf("%d rounds were told of, want %d", len(d.result.Rounds), d.rounds)
	}
	return run, err
}

// showRound prints a round that all nodes told of: bytes are of all nodes together.
func (d *demo) showRound(all []roundLine) {
	sum := all[0]
	for _, l := range all[1:] {
		sum.Moved, sum.Saved = sum.Moved+l.Moved, sum.Saved+l.Saved
	}
	d.result.Rounds = append(d.result.Rounds, sum)
	d.out.line("%5d  %-13s  %6.4f  %8.4f  %9s  %9s", sum.Round, fmt.Sprintf("%d of %d", sum.Contributions, d.nodes),
		sum.Metrics["loss"], sum.Metrics["accuracy"], bytesText(sum.Moved), bytesText(sum.Saved))
}

// verify takes what the first hospital's officer needs from its own node, and
// verifies.
func (d *demo) verify(run string) error {
	d.out.heading("Verifying, offline, as the officer of " + string(d.members[0].id))
	r := &d.result
	r.Bundle, r.Trust, r.Model = filepath.Join(d.dir, "bundle.cbor"), filepath.Join(d.dir, "trust.json"), filepath.Join(d.dir, "model.npz")
	for _, old := range []string{r.Bundle, r.Trust, r.Model} {
		if err := os.RemoveAll(old); err != nil {
			return err
		}
	}
	own := d.members[0]
	if err := d.command(nil, "node", "trust", "--policy", d.chain, "--member", string(own.id), "--out", r.Trust); err != nil {
		return err
	}
	if err := d.command(nil, "run", "bundle", run, "--control", own.control, "--out", r.Bundle); err != nil {
		return err
	}
	if err := d.await("the final model", func(ctx context.Context) error { return d.takeModel(ctx, run) }); err != nil {
		return err
	}
	report := new(verifier.Report)
	if err := d.command(report, "verify", r.Bundle, "--trust", r.Trust); err != nil {
		if len(report.Checks) > 0 {
			err = fmt.Errorf("%w: %s", err, obstacle(report))
		}
		return err
	}
	r.Verdict = report.Word()
	info, err := os.Stat(r.Bundle)
	if err != nil {
		return err
	}
	d.out.row("bundle.cbor", "%s: %d entries of the log, %d checks", bytesText(uint64(info.Size())), report.Log.Entries, len(report.Checks))
	d.out.row("verdict", "%s", d.out.paint(green, r.Verdict))
	return nil
}

// takeModel takes the final model, which the node writes while it writes the bundle.
func (d *demo) takeModel(ctx context.Context, run string) error {
	for {
		err := d.command(nil, "run", "model", run, "--control", d.members[0].control, "--out", d.result.Model)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// obstacle words the first check of a report that does not pass.
func obstacle(r *verifier.Report) string {
	for _, c := range r.Checks {
		if c.Verdict == r.Verdict {
			s := fmt.Sprintf("%s: %s", r.Word(), c.Name)
			if c.Expected != "" {
				s += ": want " + c.Expected
			}
			return s + ", got " + c.Got
		}
	}
	return r.Word()
}
