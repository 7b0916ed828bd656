package aggregate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

// reference is one case of testdata/cases.json: what Flower's own functions
// compute (see testdata/generate.py).
type reference struct {
	Name      string
	Examples  []uint64
	Inputs    [][]byte
	FedAvg    []byte
	FedMedian []byte
	Metrics   map[string]any
}

func references(t testing.TB) []reference {
	t.Helper()
	b, err := os.ReadFile("testdata/cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []reference
	if err := json.Unmarshal(b, &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	return cases
}

func contributions(examples ...uint64) []Contribution {
	var cs []Contribution
	for _, n := range examples {
		cs = append(cs, Contribution{Examples: n})
	}
	return cs
}

// plan plans a step of a strategy without arguments and surveys.
func plan(t testing.TB, name string, cs []Contribution) *Plan {
	t.Helper()
	s, err := New(name, nil)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Plan(Step{Round: 1, Contributions: cs})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tensor(t testing.TB, npy []byte) Tensor {
	t.Helper()
	h, err := object.ParseNPY(npy)
	if err != nil {
		t.Fatal(err)
	}
	return Tensor{Name: "a", Type: h.Descr, Shape: h.Shape, Fortran: h.Fortran}
}

func readers(in ...[]byte) []io.Reader {
	var rs []io.Reader
	for _, b := range in {
		rs = append(rs, bytes.NewReader(b))
	}
	return rs
}

// Byte for byte what an unmodified Flower ServerApp would have computed.
func TestArrayEqualsFlower(t *testing.T) {
	t.Parallel()
	for _, c := range references(t) {
		for name, want := range map[string][]byte{FedAvg: c.FedAvg, FedMedian: c.FedMedian} {
			t.Run(c.Name+"/"+name, func(t *testing.T) {
				p := plan(t, name, contributions(c.Examples...))
				model := tensor(t, c.Inputs[0])
				for k, in := range c.Inputs {
					if err := Check(model, bytes.NewReader(in)); err != nil {
						t.Fatalf("contribution %d: %v", k, err)
					}
				}
				var out bytes.Buffer
				if err := p.Array(model, Sources{In: readers(c.Inputs...)}, &out, nil); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(out.Bytes(), want) {
					t.Errorf("got  %x\nwant %x", out.Bytes(), want)
				}
			})
		}
	}
}

// npy returns a float32 array of n elements of which element i is f(i).
func npy(n int, f func(i int) float32) []byte {
	b := object.NPY{Descr: "<f4", Shape: []int{n}}.Append(nil)
	for i := range n {
		x := math.Float32bits(f(i))
		b = append(b, byte(x), byte(x>>8), byte(x>>16), byte(x>>24))
	}
	return b
}

// Tiles, readers that give a byte at a time, and odd tails change nothing.
func TestArrayStreams(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, Tile/4 - 1, Tile / 4, Tile/4 + 1, Tile/2 + 3} {
		var in []io.Reader
		var cs []Contribution
		want := make([]float32, n)
		for k := range 7 {
			f := func(i int) float32 { return float32(i%1000)*float32(k+1) - 31 }
			b := npy(n, f)
			in = append(in, iotestOneOdd{bytes.NewReader(b)})
			cs = append(cs, Contribution{Examples: uint64(k + 1)})
			w := float32(float64(k+1) / 28)
			for i := range want {
				if k == 0 {
					want[i] = f(i) * w
				} else {
					want[i] += float32(f(i) * w)
				}
			}
		}
		p := plan(t, FedAvg, cs)
		var out bytes.Buffer
		if err := p.Array(Tensor{"a", "<f4", []int{n}, false}, Sources{In: in}, &out, nil); err != nil {
			t.Fatal(err)
		}
		if w := npy(n, func(i int) float32 { return want[i] }); !bytes.Equal(out.Bytes(), w) {
			t.Errorf("%d elements: result differs from the sum in order", n)
		}
	}
}

// iotestOneOdd reads at most 4099 bytes at a time, so that elements straddle reads.
type iotestOneOdd struct{ r io.Reader }

func (o iotestOneOdd) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 4099)]) }

func TestRefusals(t *testing.T) {
	t.Parallel()
	model := Tensor{Name: "layer", Type: "<f4", Shape: []int{40}}
	good := npy(40, func(i int) float32 { return float32(i) })
	with := func(x float32, at int) []byte {
		return npy(40, func(i int) float32 {
			if i == at {
				return x
			}
			return 1
		})
	}
	inf := float32(math.Inf(1))
	header := func(h object.NPY, payload int) []byte { return append(h.Append(nil), make([]byte, payload)...) }
	for name, c := range map[string]struct {
		in   []byte
		want string // part of the reason
	}{
		"nan":              {with(float32(math.NaN()), 3), "not finite"},
		"infinity":         {with(inf, 38), "not finite"},
		"minus infinity":   {with(-inf, 39), "not finite"},
		"too large":        {with(0x1p127, 0), "too large"},
		"negative large":   {with(-0x1p127, 1), "too large"},
		"other shape":      {header(object.NPY{Descr: "<f4", Shape: []int{41}}, 164), "shape"},
		"other rank":       {header(object.NPY{Descr: "<f4", Shape: []int{5, 8}}, 160), "shape"},
		"double":           {header(object.NPY{Descr: "<f8", Shape: []int{40}}, 320), "elements"},
		"integers by name": {header(object.NPY{Descr: "<i8", Shape: []int{40}}, 320), `"<i8"`},
		"half":             {header(object.NPY{Descr: "<f2", Shape: []int{40}}, 80), `"<f2"`},
		"too short":        {good[:len(good)-1], "ends before"},
		"too long":         {append(good[:len(good):len(good)], 0), "goes on"},
		"no header":        {[]byte("\x93NUMP"), ""},
		"empty":            {nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var r *Refused
			if err := Check(model, bytes.NewReader(c.in)); !errors.As(err, &r) || r.Index != -1 || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Check: %v, want a refusal with %q", err, c.want)
			}
			p := plan(t, FedAvg, contributions(5, 5, 5))
			var out bytes.Buffer
			err := p.Array(model, Sources{In: readers(good, c.in, good)}, &out, nil)
			if c.want == "too large" {
				if err != nil { // it is, alone; this sum is not
					t.Errorf("Array: %v", err)
				}
				return
			}
			if !errors.As(err, &r) || r.Index != 1 || r.Array != "layer" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Array: %v, want contribution 1 refused with %q", err, c.want)
			}
		})
	}
	for _, x := range []float32{math.Nextafter32(0x1p127, 0), -math.Nextafter32(0x1p127, 0), math.SmallestNonzeroFloat32, float32(math.Copysign(0, -1))} {
		if err := Check(model, bytes.NewReader(with(x, 17))); err != nil {
			t.Errorf("%g: %v", x, err)
		}
	}
}

// What passed Check never overflows: the largest tame values, of which the
// weights add up to a little more than one.
func TestTameSumsStayFinite(t *testing.T) {
	t.Parallel()
	big := npy(3, func(int) float32 { return math.Nextafter32(0x1p127, 0) })
	for _, name := range []string{FedAvg, FedMedian} {
		var cs []Contribution
		var in []io.Reader
		for k := range 1000 {
			cs = append(cs, Contribution{Examples: uint64(k%7 + 1)})
			in = append(in, bytes.NewReader(big))
		}
		p := plan(t, name, cs)
		if err := p.Array(Tensor{"a", "<f4", []int{3}, false}, Sources{In: in}, io.Discard, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Without Check an overflow is still found, and blamed on the one who sent it.
func TestOverflowIsRefused(t *testing.T) {
	t.Parallel()
	p := plan(t, FedMedian, contributions(1, 1, 1, 1))
	one, huge := npy(1, func(int) float32 { return 1 }), npy(1, func(int) float32 { return math.MaxFloat32 })
	err := p.Array(Tensor{"a", "<f4", []int{1}, false}, Sources{In: readers(one, huge, huge, huge)}, io.Discard, nil)
	var r *Refused
	if !errors.As(err, &r) || r.Index != 1 {
		t.Errorf("got %v, want contribution 1 refused", err)
	}
}

func TestFaultsOfTheReaderExcludeNobody(t *testing.T) {
	t.Parallel()
	disk := errors.New("disk on fire")
	good := npy(9, func(int) float32 { return 1 })
	p := plan(t, FedAvg, contributions(1, 1))
	for cut := range len(good) + 1 {
		broken := io.MultiReader(bytes.NewReader(good[:cut]), failing{disk})
		err := p.Array(Tensor{"a", "<f4", []int{9}, false}, Sources{In: []io.Reader{bytes.NewReader(good), broken}}, io.Discard, nil)
		var r *Refused
		if !errors.Is(err, disk) || errors.As(err, &r) {
			t.Fatalf("cut at %d: %v, want the reader's own error", cut, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func FuzzCheck(f *testing.F) {
	f.Add(npy(3, func(i int) float32 { return float32(i) }), "<f4", 3)
	f.Add(npy(2, func(int) float32 { return float32(math.NaN()) }), "<f4", 2)
	f.Add(object.NPY{Descr: ">f8", Shape: []int{0}}.Append(nil), "<f8", 0)
	f.Fuzz(func(t *testing.T, b []byte, typ string, n int) {
		want := Tensor{Name: "a", Type: typ, Shape: []int{n}}
		if Check(want, bytes.NewReader(b)) != nil {
			return
		}
		p := plan(t, FedAvg, contributions(1, 2))
		var out bytes.Buffer
		if err := p.Array(want, Sources{In: readers(b, b)}, &out, nil); err != nil {
			t.Fatalf("passed Check, and then: %v", err)
		}
		if _, err := object.ParseNPY(out.Bytes()); err != nil {
			t.Fatal(err)
		}
	})
}

func ExamplePlan_Array() {
	s, err := New(FedAvg, nil)
	if err != nil {
		panic(err)
	}
	p, err := s.Plan(Step{Round: 1, Contributions: []Contribution{{Examples: 3}, {Examples: 1}}})
	if err != nil {
		panic(err)
	}
	a := npy(2, func(i int) float32 { return 4 })
	b := npy(2, func(i int) float32 { return 8 * float32(i) })
	var out bytes.Buffer
	if err := p.Array(Tensor{Name: "w", Type: "<f4", Shape: []int{2}}, Sources{In: []io.Reader{bytes.NewReader(a), bytes.NewReader(b)}}, &out, nil); err != nil {
		panic(err)
	}
	fmt.Printf("%x\n", out.Bytes()[out.Len()-8:])
	// Output: 000040400000a040
}
