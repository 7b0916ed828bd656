package object

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
)

// FuzzInflate: an object that is read alone is spelled in one way.
func FuzzInflate(f *testing.F) {
	objs, err := Objects(random{rand.New(rand.NewPCG(7, 8))}.message())
	if err != nil {
		f.Fatal(err)
	}
	for _, o := range objs {
		f.Add(o.Raw)
	}
	f.Add([]byte("Message  8\x00\x0a\x00\x1a\x04\x12\x02hi"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		missing := errors.New("missing")
		root := Sum(raw)
		n, err := Inflate(root, func(id ID) ([]byte, error) {
			if id == root {
				return raw, nil
			}
			return nil, missing
		}, Limits{Objects: 10, Bytes: 1 << 20, Outline: true})
		if err != nil {
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, missing) {
				t.Fatalf("error of neither kind: %v", err)
			}
			return
		}
		again, err := Objects(n)
		if err != nil || !bytes.Equal(again[len(again)-1].Raw, raw) {
			t.Fatalf("read and spelled otherwise: %v", err)
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	f.Add([]byte("Message  8\x00\x0a\x00\x1a\x04\x12\x02hi"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, content, err := ParseMessage(raw)
		if (err == nil) != (m != nil) || err == nil && (m.Error != nil) != content.IsZero() {
			t.Fatalf("%v, %v, %v", m, content, err)
		}
	})
}

func FuzzParseNPY(f *testing.F) {
	f.Add(NPY{Descr: "<f4", Shape: []int{2, 2}}.Append(nil))
	f.Add(NPY{Descr: "|b1", Fortran: true}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseNPY(b)
		rest := bytes.NewReader(b)
		read, errRead := ReadNPY(rest)
		if (err == nil) != (errRead == nil) || err == nil && (!reflect.DeepEqual(read, h) || rest.Len() != len(b)-h.HeaderSize) {
			t.Fatalf("parsed as %+v, %v, and read as %+v, %v, with %d of %d bytes left", h, err, read, errRead, rest.Len(), len(b))
		}
		if err != nil {
			return
		}
		again, err := ParseNPY(h.Append(nil))
		if err != nil || again.Descr != h.Descr || again.Fortran != h.Fortran || len(again.Shape) != len(h.Shape) {
			t.Fatalf("%+v is written and read as %+v, %v", h, again, err)
		}
	})
}
