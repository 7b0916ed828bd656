package main

import (
	"archive/zip"
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
)

// initialModel is where a run's initial arrays come from.
type initialModel struct {
	npz   string
	zeros []zeros
}

// newInitialModel reads what --initial and --zeros say.
func newInitialModel(npz string, specs []string) (*initialModel, error) {
	if (npz == "") == (len(specs) == 0) {
		return nil, usagef("give the initial model with --initial or with --zeros")
	}
	m := &initialModel{npz: npz}
	for _, s := range specs {
		z, err := parseZeros(s)
		if err != nil {
			return nil, usagef("--zeros %q: %w", s, err)
		}
		m.zeros = append(m.zeros, z)
	}
	return m, nil
}

// objects hands the model's objects to add, post-order, the root RecordDict last, with a
// chunk in memory at a time: add must not keep what it gets.
func (m *initialModel) objects(add func(raw []byte) error) error {
	var arrays object.ArrayRecord
	var err error
	if m.npz != "" {
		if arrays, err = addNPZ(m.npz, add); err != nil {
			return fmt.Errorf("%s: %w", m.npz, err)
		}
	}
	for _, z := range m.zeros {
		size, err := z.header.DataSize()
		if err != nil {
			return fmt.Errorf("array %s: %w", z.name, err)
		}
		a, err := addArray(z.header, io.LimitReader(z, int64(size)), add)
		if err != nil {
			return fmt.Errorf("array %s: %w", z.name, err)
		}
		arrays = append(arrays, object.ArrayItem{Name: z.name, Array: a})
	}
	_, err = object.Flatten(object.RecordDict{{Name: flower.RecordArrays, Record: arrays}}, func(o object.Object) error { return add(o.Raw) })
	return err
}

// addArray adds the chunks of an array whose elements data has, and returns it in outline.
func addArray(h object.NPY, data io.Reader, add func(raw []byte) error) (*object.Array, error) {
	a, err := object.NewOutline(h)
	if err != nil {
		return nil, err
	}
	size, err := h.DataSize()
	if err != nil {
		return nil, err
	}
	w := object.NewChunkWriter(func(raw []byte) (object.ID, error) { return object.Sum(raw), add(raw) })
	if _, err := w.Write(h.Append(nil)); err != nil {
		return nil, err
	}
	n, err := io.Copy(w, io.LimitReader(data, int64(size)+1))
	if err != nil {
		return nil, err
	}
	if n != int64(size) {
		return nil, fmt.Errorf("%d bytes of elements or more, its shape wants %d", n, size)
	}
	a.Chunks, err = w.Close()
	return a, err
}

// maxNPYStart holds the header of any array that object.ParseNPY reads.
const maxNPYStart = 16 << 10

// addNPZ adds the arrays of NumPy's archive: a zip of .npy files (numpy.savez).
func addNPZ(path string, add func(raw []byte) error) (object.ArrayRecord, error) {
	z, err := zip.OpenReader(path)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var arrays object.ArrayRecord
	for _, f := range z.File {
		name, ok := strings.CutSuffix(f.Name, ".npy")
		if !ok {
			return nil, fmt.Errorf("%.80q is no .npy file", f.Name)
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		a, err := addNPY(r, add)
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, fmt.Errorf("%.80q: %w", f.Name, err)
		}
		arrays = append(arrays, object.ArrayItem{Name: name, Array: a})
	}
	if len(arrays) == 0 {
		return nil, errors.New("holds no array")
	}
	return arrays, nil
}

func addNPY(r io.Reader, add func(raw []byte) error) (*object.Array, error) {
	b := bufio.NewReaderSize(r, maxNPYStart)
	head, err := b.Peek(maxNPYStart)
	if err != nil && err != io.EOF {
		return nil, err
	}
	h, err := object.ParseNPY(head)
	if err != nil {
		return nil, err
	}
	if _, err := b.Discard(h.HeaderSize); err != nil {
		return nil, err
	}
	return addArray(h, b, add)
}

// zeroTypes are the element types of --zeros, as NumPy names and writes them.
var zeroTypes = map[string]string{"float16": "<f2", "float32": "<f4", "float64": "<f8"}

// zeros is an array of zeros, and an endless reader of its elements.
type zeros struct {
	name   string
	header object.NPY
}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// parseZeros reads NAME=TYPE[SHAPE], such as "w=float32[10,3]" or "bias=float64[]".
func parseZeros(s string) (zeros, error) {
	name, spec, ok := strings.Cut(s, "=")
	typ, shape, ok2 := strings.Cut(spec, "[")
	shape, ok3 := strings.CutSuffix(shape, "]")
	descr, known := zeroTypes[typ]
	if !ok || !ok2 || !ok3 || name == "" || !known {
		return zeros{}, errors.New("want NAME=TYPE[SHAPE] with float16, float32 or float64")
	}
	h := object.NPY{Descr: descr}
	if shape != "" {
		for _, d := range strings.Split(shape, ",") {
			n, err := strconv.ParseUint(strings.TrimSpace(d), 10, 31)
			if err != nil {
				return zeros{}, fmt.Errorf("dimension %q", d)
			}
			h.Shape = append(h.Shape, int(n))
		}
	}
	if _, err := h.DataSize(); err != nil {
		return zeros{}, err
	}
	_, err := object.NewOutline(h)
	return zeros{name, h}, err
}
