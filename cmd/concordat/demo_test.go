package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryNth(t *testing.T) {
	t.Parallel()
	csv := "5,1,malignant,benign\n1,0\n2,1\n3,0\n4,1\n5,0\n"
	for name, c := range map[string]struct {
		first, n int
		want     string
		rows     int
	}{
		"all":    {0, 1, csv, 5},
		"first":  {0, 2, "3,1,malignant,benign\n1,0\n3,0\n5,0\n", 3},
		"second": {1, 2, "2,1,malignant,benign\n2,1\n4,1\n", 2},
		"none":   {7, 8, "0,1,malignant,benign\n", 0},
	} {
		got, rows, err := everyNth([]byte(csv), c.first, c.n)
		if err != nil || string(got) != c.want || rows != c.rows {
			t.Errorf("%s: %q, %d rows, %v", name, got, rows, err)
		}
	}
	if _, _, err := everyNth([]byte("x"), 0, 1); err == nil {
		t.Error("a file without a first line was accepted")
	}
}

func TestFeed(t *testing.T) {
	t.Parallel()
	f := newFeed[int]()
	f.add(1)
	from := f.len()
	go func() {
		for i := range 100 {
			f.add(10 + i)
		}
	}()
	var got []int
	if err := f.await(t.Context(), from, func(i int) bool { got = append(got, i); return i == 50 }); err != nil || len(got) != 41 || got[0] != 10 {
		t.Errorf("%v, %v", got, err)
	}
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := f.await(ctx, 0, func(i int) bool { return i == 1 }); err != nil {
		t.Errorf("what is there already: %v", err)
	}
	if err := f.await(ctx, 0, func(int) bool { return false }); !errors.Is(err, why) {
		t.Errorf("ended by %v", err)
	}
}

func TestTranscript(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	tr := newTranscript(&b)
	tr.heading("Part")
	tr.row("name", "value %d", 7)
	tr.quote("who", "want "+strings.Repeat("ab", 48)+" "+strings.Repeat("word ", 30))
	want := `
Part
  name          value 7
     who: want abababab… word word word word word word word word word word word word word word word word word
       word word word word word word word word word word word word word
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &b, want)
	}
	newTranscript(nil).heading("nobody sees it")
}

func TestBytesText(t *testing.T) {
	t.Parallel()
	for n, want := range map[uint64]string{0: "0 B", 999: "999 B", 1000: "1.0 KiB", 1536: "1.5 KiB", 5 << 20: "5.0 MiB", 3 << 40: "3.0 TiB", 1<<64 - 1: "16777216.0 TiB"} {
		if got := bytesText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestBenchValue(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		better  string
		target  float64
		samples []float64
		met     bool
		want    benchValue
	}{
		"one":    {"lower", 2, []float64{2}, true, benchValue{Value: 2}},
		"median": {"lower", 3, []float64{9, 1, 4, 2, 8}, false, benchValue{Value: 4, Spread: 6}},
		"higher": {"higher", 4, []float64{1, 2, 4, 8, 9}, true, benchValue{Value: 4, Spread: 6}},
	} {
		got := newBenchValue(name, "u", c.better, c.target, c.samples)
		c.want.Name, c.want.Unit, c.want.Better, c.want.Target, c.want.Met = name, "u", c.better, c.target, got.Met
		if got != c.want || got.Met == nil || *got.Met != c.met {
			t.Errorf("%s: got %+v, want %+v, met %v", name, got, c.want, c.met)
		}
	}
	// What was not measured is no pass, in either form.
	none := []benchValue{notMeasured("flwr", "u", "lower", 1, "flwr is not installed")}
	if b, err := json.Marshal(none); err != nil || !strings.Contains(string(b), `"met":null`) || !strings.Contains(string(b), "not installed") {
		t.Errorf("%s, %v", b, err)
	}
	var table strings.Builder
	printBench(&table, none, "f")
	if s := table.String(); !strings.Contains(s, "not measured: flwr is not installed") || strings.Contains(s, "yes") {
		t.Errorf("table: %s", s)
	}
}

func TestFigure(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0.00", 0.0148: "0.015", 0.01: "0.01", 1.0 / 12: "0.083", 0.1: "0.10", 0.995: "0.99", 40: "40.00"} {
		if got := figure(v); got != want {
			t.Errorf("%g: %s, want %s", v, got, want)
		}
	}
}

func TestParseSize(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]int64{"1": 1, "17B": 17, "64MiB": 64 << 20, "4GiB": 4 << 30, "3TiB": 3 << 40, "8KiB": 8 << 10, "400MB": 400e6, "5kB": 5000, "2GB": 2e9} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("%s: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "1Mb", "1KB", "1 MiB", "MiB", "1.5GiB", "9999999999TiB", "1iB"} {
		if n, err := parseSize(s); err == nil {
			t.Errorf("%q is %d bytes", s, n)
		}
	}
}

// TestSynthetic reads the model of "bench stream" as "run start" does.
func TestSynthetic(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "model.npz")
	if err := writeSynthetic(file, 3); err != nil {
		t.Fatal(err)
	}
	a, err := initialArrays(file)
	if err != nil || len(a) != 1 || a[0].Name != "w" || fmt.Sprint(a[0].Array.Shape) != "[3 1024]" || a[0].Array.DType != "float32" {
		t.Errorf("%+v, %v", a, err)
	}
}
