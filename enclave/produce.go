package enclave

import (
	"context"
	"io"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/flower"
)

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
