package chunkstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

// TestAnotherObject: what a member seals under the name of another object is found by who
// opens it as that object. Who adds an array up reads what the signed chunk id binds, and
// nothing that is no ArrayChunk of the size that the manifest says.
func TestAnotherObject(t *testing.T) {
	t.Parallel()
	secret := NewUplink([32]byte{1}, Digest{2}, 3)
	named := object.EncodeChunk([]byte("what it is called"))
	for name, c := range map[string]struct {
		holds []byte
		size  int64 // that the manifest says
		data  string
		ok    bool
	}{
		"itself":         {named, int64(len(named)), "what it is called", true},
		"another":        {object.EncodeChunk([]byte("what it holds, no")), int64(len(named)), "what it holds, no", true},
		"longer":         {object.EncodeChunk([]byte("what it holds, as we see")), int64(len(named)), "", false},
		"longer, openly": {object.EncodeChunk([]byte("what it holds, as we see")), int64(len(named)) + 7, "what it holds, as we see", true},
		"no ArrayChunk":  {bytes.Repeat([]byte("x"), len(named)), int64(len(named)), "", false},
		"no such size":   {bytes.Repeat([]byte("x"), 24), 24, "", false},
		"too short":      {[]byte("x"), 1, "", false},
	} {
		oid := object.Sum(named)
		stored := map[ID][]byte{}
		put := func(id ID, b []byte) error { stored[id] = bytes.Clone(b); return nil }
		w := NewParcelWriter(secret, put)
		id, sealed := seal(nil, secret, oid, c.holds)
		stored[id] = sealed
		if err := w.AddSealed(Entry{Object: oid, Chunk: id, Size: c.size}); err != nil {
			t.Fatal(err)
		}
		a := &object.Array{DType: "x", SType: "x", Shape: []int{}, Chunks: []object.Chunk{{ID: oid}}}
		if _, err := object.Flatten(object.RecordDict{{Name: "r", Record: object.ArrayRecord{{Name: "a", Array: a}}}}, func(o object.Object) error { return w.Add(o.Raw) }); err != nil {
			t.Fatal(err)
		}
		s, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		p, err := OpenParcel(t.Context(), secret, s.Manifest, s.Root, s.Count, Fetch(func(_ context.Context, dst []byte, id ID, _ int64) ([]byte, error) {
			return append(dst, stored[id]...), nil
		}))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for pass := range 2 {
			got, err := io.ReadAll(p.ArrayReader(t.Context(), a))
			switch {
			case c.ok && (err != nil || string(got) != c.data):
				t.Errorf("%s, pass %d: %q, %v", name, pass, got, err)
			case !c.ok && (err == nil || len(got) > 0 || !errors.Is(err, ErrOpening) && !errors.Is(err, ErrMismatch)):
				t.Errorf("%s, pass %d: %q, %v", name, pass, got, err)
			}
		}
		if _, err := p.Open(t.Context(), oid); (err == nil) != (name == "itself") {
			t.Errorf("%s: opened as the object, %v", name, err)
		}
	}
}
