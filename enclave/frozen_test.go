package enclave

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// TestFrozenOutputs: a step seals the arrays that are trained, with state for those alone,
// and names the chunks of frozen ones again; what it hands out is the whole model.
func TestFrozenOutputs(t *testing.T) {
	m, err := initialModel(object.RecordDict{{Name: "arrays", Record: arrays(t, "emb", "w", "enc", "b")}})
	if err != nil {
		t.Fatal(err)
	}
	frozen, err := m.freeze(cose.Marshal(map[string]any{policy.KeyFrozen: "e*"}))
	if err != nil || !slices.Equal(frozen, []string{"emb", "enc"}) || !slices.Equal(m.trained, []int{1, 3}) {
		t.Fatalf("%q, %v, places of trained ones %v", frozen, err, m.trained)
	}
	strategy, err := aggregate.New(aggregate.FedAdagrad, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &run{body: &receipt.Run{Rounds: 2, Frozen: frozen}, strategy: strategy}
	stored := map[chunkstore.ID][]byte{}
	var put []chunkstore.ID
	keep := func(id chunkstore.ID, b []byte) error {
		stored[id], put = bytes.Clone(b), append(put, id)
		return nil
	}
	open := func(s chunkstore.Sealed) object.RecordDict {
		t.Helper()
		fetch := chunkstore.Fetch(func(_ context.Context, dst []byte, id chunkstore.ID, _ int64) ([]byte, error) {
			b, ok := stored[id]
			if !ok {
				return nil, fmt.Errorf("chunk %s was never stored", id.Short())
			}
			return append(dst, b...), nil
		})
		p, err := chunkstore.OpenParcel(t.Context(), r.downlinkKey(), s.Manifest, s.Root, s.Count, fetch)
		if err != nil {
			t.Fatal(err)
		}
		n, err := object.Inflate(p.Root(), func(id object.ID) ([]byte, error) { return p.Open(t.Context(), id) }, object.Limits{Objects: 100, Bytes: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		return n.(object.RecordDict)
	}

	s, m, err := r.initial(m)(t.Context(), keep)
	if err != nil {
		t.Fatal(err)
	}
	if open(s); len(put) != 1+4 {
		t.Errorf("step 1 stores %d chunks, want a manifest and 4 arrays", len(put))
	}
	for round := range 2 {
		put = nil
		x := bytes.Repeat([]byte{byte(round + 1), 0, 0, 0}, 4)
		s, m, err = r.streamed(m, m.trained, 2, nil, strategy.State(), func(_ context.Context, k int, w io.Writer, state []io.Writer) error {
			i := m.trained[k]
			npy := object.NPY{Descr: "<f4", Shape: m.tensors[i].Shape}.Append(nil)
			for _, w := range append(state, w) {
				if _, err := w.Write(append(slices.Clone(npy), x[:4*(i+1)]...)); err != nil {
					return err
				}
			}
			return nil
		})(t.Context(), keep)
		if err != nil {
			t.Fatal(err)
		}
		if len(put) != 1+2 { // the state has the bytes of its array
			t.Errorf("a step stores %d chunks, want a manifest and 2 arrays", len(put))
		}
		dict := open(s)
		for i, a := range dict.Get(flower.RecordArrays).(object.ArrayRecord) {
			want := vector(t, i+1).Bytes()
			if i == 1 || i == 3 {
				want = append(want[:len(want)-4*(i+1)], x[:4*(i+1)]...)
			}
			if a.Name != []string{"emb", "w", "enc", "b"}[i] || !bytes.Equal(a.Array.Bytes(), want) {
				t.Errorf("array %d is %q, %x", i, a.Name, a.Array.Bytes())
			}
		}
		v := dict.Get(flower.RecordState + "v").(object.ArrayRecord)
		if len(v) != 2 || v[0].Name != "w" || v[1].Name != "b" {
			t.Errorf("state for %d arrays", len(v))
		}
	}
}
