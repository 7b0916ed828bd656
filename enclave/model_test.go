package enclave

import (
	"bytes"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

// vector is an array of n float32 zeros.
func vector(t *testing.T, n int) *object.Array {
	t.Helper()
	a, err := object.NewArray(object.NPY{Descr: "<f4", Shape: []int{n}}, make([]byte, 4*n))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func objectsOf(t *testing.T, n object.Node) [][]byte {
	t.Helper()
	list, err := object.Objects(n)
	if err != nil {
		t.Fatal(err)
	}
	var raw [][]byte
	for _, o := range list {
		raw = append(raw, o.Raw)
	}
	return raw
}

func arrays(t *testing.T, names ...string) object.ArrayRecord {
	var r object.ArrayRecord
	for i, n := range names {
		r = append(r, object.ArrayItem{Name: n, Array: vector(t, i+1)})
	}
	return r
}

// TestInitialModel takes the objects of one record of arrays and refuses all else that a
// member may send.
func TestInitialModel(t *testing.T) {
	good := objectsOf(t, object.RecordDict{{Name: "arrays", Record: arrays(t, "w", "b")}})
	read := func(objects [][]byte) (*model, error) {
		n, err := inflateAll(objects)
		if err != nil {
			return nil, err
		}
		return initialModel(n)
	}
	m, err := read(good)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.tensors) != 2 || m.tensors[0].Name != "w" || m.tensors[1].Shape[0] != 2 {
		t.Errorf("tensors %+v", m.tensors)
	}
	metrics := object.MetricRecord{{Key: "n", Value: object.Sint(1)}}
	notNPY := arrays(t, "w")
	notNPY[0].Array.Chunks = []object.Chunk{{Data: []byte("no array")}}
	for name, objects := range map[string][][]byte{
		"nothing":             nil,
		"garbage":             {[]byte("garbage")},
		"no root":             good[:len(good)-1],
		"a chunk is missing":  good[1:],
		"another record too":  objectsOf(t, object.RecordDict{{Name: "arrays", Record: arrays(t, "w")}, {Name: "metrics", Record: metrics}}),
		"no arrays":           objectsOf(t, object.RecordDict{{Name: "metrics", Record: metrics}}),
		"an empty record":     objectsOf(t, object.RecordDict{{Name: "arrays", Record: object.ArrayRecord{}}}),
		"an empty dictionary": objectsOf(t, object.RecordDict{}),
		"an array alone":      objectsOf(t, arrays(t, "w")),
		"bytes that are none": objectsOf(t, object.RecordDict{{Name: "arrays", Record: notNPY}}),
		"too many objects":    make([][]byte, maxObjects+1),
	} {
		if _, err := read(objects); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestCoarseCodes: what a node says in its own words reaches no log line as it is.
func TestCoarseCodes(t *testing.T) {
	for code, want := range map[string]string{"late": "late", "policy": "policy", "": "other", "patient 4711": "other", "LATE": "other", string(bytes.Repeat([]byte("x"), 1<<16)): "other"} {
		if got := coarse(code); got != want {
			t.Errorf("coarse(%.20q) = %q, want %q", code, got, want)
		}
	}
}
