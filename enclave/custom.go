package enclave

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/fab"
	"github.com/concordat/concordat/internal/flower/serverapp"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// ErrSpent ends an instance that ran a ServerApp, or that is to make room for one: code
// that has seen single updates shares its instance with no other run (protocol F5).
// Whoever started the enclave starts the next.
var ErrSpent = errors.New("enclave: this instance has served its run")

// spentGrace is how long a spent instance goes on, so that what it sent last arrives.
const spentGrace = 3 * time.Second

// Codes of ends that only such runs have.
const (
	codeApp  = "app"  // the ServerApp failed, or did what it must not
	codeLost = "lost" // with the enclave that ran it
)

// custom is the part of a run whose own ServerApp aggregates. The loop owns it.
type custom struct {
	bundle    *fab.Bundle
	addressed bool                       // it may tell each node something of its own
	app       ServerApp                  // nil until it is started
	over      chan struct{}              // closed when the run has ended
	first     object.RecordDict          // the first content, in outline; with addressed, the first with arrays
	shapes    map[string]shape           // of its arrays, by name
	bytes     int64                      // of them
	failed    map[Digest]*flower.Failure // of the open step
	rounds    uint64                     // so far
	stages    int                        // train batches of the newest round
	group     string                     // of these
	result    *model                     // the newest arrays that no training has followed, or nil
}

// alone says why a run with a ServerApp may not begin in this instance, or another beside
// one that has.
func (e *Enclave) alone(custom bool) error {
	if !e.spent && !e.retiring && !(custom && e.served) {
		return nil
	}
	e.wanted = true
	e.retire()
	return refused(session.CodeInstance, "this instance has served a run, and ServerApps share theirs with none")
}

// retire ends the instance soon, if it has run a ServerApp or is to make room for one, and
// no run goes on.
func (e *Enclave) retire() {
	if !e.spent && !e.wanted || e.retiring {
		return
	}
	for _, r := range e.runs {
		if !r.ended {
			return // it comes back here at its end
		}
	}
	e.retiring = true
	e.log.InfoContext(e.ctx, "this instance ends, and makes room for the next")
	e.loop.After(spentGrace, func() { e.loop.Stop(ErrSpent) })
}

// bundleOf reads the app's bundle out of a request.
func bundleOf(n object.Node, want Digest) (*fab.Bundle, error) {
	dict, ok := n.(object.RecordDict)
	if !ok {
		return nil, errors.New("want one RecordDict")
	}
	content, err := flower.UnpackBundle(dict)
	if err != nil {
		return nil, err
	}
	b, err := fab.Parse(content)
	if err != nil {
		return nil, err
	}
	if b.Digest != want {
		return nil, fmt.Errorf("the bundle has digest %s, the policy lists %s", Digest(b.Digest).Short(), want.Short())
	}
	return b, nil
}

// startApp starts the ServerApp, which has seen nothing yet.
func (r *run) startApp() error {
	overrides, err := overridesOf(r.config)
	if err != nil {
		return err
	}
	c := serverapp.Config{Bundle: r.custom.bundle, Overrides: overrides, RunID: r.body.RunID, MaxBytes: maxHandedOut, Now: r.e.cfg.Now,
		All: r.e.policy.Release.Cohort == policy.CohortFixed, Addressed: r.custom.addressed}
	for _, p := range r.cohort {
		number := flower.NodeNumber(p.Node)
		if slices.Contains(c.Nodes, number) {
			return errors.New("two nodes of the cohort have one number")
		}
		c.Nodes = append(c.Nodes, number)
	}
	app, err := r.e.cfg.Apps.Start(r.e.ctx, c)
	if err != nil {
		return err
	}
	r.custom.app = app
	over := r.custom.over
	r.e.loop.Job(func(ctx context.Context) func() { // owns the process until the run, or the enclave, ends
		select {
		case <-over:
		case <-ctx.Done():
		}
		app.Close()
		return nil
	})
	return nil
}

// stopApp has the ServerApp ended, if there is one.
func (r *run) stopApp() {
	if r.custom != nil && r.custom.over != nil {
		close(r.custom.over)
		r.custom.over = nil
	}
}

// customProfile is the numeric profile of a run whose arithmetic is not the enclave's.
const customProfile = "custom"

// maxHandedOut bounds the objects of one message of a ServerApp. The enclave holds them,
// as the process does.
const maxHandedOut = 64 << 30

// ask waits for what the ServerApp does next, and proposes it.
func (r *run) ask(c *closing) {
	r.closing = c
	app := r.custom.app
	r.deadline(r.e.policy.Release.StepDeadline.Duration(), func() { r.fail(codeApp, "the ServerApp sent no message in time") })
	r.e.loop.Job(func(ctx context.Context) func() {
		b, err := app.Next(ctx)
		return func() {
			if r.ended || r.closing != c {
				return
			}
			r.cancelDeadline()
			switch {
			case err == nil:
				err = r.take(c, b)
			case errors.Is(err, serverapp.ErrFinished):
				err = r.finished(c)
			}
			if err != nil {
				// Its own words may quote what members sent, and stay in here.
				reason := serverapp.Rule(err)
				if reason == "" {
					reason = "it is not served any more"
				}
				r.fail(codeApp, "the ServerApp: "+reason)
				return
			}
			r.propose(c)
		}
	})
}

// take judges a batch, and makes it what the closing step hands out.
func (r *run) take(c *closing, b *serverapp.Batch) error {
	unasked, err := r.unasked(b.To)
	if err != nil {
		return err
	}
	if !slices.Contains(r.e.policy.Nodes.MessageTypes, b.Base()) {
		return serverapp.Refuse("it sends a message of type %.40q, which the policy does not allow", b.Type)
	}
	dict, err := contentOf(b, r.e.policy)
	if err != nil {
		return err
	}
	if err := r.custom.judge(dict, b, r.open == nil); err != nil {
		return err
	}
	r.custom.count(b)
	c.opens, c.round, c.unasked = b.Base(), r.custom.rounds, unasked
	c.produce = r.handedOut(b, dict, c.totals)
	return nil
}

// unasked returns the nodes of the cohort that a message is not for. Where the policy lets
// a ServerApp choose, it still asks as many members as a step must have.
func (r *run) unasked(to []uint64) (nodes []Digest, err error) {
	asked := map[string]bool{}
	for _, p := range r.cohort {
		if slices.Contains(to, flower.NodeNumber(p.Node)) {
			asked[p.Member] = true
		} else {
			nodes = append(nodes, p.Node)
		}
	}
	release := r.e.policy.Release
	switch want := max(release.MinContributors, release.Collusion+2); {
	case len(nodes) == 0:
	case release.Cohort != policy.CohortSampled:
		return nil, serverapp.Refuse("it sends a message to %d of %d nodes, and the policy's cohort is fixed: all get it", len(to), len(r.cohort))
	case uint64(len(asked)) < want:
		return nil, serverapp.Refuse("it sends a message to nodes of %d members, where the policy wants %d to contribute", len(asked), want)
	}
	return nodes, nil
}

// released keeps what a step handed out, as long as it may be the run's result: what the
// ServerApp makes of the answers to a training shows in its next message, or nowhere.
func (x *custom) released(opens string, m *model) {
	switch {
	case opens == receipt.OpensTrain:
		x.result = nil
	case m.arrays != nil:
		x.result = m
	}
}

// finished has the last step close what the open one collected, and hand out the result
// once more: the arrays of the newest message that no training has followed.
func (r *run) finished(c *closing) error {
	if r.open == nil {
		return serverapp.Refuse("it ended without a message")
	}
	c.opens, c.round = receipt.OpensNone, r.open.body.Round
	m := r.custom.result
	if m == nil {
		m = new(model)
	}
	c.produce = r.result(m, c.round, c.totals)
	return nil
}

// answer gives the ServerApp what the nodes answered, and asks it what comes next.
func (r *run) answer(c *closing) {
	if c.attempt > 1 {
		r.fail("late", "a node did not ack a step that the ServerApp has seen")
		return
	}
	members := map[string]bool{}
	var replies []serverapp.Reply
	for _, p := range r.cohort {
		if r.open.excluded[p.Node] == receipt.Unasked {
			continue
		}
		reply := serverapp.Reply{Node: flower.NodeNumber(p.Node)}
		i := slices.IndexFunc(c.inputs, func(x *contribution) bool { return x.node == p.Node })
		switch failure := r.custom.failed[p.Node]; {
		case i >= 0:
			members[c.inputs[i].member] = true
			parcel := c.inputs[i].update.parcel
			reply.Content = parcel.Root()
			reply.Get = func(id object.ID) ([]byte, error) { return parcel.Open(r.e.ctx, id) }
		case failure != nil:
			reply.Failure = failure
		default:
			reply.Failure = flower.NewFailure(int64(flower.CodeNodeGone), "")
		}
		replies = append(replies, reply)
	}
	// What the ServerApp computes from them is to depend on nobody's haste, or name.
	slices.SortFunc(replies, func(a, b serverapp.Reply) int { return cmp.Compare(a.Node, b.Node) })
	c.members = uint64(len(members))
	c.totals = r.totals(c)
	r.custom.failed = nil
	r.closing = c
	app := r.custom.app
	r.e.loop.Job(func(context.Context) func() { // it reads every reply's outline
		err := app.Answer(replies)
		return func() {
			switch {
			case r.ended || r.closing != c:
			case err != nil:
				r.fail("other", "replies not given to the ServerApp: "+err.Error())
			default:
				r.ask(c)
			}
		}
	})
}

// totals are the metrics of the members together, where every reply has one record of
// them as Flower's strategies want it: what people see of a step, whatever the ServerApp
// makes of it. None, if they could show one member's.
func (r *run) totals(c *closing) object.MetricRecord {
	var weights []aggregate.Contribution
	var records []object.MetricRecord
	byMember, whole := map[string]uint64{}, uint64(0)
	for _, x := range c.inputs {
		if x.update.metrics == nil {
			return nil
		}
		w, err := aggregate.Weigh(x.update.metrics, aggregate.ExamplesKey)
		if err != nil {
			return nil
		}
		weights, records = append(weights, w), append(records, x.update.metrics)
		byMember[x.member] += w.Examples
		whole += w.Examples
	}
	totals, err := aggregate.Metrics(weights, aggregate.ExamplesKey, records) // bounds whole
	if err != nil {
		return nil
	}
	contributing := uint64(0)
	for _, part := range byMember {
		if float64(part)/float64(whole)*1000 > float64(r.e.policy.Release.MaxWeightShare) {
			return nil
		}
		if part > 0 {
			contributing++
		}
	}
	if contributing < max(r.e.policy.Release.MinContributors, r.e.policy.Release.Collusion+2) {
		return nil
	}
	return totals
}

// handedOut produces a step from a batch, whose objects stay in memory until the step is
// released.
func (r *run) handedOut(b *serverapp.Batch, dict object.RecordDict, totals object.MetricRecord) produce {
	terms := flower.Terms{Type: b.Type, Group: b.Group}
	if len(b.To) < len(r.cohort) {
		terms.To = slices.Sorted(slices.Values(b.To))
	}
	content := append(slices.Clone(dict), object.RecordItem{Name: flower.RecordTerms, Record: terms.Record()})
	if totals != nil {
		content = append(content, object.RecordItem{Name: flower.RecordTotals, Record: totals})
	}
	key := r.downlinkKey()
	return func(_ context.Context, put func(chunkstore.ID, []byte) error) (chunkstore.Sealed, *model, error) {
		p := chunkstore.NewParcelWriter(key, put)
		next := new(model)
		for _, it := range dict {
			arrays, ok := it.Record.(object.ArrayRecord)
			if ok && next.arrays == nil {
				next.arrays = arrays
			}
			for _, a := range arrays {
				for _, chunk := range a.Array.Chunks {
					raw, err := b.Get(chunk.ID)
					if err == nil {
						err = p.Add(raw)
					}
					if err != nil {
						return chunkstore.Sealed{}, nil, err
					}
				}
			}
			if ok && len(next.chunks) == 0 {
				next.chunks = p.Chunks()
			}
		}
		if _, err := object.Flatten(content, func(o object.Object) error { return p.Add(o.Raw) }); err != nil {
			return chunkstore.Sealed{}, nil, err
		}
		s, err := p.Close()
		return s, next, err
	}
}

// result produces the last step of a run: the arrays of m, under the name that every
// node's owner finds them by, and the metrics of the last answers.
func (r *run) result(m *model, round uint64, totals object.MetricRecord) produce {
	content := object.RecordDict{{Name: flower.RecordConfig, Record: object.ConfigRecord{{Key: flower.ConfigRound, Value: object.Sint(round)}}}}
	if m.arrays != nil {
		content = append(object.RecordDict{{Name: flower.RecordArrays, Record: m.arrays}}, content...)
	}
	if totals != nil {
		content = append(content, object.RecordItem{Name: flower.RecordTotals, Record: totals})
	}
	key := r.downlinkKey()
	return func(_ context.Context, put func(chunkstore.ID, []byte) error) (chunkstore.Sealed, *model, error) {
		p := chunkstore.NewParcelWriter(key, put)
		for _, c := range m.chunks {
			if err := p.AddSealed(c); err != nil {
				return chunkstore.Sealed{}, nil, err
			}
		}
		if _, err := object.Flatten(content, func(o object.Object) error { return p.Add(o.Raw) }); err != nil {
			return chunkstore.Sealed{}, nil, err
		}
		s, err := p.Close()
		return s, m, err
	}
}

// readCustom opens a contribution that the ServerApp is to see, and reads all of it once:
// what is admitted can be had.
func (r *run) readCustom(ctx context.Context, u *update, dict object.RecordDict) (*update, error) {
	if err := errors.Join(flower.CheckCustomReply(dict, r.custom.first, r.e.policy), r.custom.bounded(u.parcel.Entries())); err != nil {
		return nil, err
	}
	ctx, done, err := r.e.firstReading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	records := 0
	for _, it := range dict {
		switch x := it.Record.(type) {
		case object.MetricRecord:
			u.metrics = x
			records++
		case object.ArrayRecord:
			for _, a := range x {
				if _, err := io.Copy(io.Discard, u.parcel.ArrayReader(ctx, a.Array)); err != nil {
					return nil, fmt.Errorf("array %.80q: %w", a.Name, err)
				}
			}
		}
	}
	if records != 1 {
		u.metrics = nil
	}
	return u, nil
}

// noteFailure keeps a node's word about its app, for the ServerApp.
func (x *custom) noteFailure(node Digest, m *session.Failed) {
	if x.failed == nil {
		x.failed = map[Digest]*flower.Failure{}
	}
	x.failed[node] = flower.NewFailure(int64(m.Code), "<class '"+m.Type+"'>")
}

// overridesOf is a run's config as the ServerApp gets it.
func overridesOf(config []byte) (map[string]any, error) {
	var values map[string]any
	if err := cose.Unmarshal(config, &values); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	for k := range values {
		if strings.HasPrefix(k, policy.ConfigPrefix) {
			return nil, fmt.Errorf("config: %.80q is a setting of native strategies, and the app's own code aggregates", k)
		}
	}
	return flower.RunConfig(values), nil
}
