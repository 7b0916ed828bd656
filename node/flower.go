package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/flower"
	flowercontrol "github.com/concordat/concordat/internal/flower/control"
	"github.com/concordat/concordat/internal/flower/fab"
	"github.com/concordat/concordat/internal/flower/process"
	"github.com/concordat/concordat/internal/flower/serverapp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// serveFlower serves the flwr command of the member's users.
func (n *Node) serveFlower(ctx context.Context) error {
	f := &flowerRunner{n: n, since: n.cfg.Now()}
	s, err := flowercontrol.New(flowercontrol.Config{Runner: f, Now: n.cfg.Now, Log: n.log,
		Store: &flowercontrol.Store{FS: durable.OS{}, Dir: filepath.Join(n.dir, "flwr"), Sealer: n.key}})
	if err == nil {
		err = s.Serve(ctx, n.cfg.FlowerControl)
	}
	if err != nil {
		return fmt.Errorf("flower control: %w", err)
	}
	return nil
}

// flowerRunner makes what Flower's users ask for this node's own signed requests.
type flowerRunner struct {
	n     *Node
	since time.Time
}

func (f *flowerRunner) Federation() flowercontrol.Federation {
	n := f.n
	out := flowercontrol.Federation{Name: "@concordat/" + n.fed.Short(),
		Node: flowercontrol.Node{ID: flower.NodeNumber(n.id), Member: string(n.cfg.Member), Since: f.since, Online: n.joined.Load()}}
	for _, m := range n.policy.Members {
		out.Members = append(out.Members, string(m.ID))
	}
	return out
}

// Strategy is custom where the policy lets the app aggregate by itself, and in no other
// way: what Flower's users expect of an app that says nothing.
func (f *flowerRunner) Strategy(b *fab.Bundle) string {
	if app := f.n.allowed(b.Digest); app != nil && slices.Equal(app.Strategies, []string{policy.StrategyCustom}) {
		return policy.StrategyCustom
	}
	return ""
}

// Check refuses what the enclave and the nodes would refuse, in words for the user.
func (f *flowerRunner) Check(b *fab.Bundle, t fab.Terms, config map[string]any) error {
	n := f.n
	if n.apps.bundles.cfg == nil {
		return ErrNoFlower
	}
	if !n.apps.bundles.approved(b.Digest) {
		return fmt.Errorf("%w: %s %s, hash %s; its owner approves it with: concordat app approve FILE.fab", ErrNotApproved, b.ID(), b.Version, b.Hash())
	}
	app := n.allowed(b.Digest)
	if app == nil {
		return fmt.Errorf("the policy of federation %s does not list bundle %s %s, hash %s, and its log has no signatures that let it in: its members add it to apps and sign, or its signers sign it (\"concordat app sign\")", n.fed.Short(), b.ID(), b.Version, b.Hash())
	}
	if err := n.checkStrategy(t.Strategy, t.Arguments, t.Frozen != ""); err != nil {
		return err
	}
	terms := policy.RunTerms{App: b.Digest, Config: b.Digest, Exposure: app.Exposure, Strategy: t.Strategy, Rounds: t.Rounds}
	switch {
	case t.Strategy == policy.StrategyCustom:
		terms.Config = policy.ConfigDigest(policy.AppConfig(config))
		if terms.Rounds == 0 {
			terms.Rounds = app.MaxRounds
		}
		if !slices.Contains(app.Configs, terms.Config) {
			return fmt.Errorf("the policy of federation %s does not list this run config of %s, digest %s: its members add it to the app's configs and sign (\"concordat app show\" prints it)", n.fed.Short(), b.ID(), terms.Config)
		}
	case len(app.Configs) > 0:
		terms.Config = app.Configs[0] // the digest is not known before the ServerApp has said its part
	}
	for _, m := range n.policy.Members {
		terms.Cohort = append(terms.Cohort, m.ID)
	}
	return n.onLoop(func() error { return n.policy.AllowRun(terms, &n.history.signed) })
}

// Run opens the run with the ServerApp's first message, signs the request, and follows
// the run to its end.
func (f *flowerRunner) Run(ctx context.Context, j *flowercontrol.Job) error {
	n := f.n
	n.log.InfoContext(ctx, "a run is asked for by the flwr command", "account", j.Account.String(), "app", j.Bundle.ID(), "digest", j.Bundle.Hash())
	rounds := j.Terms.Rounds
	if app := n.allowed(j.Bundle.Digest); rounds == 0 && app != nil {
		rounds = app.MaxRounds
	}
	q, err := f.request(ctx, j, rounds)
	if err != nil {
		return err
	}
	sent := n.eventCount()
	wake, forget := n.watch()
	defer forget()
	request, err := n.StartRun(ctx, q)
	if err != nil {
		return err
	}
	j.Began(cose.Marshal(mark{Request: request, Rounds: rounds}))
	j.Print(fmt.Sprintf("[concordat] run request %s signed; waiting for every member's node", request.Short()))
	t := teller{print: j.Print, running: j.Running, stop: j.Stop, rounds: rounds, request: request}
	return f.tell(ctx, j, &t, sent, wake)
}

// mark is what a job is known by after a restart. It is kept on disk, with the run.
type mark struct {
	_       struct{} `cbor:",toarray"`
	Request Digest
	Rounds  uint64
}

// errUnknownRun: the node stopped before an enclave had begun the run, or has lost its
// journal.
var errUnknownRun = errors.New("the node restarted, and knows of no run for this request: \"concordat run list\" knows more")

// Follow tells of a run that was begun before a restart: to its end, or how it ended
// meanwhile.
func (f *flowerRunner) Follow(ctx context.Context, j *flowercontrol.Job, kept []byte) error {
	n := f.n
	var m mark
	if err := cose.Unmarshal(kept, &m); err != nil {
		return fmt.Errorf("%w: %w", errUnknownRun, err)
	}
	wake, forget := n.watch()
	defer forget()
	t := teller{print: j.Print, running: j.Running, stop: j.Stop, rounds: m.Rounds, request: m.Request}
	var over Event
	if err := n.onLoop(func() (err error) {
		t.run, over, err = n.requested(m.Request)
		return err
	}); err != nil {
		return err
	}
	t.running()
	if over.Kind != "" {
		return t.end(over)
	}
	return f.tell(ctx, j, &t, 0, wake)
}

// Results are the files that a run has left, which an officer and its user want.
func (f *flowerRunner) Results(kept []byte) (files []flowercontrol.Result, err error) {
	var m mark
	if err := cose.Unmarshal(kept, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnknownRun, err)
	}
	var run Digest
	err = f.n.onLoop(func() (err error) {
		run, _, err = f.n.requested(m.Request)
		return err
	})
	if errors.Is(err, errUnknownRun) {
		return nil, nil // it never began
	}
	if err != nil {
		return nil, err
	}
	for _, name := range []string{modelFile, bundleFile} {
		if f.n.hasFile(run, name) {
			files = append(files, flowercontrol.Result{Name: name, Path: filepath.Join(f.n.runDir(run), name)})
		}
	}
	return files, nil
}

// tell takes events from number sent on, until the run is over.
func (f *flowerRunner) tell(ctx context.Context, j *flowercontrol.Job, t *teller, sent int, wake <-chan struct{}) error {
	n, stop := f.n, j.Stop
	for {
		for _, e := range n.eventsFrom(sent) {
			sent++
			if over, err := t.take(e); over {
				return err
			}
		}
		select {
		case <-wake:
		case <-stop:
			stop = nil
			j.Print("[concordat] stop asked for")
			if err := n.StopRun(t.request); err != nil {
				return err
			}
		case <-ctx.Done():
			return errors.New("this node stopped; the run may go on without it: \"concordat run list\" knows after its restart")
		}
	}
}

// request makes what this node is to sign. A native strategy needs the ServerApp's first
// message; where the ServerApp aggregates, the enclave gets the bundle.
func (f *flowerRunner) request(ctx context.Context, j *flowercontrol.Job, rounds uint64) (RunRequest, error) {
	q := RunRequest{App: j.Bundle.Digest, Strategy: j.Terms.Strategy, Rounds: rounds}
	if j.Terms.Strategy == policy.StrategyCustom {
		j.Print(fmt.Sprintf("[concordat] %s %s, hash %s: its own ServerApp aggregates, in an enclave of its own; at most %d rounds", j.Bundle.ID(), j.Bundle.Version, j.Bundle.Hash()[:8], rounds))
		q.Config = policy.AppConfig(j.Config)
		objects, err := object.Objects(flower.PackBundle(j.Bundle.Content))
		for _, o := range objects {
			q.Initial = append(q.Initial, o.Raw)
		}
		return q, err
	}
	j.Print(fmt.Sprintf("[concordat] %s %s, hash %s: native strategy %s, %d rounds", j.Bundle.ID(), j.Bundle.Version, j.Bundle.Hash()[:8], j.Terms.Strategy, rounds))
	start, err := f.open(ctx, j)
	if err != nil {
		return q, err
	}
	q.Config, q.Initial = maps.Clone(j.Config), start.Arrays
	for k, v := range start.Config {
		q.Config[policy.TrainPrefix+k] = v
	}
	for k, v := range j.Terms.Arguments {
		q.Config[policy.ConfigPrefix+k] = v
	}
	if j.Terms.Frozen != "" {
		q.Config[policy.KeyFrozen] = j.Terms.Frozen
	}
	return q, nil
}

// teller makes lines of a run's events.
type teller struct {
	print   func(string)
	running func()
	stop    <-chan struct{}
	rounds  uint64
	request Digest
	run     Digest
	opens   string // what the last step opened
	round   uint64 // that it was of
	why     string // the newest reason for trouble
}

// take tells of one event, and whether the run is over.
func (t *teller) take(e Event) (over bool, err error) {
	if e.Request != t.request && (t.run.IsZero() || e.Run != t.run) {
		return false, nil
	}
	if !e.Run.IsZero() {
		t.run = e.Run
	}
	switch e.Kind {
	case "started":
		t.running()
		t.print(fmt.Sprintf("[concordat] run %s started with %d nodes", t.run.Short(), e.Inputs))
	case "step":
		t.step(e)
	case "failed":
		t.why = e.Reason
		t.print("[concordat] this node: " + e.Reason)
	case "ack-refused":
		t.why = e.Reason
		t.print("[concordat] this node does not agree to a step: " + e.Reason)
	case "declined":
		return true, errors.New("this node takes no part: " + e.Reason)
	case "deferred":
		t.print("[concordat] " + e.Reason)
	case "refused":
		if !t.run.IsZero() {
			t.why = e.Reason
			return false, nil
		}
		select {
		case <-t.stop:
			return true, fmt.Errorf("%w: %s", flowercontrol.ErrStopped, e.Reason)
		default:
			return true, errors.New(e.Reason)
		}
	case "ended":
		return true, t.end(e)
	}
	return false, nil
}

// step tells of the batch that a step closed.
func (t *teller) step(e Event) {
	closed, round := t.opens, t.round
	t.opens, t.round = e.Opens, e.Round
	if e.Inputs == 0 {
		return // the first: it hands out the initial arrays
	}
	if closed == "" { // the one before came before a restart
		closed, round = "a step", e.Round
		if e.Opens == receipt.OpensTrain {
			round-- // it opens the next, as good as always
		}
	}
	var metrics []string
	for _, k := range slices.Sorted(maps.Keys(e.Metrics)) {
		metrics = append(metrics, fmt.Sprintf("%s %.6g", k, e.Metrics[k]))
	}
	line := fmt.Sprintf("[ROUND %d/%d] %s: %d contributions", round, t.rounds, closed, e.Inputs)
	if e.Excluded > 0 {
		line += fmt.Sprintf(" (%d excluded)", e.Excluded)
	}
	if len(metrics) > 0 {
		line += "  " + strings.Join(metrics, "  ")
	}
	t.print(line)
}

func (t *teller) end(e Event) error {
	switch e.Outcome {
	case receipt.Completed:
		t.print(fmt.Sprintf("[concordat] at the node: concordat run model %s -o model.npz\n[concordat] for an officer: concordat run bundle %s -o bundle.cbor", t.run.Short(), t.run.Short()))
		return nil
	case receipt.Stopped:
		return flowercontrol.ErrStopped
	}
	if t.why != "" {
		return fmt.Errorf("%s: %s", e.Reason, t.why)
	}
	if hint := hints[e.Reason]; hint != "" {
		return fmt.Errorf("the run ended as %s: %s: %s", e.Outcome, e.Reason, hint)
	}
	return fmt.Errorf("the run ended as %s: %s", e.Outcome, e.Reason)
}

// hints say of the enclave's codes, where this node knows nothing more, what they mean and
// who does. The enclave's log has the reason itself.
var hints = map[string]string{
	"app":     "the ServerApp broke a rule, or failed; the enclave's log names the rule",
	"invalid": "a node's answer is not what it must be, or its app failed; that node's log says why",
	"late":    "a node did not answer in time",
	"policy":  "the federation's policy does not allow it; the enclave's log says what",
}

// openingTime is how long a ServerApp may take to its first message: Python's start, and
// whatever it loads before.
const openingTime = 3 * time.Minute

// maxInitial bounds the initial arrays of a ServerApp, which this node holds in memory
// until they are stored.
const maxInitial = 2 << 30

// open runs the ServerApp as far as its first message.
func (f *flowerRunner) open(ctx context.Context, j *flowercontrol.Job) (*serverapp.Start, error) {
	n := f.n
	ctx, cancel := context.WithTimeoutCause(ctx, openingTime, fmt.Errorf("the ServerApp sent no message in %s: does it wait for more nodes than the federation's %d?", openingTime, len(n.policy.Members)))
	defer cancel()
	printed := &pieces{print: j.Print}
	defer printed.flush() // once nobody serves the process any more
	var nodes []uint64    // they stand for the federation's; their numbers mean nothing
	for i := range n.policy.Members {
		nodes = append(nodes, uint64(i)+flower.Server+1)
	}
	app := serverapp.New(serverapp.Config{Bundle: j.Bundle, Overrides: policy.AppConfig(j.Overrides), Nodes: nodes, MaxBytes: maxInitial, Print: printed.add, Now: n.cfg.Now})
	env := n.apps.bundles.env
	p, err := process.Start(ctx, process.Config{Program: env.Program(process.ServerApp), Dir: n.apps.dir, Token: app.Token(), Isolation: n.apps.isolation,
		Output: &lines{log: n.log.With("app", j.Bundle.ID(), "part", "serverapp")}})
	if err != nil {
		return nil, err
	}
	defer p.Remove()
	defer p.Stop()
	serve := app.Serve
	if env.Dialect().Runtime {
		serve = app.ServeRuntime
	}
	serving, stopServing := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- serve(serving, p.Listener) }()
	defer func() { stopServing(); <-served }()
	go func() {
		select {
		case <-p.Done():
			app.Fail(serverapp.Gone(p.Wait().String()))
		case <-j.Stop:
			app.Fail(flowercontrol.ErrStopped)
		case <-serving.Done():
		}
	}()
	first, err := app.Next(ctx)
	if errors.Is(err, serverapp.ErrFinished) {
		return nil, fmt.Errorf("%w: it ended without a train message", serverapp.ErrRefused)
	} else if err != nil {
		return nil, err
	}
	return first.Start()
}

// pieces makes lines of what a process writes piece by piece.
type pieces struct {
	print func(string)
	open  string // of the last line
}

func (p *pieces) add(s string) {
	p.open += s
	for {
		line, rest, whole := strings.Cut(p.open, "\n")
		if !whole {
			break
		}
		p.print(line)
		p.open = rest
	}
	if len(p.open) > maxLine {
		p.flush()
	}
}

func (p *pieces) flush() {
	p.print(p.open)
	p.open = ""
}
