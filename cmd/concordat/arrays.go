package main

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
)

// maxInitial bounds the initial arrays, in bytes: they travel in one sealed record of
// 1 MiB, beside a few hundred bytes of request.
const maxInitial = 1 << 20

// initialArrays returns the objects of a run's initial model, from a .npz file or of
// zeros.
func initialArrays(npz string, zeros []string) ([][]byte, error) {
	if (npz == "") == (len(zeros) == 0) {
		return nil, usagef("give the initial model with --initial or with --zeros")
	}
	var arrays object.ArrayRecord
	var err error
	if npz != "" {
		if arrays, err = readNPZ(npz); err != nil {
			return nil, fmt.Errorf("%s: %w", npz, err)
		}
	}
	for _, z := range zeros {
		a, err := zeroArray(z)
		if err != nil {
			return nil, usagef("--zeros %q: %w", z, err)
		}
		arrays = append(arrays, a)
	}
	objects, err := object.Objects(object.RecordDict{{Name: flower.RecordArrays, Record: arrays}})
	if err != nil {
		return nil, err
	}
	raw := make([][]byte, len(objects))
	for i, o := range objects {
		raw[i] = o.Raw
	}
	return raw, nil
}

// readNPZ reads NumPy's archive of arrays: a zip of .npy files (numpy.savez).
func readNPZ(path string) (object.ArrayRecord, error) {
	z, err := zip.OpenReader(path)
	if err != nil {
		return nil, err
	}
	defer z.Close()
	var arrays object.ArrayRecord
	left := int64(maxInitial)
	for _, f := range z.File {
		name, ok := strings.CutSuffix(f.Name, ".npy")
		if !ok {
			return nil, fmt.Errorf("%.80q is no .npy file", f.Name)
		}
		r, err := f.Open()
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(r, left+1)) // whatever size the archive states
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, fmt.Errorf("%.80q: %w", f.Name, err)
		}
		if left -= int64(len(b)); left < 0 {
			return nil, fmt.Errorf("more than %d bytes of arrays, which do not fit a request", maxInitial)
		}
		h, err := object.ParseNPY(b)
		if err != nil {
			return nil, fmt.Errorf("%.80q: %w", f.Name, err)
		}
		a, err := object.NewArray(h, b[h.HeaderSize:])
		if err != nil {
			return nil, fmt.Errorf("%.80q: %w", f.Name, err)
		}
		arrays = append(arrays, object.ArrayItem{Name: name, Array: a})
	}
	if len(arrays) == 0 {
		return nil, errors.New("holds no array")
	}
	return arrays, nil
}

// zeroTypes are the element types of --zeros, as NumPy names and writes them.
var zeroTypes = map[string]struct {
	descr string
	size  int
}{"float16": {"<f2", 2}, "float32": {"<f4", 4}, "float64": {"<f8", 8}}

// zeroArray reads NAME=TYPE[SHAPE], such as "w=float32[10,3]" or "bias=float64[]".
func zeroArray(s string) (object.ArrayItem, error) {
	name, spec, ok := strings.Cut(s, "=")
	typ, shape, ok2 := strings.Cut(spec, "[")
	shape, ok3 := strings.CutSuffix(shape, "]")
	t, known := zeroTypes[typ]
	if !ok || !ok2 || !ok3 || name == "" || !known {
		return object.ArrayItem{}, errors.New("want NAME=TYPE[SHAPE] with float16, float32 or float64")
	}
	h := object.NPY{Descr: t.descr}
	elements := int64(1)
	if shape != "" {
		for _, d := range strings.Split(shape, ",") {
			n, err := strconv.ParseUint(strings.TrimSpace(d), 10, 31)
			if err != nil {
				return object.ArrayItem{}, fmt.Errorf("dimension %q", d)
			}
			h.Shape = append(h.Shape, int(n))
			if n > 0 && elements > math.MaxInt32/int64(n) {
				return object.ArrayItem{}, errors.New("too large")
			}
			elements *= int64(n)
		}
	}
	if elements*int64(t.size) > maxInitial {
		return object.ArrayItem{}, fmt.Errorf("%d bytes, limit %d", elements*int64(t.size), maxInitial)
	}
	a, err := object.NewArray(h, make([]byte, elements*int64(t.size)))
	return object.ArrayItem{Name: name, Array: a}, err
}
