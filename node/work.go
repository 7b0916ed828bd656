package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/state"
	"github.com/concordat/concordat/verifier/receipt"
)

// answer has a released step answered: its outputs are fetched and opened, the app
// runs on them, and what it replies is sealed, stored at the link and signed for.
func (n *Node) answer(r *run) {
	t, uplink, down := r.task, r.uplink, *r.down
	if t.working != nil || r.sent[t.step.Digest()] != nil {
		return // answered before: the resume carries it
	}
	working := make(chan struct{})
	t.working = working
	ctx, giveUp := context.WithCancelCause(n.loop.Context())
	t.giveUp = giveUp
	before := r.before(t.body.Seq)
	app := n.app(r.body.App)
	addressed := r.custom() && app != nil && app.Addressed
	n.loop.Job(func(context.Context) func() {
		defer close(working)
		defer giveUp(nil)
		answered := func(c *sealed, err error) func() {
			if cause := context.Cause(ctx); err != nil && errors.Is(cause, errMovedOn) {
				err = cause
			}
			return func() { n.answered(r, t, c, err) }
		}
		w := work{n: n, r: r, body: t.body, step: t.step.Digest(), before: before, addressed: addressed}
		metrics, err := w.open(ctx, t.msg.Manifest, down)
		if err == nil {
			n.loop.Post(func() { n.stepSeen(r, t, metrics, w) })
		}
		if err == nil && t.body.Opens == receipt.OpensNone && w.hasModel() {
			err = n.saveModel(r.digest, w.content, w.objects)
		}
		if err != nil || t.body.Opens == receipt.OpensNone || w.spared() {
			return answered(nil, err)
		}
		if err := n.askLedger(r, &w); err != nil {
			return answered(nil, err)
		}
		return answered(w.work(ctx, uplink))
	})
}

// spared says whether the ServerApp asks others than this node. It waits for the next step
// then, and fetches no more of this one.
func (w *work) spared() bool { return !w.terms.Asks(flower.NodeNumber(w.n.id)) }

// hasModel says whether the last step hands out a model. A ServerApp that had none
// evaluated after its last training has not said what became of it.
func (w *work) hasModel() bool { return !w.r.custom() || w.asked.Get(flower.RecordArrays) != nil }

// askLedger waits for the loop's answer whether the opened model may be worked on.
func (n *Node) askLedger(r *run, w *work) error {
	model, err := w.model()
	if err != nil {
		return err
	}
	return n.onLoop(func() error { return n.mayServe(r, model) })
}

// stepSeen tells the users what a step brought.
func (n *Node) stepSeen(r *run, t *task, metrics map[string]float64, w work) {
	n.tell(Event{Kind: "step", Run: r.digest, Request: r.request, Seq: t.body.Seq, Round: t.body.Round, Opens: t.body.Opens,
		Inputs: t.body.InputsCount, Excluded: t.body.ExcludedCount, Metrics: metrics, Moved: w.moved, Saved: w.saved})
}

// answered signs the contribution and sends it.
func (n *Node) answered(r *run, t *task, c *sealed, err error) {
	if n.runs[r.digest] != r {
		n.apps.finish(r.digest) // it ended meanwhile
	}
	if errors.Is(err, errMovedOn) {
		n.log.WarnContext(n.ctx, "step given up", "run", r.digest.Short(), "step", t.body.Seq, "reason", err.Error())
		n.tell(Event{Kind: "failed", Run: r.digest, Seq: t.body.Seq, Reason: err.Error()})
		return
	}
	if err != nil {
		var f *flower.Failure
		if errors.As(err, &f) {
			// The text may hold data: it stays in this node's log (protocol F21).
			n.log.ErrorContext(n.ctx, "app failed", "run", r.digest.Short(), "step", t.body.Seq, "error", f.Error(), "text", f.LocalText())
		} else {
			n.log.ErrorContext(n.ctx, "step not answered", "run", r.digest.Short(), "step", t.body.Seq, "reason", err.Error())
		}
		n.tell(Event{Kind: "failed", Run: r.digest, Seq: t.body.Seq, Reason: err.Error()})
		if t.body.Opens == receipt.OpensNone {
			return // nobody waits for an answer to the last step
		}
		failed := &session.Failed{Run: r.digest, Step: t.step.Digest()}
		if f != nil {
			failed.Code, failed.Type = uint64(f.Code), f.Type
		}
		if err := n.send(failed); err != nil {
			n.log.WarnContext(n.ctx, "failure not told", "run", r.digest.Short(), "reason", err.Error())
		}
		return
	}
	if c == nil || n.runs[r.digest] != r {
		return
	}
	if err := r.chain.MayContribute(t.body.Seq, t.step.Digest()); err != nil {
		n.log.WarnContext(n.ctx, "contribution withheld", "run", r.digest.Short(), "reason", err.Error())
		return
	}
	s, err := n.sign(receipt.KindContribution, r.digest, &receipt.Contribution{
		Seq: t.body.Seq, Step: t.step.Digest(), Manifest: Digest(c.parcel.Manifest.ID), ChunkRoot: c.parcel.Root, Count: c.parcel.Count,
	})
	if err != nil {
		n.loop.Stop(err)
		return
	}
	msg := &session.Contribution{Statement: s.Raw(), Manifest: session.ManifestRef{OID: Digest(c.parcel.Manifest.OID), ID: Digest(c.parcel.Manifest.ID), Size: c.parcel.Manifest.Size}}
	if err := n.journal.Contributed(s, msg); err != nil {
		n.loop.Stop(err)
		return
	}
	// From here on the state that the answer left is the one that the next step starts from.
	// The one before stays: where the enclave is lost, its successor may repeat this step.
	r.sent[t.step.Digest()] = s
	if err := n.apps.states.Forget(r.digest, r.before(t.body.Seq).Seq); err != nil {
		n.log.WarnContext(n.ctx, "state of an app is left", "run", r.digest.Short(), "reason", err.Error())
	}
	if !n.last(r, t.body) {
		n.apps.prepare(n.loop, r, r.before(t.body.Seq+1))
	}
	n.tell(Event{Kind: "contributed", Run: r.digest, Seq: t.body.Seq, Moved: c.moved, Saved: c.saved})
	if err := n.send(msg); err != nil {
		n.log.WarnContext(n.ctx, "contribution waits for an enclave", "run", r.digest.Short(), "reason", err.Error())
	}
}

// last says whether a run asks nothing more of its app than what a step asks. What a
// ServerApp asks next, it alone knows.
func (n *Node) last(r *run, s *receipt.Step) bool {
	if r.custom() {
		return false
	}
	evaluates := slices.Contains(n.policy.Nodes.MessageTypes, receipt.OpensEvaluate)
	return s.Round == r.body.Rounds && (s.Opens == receipt.OpensEvaluate || !evaluates)
}

// work is one task in progress, off the loop.
type work struct {
	n            *Node
	r            *run
	body         *receipt.Step
	step         Digest
	before       state.Step // whose answer left the app's state
	content      object.ID
	objects      map[object.ID][]byte
	asked        object.RecordDict // of content, in outline
	terms        flower.Terms      // of the ServerApp's message, where one aggregates
	addressed    bool              // the policy lets the ServerApp tell each node something of its own
	moved, saved uint64
}

// custom says whether the app's own ServerApp aggregates: its messages go to ClientApps as
// they are.
func (r *run) custom() bool { return r.body.Class == receipt.ClassCustom }

// sealed is what a reply became.
type sealed struct {
	parcel       chunkstore.Sealed
	moved, saved uint64
}

// open fetches a step's outputs and opens them: only chunks under the root that the
// released statement signs, each checked against it.
func (w *work) open(ctx context.Context, ref session.ManifestRef, down [32]byte) (map[string]float64, error) {
	key := chunkstore.NewDownlink(down, w.r.digest, w.body.Generation)
	remote := transfer.NewReader(w.n.chunks, chunkstore.Scope{Federation: w.n.fed, Run: w.r.digest})
	defer func() { w.moved = remote.Bytes() }()
	parcel, err := chunkstore.OpenParcel(ctx, key, chunkstore.Ref{OID: object.ID(ref.OID), ID: chunkstore.ID(ref.ID), Size: ref.Size}, w.body.OutputsRoot, w.body.OutputsCount, remote)
	if err != nil {
		return nil, fmt.Errorf("outputs of step %d: %w", w.body.Seq, err)
	}
	own, metrics, err := w.withoutOwn(parcel)
	if err == nil && !w.r.custom() {
		err = w.checkFrozen()
	}
	if err != nil {
		return nil, fmt.Errorf("outputs of step %d: %w", w.body.Seq, err)
	}
	if w.spared() {
		w.n.log.InfoContext(ctx, "not asked", "run", w.r.digest.Short(), "step", w.body.Seq, "asked", len(w.terms.To))
		return metrics, nil
	}
	for _, x := range parcel.Entries() {
		if own[x.Object] {
			continue
		}
		raw, cached := w.n.apps.cached(w.r.digest, x.Object)
		if cached && x.Inline == nil {
			w.saved += uint64(chunkstore.StoredSize(x.Size))
		} else if raw, err = parcel.Open(ctx, x.Object); err != nil {
			return nil, fmt.Errorf("outputs of step %d: %w", w.body.Seq, err)
		}
		w.objects[x.Object] = raw
	}
	w.n.apps.cache(w.r.digest, w.objects)
	return metrics, nil
}

// withoutOwn makes the content what the parcel's root holds beside the enclave's own
// records, and returns the objects that belong to those alone: they are not fetched, and no
// app gets them. It reads the metrics of the members together, for the users.
func (w *work) withoutOwn(parcel *chunkstore.Parcel) (own map[object.ID]bool, metrics map[string]float64, err error) {
	w.content, w.objects = parcel.Root(), map[object.ID][]byte{}
	dict, err := inflate(w.content, parcel.Inline)
	if err != nil {
		return nil, nil, err
	}
	metrics = aggregated(dict)
	if w.r.custom() && w.body.Opens != receipt.OpensNone {
		if w.terms, err = flower.TermsOf(dict, w.body.Opens); err != nil {
			return nil, nil, err
		}
	}
	if w.asked, err = w.mine(dict); err != nil {
		return nil, nil, err
	}
	objects, wanted, err := below(w.asked)
	if err != nil {
		return nil, nil, err
	}
	root := objects[len(objects)-1]
	if root.ID == w.content {
		return nil, metrics, nil
	}
	w.content, w.objects[root.ID] = root.ID, root.Raw
	own = map[object.ID]bool{}
	for _, x := range parcel.Entries() {
		own[x.Object] = !wanted[x.Object]
	}
	return own, metrics, nil
}

// mine is what this node's app gets of a content. Nodes may be told different things only
// where the policy lets the app's ServerApp do so.
func (w *work) mine(dict object.RecordDict) (object.RecordDict, error) {
	content, addressed, err := flower.ContentFor(dict, flower.NodeNumber(w.n.id))
	if err == nil && addressed && !w.addressed {
		err = errors.New("nodes are told different things, which the policy does not let the app do")
	}
	return content, err
}

// below returns the objects of a content in outline, the root last, and names all that is
// below it, chunks too.
func below(d object.RecordDict) (objects []object.Object, named map[object.ID]bool, err error) {
	if objects, err = object.Objects(d); err != nil {
		return nil, nil, err
	}
	named = map[object.ID]bool{}
	for _, o := range objects {
		named[o.ID] = true
		h, err := object.ParseHead(o.Raw)
		if err != nil {
			return nil, nil, err
		}
		for _, c := range h.Children {
			named[c] = true
		}
	}
	return objects, named, nil
}

// checkFrozen says whether the run statement freezes what the run's config does, of the
// model that was handed out: nothing else keeps an array of this node's from leaving.
func (w *work) checkFrozen() error {
	arrays, ok := w.asked.Get(flower.RecordArrays).(object.ArrayRecord)
	if !ok {
		return errors.New("no arrays")
	}
	frozen, err := flower.Frozen(w.r.config, arrays)
	if err == nil && !slices.Equal(frozen, w.r.body.Frozen) {
		err = fmt.Errorf("the run statement freezes other arrays than the run's config: %.80q, not %.80q", w.r.body.Frozen, frozen)
	}
	return err
}

// trained makes a reply to a training what may leave: exactly the arrays that the run does
// not freeze, whatever the app made of the others.
func (w *work) trained(reply *flower.Reply) (*flower.Reply, error) {
	model, _ := w.asked.Get(flower.RecordArrays).(object.ArrayRecord)
	out := slices.Clone(reply.Content)
	for i, it := range out {
		arrays, ok := it.Record.(object.ArrayRecord)
		if !ok {
			continue
		}
		var kept object.ArrayRecord
		for _, k := range flower.Trained(arrays, w.r.body.Frozen) {
			kept = append(kept, arrays[k])
		}
		if err := flower.CheckTrained(kept, model, flower.Trained(model, w.r.body.Frozen)); err != nil {
			return nil, err
		}
		out[i].Record = kept
	}
	if len(w.r.body.Frozen) == 0 {
		return reply, nil
	}
	objects, named, err := below(out)
	if err != nil {
		return nil, err
	}
	r := &flower.Reply{Root: objects[len(objects)-1].ID, Content: out, Objects: map[object.ID][]byte{}}
	for id, raw := range reply.Objects {
		if named[id] {
			r.Objects[id] = raw
		}
	}
	for _, o := range objects {
		r.Objects[o.ID] = o.Raw
	}
	return r, nil
}

// model returns the id of the opened arrays: the same in every run, and whatever they
// were sealed with. A message of a ServerApp may have none, and is known by all of it.
func (w *work) model() (object.ID, error) {
	root, err := object.ParseHead(w.objects[w.content])
	if err != nil {
		return object.ID{}, err
	}
	for _, id := range root.Children {
		if h, err := object.ParseHead(w.objects[id]); err == nil && h.Kind == object.KindArrayRecord {
			return id, nil
		}
	}
	if w.r.custom() {
		return w.content, nil
	}
	return object.ID{}, fmt.Errorf("outputs of step %d have no arrays", w.body.Seq)
}

// aggregated reads the metrics of the members together out of a step's outputs.
func aggregated(dict object.RecordDict) map[string]float64 {
	out := map[string]float64{}
	m, ok := dict.Get(flower.RecordTotals).(object.MetricRecord)
	if !ok {
		m, _ = dict.Get(flower.RecordMetrics).(object.MetricRecord)
	}
	for _, x := range m {
		switch v := x.Value.(type) {
		case object.Double:
			out[x.Key] = float64(v)
		case object.Sint:
			out[x.Key] = float64(v)
		case object.Uint:
			out[x.Key] = float64(v)
		}
	}
	return out
}

// inflate reads a RecordDict in outline: array chunks stay where they are.
func inflate(root object.ID, get func(object.ID) ([]byte, error)) (object.RecordDict, error) {
	v, err := object.Inflate(root, get, object.Limits{Objects: maxObjects, Bytes: maxOutline, Outline: true})
	if err != nil {
		return nil, err
	}
	dict, ok := v.(object.RecordDict)
	if !ok {
		return nil, errors.New("content is no RecordDict")
	}
	return dict, nil
}

// Bounds of what a step or a reply may hold beside array chunks.
const (
	maxObjects = 1 << 16
	maxOutline = 16 << 20
)

func lookup(objects map[object.ID][]byte, id object.ID) ([]byte, error) {
	raw, ok := objects[id]
	if !ok {
		return nil, errors.New("object is missing")
	}
	return raw, nil
}

// work runs the app, seals its reply, and keeps the state that it left: durable before the
// contribution is signed, and counted once that is in the journal.
func (w *work) work(ctx context.Context, uplink [32]byte) (*sealed, error) {
	in := flower.Instruction{
		Type: w.body.Opens, Round: w.body.Round, Content: w.content,
		Get: func(id object.ID) ([]byte, error) { return lookup(w.objects, id) },
	}
	// The answer to a model is about as large.
	in.MaxReply = flower.DefaultMaxReply
	for _, raw := range w.objects {
		in.MaxReply += int64(len(raw))
	}
	if w.r.custom() {
		in.Type, in.Group = w.terms.Type, w.terms.Group
	}
	reply, left, err := w.n.apps.do(ctx, w.r, w.before, in)
	if err != nil {
		return nil, err
	}
	// What leaves is what the policy lets out (protocol F21), and the run does not freeze.
	train := w.body.Opens == receipt.OpensTrain
	if w.r.custom() {
		err = flower.CheckCustomReply(reply.Content, w.asked, w.n.policy)
	} else {
		err = flower.CheckReply(reply.Content, train, w.n.policy)
	}
	if err == nil && train && !w.r.custom() {
		reply, err = w.trained(reply)
	}
	if err != nil {
		return nil, err
	}
	key := chunkstore.NewUplink(uplink, w.r.digest, w.body.Seq)
	up := w.n.chunks.Upload(ctx, chunkstore.Scope{Federation: w.n.fed, Run: w.r.digest, Owner: w.n.id})
	p := chunkstore.NewParcelWriter(key, up.Add)
	var s chunkstore.Sealed
	for id, raw := range reply.Objects { // the root last
		if id != reply.Root && err == nil {
			err = p.Add(raw)
		}
	}
	if err == nil {
		err = p.Add(reply.Objects[reply.Root])
	}
	if err == nil {
		s, err = p.Close()
	}
	if err = errors.Join(err, up.Close()); err != nil {
		return nil, fmt.Errorf("contribution to step %d: %w", w.body.Seq, err)
	}
	if err := w.n.apps.states.Write(w.r.digest, state.Step{Seq: w.body.Seq, Digest: w.step}, left); err != nil {
		return nil, err
	}
	return &sealed{parcel: s, moved: up.Sent(), saved: up.Saved()}, nil
}
