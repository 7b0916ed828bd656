package aggregate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

// memory is an array that lies in memory, and is lent from there.
type memory struct {
	rest []byte
	// piece is how many bytes lie side by side; 0: all.
	piece, at int
	refusals  int // calls of Lend that were in vain
}

func (m *memory) Read(b []byte) (int, error) {
	if len(m.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, m.rest)
	m.rest, m.at = m.rest[n:], m.at+n
	return n, nil
}

func (m *memory) Lend(n int) []byte {
	if len(m.rest) < n || m.piece > 0 && m.at%m.piece+n > m.piece {
		m.refusals++
		return nil
	}
	b := m.rest[:n:n]
	m.rest, m.at = m.rest[n:], m.at+n
	return b
}

func lenders(in ...[]byte) []io.Reader {
	var rs []io.Reader
	for _, b := range in {
		rs = append(rs, &memory{rest: b})
	}
	return rs
}

// lent is a set of readers of the same bytes: how they lie, and in what pieces.
type lent struct {
	off, piece int
}

func (l lent) reader(b []byte) io.Reader {
	moved := make([]byte, l.off+len(b))[l.off:]
	copy(moved, b)
	return &memory{rest: moved, piece: l.piece}
}

func (l lent) readers(in [][]byte) (all []io.Reader) {
	for _, b := range in {
		all = append(all, l.reader(b))
	}
	return all
}

// strategies are all of them, with arguments for those that have no defaults.
func strategies(t testing.TB) (all []*Strategy) {
	t.Helper()
	for name := range forms {
		args := map[string]any{}
		switch name {
		case QFedAvg:
			args["client_learning_rate"] = 0.1
		case DPFedAvg:
			args["noise_multiplier"], args["clipping_norm"] = 0.5, 2.0
		case FedAvgM:
			args["server_momentum"] = 0.5
		case FedTrimmedAvg:
			args["beta"] = 0.25
		}
		s, err := New(name, args)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *Strategy) int { return strings.Compare(a.name, b.name) })
	return all
}

// step runs one step over one array, all of it from readers that wrap makes, and returns what
// was written, the state behind the model.
func (s *Strategy) step(t testing.TB, want Tensor, model []byte, state, in [][]byte, wrap func([]byte) io.Reader) ([]byte, error) {
	t.Helper()
	wrapped := func(list [][]byte) (all []io.Reader) {
		for _, b := range list {
			all = append(all, wrap(b))
		}
		return all
	}
	cs := make([]Contribution, len(in))
	for k := range cs {
		cs[k] = Contribution{Examples: uint64(k + 1), Loss: float64(k) + 0.5}
	}
	v := s.Survey(len(in))
	if v != nil {
		if err := v.Array(want, wrap(model), wrapped(in)); err != nil {
			return nil, err
		}
	}
	p, err := s.Plan(Step{Round: 2, Contributions: cs, Survey: v, Secret: [32]byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	kept := make([]bytes.Buffer, len(s.State()))
	writers := make([]io.Writer, len(kept))
	for i := range kept {
		writers[i] = &kept[i]
	}
	if len(kept) == 0 {
		state = nil
	}
	err = p.Array(want, Sources{Model: wrap(model), State: wrapped(state), In: wrapped(in)}, &out, writers)
	for i := range kept {
		out.Write(kept[i].Bytes())
	}
	return out.Bytes(), err
}

// What is lent gives the bytes that copies give, for every strategy and type, wherever the
// arrays lie and whatever is side by side; and it stays as it was.
func TestLentIsCopied(t *testing.T) {
	t.Parallel()
	for _, s := range strategies(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(11, 12))
			for _, descr := range []string{"<f4", ">f4", "<f8", "<f2", "|u1"} {
				e, err := elementOf(descr)
				if err != nil {
					t.Fatal(err)
				}
				for _, n := range []int{0, 63, Tile/e.wide() + 77} {
					array := func(e element, low float64) []byte {
						x := make([]float64, n)
						for i := range x {
							x[i] = low + math.Floor(8*r.Float64())
						}
						raw := encode(t, e, x)
						if e.big {
							element{size: e.size, big: !hostBig}.swap(raw)
						}
						return typed(descr, n, raw)
					}
					var in, state [][]byte
					for range fused + 1 {
						in = append(in, array(e, 1))
					}
					model := array(e, 1)
					for range s.State() {
						x := make([]float64, n)
						for i := range x {
							x[i] = 1 + r.Float64()
						}
						state = append(state, typed(e.kept().descr(), n, encode(t, e.kept(), x)))
					}
					want := Tensor{Name: "a", Type: descr, Shape: []int{n}}
					copied, err := s.step(t, want, model, state, in, func(b []byte) io.Reader { return bytes.NewReader(b) })
					if err != nil {
						t.Fatalf("%s, %d: %v", descr, n, err)
					}
					for _, l := range []lent{{0, 0}, {1, 0}, {4, 0}, {0, 1000}, {0, Tile + 200}} {
						var all []*memory
						var before [][]byte
						got, err := s.step(t, want, model, state, in, func(b []byte) io.Reader {
							m := l.reader(b).(*memory)
							all, before = append(all, &memory{rest: m.rest}), append(before, b)
							return m
						})
						if err != nil || !bytes.Equal(got, copied) {
							t.Fatalf("%s, %d elements, %+v: %v; what is lent gives other bytes", descr, n, l, err)
						}
						for i, m := range all {
							if !bytes.Equal(m.rest, before[i]) {
								t.Fatalf("%s, %d elements, %+v: what is lent was changed", descr, n, l)
							}
						}
					}
				}
			}
		})
	}
}

// Arrays that lie aligned and in one piece are not copied: a tile of memory would be seen.
func TestLentIsNotCopied(t *testing.T) {
	t.Parallel()
	const n = 3*Tile/4 + 5
	want := Tensor{Name: "a", Type: "<f4", Shape: []int{n}}
	var in [][]byte
	for k := range 8 {
		in = append(in, npy(n, func(i int) float32 { return float32(i * k) }))
	}
	w, err := openWindow(want, sources{in: lenders(in...), use: computes})
	if err != nil {
		t.Fatal(err)
	}
	for w.left() > 0 {
		if _, err := w.next(); err != nil {
			t.Fatal(err)
		}
	}
	if w.tiles != nil {
		t.Error("tiles were made")
	}
	m := &memory{rest: in[0]}
	if err := Check(want, m); err != nil || m.refusals > 0 {
		t.Errorf("Check: %v, %d times nothing was lent", err, m.refusals)
	}
}

// A lender that ends early, goes on, or fails is refused or fails as a reader does.
func TestLendersRefuse(t *testing.T) {
	t.Parallel()
	const n = Tile/4 + 9
	want := Tensor{Name: "a", Type: "<f4", Shape: []int{n}}
	good := npy(n, func(i int) float32 { return float32(i) })
	wild := bytes.Clone(good)
	copy(wild[len(wild)-8:], []byte{0, 0, 0xc0, 0x7f})
	for name, b := range map[string][]byte{
		"short": good[:len(good)-1], "one tile": good[:len(good)-36], "long": append(bytes.Clone(good), 0), "wild": wild, "header": good[:100],
	} {
		for _, l := range []lent{{0, 0}, {1, 0}, {0, 999}} {
			var r *Refused
			if err := Check(want, l.reader(b)); !errors.As(err, &r) {
				t.Errorf("%s, %+v: Check: %v", name, l, err)
			}
			err := plan(t, FedAvg, contributions(1, 1, 1)).Array(want, Sources{In: l.readers([][]byte{good, b, good})}, io.Discard, nil)
			if !errors.As(err, &r) || r.Index != 1 {
				t.Errorf("%s, %+v: Array: %v", name, l, err)
			}
		}
	}
	fault := errors.New("fault")
	err := Check(want, &faulty{memory{rest: good}, len(good) - 20, fault})
	if !errors.Is(err, fault) {
		t.Errorf("a fault: %v", err)
	}
}

// faulty fails when so many bytes were read.
type faulty struct {
	memory
	end int
	err error
}

func (f *faulty) Lend(n int) []byte {
	if f.at+n > f.end {
		return nil
	}
	return f.memory.Lend(n)
}

func (f *faulty) Read(b []byte) (int, error) {
	if f.at >= f.end {
		return 0, f.err
	}
	return f.memory.Read(b[:min(len(b), f.end-f.at)])
}

// FuzzLent compares what is lent and what is copied of any bytes.
func FuzzLent(f *testing.F) {
	f.Add(npy(70, func(i int) float32 { return float32(i) }), npy(70, func(i int) float32 { return float32(-i) }), 0, 0)
	f.Add(object.NPY{Descr: ">f8", Shape: []int{1}}.Append(nil), []byte("12345678"), 3, 5)
	for descr, size := range map[string]int{"<f2": 2, "<V2": 2, ">f2": 2, "<i4": 4} {
		array := typed(descr, 98, bytes.Repeat([]byte{1, 0x3c, 0x80, 0xbf}, 98*size/4))
		f.Add(array, array, 1, 50)
	}
	f.Fuzz(func(t *testing.T, a, b []byte, off, piece int) {
		want, err := object.ParseNPY(a)
		if err != nil || off < 0 || off > 64 || piece < 0 {
			return
		}
		model := Tensor{Name: "a", Type: want.Descr, Shape: want.Shape, Fortran: want.Fortran}
		l := lent{off, piece}
		if x, y := Check(model, bytes.NewReader(b)), Check(model, l.reader(b)); fmt.Sprint(x) != fmt.Sprint(y) {
			t.Fatalf("checked as copied: %v; as lent: %v", x, y)
		}
		p := plan(t, FedAvg, contributions(1, 2))
		var x, y bytes.Buffer
		errX := p.Array(model, Sources{In: readers(a, b)}, &x, nil)
		errY := p.Array(model, Sources{In: l.readers([][]byte{a, b})}, &y, nil)
		if fmt.Sprint(errX) != fmt.Sprint(errY) || !bytes.Equal(x.Bytes(), y.Bytes()) {
			t.Fatalf("copied: %x, %v\nlent: %x, %v", x.Bytes(), errX, y.Bytes(), errY)
		}
	})
}
