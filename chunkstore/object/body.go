package object

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

// Limits of an Array's description.
const (
	maxDims = 64 // numpy's own limit (NPY_MAXDIMS of numpy 2)
	maxRefs = maxChildren
)

// encodeDict returns the body of a RecordDict or ArrayRecord:
// {"<name>": "<id>", …}.
func encodeDict(kind Kind, names []string, ids []ID) ([]byte, error) {
	seen := make(map[string]struct{}, len(names))
	b := []byte{'{'}
	for i, name := range names {
		if err := checkKey(seen, name); err != nil {
			return nil, invalid("%v item %d: %v", kind, i, err)
		}
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendJSONString(b, name)
		b = append(b, `: "`...)
		b = append(b, ids[i].String()...)
		b = append(b, '"')
	}
	return append(b, '}'), nil
}

// dict reads the body of a RecordDict or ArrayRecord and checks it against the
// head.
func (h Head) dict() (names []string, ids []ID, err error) {
	s := scanner{b: h.Body}
	s.expect("{")
	if !s.try("}") {
		for !s.failed {
			names = append(names, s.str())
			s.expect(": ")
			id, err := ParseID(s.str())
			if err != nil {
				return nil, nil, invalid("%v item %d: not an id", h.Kind, len(ids))
			}
			ids = append(ids, id)
			if s.try("}") {
				break
			}
			s.expect(", ")
		}
	}
	if s.failed || len(s.b) != 0 {
		return nil, nil, invalid("%v: body is not in Flower's spelling", h.Kind)
	}
	again, err := encodeDict(h.Kind, names, ids)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(again, h.Body) {
		return nil, nil, invalid("%v: body is not in Flower's spelling", h.Kind)
	}
	if children, _ := unique(ids); !slices.Equal(children, h.Children) {
		return nil, nil, invalid("%v: head and body list different children", h.Kind)
	}
	return names, ids, nil
}

// encodeArray returns the body of an Array; refs are the places of its chunks
// in the head.
func encodeArray(a *Array, refs []int) ([]byte, error) {
	if !utf8.ValidString(a.DType) || !utf8.ValidString(a.SType) {
		return nil, invalid("Array: dtype or stype is not UTF-8")
	}
	if len(a.Shape) > maxDims || len(refs) > maxRefs {
		return nil, invalid("Array: %d dimensions and %d chunks, limit %d and %d", len(a.Shape), len(refs), maxDims, maxRefs)
	}
	for _, d := range a.Shape {
		if d < 0 {
			return nil, invalid("Array: negative dimension")
		}
	}
	b := appendJSONString([]byte(`{"dtype": `), a.DType)
	b = appendJSONInts(append(b, `, "shape": `...), a.Shape)
	b = appendJSONString(append(b, `, "stype": `...), a.SType)
	b = appendJSONInts(append(b, `, "arraychunk_ids": `...), refs)
	return append(b, '}'), nil
}

// array reads an Array whose chunks have ids and no data.
func (h Head) array() (*Array, error) {
	s := scanner{b: h.Body}
	a := new(Array)
	s.expect(`{"dtype": `)
	a.DType = s.str()
	s.expect(`, "shape": `)
	a.Shape = s.ints(maxDims)
	s.expect(`, "stype": `)
	a.SType = s.str()
	s.expect(`, "arraychunk_ids": `)
	refs := s.ints(maxRefs)
	s.expect("}")
	if s.failed || len(s.b) != 0 {
		return nil, invalid("Array: body is not in Flower's spelling")
	}
	again, err := encodeArray(a, refs)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, h.Body) {
		return nil, invalid("Array: body is not in Flower's spelling")
	}
	next := 0 // the head lists chunks in the order of their first use
	for i, ref := range refs {
		if ref > next || ref >= len(h.Children) {
			return nil, invalid("Array: chunk %d refers past the head's list", i)
		}
		if ref == next {
			next++
		}
		a.Chunks = append(a.Chunks, Chunk{ID: h.Children[ref]})
	}
	if next != len(h.Children) {
		return nil, invalid("Array: %d of %d children are used", next, len(h.Children))
	}
	return a, nil
}

// items reads a ConfigRecord or MetricRecord.
func (h Head) items() ([]ValueItem, error) {
	items, err := decodeItems(h.Body)
	if err != nil {
		return nil, err
	}
	again, err := encodeItems(h.Kind, items)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, h.Body) {
		return nil, invalid("%v: body is not in Flower's encoding", h.Kind)
	}
	return items, nil
}
