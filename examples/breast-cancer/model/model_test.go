package model

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/concordat/concordat/examples/breast-cancer/data"
)

func hospitals(t testing.TB) (train, held [][]Row) {
	t.Helper()
	hs, err := Hospitals(data.CSV)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hs {
		rows, err := Read(bytes.NewReader(h.CSV))
		if err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		a, b := Split(rows)
		t.Logf("%s: %d malignant, %d benign; trains on %d, holds out %d", h.Name, h.Malignant, h.Benign, len(a), len(b))
		train, held = append(train, a), append(held, b)
	}
	return train, held
}

// The claim of the example: ten federated rounds end within one point of
// training on all data in one place.
func TestFederatedIsWithinOnePoint(t *testing.T) {
	train, held := hospitals(t)
	c := DefaultConfig
	var central Model
	var all, allHeld []Row
	for k := range train {
		all, allHeld = append(all, train[k]...), append(allHeld, held[k]...)
	}
	const rounds = 10
	central.Train(all, Config{Epochs: rounds * c.Epochs, Rate: c.Rate, Decay: c.Decay})
	cLoss, cAcc := central.Evaluate(allHeld)

	var global Model
	for range rounds {
		var next Model
		for _, rows := range train {
			m := global
			m.Train(rows, c)
			w := float64(len(rows)) / float64(len(all))
			for j := range next.Weights {
				next.Weights[j] += w * m.Weights[j]
			}
			next.Bias += w * m.Bias
		}
		global = next
	}
	fLoss, fAcc := global.Evaluate(allHeld)
	t.Logf("%+v: central %.4f (loss %.4f), federated %.4f (loss %.4f), held out %d", c, cAcc, cLoss, fAcc, fLoss, len(allHeld))
	if cAcc < 0.95 {
		t.Errorf("central accuracy %.4f, want at least 0.95", cAcc)
	}
	if math.Abs(cAcc-fAcc) > 0.01 {
		t.Errorf("federated accuracy %.4f, central %.4f: more than one point apart", fAcc, cAcc)
	}
}

func TestHospitalsPartition(t *testing.T) {
	hs, err := Hospitals(data.CSV)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	_, body, _ := strings.Cut(strings.TrimSpace(string(data.CSV)), "\n")
	for l := range strings.SplitSeq(body, "\n") {
		seen[strings.TrimSpace(l)]++
	}
	sizes := map[int]bool{}
	for _, h := range hs {
		_, body, _ := strings.Cut(strings.TrimSpace(string(h.CSV)), "\n")
		lines := strings.Split(body, "\n")
		sizes[len(lines)] = true
		for _, l := range lines {
			seen[l]--
		}
		if len(lines) != h.Malignant+h.Benign {
			t.Errorf("%s: %d rows, says %d malignant and %d benign", h.Name, len(lines), h.Malignant, h.Benign)
		}
	}
	for l, n := range seen {
		if n != 0 {
			t.Errorf("row %.40q: %+d times too few", l, n)
		}
	}
	if len(sizes) != len(hs) {
		t.Errorf("parts of equal size: %v", sizes)
	}
}

// The constants of the app are those of the data that it is published with.
func TestRangesCoverTheData(t *testing.T) {
	rows, err := Read(bytes.NewReader(data.CSV))
	if err != nil {
		t.Fatal(err)
	}
	for j := range Features {
		lo, hi := math.Inf(1), math.Inf(-1)
		for _, r := range rows {
			lo, hi = min(lo, r.X[j]), max(hi, r.X[j])
		}
		if math.Abs(lo+1) > 0.1 || math.Abs(hi-1) > 0.1 {
			t.Errorf("feature %d scales to [%.3f, %.3f], want about [-1, 1]", j, lo, hi)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	good := strings.Repeat("1,", Features)
	for name, in := range map[string]string{
		"nothing":         "",
		"other head":      "1,29,a,b\n",
		"negative":        "-1,30,a,b\n",
		"huge":            "99999999,30,a,b\n",
		"too few rows":    "2,30,a,b\n" + good + "0\n",
		"too many rows":   "0,30,a,b\n" + good + "0\n",
		"too few values":  "1,30,a,b\n1,2,0\n",
		"no number":       "1,30,a,b\n" + strings.Replace(good, "1", "x", 1) + "0\n",
		"infinite":        "1,30,a,b\n" + strings.Replace(good, "1", "Inf", 1) + "0\n",
		"third class":     "1,30,a,b\n" + good + "2\n",
		"a line too long": "1,30,a,b\n" + strings.Repeat("1", maxLine+1),
	} {
		if _, err := Read(strings.NewReader(in)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if rows, err := Read(strings.NewReader("1,30,a,b\n" + good + "1\n")); err != nil || len(rows) != 1 || !rows[0].Benign {
		t.Errorf("good file: %v, %v", rows, err)
	}
}

func TestTrainIsDeterministic(t *testing.T) {
	train, _ := hospitals(t)
	var a, b Model
	a.Train(train[0], DefaultConfig)
	b.Train(train[0], DefaultConfig)
	if a != b || a == (Model{}) {
		t.Errorf("two trainings differ, or nothing was learnt: %v", fmt.Sprint(a == b))
	}
}

func FuzzRead(f *testing.F) {
	f.Add(data.CSV[:600])
	f.Add([]byte("1,30,a,b\n" + strings.Repeat("1,", Features) + "1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		for _, r := range rows {
			for _, x := range r.X {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					t.Fatalf("read %v", x)
				}
			}
		}
	})
}
