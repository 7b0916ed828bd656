package enclave

import (
	"fmt"
	"slices"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/serverapp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// What a ServerApp may hand out, and get.

// shape is what an array is: by its bytes, and by what the ServerApp writes beside them.
type shape struct {
	tensor       aggregate.Tensor
	dtype, stype string
	dims         []int
	bytes        int // .npy header and data
}

func (s shape) equal(t shape) bool {
	return s.tensor.Type == t.tensor.Type && s.tensor.Fortran == t.tensor.Fortran && slices.Equal(s.tensor.Shape, t.tensor.Shape) &&
		s.dtype == t.dtype && s.stype == t.stype && slices.Equal(s.dims, t.dims)
}

// widened is what s becomes in an aggregate that SecAgg+ makes: float64, whatever it was
// (flwr.common.secure_aggregation.quantization.dequantize). Its bytes are not counted anew.
func (s shape) widened() shape {
	s.tensor.Type = "<f8"
	if s.dtype != "" { // it is with apps from before the Message API
		s.dtype = "float64"
	}
	return s
}

// maxStages is how many train messages of one group make a round where the policy lets the
// ServerApp address nodes: SecAgg+ sends as many (flwr.common.secure_aggregation.
// secaggplus_constants: setup, share_keys, collect_masked_vectors, unmask).
const maxStages = 4

// count counts the round that a batch begins, if it begins one.
func (x *custom) count(b *serverapp.Batch) {
	switch {
	case b.Base() != receipt.OpensTrain:
		x.stages = 0 // what follows is no stage of the training before
	case x.addressed && x.stages > 0 && x.stages < maxStages && b.Group == x.group:
		x.stages++
	default:
		x.rounds++
		x.stages, x.group = 1, b.Group
	}
}

// maxTold bounds what the messages of one batch hold together beside array chunks: nodes
// read as much of a step.
const maxTold = maxOutline / 2

// contentOf returns what all nodes are sent of a batch, in outline.
func contentOf(b *serverapp.Batch, p *policy.Policy) (object.RecordDict, error) {
	read := map[object.ID]object.RecordDict{}
	contents := make([]object.RecordDict, len(b.Contents))
	for i, id := range b.Contents {
		if read[id] == nil {
			n, err := object.Inflate(id, b.Get, object.Limits{Objects: maxObjects, Bytes: maxOutline, Outline: true})
			if err != nil {
				return nil, serverapp.Refuse("%w", err)
			}
			dict := n.(object.RecordDict)
			if err := flower.CheckCustomContent(dict, uint64(len(b.Type)+len(b.Group)), p); err != nil {
				return nil, serverapp.Refuse("beside its arrays a message has more bytes than the policy allows, or a record of the enclave's name (%w)", err)
			}
			read[id] = dict
		}
		contents[i] = read[id]
	}
	if len(read) == 1 {
		return contents[0], nil
	}
	dict, err := flower.Address(b.To, contents)
	if err != nil {
		return nil, serverapp.Refuse("its messages to nodes differ in more than configs and metrics: arrays are one for all, and so are the names of records (%w)", err)
	}
	size := 0
	if _, err := object.Flatten(dict, func(o object.Object) error { size += len(o.Raw); return nil }); err != nil {
		return nil, serverapp.Refuse("%w", err)
	}
	if size > maxTold {
		return nil, serverapp.Refuse("its messages to nodes hold %d bytes together beside arrays, and %d fit", size, maxTold)
	}
	return dict, nil
}

// judge says whether a message may be handed out for its arrays. The first one, or with
// addressed the first with arrays, says what they are in all others.
func (x *custom) judge(d object.RecordDict, b *serverapp.Batch, first bool) error {
	if first || x.addressed && len(x.shapes) == 0 {
		return x.learn(d, b)
	}
	return x.fits(d, b)
}

// learn keeps what the arrays of the first message look like. Nobody's data is in it,
// unless the policy lets the app hear from nodes first.
func (x *custom) learn(d object.RecordDict, b *serverapp.Batch) error {
	x.first, x.shapes, x.bytes = d, map[string]shape{}, 0
	return eachArray(d, b, func(s shape) error {
		if _, twice := x.shapes[s.tensor.Name]; twice {
			return serverapp.Refuse("its first message has two arrays of one name: %.80q", s.tensor.Name)
		}
		x.shapes[s.tensor.Name] = s
		x.bytes += int64(s.bytes)
		return nil
	})
}

// What a reply may hold: the ServerApp's process has all of them in memory at once, and
// one member is not to end the run by filling it. Some strategies' clients send several
// models (control variates, masks, personal parts).
const (
	maxReplyModels = 8        // times the arrays of the first message
	maxReplyMore   = 64 << 20 // bytes beside
)

// bounded refuses a reply of more bytes than a ServerApp is to hold.
func (x *custom) bounded(reply []chunkstore.Entry) error {
	var size int64
	for _, e := range reply {
		size += e.Size
	}
	if limit := maxReplyModels*x.bytes + maxReplyMore; size > limit {
		return fmt.Errorf("a reply of %d bytes, where %d times the ServerApp's first message and %d MiB are %d", size, maxReplyModels, maxReplyMore>>20, limit)
	}
	return nil
}

// fits says whether the arrays of a message are those of the first, all of them or none:
// no other names, shapes or types (protocol F5). The link sees how many chunks there are,
// and how large. With addressed they may all become float64, once: it is a bit that the
// members let the app say, since SecAgg+ has no other aggregate.
func (x *custom) fits(d object.RecordDict, b *serverapp.Batch) error {
	seen := map[string]shape{}
	same, wide := true, x.addressed
	err := eachArray(d, b, func(s shape) error {
		name := s.tensor.Name
		first, known := x.shapes[name]
		_, twice := seen[name]
		same, wide = same && first.equal(s), wide && first.widened().equal(s)
		if !known || twice || !same && !wide {
			return serverapp.Refuse("arrays of a message have other names, shapes or types than those of its first: %.80q", name)
		}
		seen[name] = s
		return nil
	})
	switch {
	case err != nil || len(seen) == 0:
		return err
	case len(seen) < len(x.shapes):
		return serverapp.Refuse("a message has %d of the %d arrays of its first: want all, or none", len(seen), len(x.shapes))
	case !same:
		x.shapes, x.bytes = seen, 0
		for _, s := range seen {
			x.bytes += int64(s.bytes)
		}
	}
	return nil
}

// eachArray reads what the arrays of a message are off their bytes: what is written beside
// them is the ServerApp's word. Their chunks are cut as Flower cuts them, and in no way
// that says more.
func eachArray(d object.RecordDict, b *serverapp.Batch, f func(shape) error) error {
	for _, it := range d {
		arrays, _ := it.Record.(object.ArrayRecord)
		for _, a := range arrays {
			size := 0
			var head []byte
			for i, c := range a.Array.Chunks {
				raw, err := b.Get(c.ID)
				if err != nil {
					return err
				}
				data, err := object.ChunkData(raw)
				if err != nil {
					return serverapp.Refuse("%w", err)
				}
				if last := i == len(a.Array.Chunks)-1; len(data) == 0 || len(data) > object.ChunkSize || !last && len(data) < object.ChunkSize {
					return serverapp.Refuse("an array of a message is cut into other chunks than Flower's: %.80q", a.Name)
				}
				if size += len(data); len(head) < maxArrayHead {
					head = append(head, data[:min(len(data), maxArrayHead-len(head))]...)
				}
			}
			h, err := object.ParseNPY(head)
			if err != nil {
				return serverapp.Refuse("an array of a message is no .npy: %.80q: %w", a.Name, err)
			}
			if n, err := h.DataSize(); err != nil || size != h.HeaderSize+n {
				return serverapp.Refuse("an array of a message has another size than its header says: %.80q", a.Name)
			}
			t := aggregate.Tensor{Name: a.Name, Type: h.Descr, Shape: h.Shape, Fortran: h.Fortran}
			if err := f(shape{t, a.Array.DType, a.Array.SType, a.Array.Shape, size}); err != nil {
				return err
			}
		}
	}
	return nil
}
