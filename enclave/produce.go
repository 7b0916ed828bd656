package enclave

import (
	"context"
	"io"
	"slices"

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
		next := &model{tensors: m.tensors, trained: m.trained, chunks: p.Chunks()}
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
	all := flower.Trained(m.arrays, nil) // frozen ones are sealed for the run now, and never again
	return r.streamed(m, all, 1, nil, nil, func(ctx context.Context, k int, w io.Writer, _ []io.Writer) error {
		_, err := io.Copy(w, m.source.ArrayReader(ctx, m.arrays[all[k]].Array))
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

// aggregated produces a step whose trained arrays are the aggregate of updates to m, which
// open handed out, and keeps the strategy's state if another round is to come.
func (r *run) aggregated(m *model, open *openStep, updates []*update, plan *aggregate.Plan, round uint64, metrics object.MetricRecord) produce {
	var names []string
	if open.body.Round < r.body.Rounds {
		names = r.strategy.State()
	}
	var handedOut *chunkstore.Parcel
	return r.streamed(m, m.trained, round, metrics, names, func(ctx context.Context, k int, w io.Writer, state []io.Writer) (err error) {
		ctx, cancel := context.WithCancel(ctx) // ends readers that an error leaves
		defer cancel()
		from, i := aggregate.Sources{In: arrayReaders(ctx, updates, k)}, m.trained[k]
		if handedOut == nil && (r.strategy.NeedsModel() || m.state != nil) {
			if handedOut, err = r.outputs(ctx, open); err != nil {
				return err
			}
		}
		if r.strategy.NeedsModel() {
			from.Model = handedOut.ArrayReader(ctx, m.arrays[i].Array)
		}
		for _, s := range m.state {
			from.State = append(from.State, handedOut.ArrayReader(ctx, s[k].Array))
		}
		return plan.Array(m.tensors[i], from, w, state)
	})
}

// arrayReaders reads array k of every update.
func arrayReaders(ctx context.Context, updates []*update, k int) []io.Reader {
	in := make([]io.Reader, len(updates))
	for j, u := range updates {
		in[j] = u.parcel.ArrayReader(ctx, u.arrays[k].Array)
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
	for k, i := range m.trained {
		var model io.Reader
		if handedOut != nil {
			model = handedOut.ArrayReader(ctx, m.arrays[i].Array)
		}
		if err := v.Array(m.tensors[i], model, arrayReaders(ctx, updates, k)); err != nil {
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

// streamed produces a step with other bytes in the arrays of m at the places anew: array
// writes those of the k-th, one array after the other, and beside them records of state of
// those names. All other arrays are sealed and stored for the run already, and only named
// again. Memory is a chunk of each source and result, whatever the model's size.
func (r *run) streamed(m *model, anew []int, round uint64, metrics object.MetricRecord, state []string, array func(ctx context.Context, k int, w io.Writer, state []io.Writer) error) produce {
	key := r.downlinkKey()
	return func(ctx context.Context, put func(chunkstore.ID, []byte) error) (chunkstore.Sealed, *model, error) {
		p := chunkstore.NewParcelWriter(key, put)
		if err := addSealed(p, m, anew); err != nil {
			return chunkstore.Sealed{}, nil, err
		}
		next := &model{tensors: m.tensors, trained: m.trained, arrays: slices.Clone(m.arrays)}
		if len(state) > 0 {
			next.state = make([]object.ArrayRecord, len(state))
		}
		for k, i := range anew {
			w := object.NewChunkWriter(p.AddObject)
			var kept []*object.ChunkWriter
			var keepers []io.Writer
			for range state {
				x := object.NewChunkWriter(p.AddObject)
				kept, keepers = append(kept, x), append(keepers, x)
			}
			if err := array(ctx, k, w, keepers); err != nil {
				return chunkstore.Sealed{}, nil, err
			}
			a := *m.arrays[i].Array
			var err error
			if a.Chunks, err = w.Close(); err != nil {
				return chunkstore.Sealed{}, nil, err
			}
			next.arrays[i].Array = &a
			for j, x := range kept {
				s, err := stateOutline(m.tensors[i])
				if err != nil {
					return chunkstore.Sealed{}, nil, err
				}
				if s.Chunks, err = x.Close(); err != nil {
					return chunkstore.Sealed{}, nil, err
				}
				next.state[j] = append(next.state[j], object.ArrayItem{Name: m.arrays[i].Name, Array: s})
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

// addSealed names the chunks of all arrays of m but those at the places anew.
func addSealed(p *chunkstore.ParcelWriter, m *model, anew []int) error {
	stay := map[object.ID]bool{}
	for i, a := range m.arrays {
		if _, again := slices.BinarySearch(anew, i); again {
			continue
		}
		for _, c := range a.Array.Chunks {
			stay[c.ID] = true
		}
	}
	for _, c := range m.chunks {
		if !stay[c.Object] {
			continue
		}
		if err := p.AddSealed(c); err != nil {
			return err
		}
	}
	return nil
}

// stateOutline describes the array of state that belongs to an array of the model.
func stateOutline(t aggregate.Tensor) (*object.Array, error) {
	descr, err := t.StateType()
	if err != nil {
		return nil, err
	}
	return object.NewOutline(object.NPY{Descr: descr, Fortran: t.Fortran, Shape: t.Shape})
}
