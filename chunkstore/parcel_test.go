package chunkstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
)

// parcel seals a small message and returns what a statement says of it and the
// stored chunks.
func parcel(t *testing.T, s *chunkstore.Secret, objs []object.Object) (chunkstore.Sealed, map[chunkstore.ID][]byte) {
	t.Helper()
	stored := map[chunkstore.ID][]byte{}
	w := chunkstore.NewParcelWriter(s, func(id chunkstore.ID, b []byte) error { stored[id] = bytes.Clone(b); return nil })
	for _, o := range objs {
		if err := w.Add(o.Raw); err != nil {
			t.Fatal(err)
		}
	}
	sealed, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	return sealed, stored
}

func smallMessage(t *testing.T) []object.Object {
	t.Helper()
	a := &object.Array{SType: "x", Shape: []int{}, Chunks: []object.Chunk{{Data: []byte("one")}, {Data: []byte("two")}, {Data: []byte("one")}}}
	objs, err := object.Objects(&object.Message{Content: object.RecordDict{{Name: "r", Record: object.ArrayRecord{{Name: "a", Array: a}, {Name: "b", Array: a}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return objs
}

func TestParcel(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := chunkstore.NewUplink([32]byte{1}, chunkstore.Digest{2}, 3)
	objs := smallMessage(t)
	sealed, stored := parcel(t, s, objs)
	if sealed.Count != 3 || len(stored) != 3 {
		t.Fatalf("%d chunks, %d stored, want 3", sealed.Count, len(stored))
	}
	fetch := func(_ context.Context, dst []byte, id chunkstore.ID, size int64) ([]byte, error) {
		if b, ok := stored[id]; ok && int64(len(b)) == size {
			return append(dst, b...), nil
		}
		return nil, chunkstore.ErrNotFound
	}
	p, err := chunkstore.OpenParcel(ctx, s, sealed.Manifest, sealed.Root, sealed.Count, chunkstore.Fetch(fetch))
	if err != nil {
		t.Fatal(err)
	}
	if p.Root() != objs[len(objs)-1].ID {
		t.Error("another root")
	}
	for _, o := range objs {
		if got, err := p.Open(ctx, o.ID); err != nil || !bytes.Equal(got, o.Raw) {
			t.Errorf("%v: %v", o.Kind, err)
		}
	}
	if err := chunkstore.VerifyProof(sealed.Manifest.ID, 0, sealed.Count, p.ManifestProof(), sealed.Root); err != nil {
		t.Error(err)
	}
	n, err := object.Inflate(p.Root(), p.Inline, object.Limits{Objects: 10, Bytes: 1 << 20, Outline: true})
	if err != nil {
		t.Fatal(err)
	}
	a := n.(*object.Message).Content.Get("r").(object.ArrayRecord)[1].Array
	for range 3 {
		if b, err := io.ReadAll(p.ArrayReader(ctx, a)); err != nil || string(b) != "onetwoone" {
			t.Errorf("array is %q, %v", b, err)
		}
	}

	// Objects in another order, and the same chunks sealed before, make the same
	// parcel.
	shuffled := slices.Clone(objs)
	slices.Reverse(shuffled[:len(objs)-1])
	if again, _ := parcel(t, s, shuffled); again.Root != sealed.Root || again != sealed {
		t.Error("the order of Add changes the parcel")
	}
}

func TestParcelRefuses(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := chunkstore.NewUplink([32]byte{1}, chunkstore.Digest{2}, 3)
	objs := smallMessage(t)
	sealed, stored := parcel(t, s, objs)
	fetch := func(_ context.Context, dst []byte, id chunkstore.ID, size int64) ([]byte, error) {
		return append(dst, stored[id]...), nil
	}
	root, ref := sealed.Root, sealed.Manifest
	root[0] ^= 1
	other := ref
	other.OID[0] ^= 1
	large := ref
	large.Size = chunkstore.MaxManifest + 1
	for name, v := range map[string]struct {
		secret *chunkstore.Secret
		ref    chunkstore.Ref
		root   chunkstore.Digest
		count  uint64
		fetch  chunkstore.Fetch
		want   error
	}{
		"another root":   {s, ref, root, sealed.Count, fetch, chunkstore.ErrOpening},
		"another count":  {s, ref, sealed.Root, sealed.Count + 1, fetch, chunkstore.ErrOpening},
		"another object": {s, other, sealed.Root, sealed.Count, fetch, chunkstore.ErrOpening},
		"another step":   {chunkstore.NewUplink([32]byte{1}, chunkstore.Digest{2}, 4), ref, sealed.Root, sealed.Count, fetch, chunkstore.ErrOpening},
		"too large":      {s, large, sealed.Root, sealed.Count, fetch, chunkstore.ErrTooLarge},
		"another chunk": {s, ref, sealed.Root, sealed.Count, func(context.Context, []byte, chunkstore.ID, int64) ([]byte, error) {
			for id, b := range stored {
				if id != ref.ID {
					return b, nil
				}
			}
			return nil, nil
		}, chunkstore.ErrMismatch},
	} {
		if _, err := chunkstore.OpenParcel(ctx, v.secret, v.ref, v.root, v.count, v.fetch); !errors.Is(err, v.want) {
			t.Errorf("%s: got %v, want %v", name, err, v.want)
		}
	}
	// A chunk that is exchanged after the manifest was read is refused too.
	swap := false
	p, err := chunkstore.OpenParcel(ctx, s, ref, sealed.Root, sealed.Count, chunkstore.Fetch(func(_ context.Context, _ []byte, id chunkstore.ID, _ int64) ([]byte, error) {
		b := bytes.Clone(stored[id])
		if swap {
			b[chunkstore.HeaderSize] ^= 1
		}
		return b, nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Open(ctx, objs[0].ID); err != nil {
		t.Fatal(err)
	}
	swap = true
	if _, err := p.Open(ctx, objs[0].ID); !errors.Is(err, chunkstore.ErrMismatch) {
		t.Errorf("second reading of other bytes: %v, want ErrMismatch", err)
	}
	if _, err := p.Open(ctx, object.ID{1}); !errors.Is(err, chunkstore.ErrOpening) {
		t.Errorf("an object that is not listed: %v", err)
	}

	w := chunkstore.NewParcelWriter(s, nil)
	if _, err := w.Close(); err == nil {
		t.Error("a parcel of nothing is sealed")
	}
	w = chunkstore.NewParcelWriter(s, nil)
	w.Add([]byte("ConfigRecord  0\x00"))
	w.Add(objs[0].Raw)
	if _, err := w.Close(); err == nil {
		t.Error("an object that is not below the root is sealed")
	}
	w = chunkstore.NewParcelWriter(s, nil)
	w.Add(objs[len(objs)-1].Raw)
	if _, err := w.Close(); err == nil {
		t.Error("a message without its content is sealed")
	}
}
