package enclave

import (
	"bufio"
	"context"
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
	arrays  object.ArrayRecord // in outline, or the initial arrays with their bytes
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
		chunkstore.Ref{OID: object.ID(s.Manifest.OID), ID: chunkstore.ID(s.Manifest.ID), Size: s.Manifest.Size}, s.Root, s.Count, remote.Fetch)
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

// content is the RecordDict that a step hands to the apps.
func content(arrays object.ArrayRecord, round uint64, metrics object.MetricRecord) object.RecordDict {
	d := object.RecordDict{
		{Name: flower.RecordArrays, Record: arrays},
		{Name: flower.RecordConfig, Record: object.ConfigRecord{{Key: flower.ConfigRound, Value: object.Sint(round)}}},
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
		if _, err := object.Flatten(content(m.arrays, 1, nil), func(o object.Object) error { return p.Add(o.Raw) }); err != nil {
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
	return r.streamed(m, 1, nil, func(ctx context.Context, i int, w io.Writer) error {
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
		if _, err := object.Flatten(content(m.arrays, round, metrics), func(o object.Object) error { return p.Add(o.Raw) }); err != nil {
			return chunkstore.Sealed{}, nil, err
		}
		s, err := p.Close()
		return s, m, err
	}
}

// aggregated produces a step whose arrays are the aggregate of updates.
func (r *run) aggregated(m *model, updates []*update, strategy aggregate.Strategy, round uint64, metrics object.MetricRecord) produce {
	return r.streamed(m, round, metrics, func(ctx context.Context, i int, w io.Writer) error {
		in := make([]io.Reader, len(updates))
		for k, u := range updates {
			in[k] = u.parcel.ArrayReader(ctx, u.arrays[i].Array)
		}
		return aggregate.Array(strategy, m.tensors[i], in, w)
	})
}

// streamed produces a step whose arrays are those of m with other bytes, which array
// writes one array after the other: memory is a chunk of each source, whatever the
// model's size.
func (r *run) streamed(m *model, round uint64, metrics object.MetricRecord, array func(ctx context.Context, i int, w io.Writer) error) produce {
	key := r.downlinkKey()
	return func(ctx context.Context, put func(chunkstore.ID, []byte) error) (chunkstore.Sealed, *model, error) {
		p := chunkstore.NewParcelWriter(key, put)
		next := &model{tensors: m.tensors}
		for i, item := range m.arrays {
			w := object.NewChunkWriter(p.Add)
			if err := array(ctx, i, w); err != nil {
				return chunkstore.Sealed{}, nil, err
			}
			a := *item.Array
			var err error
			if a.Chunks, err = w.Close(); err != nil {
				return chunkstore.Sealed{}, nil, err
			}
			next.arrays = append(next.arrays, object.ArrayItem{Name: item.Name, Array: &a})
		}
		next.chunks = p.Chunks()
		if _, err := object.Flatten(content(next.arrays, round, metrics), func(o object.Object) error { return p.Add(o.Raw) }); err != nil {
			return chunkstore.Sealed{}, nil, err
		}
		s, err := p.Close()
		return s, next, err
	}
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
	parcel, err := chunkstore.OpenParcel(ctx, key, chunkstore.Ref{OID: object.ID(ref.OID), ID: chunkstore.ID(ref.ID), Size: ref.Size}, body.ChunkRoot, body.Count, remote.Fetch)
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
	if u.weight, err = aggregate.Weigh(u.metrics, aggregate.ExamplesKey); err != nil {
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

// plan chooses the strategy's weights and counts who contributes: members, not
// nodes, whose weight is above zero, none with too large a share (protocol F4).
func (r *run) plan(inputs []*contribution) (aggregate.Strategy, uint64, error) {
	var weights []aggregate.Contribution
	for _, c := range inputs {
		weights = append(weights, c.update.weight)
	}
	s, err := aggregate.Plan(r.body.Strategy, weights)
	if err != nil {
		return nil, 0, err
	}
	parts, whole := s.Shares()
	byMember := map[string]uint64{}
	for i, c := range inputs {
		if parts[i] > 0 {
			byMember[c.member] += parts[i]
		}
	}
	for _, m := range slices.Sorted(maps.Keys(byMember)) {
		if share := float64(byMember[m]) / float64(whole) * 1000; share > float64(r.e.policy.Release.MaxWeightShare) {
			return nil, 0, fmt.Errorf("member %s has %.0f of 1000 parts of the weight, the policy allows %d", m, share, r.e.policy.Release.MaxWeightShare)
		}
	}
	return s, uint64(len(byMember)), nil
}

// result says how the closing step is made from its inputs.
func (r *run) result(c *closing, strategy aggregate.Strategy) (produce, error) {
	var weights []aggregate.Contribution
	var records []object.MetricRecord
	var updates []*update
	for _, x := range c.inputs {
		weights = append(weights, x.update.weight)
		records = append(records, x.update.metrics)
		updates = append(updates, x.update)
	}
	metrics, err := aggregate.Metrics(weights, aggregate.ExamplesKey, records)
	if err != nil {
		return nil, err
	}
	if r.open.body.Opens == receipt.OpensTrain {
		return r.aggregated(r.model, updates, strategy, c.round, metrics), nil
	}
	return r.same(r.model, c.round, metrics), nil
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
	remote := transfer.NewReader(r.e.chunks, chunkstore.Scope{Federation: r.e.fed, Run: r.digest})
	parcel, err := chunkstore.OpenParcel(ctx, r.downlinkKey(), open.outputs.Manifest, open.outputs.Root, open.outputs.Count, remote.Fetch)
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
	for _, e := range parcel.Entries() {
		if e.Inline == nil {
			m.chunks = append(m.chunks, e)
		}
	}
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
