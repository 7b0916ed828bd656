package aggregate_test

import (
	"bytes"
	"context"
	"io"
	"math"
	"testing"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
)

const elements = 700_001 // some chunks, and a last segment that is short

var opened = aggregate.Tensor{Name: "a", Type: "<f4", Shape: []int{elements}}

// sealed is a contribution that was sealed and is opened again, as often as it is read.
type sealed struct {
	parcel *chunkstore.Parcel
	array  *object.Array
	npy    []byte
}

func seal(t testing.TB, k int) *sealed {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &sealed{npy: object.NPY{Descr: "<f4", Shape: []int{elements}}.Append(nil)}
	for i := range elements {
		x := math.Float32bits(float32((i*7919+k*104729)%2003) - 1000)
		s.npy = append(s.npy, byte(x), byte(x>>8), byte(x>>16), byte(x>>24))
	}
	a := &object.Array{DType: "float32", SType: object.NumPy, Shape: []int{elements}}
	for rest := s.npy; len(rest) > 0; {
		n := min(len(rest), 1<<20)
		a.Chunks = append(a.Chunks, object.Chunk{Data: rest[:n]})
		rest = rest[n:]
	}
	objs, err := object.Objects(object.RecordDict{{Name: "r", Record: object.ArrayRecord{{Name: "a", Array: a}}}})
	must(err)
	key := chunkstore.NewUplink([32]byte{byte(k)}, chunkstore.Digest{2}, 3)
	stored := map[chunkstore.ID][]byte{}
	w := chunkstore.NewParcelWriter(key, func(id chunkstore.ID, b []byte) error { stored[id] = bytes.Clone(b); return nil })
	for _, o := range objs {
		must(w.Add(o.Raw))
	}
	ref, err := w.Close()
	must(err)
	from := chunkstore.Fetch(func(_ context.Context, dst []byte, id chunkstore.ID, _ int64) ([]byte, error) {
		return append(dst, stored[id]...), nil
	})
	s.parcel, err = chunkstore.OpenParcel(t.Context(), key, ref.Manifest, ref.Root, ref.Count, from)
	must(err)
	root, err := object.Inflate(s.parcel.Root(), s.parcel.Inline, object.Limits{Objects: 100, Bytes: 1 << 20, Outline: true})
	must(err)
	s.array = root.(object.RecordDict)[0].Record.(object.ArrayRecord)[0].Array
	return s
}

func (s *sealed) reader(ctx context.Context) aggregate.Lender {
	return s.parcel.ArrayReader(ctx, s.array).(aggregate.Lender)
}

// counted counts what is lent.
type counted struct {
	aggregate.Lender
	lent int
}

func (c *counted) Lend(n int) []byte {
	b := c.Lender.Lend(n)
	c.lent += len(b)
	return b
}

// Contributions that are opened as they are read give the bytes of others, and most of what
// they have is lent: all but what the borders of chunks and of segments read together divide.
func TestOpenedContributions(t *testing.T) {
	t.Parallel()
	var all []*sealed
	var cs []aggregate.Contribution
	for k := range 5 {
		s := seal(t, k)
		c := &counted{Lender: s.reader(t.Context())}
		if err := aggregate.Check(opened, c); err != nil {
			t.Fatal(err)
		}
		if c.lent < 4*elements*7/10 {
			t.Errorf("Check was lent %d of %d bytes", c.lent, 4*elements)
		}
		all, cs = append(all, s), append(cs, aggregate.Contribution{Examples: uint64(k + 1)})
	}
	for _, name := range []string{aggregate.FedAvg, aggregate.FedMedian} {
		s, err := aggregate.New(name, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := s.Plan(aggregate.Step{Round: 1, Contributions: cs})
		if err != nil {
			t.Fatal(err)
		}
		var got, want bytes.Buffer
		var from, plain aggregate.Sources
		for _, s := range all {
			from.In = append(from.In, &counted{Lender: s.reader(t.Context())})
			plain.In = append(plain.In, bytes.NewReader(s.npy))
		}
		if err := p.Array(opened, from, &got, nil); err != nil {
			t.Fatal(err)
		}
		if err := p.Array(opened, plain, &want, nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("%s: other bytes", name)
		}
		for k, r := range from.In {
			if lent := r.(*counted).lent; lent < 4*elements*7/10 {
				t.Errorf("%s: contribution %d lent %d of %d bytes", name, k, lent, 4*elements)
			}
		}
	}
}

// BenchmarkOpened is FedAvg over eight contributions that are checked and decrypted as they
// are read, lent and copied.
func BenchmarkOpened(b *testing.B) {
	const n = 8
	var all []*sealed
	var cs []aggregate.Contribution
	for k := range n {
		s := seal(b, k)
		if err := aggregate.Check(opened, s.reader(b.Context())); err != nil {
			b.Fatal(err)
		}
		all, cs = append(all, s), append(cs, aggregate.Contribution{Examples: uint64(k + 1)})
	}
	s, err := aggregate.New(aggregate.FedAvg, nil)
	if err != nil {
		b.Fatal(err)
	}
	p, err := s.Plan(aggregate.Step{Round: 1, Contributions: cs})
	if err != nil {
		b.Fatal(err)
	}
	for name, wrap := range map[string]func(aggregate.Lender) io.Reader{
		"lent":   func(l aggregate.Lender) io.Reader { return l },
		"copied": func(l aggregate.Lender) io.Reader { return struct{ io.Reader }{l} },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(n * 4 * elements)
			for b.Loop() {
				var from aggregate.Sources
				for _, s := range all {
					from.In = append(from.In, wrap(s.reader(b.Context())))
				}
				if err := p.Array(opened, from, io.Discard, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
