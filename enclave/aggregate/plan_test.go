package aggregate

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
)

func strategy(t *testing.T, name string, args map[string]any) *Strategy {
	t.Helper()
	s, err := New(name, args)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// surveyed plans a step of arrays of one element each, beside a model of zero.
func surveyed(t *testing.T, s *Strategy, cs []Contribution, values ...float32) (*Plan, error) {
	t.Helper()
	var in [][]byte
	for _, v := range values {
		in = append(in, npy(1, func(int) float32 { return v }))
	}
	v := s.Survey(len(values))
	zero := npy(1, func(int) float32 { return 0 })
	if err := v.Array(Tensor{"a", "<f4", []int{1}, false}, bytes.NewReader(zero), readers(in...)); err != nil {
		t.Fatal(err)
	}
	return s.Plan(Step{Round: 1, Contributions: cs, Survey: v, Secret: [32]byte{1}})
}

// What counts against max_weight_share is the weight after selection and clipping.
func TestEffectiveShares(t *testing.T) {
	t.Parallel()
	share := func(p *Plan, err error) (out []float64) {
		if err != nil {
			t.Fatal(err)
		}
		parts, whole := p.Shares()
		var sum uint64
		for _, x := range parts {
			sum += x
			out = append(out, math.Round(float64(x)/float64(whole)*1000)/1000)
		}
		if sum != whole || whole > 1<<53 {
			t.Errorf("parts %d are not %d", parts, whole)
		}
		return out
	}
	for name, c := range map[string]struct{ got, want []float64 }{
		"clipped":      {share(surveyed(t, strategy(t, DPFedAvg, map[string]any{"noise_multiplier": 1.0, "clipping_norm": 1.0}), contributions(10, 10, 20), 100, 0.5, -1)), []float64{0.003, 0.332, 0.664}},
		"krum":         {share(surveyed(t, strategy(t, Krum, nil), contributions(10, 10, 10, 10), 1, 2, 2.1, 50)), []float64{0, 1, 0, 0}},
		"multikrum":    {share(surveyed(t, strategy(t, MultiKrum, map[string]any{"num_nodes_to_select": int64(2)}), contributions(10, 30, 10, 10), 1, 2, 2.1, 50)), []float64{0, 0.75, 0.25, 0}},
		"bulyan":       {share(surveyed(t, strategy(t, Bulyan, nil), contributions(10, 30, 10), 1, 2, 3)), []float64{0.333, 0.333, 0.333}},
		"a large loss": {share(surveyed(t, strategy(t, QFedAvg, map[string]any{"client_learning_rate": 0.1, "q": int64(2)}), []Contribution{{1, 3}, {1000, 1}}, 1, 2)), []float64{0.9, 0.1}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
}

func TestBulyanNeedsEnough(t *testing.T) {
	t.Parallel()
	_, err := surveyed(t, strategy(t, Bulyan, map[string]any{"num_malicious_nodes": int64(1)}), contributions(1, 1, 1, 1, 1, 1), 1, 2, 3, 4, 5, 6)
	if err == nil || !strings.Contains(err.Error(), "needs 7") {
		t.Errorf("%v, want a refusal", err)
	}
}

func TestLosses(t *testing.T) {
	t.Parallel()
	s := strategy(t, QFedAvg, map[string]any{"client_learning_rate": 0.1, "train_loss_key": "l"})
	for name, c := range map[string]struct {
		value object.Value
		ok    bool
	}{
		"loss":      {object.Double(0.5), true},
		"whole":     {object.Sint(2), true},
		"zero":      {object.Double(0), true},
		"negative":  {object.Double(-0.1), false},
		"infinite":  {object.Double(math.Inf(1)), false},
		"no number": {object.Double(math.NaN()), false},
		"list":      {object.Doubles{0.5}, false},
		"missing":   {nil, false},
	} {
		m := object.MetricRecord{{Key: ExamplesKey, Value: object.Sint(7)}}
		if c.value != nil {
			m = append(m, object.ValueItem{Key: "l", Value: c.value})
		}
		got, err := s.Weigh(m, ExamplesKey)
		var r *Refused
		if ok := err == nil; ok != c.ok || !ok && !errors.As(err, &r) || ok && got.Examples != 7 {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// Noise is the same again for the same secret, other for another secret or array, and of
// the deviation that the largest weight demands.
func TestNoise(t *testing.T) {
	t.Parallel()
	const n = 100_000
	s := strategy(t, DPFedAvg, map[string]any{"noise_multiplier": 0.5, "clipping_norm": 4.0})
	still := npy(n, func(int) float32 { return 1 })
	run := func(secret byte, array string) []byte {
		v := s.Survey(2)
		model := Tensor{array, "<f4", []int{n}, false}
		if err := v.Array(model, bytes.NewReader(still), readers(still, still)); err != nil {
			t.Fatal(err)
		}
		p, err := s.Plan(Step{Round: 1, Contributions: contributions(1, 3), Survey: v, Secret: [32]byte{secret}})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := p.Array(model, Sources{Model: bytes.NewReader(still), In: readers(still, still)}, &out, nil); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	first := run(1, "a")
	if !bytes.Equal(first, run(1, "a")) {
		t.Error("the same secret gives other noise")
	}
	if bytes.Equal(first, run(2, "a")) || bytes.Equal(first, run(1, "b")) {
		t.Error("another secret or array gives the same noise")
	}
	var sum, square, fourth float64
	for _, x := range floats(t, first) {
		x--
		sum, square, fourth = sum+x, square+x*x, fourth+x*x*x*x
	}
	// Five standard errors of each for n draws: a wrong deviation is far outside.
	sigma := 0.5 * 4 * 0.75
	variance := square / n
	if math.Abs(sum/n) > 5*sigma/math.Sqrt(n) || math.Abs(variance/(sigma*sigma)-1) > 5*math.Sqrt(2.0/n) || math.Abs(fourth/n/(variance*variance)-3) > 5*math.Sqrt(24.0/n) {
		t.Errorf("mean %g, deviation %g, kurtosis %g; want 0, %g, 3", sum/n, math.Sqrt(variance), fourth/n/(variance*variance), sigma)
	}
	silent := strategy(t, DPFedAvg, map[string]any{"noise_multiplier": 0.0, "clipping_norm": 4.0})
	if silent.Noisy() || !s.Noisy() {
		t.Error("which strategies need a secret")
	}
}

// State goes on over windows, and what is not kept is not missed.
func TestStateStreams(t *testing.T) {
	t.Parallel()
	const n = Tile/4 + 5
	s := strategy(t, FedAvgM, map[string]any{"server_momentum": 0.5})
	p, err := s.Plan(Step{Round: 2, Contributions: contributions(1)})
	if err != nil {
		t.Fatal(err)
	}
	model := npy(n, func(i int) float32 { return float32(i) })
	in := npy(n, func(i int) float32 { return float32(i) + 2 })
	before := npy(n, func(i int) float32 { return 8 })
	for _, keep := range []bool{true, false} {
		var out, state bytes.Buffer
		var writers []io.Writer
		if keep {
			writers = append(writers, &state)
		}
		if err := p.Array(Tensor{"a", "<f4", []int{n}, false}, Sources{Model: bytes.NewReader(model), State: readers(before), In: readers(in)}, &out, writers); err != nil {
			t.Fatal(err)
		}
		if want := npy(n, func(i int) float32 { return float32(i) - 2 }); !bytes.Equal(out.Bytes(), want) { // u = 0.5*8 + (w-a)
			t.Error("model is wrong")
		}
		if want := npy(n, func(int) float32 { return 2 }); keep && !bytes.Equal(state.Bytes(), want) {
			t.Error("state is wrong")
		}
	}
	var out bytes.Buffer
	for name, from := range map[string]Sources{
		"no model":    {State: readers(before), In: readers(in)},
		"short state": {Model: bytes.NewReader(model), State: readers(before[:len(before)-1]), In: readers(in)},
		"other model": {Model: bytes.NewReader(before[:90]), State: readers(before), In: readers(in)},
		"two states":  {Model: bytes.NewReader(model), State: readers(before, before), In: readers(in)},
	} {
		var r *Refused
		if err := p.Array(Tensor{"a", "<f4", []int{n}, false}, from, &out, nil); err == nil || errors.As(err, &r) {
			t.Errorf("%s: %v, want an error that blames no contribution", name, err)
		}
	}
}

// A server's step that overflows is an error, and no contribution's fault.
func TestServerOverflow(t *testing.T) {
	t.Parallel()
	s := strategy(t, FedAdagrad, nil)
	p, err := s.Plan(Step{Round: 1, Contributions: contributions(1)})
	if err != nil {
		t.Fatal(err)
	}
	zero, large := npy(1, func(int) float32 { return 0 }), npy(1, func(int) float32 { return 0x1p100 })
	err = p.Array(Tensor{"a", "<f4", []int{1}, false}, Sources{Model: bytes.NewReader(zero), In: readers(large)}, io.Discard, nil)
	var r *Refused
	if err == nil || errors.As(err, &r) || !strings.Contains(err.Error(), "not finite") {
		t.Errorf("%v, want the strategy's error", err)
	}
}

// Tame values are not too large for a trimmed mean of many.
func TestTrimmedMeanOfLargeValues(t *testing.T) {
	t.Parallel()
	big := typed("<f8", 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xdf, 0x7f})
	var out bytes.Buffer
	if err := plan(t, FedTrimmedAvg, contributions(1, 1, 1, 1, 1)).Array(Tensor{"a", "<f8", []int{1}, false}, Sources{In: readers(big, big, big, big, big)}, &out, nil); err != nil {
		t.Fatal(err)
	}
	if got := floats(t, out.Bytes())[0]; math.Abs(got/floats(t, big)[0]-1) > 1e-15 {
		t.Errorf("mean of equal values is %g", got)
	}
}

func TestPower(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		x    float64
		n    uint64
		want float64
	}{{0.9, 0, 1}, {0.9, 1, 0.9}, {0.5, 10, 0x1p-10}, {0, 3, 0}, {0.99, 101, 0.3623720178604969}, {0.9, 7, 0.4782969000000001}} { // the last two are numpy.power's
		if got := power(c.x, c.n); got != c.want {
			t.Errorf("%g^%d is %g, want %g", c.x, c.n, got, c.want)
		}
	}
}
