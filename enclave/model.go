package enclave

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/verifier/receipt"
)

// model is the global model: what every contribution must look like, and where its
// bytes are. It does not change; a step makes a new one.
type model struct {
	arrays  object.ArrayRecord // in outline, or the initial arrays with their bytes
	tensors []aggregate.Tensor // of the arrays
	trained []int              // places of the arrays that contributions have: all that are not frozen
	// Of the strategy, in outline, in its order, an array for each trained one; nil in the
	// first round and after the last.
	state  []object.ArrayRecord
	source *chunkstore.Parcel // of initial arrays in outline: where their bytes are
	chunks []chunkstore.Entry // of the arrays, once they are sealed for the run
}

// Bounds of what is read from a contribution or a request before it is judged.
const (
	maxObjects = 1 << 16
	maxOutline = 16 << 20 // bytes of all objects that are not array chunks
)

// inflateAll reads the objects of a run request, the root last.
func inflateAll(objects [][]byte) (object.Node, error) {
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
	return object.Inflate(object.Sum(objects[len(objects)-1]), get, object.Limits{Objects: maxObjects, Bytes: session.MaxMessage})
}

// initialModel reads the initial arrays of a run request.
func initialModel(n object.Node) (*model, error) {
	m := new(model)
	var err error
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

// freeze has contributions leave out the arrays that a run's config freezes, and returns
// their names.
func (m *model) freeze(config []byte) ([]string, error) {
	frozen, err := flower.Frozen(config, m.arrays)
	if err != nil {
		return nil, err
	}
	m.trained = flower.Trained(m.arrays, frozen)
	return frozen, nil
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

// storedOutline opens what the node stored at the link for a request.
func (e *Enclave) storedOutline(ctx context.Context, owner Digest, s *session.StoredArrays) (*chunkstore.Parcel, object.Node, error) {
	remote := transfer.NewReader(e.chunks, chunkstore.Scope{Federation: e.fed, Run: s.Place, Owner: owner})
	parcel, err := chunkstore.OpenParcel(ctx, chunkstore.NewUplink(s.Secret, s.Place, 0),
		chunkstore.Ref{OID: object.ID(s.Manifest.OID), ID: chunkstore.ID(s.Manifest.ID), Size: s.Manifest.Size}, s.Root, s.Count, remote)
	if err != nil {
		return nil, nil, err
	}
	n, err := object.Inflate(parcel.Root(), parcel.Inline, object.Limits{Objects: maxObjects, Bytes: maxOutline, Outline: true})
	return parcel, n, err
}

// storedModel reads initial arrays that the node stored at the link, all of them once: a
// run does not begin with arrays that cannot be aggregated, or that the link does not have.
func (e *Enclave) storedModel(ctx context.Context, parcel *chunkstore.Parcel, n object.Node) (*model, error) {
	m := &model{source: parcel}
	var err error
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

// firstReading waits for its turn, of [FirstReadings]. done ends that, and every array reader
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
	m := &model{arrays: arrays, trained: flower.Trained(arrays, r.body.Frozen)}
	body := open.body
	if body.Opens == receipt.OpensTrain && body.Round > 1 || body.Opens == receipt.OpensEvaluate && body.Round < r.body.Rounds {
		for _, name := range r.strategy.State() {
			s, ok := dict.Get(flower.RecordState + name).(object.ArrayRecord)
			if !ok || len(s) != len(m.trained) {
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
