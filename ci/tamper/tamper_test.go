package tamper

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEach lists what is done to each sort of value.
func TestEach(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, raw string
		want      []string // path: result
	}{
		{"number", "05", []string{" flip: 04"}},
		{"negative", "24", []string{" flip: 25"}},
		{"one byte more", "1818", []string{" flip: 1819"}},
		{"number that gets shorter", "18 18", []string{" flip: 1819"}},
		{"boolean", "f4", []string{" flip: f5"}},
		{"float", "f9 3c00", []string{" flip: f93c01"}},
		{"text", "61 61", []string{" flip: 6160", " cut: 60", " longer: 626130"}},
		{"text that has no ASCII", "62 c3a4", []string{" cut: 60", " longer: 63c3a430"}},
		{"empty text", "60", []string{" longer: 6130"}},
		{"empty bytes", "40", []string{" longer: 4130"}},
		{"bytes", "42 0102", []string{" flip: 420103", " cut: 4101", " longer: 43010230"}},
		{"array", "82 01 02", []string{
			"[0] drop: 8102", "[0] twice: 83010102", "[0] swap: 820201", "[1] drop: 8101", "[1] twice: 83010202", "[0] flip: 820002", "[1] flip: 820103",
		}},
		{"equal elements", "82 01 01", []string{
			"[0] drop: 8101", "[0] twice: 83010101", "[1] drop: 8101", "[1] twice: 83010101", "[0] flip: 820001", "[1] flip: 820100",
		}},
		{"map", "a2 01 f4 02 f5", []string{
			"{1} drop: a102f5", "{1} twice: a301f401f402f5", "{1} swap: a202f501f4", "{2} drop: a101f4", "{2} twice: a301f402f502f5",
			"{1} swap values: a201f502f4", "{1}key flip: a200f402f5", "{1} flip: a201f502f5", "{2}key flip: a201f403f5", "{2} flip: a201f402f4",
		}},
		{"a changed key keeps the order", "a2 03 f4 04 f4", []string{
			"{3} drop: a104f4", "{3} twice: a303f403f404f4", "{3} swap: a204f403f4", "{4} drop: a103f4", "{4} twice: a303f404f404f4",
			"{3}key flip: a202f404f4", "{3} flip: a203f504f4", "{4}key flip: a203f405f4", "{4} flip: a203f404f5",
		}},
		{"tag", "d2 00", []string{" flip: d300", " untag: 00", "(18) flip: d201"}},
		{"CBOR in a byte string", "42 81 00", []string{
			" flip: 428101", " cut: 4181", " longer: 43810030", "<>[0] drop: 4180", "<>[0] twice: 43820000", "<>[0] flip: 428101",
		}},
		{"lengths follow", "41 a0", []string{" flip: 41a1", " cut: 40", " longer: 42a030"}},
	} {
		var got []string
		Each(unhex(t, c.raw), func(path string, mutated []byte) { got = append(got, path+": "+hex.EncodeToString(mutated)) })
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

// TestEachPanics: what cannot be walked must not pass as walked.
func TestEachPanics(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string][]byte{
		"nothing":           nil,
		"two items":         {0, 0},
		"cut":               {0x82, 0},
		"longer head":       {0x18, 0x17},
		"indefinite length": {0x9f, 0xff},
		"unordered map":     {0xa2, 2, 0, 1, 0},
		"key twice":         {0xa2, 1, 0, 1, 0},
		"not UTF-8":         {0x61, 0xff},
		"huge array":        {0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"huge map":          {0xbb, 0x80, 0, 0, 0, 0, 0, 0, 0},
		"huge string":       {0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"nested":            append(bytes.Repeat([]byte{0x81}, maxDepth+1), 0),
		"too large":         make([]byte, maxBytes+1),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			Each(raw, func(string, []byte) {})
		}()
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"05", "3903e7", "f97e00", "60", "82 01 61 61", "a2 01 f4 02 f5", "d2 84 43 a1 01 26 a0 f6 40", "42 81 00", "1b 0000000100000000"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		it, err := parse(b, 0)
		if err != nil {
			return
		}
		if got := it.append(nil); !bytes.Equal(got, b) {
			t.Fatalf("%x encodes to %x", b, got)
		}
		if len(b) > 1<<10 {
			return // the walk is quadratic
		}
		Each(b, func(path string, mutated []byte) {
			if bytes.Equal(mutated, b) {
				t.Errorf("%q changes nothing", path)
			}
		})
	})
}
