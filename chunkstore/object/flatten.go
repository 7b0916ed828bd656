package object

// Object is one object: what a broker stores and a chunk store seals.
type Object struct {
	ID   ID
	Kind Kind
	Raw  []byte // head and body
}

// Flatten turns root and everything below it into objects and hands each of
// them to emit once, children before parents (post-order, first occurrence).
// The last one is root's, whose id it returns. emit owns the bytes; an error
// from it ends Flatten.
//
// A [Chunk] without Data is listed under its parent and not emitted. Values
// that Flower cannot write (a name twice, text that is not UTF-8) and objects
// over the size limits are refused with [ErrInvalid].
func Flatten(root Node, emit func(Object) error) (ID, error) {
	f := flattener{emit: emit, seen: make(map[ID]struct{})}
	return f.node(root)
}

// Objects returns what [Flatten] emits. It holds all of root's data once more;
// a large model is better streamed.
func Objects(root Node) ([]Object, error) {
	var out []Object
	_, err := Flatten(root, func(o Object) error { out = append(out, o); return nil })
	return out, err
}

type flattener struct {
	emit func(Object) error
	seen map[ID]struct{}
}

func (f *flattener) node(n Node) (ID, error) {
	switch n := n.(type) {
	case *Message:
		return f.message(n)
	case RecordDict:
		return f.recordDict(n)
	case ArrayRecord:
		return f.arrayRecord(n)
	case *Array:
		return f.array(n)
	case ConfigRecord:
		return f.items(KindConfigRecord, n)
	case MetricRecord:
		return f.items(KindMetricRecord, n)
	}
	return ID{}, invalid("a %T is no object", n)
}

// put hashes and emits one object.
func (f *flattener) put(h Head) (ID, error) {
	raw := h.encode()
	limit := MaxStructure
	if h.Kind == KindArrayChunk {
		limit = MaxSize
	}
	if len(raw) > limit || len(h.Children) > maxChildren {
		return ID{}, invalid("%v of %d bytes and %d children, limit %d and %d", h.Kind, len(raw), len(h.Children), limit, maxChildren)
	}
	id := Sum(raw)
	if _, dup := f.seen[id]; dup {
		return id, nil
	}
	f.seen[id] = struct{}{}
	return id, f.emit(Object{id, h.Kind, raw})
}

func (f *flattener) message(m *Message) (ID, error) {
	if m == nil || (m.Content == nil) == (m.Error == nil) {
		return ID{}, invalid("Message: want either content or an error")
	}
	h := Head{Kind: KindMessage}
	if m.Content != nil {
		id, err := f.recordDict(m.Content)
		if err != nil {
			return ID{}, err
		}
		h.Children = []ID{id}
	}
	var err error
	if h.Body, err = m.encodeBody(); err != nil {
		return ID{}, err
	}
	return f.put(h)
}

func (f *flattener) recordDict(d RecordDict) (ID, error) {
	names := make([]string, len(d))
	ids := make([]ID, len(d))
	for i, it := range d {
		id, err := f.node(it.Record)
		if err != nil {
			return ID{}, err
		}
		names[i], ids[i] = it.Name, id
	}
	return f.dict(KindRecordDict, names, ids)
}

func (f *flattener) arrayRecord(a ArrayRecord) (ID, error) {
	names := make([]string, len(a))
	ids := make([]ID, len(a))
	for i, it := range a {
		if it.Array == nil {
			return ID{}, invalid("ArrayRecord item %d has no array", i)
		}
		id, err := f.array(it.Array)
		if err != nil {
			return ID{}, err
		}
		names[i], ids[i] = it.Name, id
	}
	return f.dict(KindArrayRecord, names, ids)
}

func (f *flattener) dict(kind Kind, names []string, ids []ID) (ID, error) {
	body, err := encodeDict(kind, names, ids)
	if err != nil {
		return ID{}, err
	}
	children, _ := unique(ids)
	return f.put(Head{kind, children, body})
}

func (f *flattener) array(a *Array) (ID, error) {
	ids := make([]ID, len(a.Chunks))
	for i, c := range a.Chunks {
		ids[i] = c.ID
		if c.Data == nil {
			if c.ID.IsZero() {
				return ID{}, invalid("Array: chunk %d has neither data nor id", i)
			}
			continue
		}
		id, err := f.put(Head{Kind: KindArrayChunk, Body: c.Data})
		if err != nil {
			return ID{}, err
		}
		ids[i] = id
	}
	children, refs := unique(ids)
	body, err := encodeArray(a, refs)
	if err != nil {
		return ID{}, err
	}
	return f.put(Head{KindArray, children, body})
}

func (f *flattener) items(kind Kind, items []ValueItem) (ID, error) {
	body, err := encodeItems(kind, items)
	if err != nil {
		return ID{}, err
	}
	return f.put(Head{Kind: kind, Body: body})
}

// unique returns each id once, in the order of first occurrence, and for each
// of ids its place in that list.
func unique(ids []ID) (list []ID, refs []int) {
	at := make(map[ID]int, len(ids))
	refs = make([]int, len(ids))
	for i, id := range ids {
		n, ok := at[id]
		if !ok {
			n = len(list)
			at[id] = n
			list = append(list, id)
		}
		refs[i] = n
	}
	return list, refs
}
