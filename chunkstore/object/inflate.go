package object

import "fmt"

// Limits bounds what [Inflate] takes in. A limit of zero allows nothing: the
// caller knows how much it expects.
type Limits struct {
	// Objects is how many different objects there may be.
	Objects int
	// Bytes is how large the objects may be together, each counted as often as
	// it is named: the size of the result if nothing in it were shared.
	Bytes int64
	// Outline leaves ArrayChunks out: they are not looked up and not counted,
	// and each Chunk has an ID and no Data.
	Outline bool
}

// Inflate turns the object root and everything below it into Go values. get
// returns an object's bytes by id and is asked once for each; its bytes stay in
// use as chunk data, so they must not change. Its errors are passed on.
//
// Every object's id is computed anew, its children are exactly those that its
// body names, and its kind fits its parent. The result shares parts that are
// named more than once; do not modify it.
func Inflate(root ID, get func(ID) ([]byte, error), limits Limits) (Node, error) {
	in := inflater{get: get, limits: limits, done: make(map[ID]inflated)}
	got, err := in.object(root, 0)
	if err != nil {
		return nil, err
	}
	n, ok := got.value.(Node)
	if !ok {
		return nil, invalid("an ArrayChunk is no root")
	}
	return n, nil
}

type inflater struct {
	get    func(ID) ([]byte, error)
	limits Limits
	done   map[ID]inflated
	begun  int   // objects asked for
	loaded int64 // bytes held, shared ones once
}

type inflated struct {
	kind  Kind
	value any   // a Node, or the []byte of an ArrayChunk
	size  int64 // of the object and all below, each as often as named
}

// object inflates one object that an object of kind parent names; 0 is the
// caller.
func (in *inflater) object(id ID, parent Kind) (inflated, error) {
	if got, ok := in.done[id]; ok {
		if !parent.MayHold(got.kind) {
			return inflated{}, invalid("%v names a %v", parent, got.kind)
		}
		return got, nil
	}
	if in.begun >= in.limits.Objects {
		return inflated{}, invalid("more than %d objects", in.limits.Objects)
	}
	in.begun++
	raw, err := in.get(id)
	if err != nil {
		return inflated{}, fmt.Errorf("object: look up a child of %v: %w", parent, err)
	}
	if int64(len(raw)) > in.limits.Bytes-in.loaded {
		return inflated{}, invalid("more than %d bytes", in.limits.Bytes)
	}
	in.loaded += int64(len(raw))
	if Sum(raw) != id {
		return inflated{}, invalid("bytes do not have the id that they were asked by")
	}
	h, err := ParseHead(raw)
	if err != nil {
		return inflated{}, err
	}
	if parent != 0 && !parent.MayHold(h.Kind) {
		return inflated{}, invalid("%v names a %v", parent, h.Kind)
	}
	got := inflated{kind: h.Kind}
	if err := in.add(&got, int64(len(raw))); err != nil {
		return inflated{}, err
	}
	if got.value, err = in.value(h, &got); err != nil {
		return inflated{}, err
	}
	in.done[id] = got
	return got, nil
}

// add counts n more bytes.
func (in *inflater) add(got *inflated, n int64) error {
	if n > in.limits.Bytes-got.size {
		return invalid("more than %d bytes", in.limits.Bytes)
	}
	got.size += n
	return nil
}

func (in *inflater) child(id ID, got *inflated) (any, error) {
	c, err := in.object(id, got.kind)
	if err != nil {
		return nil, err
	}
	return c.value, in.add(got, c.size)
}

func (in *inflater) value(h Head, got *inflated) (any, error) {
	switch h.Kind {
	case KindArrayChunk:
		return h.Body, nil
	case KindArray:
		return in.array(h, got)
	case KindConfigRecord:
		items, err := h.items()
		return ConfigRecord(items), err
	case KindMetricRecord:
		items, err := h.items()
		return MetricRecord(items), err
	case KindArrayRecord:
		names, ids, err := h.dict()
		if err != nil {
			return nil, err
		}
		rec := make(ArrayRecord, len(ids))
		for i, id := range ids {
			v, err := in.child(id, got)
			if err != nil {
				return nil, err
			}
			rec[i] = ArrayItem{names[i], v.(*Array)}
		}
		return rec, nil
	case KindRecordDict:
		names, ids, err := h.dict()
		if err != nil {
			return nil, err
		}
		dict := make(RecordDict, len(ids))
		for i, id := range ids {
			v, err := in.child(id, got)
			if err != nil {
				return nil, err
			}
			dict[i] = RecordItem{names[i], v.(Record)}
		}
		return dict, nil
	}
	m, content, err := h.message() // KindMessage: ParseHead knows no other
	if err != nil || m.Error != nil {
		return m, err
	}
	v, err := in.child(content, got)
	if err != nil {
		return nil, err
	}
	m.Content = v.(RecordDict)
	return m, nil
}

func (in *inflater) array(h Head, got *inflated) (*Array, error) {
	a, err := h.array()
	if err != nil || in.limits.Outline {
		return a, err
	}
	for i := range a.Chunks {
		v, err := in.child(a.Chunks[i].ID, got)
		if err != nil {
			return nil, err
		}
		a.Chunks[i].Data = v.([]byte)
	}
	return a, nil
}
