package enclave

import (
	"bufio"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// model is the global model: what every contribution must look like, and where its
// bytes are. It does not change; a step makes a new one.
type model struct {
	arrays  object.ArrayRecord   // in outline, or the initial arrays with their bytes
	state   []object.ArrayRecord // of the strategy, in outline, in its order; nil in the first round and after the last
	tensors []aggregate.Tensor
	source  *chunkstore.Parcel // of initial arrays in outline: where their bytes are
	chunks  []chunkstore.Entry // of the arrays, once they are sealed for the run
}

// Bounds of what is read from a contribution or a request before it is judged.
const (
	maxObjects = 1 << 16
	maxOutline = 16 << 20 // bytes of all objects that are not array chunks
)

// initialModel reads the initial arrays of a run request.
func initialModel(objects [][]byte) (*model, error) {
	if len(objects) == 0 || len(objects) > maxObjects {
		return nil, fmt.Errorf("%d objects, limit %d", len(objects), maxObjects)
	}
	byID := make(map[object.ID][]byte, len(objects))
	for _, raw := range objects {
		byID[object.Sum(raw)] = raw
	}
	get := func(id object.ID) ([]byte, error) {
		raw, ok := byID[id]
		if !ok {
			return nil, errors.New("object is missing")
		}
		return raw, nil
	}
	root := object.Sum(objects[len(objects)-1])
	n, err := object.Inflate(root, get, object.Limits{Objects: maxObjects, Bytes: session.MaxMessage})
	if err != nil {
		return nil, err
	}
	m := new(model)
	if m.arrays, err = onlyArrays(n); err != nil {
		return nil, err
	}
	for _, a := range m.arrays {
		t, err := tensorOf(a.Name, a.Array.Bytes())
		if err != nil {
			return nil, err
		}
		m.tensors = append(m.tensors, t)
	}
	return m, nil
}

// onlyArrays returns what a run request's root must be.
func onlyArrays(n any) (object.ArrayRecord, error) {
	dict, ok := n.(object.RecordDict)
	if !ok || len(dict) != 1 {
		return nil, errors.New("want one RecordDict with one ArrayRecord")
	}
	arrays, ok := dict[0].Record.(object.ArrayRecord)
	if !ok || len(arrays) == 0 {
		return nil, errors.New("want one ArrayRecord that is not empty")
	}
	return arrays, nil
}

// storedModel reads initial arrays that the node stored at the link, all of them once: a
// run does not begin with arrays that cannot be aggregated, or that the link does not have.
func (e *Enclave) storedModel(ctx context.Context, owner Digest, s *session.StoredArrays) (*model, error) {
	remote := transfer.NewReader(e.chunks, chunkstore.Scope{Federation: e.fed, Run: s.Place, Owner: owner})
	parcel, err := chunkstore.OpenParcel(ctx, chunkstore.NewUplink(s.Secret, s.Place, 0),
		chunkstore.Ref{OID: object.ID(s.Manifest.OID), ID: chunkstore.ID(s.Manifest.ID), Size: s.Manifest.Size}, s.Root, s.Count, remote)
	if err != nil {
		return nil, err
	}
	n, err := object.Inflate(parcel.Root(), parcel.Inline, object.Limits{Objects: maxObjects, Bytes: maxOutline, Outline: true})
	if err != nil {
		return nil, err
	}
	m := &model{source: parcel}
	if m.arrays, err = onlyArrays(n); err != nil {
		return nil, err
	}
	ctx, done, err := e.firstReading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	for _, a := range m.arrays {
		r := bufio.NewReaderSize(parcel.ArrayReader(ctx, a.Array), maxNPYStart)
		head, err := r.Peek(maxNPYStart)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("array %.80q: %w", a.Name, err)
		}
		t, err := tensorOf(a.Name, head)
		if err != nil {
			return nil, err
		}
		if err := aggregate.Check(t, r); err != nil {
			return nil, err
		}
		m.tensors = append(m.tensors, t)
	}
	return m, nil
}

// firstReading waits for its turn, of [maxReading]. done ends that, and every array reader
// with ctx.
func (e *Enclave) firstReading(ctx context.Context) (_ context.Context, done func(), err error) {
	select {
	case e.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	return ctx, func() { cancel(); <-e.reading }, nil
}

// maxNPYStart holds the header of any array that object.ParseNPY reads.
const maxNPYStart = 16 << 10

func tensorOf(name string, npy []byte) (aggregate.Tensor, error) {
	h, err := object.ParseNPY(npy)
	if err != nil {
		return aggregate.Tensor{}, fmt.Errorf("array %.80q: %w", name, err)
	}
	return aggregate.Tensor{Name: name, Type: h.Descr, Shape: h.Shape, Fortran: h.Fortran}, nil
}

// produce makes a step's outputs: it seals every object and hands it to put, if that
// is not nil. It gives the same outputs every time, so that they can be named first
// and made again once they may leave.
type produce func(ctx context.Context, put func(chunkstore.ID, []byte) error) (chunkstore.Sealed, *model, error)

// content is the RecordDict that a step hands out. The strategy's state, which a successor
// of this enclave finds there, nodes do not hand to their apps.
func (r *run) content(m *model, round uint64, metrics object.MetricRecord) object.RecordDict {
	d := object.RecordDict{
		{Name: flower.RecordArrays, Record: m.arrays},
		{Name: flower.RecordConfig, Record: object.ConfigRecord{{Key: flower.ConfigRound, Value: object.Sint(round)}}},
	}
	for i, s := range m.state {
		d = append(d, object.RecordItem{Name: flower.RecordState + r.strategy.State()[i], Record: s})
	}
	if metrics != nil {
		d = append(d, object.RecordItem{Name: flower.RecordMetrics, Record: metrics})
	}
	return d
}

func (r *run) downlinkKey() *chunkstore.Secret {
	return chunkstore.NewDownlink(r.downlink, r.digest, r.body.Generation)
}

// initial produces step 1: the arrays of the request.
func (r *run) initial(m *model) produce {
	if m.source != nil {
		return r.copied(m)
	}
	key := r.downlinkKey()
	return func(_ context.Context, put func(chunkstore.ID, []byte) error) (chunkstore.Sealed, *model, error) {
		p := chunkstore.NewParcelWriter(key, put)
		if _, err := object.Flatten(r.content(m, 1, nil), func(o object.Object) error { return p.Add(o.Raw) }); err != nil {
			return chunkstore.Sealed{}, nil, err
		}
		next := &model{tensors: m.tensors, chunks: p.Chunks()}
		for _, a := range m.arrays {
			outline := *a.Array
			outline.Chunks = nil
			for _, c := range a.Array.Chunks {
				outline.Chunks = append(outline.Chunks, object.Chunk{ID: object.Sum(object.EncodeChunk(c.Data))})
			}
			next.arrays = append(next.arrays, object.ArrayItem{Name: a.Name, Array: &outline})
		}
		s, err := p.Close()
		return s, next, err
	}
}

// copied produces step 1 from arrays that the requester stored, streamed.
func (r *run) copied(m *model) produce {
	return r.streamed(m, 1, nil, nil, func(ctx context.Context, i int, w io.Writer, _ []io.Writer) error {
		_, err := io.Copy(w, m.source.ArrayReader(ctx, m.arrays[i].Array))
		return err
	})
}

// same produces a step whose arrays are those of the model as it stands: they are
// sealed and stored already, and only what is around them is new.
func (r *run) same(m *model, round uint64, metrics object.MetricRecord) produce {
	key := r.downlinkKey()
	return func(_ context.Context, put func(chunkstore.ID, []byte) error) (chunkstore.Sealed, *model, error) {
		p := chunkstore.NewParcelWriter(key, put)
		for _, c := range m.chunks {
			if err := p.AddSealed(c); err != nil {
				return chunkstore.Sealed{}, nil, err
			}
		}
		if _, err := object.Flatten(r.content(m, round, metrics), func(o object.Object) error { return p.Add(o.Raw) }); err != nil {
			return chunkstore.Sealed{}, nil, err
		}
		s, err := p.Close()
		return s, m, err
	}
}

// aggregated produces a step whose arrays are the aggregate of updates to m, which open
// handed out, and keeps the strategy's state if another round is to come.
func (r *run) aggregated(m *model, open *openStep, updates []*update, plan *aggregate.Plan, round uint64, metrics object.MetricRecord) produce {
	var names []string
	if open.body.Round < r.body.Rounds {
		names = r.strategy.State()
	}
	var handedOut *chunkstore.Parcel
	return r.streamed(m, round, metrics, names, func(ctx context.Context, i int, w io.Writer, state []io.Writer) (err error) {
		ctx, cancel := context.WithCancel(ctx) // ends readers that an error leaves
		defer cancel()
		from := aggregate.Sources{In: arrayReaders(ctx, updates, i)}
		if handedOut == nil && (r.strategy.NeedsModel() || m.state != nil) {
			if handedOut, err = r.outputs(ctx, open); err != nil {
				return err
			}
		}
		if r.strategy.NeedsModel() {
			from.Model = handedOut.ArrayReader(ctx, m.arrays[i].Array)
		}
		for _, s := range m.state {
			from.State = append(from.State, handedOut.ArrayReader(ctx, s[i].Array))
		}
		return plan.Array(m.tensors[i], from, w, state)
	})
}

// arrayReaders reads array i of every update.
func arrayReaders(ctx context.Context, updates []*update, i int) []io.Reader {
	in := make([]io.Reader, len(updates))
	for k, u := range updates {
		in[k] = u.parcel.ArrayReader(ctx, u.arrays[i].Array)
	}
	return in
}

// survey passes over all arrays of the updates to m once, before any is aggregated.
func (r *run) survey(ctx context.Context, v *aggregate.Survey, m *model, open *openStep, updates []*update) (err error) {
	ctx, cancel := context.WithCancel(ctx) // ends readers that an error leaves
	defer cancel()
	var handedOut *chunkstore.Parcel
	if r.strategy.NeedsModel() {
		if handedOut, err = r.outputs(ctx, open); err != nil {
			return err
		}
	}
	for i, t := range m.tensors {
		var model io.Reader
		if handedOut != nil {
			model = handedOut.ArrayReader(ctx, m.arrays[i].Array)
		}
		if err := v.Array(t, model, arrayReaders(ctx, updates, i)); err != nil {
			return err
		}
	}
	return nil
}

// outputs opens what a step handed out; it lies at the link.
func (r *run) outputs(ctx context.Context, open *openStep) (*chunkstore.Parcel, error) {
	remote := transfer.NewReader(r.e.chunks, chunkstore.Scope{Federation: r.e.fed, Run: r.digest})
	return chunkstore.OpenParcel(ctx, r.downlinkKey(), open.outputs.Manifest, open.outputs.Root, open.outputs.Count, remote)
}

// streamed produces a step whose arrays are those of m with other bytes, which array
// writes one array after the other, and beside them records of state of those names:
// memory is a chunk of each source and result, whatever the model's size.
func (r *run) streamed(m *model, round uint64, metrics object.MetricRecord, state []string, array func(ctx context.Context, i int, w io.Writer, state []io.Writer) error) produce {
	key := r.downlinkKey()
	return func(ctx context.Context, put func(chunkstore.ID, []byte) error) (chunkstore.Sealed, *model, error) {
		p := chunkstore.NewParcelWriter(key, put)
		next := &model{tensors: m.tensors, state: make([]object.ArrayRecord, len(state))}
		if len(state) == 0 {
			next.state = nil
		}
		for i, item := range m.arrays {
			w := object.NewChunkWriter(p.AddObject)
			var kept []*object.ChunkWriter
			var keepers []io.Writer
			for range state {
				k := object.NewChunkWriter(p.AddObject)
				kept, keepers = append(kept, k), append(keepers, k)
			}
			if err := array(ctx, i, w, keepers); err != nil {
				return chunkstore.Sealed{}, nil, err
			}
			a := *item.Array
			var err error
			if a.Chunks, err = w.Close(); err != nil {
				return chunkstore.Sealed{}, nil, err
			}
			next.arrays = append(next.arrays, object.ArrayItem{Name: item.Name, Array: &a})
			for j, k := range kept {
				s, err := stateOutline(m.tensors[i])
				if err != nil {
					return chunkstore.Sealed{}, nil, err
				}
				if s.Chunks, err = k.Close(); err != nil {
					return chunkstore.Sealed{}, nil, err
				}
				next.state[j] = append(next.state[j], object.ArrayItem{Name: item.Name, Array: s})
			}
		}
		next.chunks = p.Chunks()
		if _, err := object.Flatten(r.content(next, round, metrics), func(o object.Object) error { return p.Add(o.Raw) }); err != nil {
			return chunkstore.Sealed{}, nil, err
		}
		s, err := p.Close()
		return s, next, err
	}
}

// stateOutline describes the array of state that belongs to an array of the model.
func stateOutline(t aggregate.Tensor) (*object.Array, error) {
	descr, err := t.StateType()
	if err != nil {
		return nil, err
	}
	return object.NewOutline(object.NPY{Descr: descr, Fortran: t.Fortran, Shape: t.Shape})
}

// update is an admitted contribution: where its arrays can be read again.
type update struct {
	parcel  *chunkstore.Parcel
	arrays  object.ArrayRecord // in outline; nil for an evaluation
	metrics object.MetricRecord
	weight  aggregate.Contribution
	proof   receipt.Proof // of the manifest in the contribution's chunk tree
}

// read opens a contribution and checks all of it: the chunks against the statement,
// the arrays against the model, the metrics against the policy.
func (r *run) read(ctx context.Context, c *contribution, ref session.ManifestRef, uplink [32]byte, opens string, m *model, p *policy.Policy) (*update, error) {
	body := c.statement.Body.(*receipt.Contribution)
	if Digest(ref.ID) != body.Manifest {
		return nil, errors.New("manifest is not the one that the statement names")
	}
	key := chunkstore.NewUplink(uplink, r.digest, body.Seq)
	remote := transfer.NewReader(r.e.chunks, chunkstore.Scope{Federation: r.e.fed, Run: r.digest, Owner: c.node})
	parcel, err := chunkstore.OpenParcel(ctx, key, chunkstore.Ref{OID: object.ID(ref.OID), ID: chunkstore.ID(ref.ID), Size: ref.Size}, body.ChunkRoot, body.Count, remote)
	if err != nil {
		return nil, err
	}
	n, err := object.Inflate(parcel.Root(), parcel.Inline, object.Limits{Objects: maxObjects, Bytes: maxOutline, Outline: true})
	if err != nil {
		return nil, err
	}
	dict, ok := n.(object.RecordDict)
	if !ok {
		return nil, errors.New("contribution is no RecordDict")
	}
	train := opens == receipt.OpensTrain
	if err := flower.CheckReply(dict, train, p); err != nil {
		return nil, err
	}
	u := &update{parcel: parcel}
	if u.arrays, u.metrics, err = flower.Split(dict, train); err != nil {
		return nil, err
	}
	weigh := aggregate.Weigh
	if train {
		weigh = r.strategy.Weigh
	}
	if u.weight, err = weigh(u.metrics, aggregate.ExamplesKey); err != nil {
		return nil, err
	}
	u.proof = receipt.Proof{Size: body.Count}
	for _, h := range parcel.ManifestProof() {
		u.proof.Path = append(u.proof.Path, h)
	}
	if !train {
		return u, nil
	}
	if len(u.arrays) != len(m.tensors) {
		return nil, fmt.Errorf("%d arrays, the model has %d", len(u.arrays), len(m.tensors))
	}
	ctx, done, err := r.e.firstReading(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	for i, t := range m.tensors {
		if u.arrays[i].Name != t.Name {
			return nil, fmt.Errorf("array %d is %.80q, the model's is %q", i, u.arrays[i].Name, t.Name)
		}
		if err := aggregate.Check(t, parcel.ArrayReader(ctx, u.arrays[i].Array)); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// planTraining plans the strategy's step over the inputs and proposes it.
func (r *run) planTraining(c *closing, survey *aggregate.Survey) {
	step := aggregate.Step{Round: r.open.body.Round, Contributions: c.weights(), Survey: survey}
	if r.strategy.Noisy() {
		var err error
		if step.Secret, err = r.noiseSecret(c); err != nil {
			r.fail("other", err.Error())
			return
		}
	}
	plan, err := r.strategy.Plan(step)
	if err != nil {
		r.fail("policy", err.Error())
		return
	}
	parts, whole := plan.Shares()
	if !r.counted(c, parts, whole) {
		return
	}
	var weights []aggregate.Contribution
	var records []object.MetricRecord
	for _, i := range plan.Used() {
		weights = append(weights, step.Contributions[i])
		records = append(records, c.inputs[i].update.metrics)
	}
	metrics, err := aggregate.Metrics(weights, aggregate.ExamplesKey, records)
	if err != nil {
		r.fail("invalid", err.Error())
		return
	}
	c.produce = r.aggregated(r.model, r.open, c.updates(), plan, c.round, metrics)
	r.propose(c)
}

// planEvaluation proposes a step that closes an evaluation: the model stays, and metrics
// are weighed by examples whatever the strategy, as Flower does.
func (r *run) planEvaluation(c *closing) {
	weights := c.weights()
	var records []object.MetricRecord
	var parts []uint64
	var whole uint64
	for i, x := range c.inputs {
		records = append(records, x.update.metrics)
		parts = append(parts, weights[i].Examples)
		whole += weights[i].Examples
	}
	metrics, err := aggregate.Metrics(weights, aggregate.ExamplesKey, records) // bounds whole
	if err != nil {
		r.fail("invalid", err.Error())
		return
	}
	if !r.counted(c, parts, whole) {
		return
	}
	c.produce = r.same(r.model, c.round, metrics)
	r.propose(c)
}

func (c *closing) weights() (list []aggregate.Contribution) {
	for _, x := range c.inputs {
		list = append(list, x.update.weight)
	}
	return list
}

// counted counts who contributes: members, not nodes, with examples, none with too large
// a share after selection and clipping (protocol F4). The run fails if one has.
func (r *run) counted(c *closing, parts []uint64, whole uint64) bool {
	byMember, contributes := map[string]uint64{}, map[string]bool{}
	for i, x := range c.inputs {
		byMember[x.member] += parts[i]
		if x.update.weight.Examples > 0 {
			contributes[x.member] = true
		}
	}
	for _, m := range slices.Sorted(maps.Keys(byMember)) {
		if share := float64(byMember[m]) / float64(whole) * 1000; share > float64(r.e.policy.Release.MaxWeightShare) {
			r.fail("policy", fmt.Sprintf("member %s has %.0f of 1000 parts of the weight, the policy allows %d", m, share, r.e.policy.Release.MaxWeightShare))
			return false
		}
	}
	c.members = uint64(len(contributes))
	return true
}

// noiseSecret is what the noise of a step is made of: the uplink secrets of all its
// nodes, so that nobody without every one of them can tell the noise, and the inputs, so
// that others have other noise. A successor of this enclave, which has the same secrets
// from the nodes, makes the same noise for the same inputs: asking twice shows nothing new.
func (r *run) noiseSecret(c *closing) (out [32]byte, err error) {
	var secrets []byte
	info := binary.BigEndian.AppendUint64([]byte("concordat/noise/v1\x00"), r.open.body.Seq)
	for _, x := range c.inputs {
		secrets = append(secrets, r.participants[x.node].uplink[:]...)
		digest := x.statement.Digest()
		info = append(info, digest[:]...)
	}
	key, err := hkdf.Key(sha256.New, secrets, r.digest[:], string(info), len(out))
	if err != nil {
		return out, fmt.Errorf("noise: %w", err)
	}
	return [32]byte(key), nil
}

// load reads the model of a resumed step back from the link, in outline.
func (r *run) load() {
	open := r.open
	r.e.loop.Job(func(ctx context.Context) func() {
		m, err := r.openModel(ctx, open)
		return func() {
			if r.open != open || r.ended {
				return
			}
			if err != nil {
				r.fail("other", "the model of the last step is not to be had: "+err.Error())
				return
			}
			r.model = m
			held := r.held
			r.held = nil
			for _, f := range held {
				f()
			}
		}
	})
}

func (r *run) openModel(ctx context.Context, open *openStep) (*model, error) {
	parcel, err := r.outputs(ctx, open)
	if err != nil {
		return nil, err
	}
	n, err := object.Inflate(parcel.Root(), parcel.Inline, object.Limits{Objects: maxObjects, Bytes: maxOutline, Outline: true})
	if err != nil {
		return nil, err
	}
	dict, ok := n.(object.RecordDict)
	if !ok {
		return nil, errors.New("outputs are no RecordDict")
	}
	arrays, ok := dict.Get(flower.RecordArrays).(object.ArrayRecord)
	if !ok {
		return nil, errors.New("outputs have no arrays")
	}
	m := &model{arrays: arrays}
	body := open.body
	if body.Opens == receipt.OpensTrain && body.Round > 1 || body.Opens == receipt.OpensEvaluate && body.Round < r.body.Rounds {
		for _, name := range r.strategy.State() {
			s, ok := dict.Get(flower.RecordState + name).(object.ArrayRecord)
			if !ok || len(s) != len(arrays) {
				return nil, fmt.Errorf("outputs do not have the strategy's state %q", name)
			}
			m.state = append(m.state, s)
		}
	}
	for _, e := range parcel.Entries() {
		if e.Inline == nil {
			m.chunks = append(m.chunks, e)
		}
	}
	ctx, cancel := context.WithCancel(ctx) // of each array only the beginning is read
	defer cancel()
	for _, a := range arrays {
		head := make([]byte, maxArrayHead)
		k, err := io.ReadFull(parcel.ArrayReader(ctx, a.Array), head)
		if err != nil && err != io.ErrUnexpectedEOF {
			return nil, err
		}
		t, err := tensorOf(a.Name, head[:k])
		if err != nil {
			return nil, err
		}
		m.tensors = append(m.tensors, t)
	}
	return m, nil
}

// maxArrayHead is as much of an array as surely holds its npy header.
const maxArrayHead = 12 << 10
