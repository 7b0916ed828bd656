package chunkstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
)

// contribution seals a message as a node does and returns its manifest, the
// chunks' ids in order, and their stored sizes.
func contribution(t testing.TB, s *Secret, m object.Node) (*Manifest, []ID, []int64) {
	t.Helper()
	var entries []Entry
	sizes := []int64{0}
	_, err := object.Flatten(m, func(o object.Object) error {
		e := Entry{Object: o.ID, Size: int64(len(o.Raw)), Inline: o.Raw}
		if o.Kind == object.KindArrayChunk {
			id, stored := Seal(nil, s, o.ID, o.Raw)
			e.Chunk, e.Inline = id, nil
			sizes = append(sizes, int64(len(stored)))
		}
		entries = append(entries, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	man, err := NewManifest(entries)
	if err != nil {
		t.Fatal(err)
	}
	b := man.Encode()
	id, stored := Seal(nil, s, object.Sum(b), b)
	sizes[0] = int64(len(stored))
	return man, man.Chunks(id), sizes
}

// model returns a reply whose arrays hold the bytes that f gives.
func model(t testing.TB, f func(array, i int) byte, examples int64, loss float64) *object.Message {
	t.Helper()
	var arrays object.ArrayRecord
	for a, n := range []int{6 << 20, 40_000, 40_000, 8} {
		data := make([]byte, n)
		for i := range data {
			data[i] = f(a, i)
		}
		arr, err := object.NewArray(object.NPY{Descr: "<f4", Shape: []int{n / 4}}, data)
		if err != nil {
			t.Fatal(err)
		}
		arrays = append(arrays, object.ArrayItem{Name: fmt.Sprint("layer", a), Array: arr})
	}
	return &object.Message{
		Metadata: object.Metadata{RunID: 1, SrcNode: 2, DstNode: 1, Type: "train", TTL: 60, CreatedAt: 1.8e9},
		Content: object.RecordDict{{Name: "arrays", Record: arrays},
			{Name: "metrics", Record: object.MetricRecord{{Key: "num-examples", Value: object.Sint(examples)}, {Key: "loss", Value: object.Double(loss)}}}},
	}
}

// TestUploadSizeIndependentOfData: the sizes that a node uploads say nothing
// about its data, least of all which arrays changed since the last step or
// equal what came down.
func TestUploadSizeIndependentOfData(t *testing.T) {
	t.Parallel()
	u, d, run := filled(1), filled(2), Digest(filled(3))
	down := func(a, i int) byte { return byte(a + i*i>>7) }
	trained := func(a, i int) byte { return byte(a*3 + i*5 + i>>9) }
	_, downIDs, downSizes := contribution(t, NewDownlink(d, run, 0), model(t, down, 10, 0.25))
	_, lastIDs, want := contribution(t, NewUplink(u, run, 6), model(t, trained, 10, 0.25))
	if !slices.Equal(downSizes, want) {
		t.Errorf("downlink has sizes %v, uplink %v", downSizes, want)
	}
	seen := map[ID]string{}
	for _, id := range downIDs {
		seen[id] = "downlink"
	}
	for _, id := range lastIDs {
		seen[id] = "the last step"
	}
	for name, v := range map[string]struct {
		values   func(a, i int) byte
		examples int64
		loss     float64
	}{
		"unchanged since the last step": {trained, 10, 0.25},
		"unchanged since the downlink":  {down, 10, 0.25},
		"one array unchanged": {func(a, i int) byte {
			if a == 1 {
				return trained(a, i)
			}
			return ^trained(a, i)
		}, 1, 1e-300},
		"one array as it came": {func(a, i int) byte {
			if a == 2 {
				return down(a, i)
			}
			return trained(a, i) + 1
		}, 1 << 60, 0},
		"one byte changed": {func(a, i int) byte {
			if a == 3 && i == 0 {
				return 0xee
			}
			return trained(a, i)
		}, 10, 0.25},
	} {
		_, ids, sizes := contribution(t, NewUplink(u, run, 7), model(t, v.values, v.examples, v.loss))
		if !slices.Equal(sizes, want) {
			t.Errorf("%s: uploads %v, otherwise %v", name, sizes, want)
		}
		for i, id := range ids {
			if where, ok := seen[id]; ok {
				t.Errorf("%s: chunk %d equals one of %s", name, i, where)
			}
		}
	}
	// Repeats inside one contribution are sent once; that is all that shows.
	_, ids, sizes := contribution(t, NewUplink(u, run, 7), model(t, func(int, int) byte { return 0 }, 10, 0.25))
	if len(ids) != len(want)-1 || !slices.Equal(sizes, append(slices.Clone(want[:3]), want[4:]...)) {
		t.Errorf("all zero: uploads %v, otherwise %v; only one of the two equal arrays may be missing", sizes, want)
	}
}

func TestManifest(t *testing.T) {
	t.Parallel()
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	m, ids, _ := contribution(t, s, model(t, func(a, i int) byte { return byte(a + i) }, 10, 0.25))
	b := m.Encode()
	if len(b) != 4096 {
		t.Errorf("manifest of %d bytes", len(b))
	}
	got, err := ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Root() != m.Root() || len(got.Entries()) != len(m.Entries()) || !bytes.Equal(got.Encode(), b) {
		t.Error("a manifest changes on its way")
	}
	if !slices.Equal(got.Chunks(ids[0]), ids) || len(ids) != 6 {
		t.Errorf("%d chunks, want the manifest's and five", len(ids))
	}
	// What came through describes the same tree.
	inline := map[object.ID][]byte{}
	for _, e := range got.Entries() {
		if e.Inline != nil {
			inline[e.Object] = e.Inline
		}
	}
	n, err := object.Inflate(got.Root(), func(id object.ID) ([]byte, error) {
		if raw, ok := inline[id]; ok {
			return raw, nil
		}
		return nil, ErrNotFound
	}, object.Limits{Objects: 100, Bytes: 1 << 20, Outline: true})
	if err != nil {
		t.Fatal(err)
	}
	if arrays := n.(*object.Message).Content.Get("arrays").(object.ArrayRecord); len(arrays) != 4 {
		t.Errorf("%d arrays", len(arrays))
	}
	golden(t, "manifest.json", struct{ Object, Chunk, ChunkRoot string }{object.Sum(b).String(), ids[0].String(), Root(ids).String()})
}

// TestPadding: every length comes out as 4096·2^j, the smallest that a byte
// string reaches.
func TestPadding(t *testing.T) {
	t.Parallel()
	skipped := 0
	for size := 1; size < 140_000; size++ {
		pad, err := padding(size)
		if err != nil {
			t.Fatal(err)
		}
		if size > 9000 && size < 130_000 && size%101 != 0 {
			continue
		}
		total := size + len(cose.Marshal(make([]byte, pad)))
		j := 4096
		for j < size+1 {
			j *= 2
		}
		if total != j {
			if rest := j - size; total != 2*j || rest != 25 && rest != 258 && rest != 65539 && rest != 65540 {
				t.Fatalf("%d bytes are padded to %d, want %d", size, total, j)
			}
			skipped++
		}
	}
	if skipped == 0 {
		t.Error("no length was out of reach: the test misses them")
	}
	if pad, err := padding(MaxManifest - 1); pad != 0 || err != nil {
		t.Errorf("at the limit: %d, %v", pad, err)
	}
	if _, err := padding(MaxManifest); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	for n := 3000; n < 4200; n++ { // through the whole encoder, across a boundary
		raw, err := object.Objects(object.ConfigRecord{{Key: strings.Repeat("k", n), Value: object.Sint(1)}})
		if err != nil {
			t.Fatal(err)
		}
		m, err := NewManifest([]Entry{{Object: raw[0].ID, Size: int64(len(raw[0].Raw)), Inline: raw[0].Raw}})
		if err != nil {
			t.Fatal(err)
		}
		b := m.Encode()
		if len(b) != 4096 && len(b) != 8192 {
			t.Fatalf("manifest of %d bytes", len(b))
		}
		if _, err := ParseManifest(b); err != nil {
			t.Fatalf("key of %d bytes: %v", n, err)
		}
	}
}

func TestManifestRefuses(t *testing.T) {
	t.Parallel()
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	a := &object.Array{SType: "x", Chunks: []object.Chunk{{Data: []byte("one")}, {Data: []byte("two")}}}
	m, _, _ := contribution(t, s, object.ArrayRecord{{Name: "a", Array: a}})
	good := m.Entries() // chunk, chunk, Array, ArrayRecord
	stranger := Entry{Object: object.Sum([]byte("ConfigRecord  0\x00")), Size: 16, Inline: []byte("ConfigRecord  0\x00")}
	chunkInline := Entry{Object: object.Sum([]byte("ArrayChunk  3\x00one")), Size: 17, Inline: []byte("ArrayChunk  3\x00one")}
	with := func(i int, f func(*Entry)) []Entry {
		e := slices.Clone(good)
		f(&e[i])
		return e
	}
	for name, e := range map[string][]Entry{
		"nothing":               {},
		"a chunk alone":         good[:1],
		"out of order":          {good[1], good[0], good[2], good[3]},
		"parent first":          {good[0], good[2], good[1], good[3]},
		"child missing":         good[1:],
		"below nothing":         {stranger, good[0], good[1], good[2], good[3]},
		"below nothing, last":   {good[0], good[1], good[2], good[3], stranger},
		"twice":                 {good[0], good[0], good[1], good[2], good[3]},
		"two of one chunk":      with(1, func(e *Entry) { e.Chunk = good[0].Chunk }),
		"inline and chunk":      with(2, func(e *Entry) { e.Chunk = ID{1} }),
		"inline of other size":  with(2, func(e *Entry) { e.Size++ }),
		"inline of other id":    with(2, func(e *Entry) { e.Inline = stranger.Inline; e.Size = stranger.Size }),
		"inline empty":          with(2, func(e *Entry) { e.Inline = []byte{}; e.Size = 0 }),
		"inline no object":      {{Object: object.Sum([]byte("x")), Size: 1, Inline: []byte("x")}},
		"inline ArrayChunk":     {chunkInline, good[1], good[2], good[3]},
		"array without bytes":   with(2, func(e *Entry) { e.Inline = nil }),
		"chunk of no bytes":     with(0, func(e *Entry) { e.Size = 0 }),
		"chunk of 64 MiB and 1": with(0, func(e *Entry) { e.Size = MaxPlain + 1 }),
		"negative size":         with(0, func(e *Entry) { e.Size = -1 }),
	} {
		_, err := NewManifest(e)
		if !errors.Is(err, ErrOpening) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: made: %v", name, err)
		}
		// The same from outside, well padded.
		body, pad, _ := (&Manifest{e}).encode()
		body.Pad = make([]byte, pad)
		if name != "inline empty" { // spelled like an entry without bytes
			if _, err := ParseManifest(cose.Marshal(body)); !errors.Is(err, ErrOpening) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: read: %v", name, err)
			}
		}
	}
	only := with(0, func(e *Entry) { e.Chunk = ID{} })
	f, err := NewManifest(only)
	if err != nil {
		t.Fatalf("an object that is only named: %v", err)
	}
	if got, err := ParseManifest(f.Encode()); err != nil || len(got.Chunks(ID{9})) != 2 {
		t.Errorf("an object that is only named: %v", err)
	}

	b := m.Encode()
	body, pad, err := m.encode()
	if err != nil {
		t.Fatal(err)
	}
	reform := func(f func(*manifestBody)) []byte {
		c := body
		c.Entries = slices.Clone(body.Entries)
		c.Pad = make([]byte, pad)
		f(&c)
		return cose.Marshal(c)
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "cut": b[:len(b)-1], "extended": append(bytes.Clone(b), 0), "not CBOR": []byte("hello"),
		"label":        reform(func(m *manifestBody) { m.Label = "concordat/manifest/2" }),
		"no pad":       reform(func(m *manifestBody) { m.Pad = nil }),
		"larger pad":   reform(func(m *manifestBody) { m.Pad = make([]byte, pad+4096) }),
		"smaller pad":  reform(func(m *manifestBody) { m.Pad = m.Pad[:pad-1] }),
		"pad not zero": reform(func(m *manifestBody) { m.Pad[pad-1] = 1 }),
		"short chunk":  reform(func(m *manifestBody) { m.Entries[0].Chunk = m.Entries[0].Chunk[:31]; m.Pad = make([]byte, pad+1) }),
		"zero chunk":   reform(func(m *manifestBody) { m.Entries[0].Chunk = make([]byte, 32) }),
		"huge size":    reform(func(m *manifestBody) { m.Entries[0].Size = 1 << 63; m.Pad = m.Pad[:pad-8] }),
		"too large":    make([]byte, MaxManifest+1),
	} {
		if _, err := ParseManifest(bad); !errors.Is(err, ErrOpening) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseManifest(reform(func(*manifestBody) {})); err != nil {
		t.Errorf("unchanged: %v", err)
	}
	for i := 0; i < len(b)-pad; i++ {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if got, err := ParseManifest(bad); err == nil && bytes.Equal(got.Encode(), b) {
			t.Fatalf("byte %d changed: read as the same manifest", i)
		}
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	var ids []ID
	for i := range 9 {
		ids = append(ids, ID{byte(i)})
	}
	root := Root(ids)
	if root != merkle.Root(leaves(ids)) || LeafHash(ids[1]) != merkle.LeafHash([]byte("concordat/chunk-leaf/1\x00"+string(ids[1][:]))) {
		t.Error("not the RFC 9162 tree over tagged ids")
	}
	for i, id := range ids {
		path := Prove(ids, i)
		if err := VerifyProof(id, uint64(i), 9, path, root); err != nil {
			t.Error(err)
		}
		for j := range 9 {
			if err := VerifyProof(ids[j], uint64(i), 9, path, root); j != i && !errors.Is(err, merkle.ErrProof) {
				t.Errorf("chunk %d in place of %d: %v", j, i, err)
			}
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	a := &object.Array{SType: "x", Chunks: []object.Chunk{{Data: []byte("one")}, {Data: []byte("two")}}}
	m, _, _ := contribution(f, s, object.ArrayRecord{{Name: "a", Array: a}})
	f.Add(m.Encode())
	m, _, _ = contribution(f, s, &object.Message{Error: &object.Error{Code: 2}})
	f.Add(m.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err == nil && !bytes.Equal(m.Encode(), b) {
			t.Fatal("read and spelled otherwise")
		}
	})
}

func FuzzOpen(f *testing.F) {
	s := NewUplink(filled(1), Digest(filled(2)), 3)
	plain := pattern(100)
	oid := object.Sum(plain)
	id, stored := Seal(nil, s, oid, plain)
	f.Add(stored)
	f.Add(stored[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Open(nil, id, b, s.Opening(oid))
		if (err == nil) != bytes.Equal(b, stored) || err == nil && !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes open: %v", len(b), err)
		}
		if l, err := Measure(b); err == nil {
			if _, err := l.ID(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
