package aggregate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

// game is one case of testdata/strategies.json: some rounds of one of Flower's own
// strategies (see testdata/generate.py).
type game struct {
	Name      string
	Arguments map[string]json.Number
	Bound     float64 // of the difference, relative to the largest value of the array
	Model     map[string][]byte
	Rounds    []struct {
		Inputs []struct {
			Examples uint64
			Loss     float64
			Arrays   map[string][]byte
		}
		Want map[string][]byte
	}
}

func games(t *testing.T) []game {
	t.Helper()
	raw, err := os.ReadFile("testdata/strategies.json")
	if err != nil {
		t.Fatal(err)
	}
	var list []game
	if err := json.Unmarshal(raw, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func (g *game) strategy(t *testing.T) *Strategy {
	t.Helper()
	args := map[string]any{}
	for k, v := range g.Arguments {
		if i, err := v.Int64(); err == nil {
			args[k] = i
		} else if args[k], err = v.Float64(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := New(g.Name, args)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every strategy gives what Flower's of the same name gives, round after round: byte for
// byte, or within the bound where Flower leaves an order open.
func TestStrategiesEqualFlower(t *testing.T) {
	t.Parallel()
	tested := map[string]bool{FedAvg: true, FedProx: true, FedMedian: true} // by TestArrayEqualsFlower
	for i, g := range games(t) {
		tested[g.Name] = true
		t.Run(fmt.Sprint(i, "/", g.Name), func(t *testing.T) {
			t.Parallel()
			s := g.strategy(t)
			names := slices.Sorted(maps.Keys(g.Model))
			model, state := g.Model, map[string][][]byte{}
			for at, round := range g.Rounds {
				var cs []Contribution
				for _, in := range round.Inputs {
					m := object.MetricRecord{{Key: ExamplesKey, Value: object.Sint(in.Examples)}, {Key: "train_loss", Value: object.Double(in.Loss)}}
					c, err := s.Weigh(m, ExamplesKey)
					if err != nil {
						t.Fatal(err)
					}
					cs = append(cs, c)
				}
				arrays := func(name string) (in [][]byte) {
					for _, x := range round.Inputs {
						in = append(in, x.Arrays[name])
					}
					return in
				}
				survey := s.Survey(len(cs))
				for _, name := range names {
					if survey == nil {
						break
					}
					if err := survey.Array(named(tensor(t, model[name]), name), bytes.NewReader(model[name]), readers(arrays(name)...)); err != nil {
						t.Fatal(err)
					}
				}
				p, err := s.Plan(Step{Round: uint64(at + 1), Contributions: cs, Survey: survey})
				if err != nil {
					t.Fatal(err)
				}
				next := map[string][]byte{}
				for _, name := range names {
					var out bytes.Buffer
					kept := make([]bytes.Buffer, len(s.State()))
					writers := make([]io.Writer, len(kept))
					for i := range kept {
						writers[i] = &kept[i]
					}
					from := Sources{Model: bytes.NewReader(model[name]), In: readers(arrays(name)...), State: readers(state[name]...)}
					if err := p.Array(named(tensor(t, model[name]), name), from, &out, writers); err != nil {
						t.Fatal(err)
					}
					next[name], state[name] = out.Bytes(), nil
					for i := range kept {
						state[name] = append(state[name], kept[i].Bytes())
					}
					if want := round.Want[name]; g.Bound == 0 && !bytes.Equal(out.Bytes(), want) {
						t.Fatalf("round %d, array %s:\ngot  %v\nwant %v", at+1, name, floats(t, out.Bytes()), floats(t, want))
					} else if off := difference(floats(t, out.Bytes()), floats(t, want)); !(off <= g.Bound) {
						t.Fatalf("round %d, array %s: off by %g of the largest value, limit %g\ngot  %v\nwant %v", at+1, name, off, g.Bound, floats(t, out.Bytes()), floats(t, want))
					}
				}
				model = round.Want // so that bounds do not add up
			}
		})
	}
	for name := range forms {
		if !tested[name] {
			t.Errorf("%s is not compared with Flower", name)
		}
	}
}

func named(x Tensor, name string) Tensor {
	x.Name = name
	return x
}

func floats(t *testing.T, npy []byte) (x []float64) {
	t.Helper()
	s, err := open(tensor(t, npy), bytes.NewReader(npy), computes)
	if err != nil {
		t.Fatal(err)
	}
	for s.left > 0 {
		b, err := s.next(newTile)
		if err != nil {
			t.Fatal(err)
		}
		if s.element.wide() == 4 {
			for _, v := range view[float32](b) {
				x = append(x, float64(v))
			}
		} else {
			x = append(x, view[float64](b)...)
		}
	}
	return x
}

func difference(a, b []float64) float64 {
	var largest, off float64
	for i := range b {
		largest, off = max(largest, math.Abs(b[i])), max(off, math.Abs(a[i]-b[i]))
	}
	if len(a) != len(b) || largest == 0 {
		return math.NaN()
	}
	return off / largest
}
