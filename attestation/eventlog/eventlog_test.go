package eventlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

func example() *Log {
	l := New(SHA256, SHA384)
	locality := Event{Type: NoAction, Data: []byte(startupLocality + "\x03"), Digests: [][]byte{make([]byte, 32), make([]byte, 48)}}
	l.Events = append(l.Events, locality)
	l.Extend(0, Separator, make([]byte, 4))
	l.Extend(4, Action, []byte("Calling EFI Application from Boot Option"))
	l.Extend(RTMR(3), Tag, []byte("app"))
	return l
}

// TestGolden freezes the format.
func TestGolden(t *testing.T) {
	t.Parallel()
	const file = "testdata/log.hex"
	b := example().Marshal()
	if *update {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(b) != strings.TrimSpace(string(want)) {
		t.Error("another encoding")
	}
	l, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(l.Marshal(), b) || len(l.Events) != 4 {
		t.Error("no round trip")
	}
	for _, pad := range []byte{0, 0xFF} {
		if l, err := Parse(append(slices.Clone(b), bytes.Repeat([]byte{pad}, 100)...)); err != nil || len(l.Events) != 4 {
			t.Errorf("padding of %02x: %v", pad, err)
		}
	}
}

func TestReplay(t *testing.T) {
	t.Parallel()
	l := example()
	// By hand: locality 3, then the separator.
	d := sha256.Sum256(make([]byte, 4))
	want := sha256.Sum256(append(append(make([]byte, 31), 3), d[:]...))
	got, err := l.Replay(SHA256, 0)
	if err != nil || !bytes.Equal(got, want[:]) {
		t.Errorf("PCR 0 is %x, %v", got, err)
	}
	if got, err := l.Replay(SHA384, 9); err != nil || !bytes.Equal(got, make([]byte, 48)) {
		t.Errorf("untouched register is %x, %v", got, err)
	}
	if _, err := l.Replay(SHA512, 0); err == nil {
		t.Error("a bank that the log lacks was replayed")
	}
	if _, err := New(SHA1).Replay(SHA1, 0); err == nil {
		t.Error("SHA-1 was replayed")
	}
	// A locality that is told after the first event changes nothing.
	l.Events[0], l.Events[1] = l.Events[1], l.Events[0]
	if got, _ := l.Replay(SHA256, 0); bytes.Equal(got, want[:]) {
		t.Error("a late locality counts")
	}
}

func TestIsDataOf(t *testing.T) {
	t.Parallel()
	l := example()
	e := &l.Events[2]
	if !l.IsDataOf(e, SHA256) || !l.IsDataOf(e, SHA384) {
		t.Error("data is not what the digest stands for")
	}
	e.Data = []byte("Calling another application")
	if l.IsDataOf(e, SHA256) {
		t.Error("other data is believed")
	}
	if l.IsDataOf(e, SHA512) || l.IsDataOf(&l.Events[0], SHA256) {
		t.Error("data without a digest of its own is believed")
	}
}

// TestParse changes the golden log and names what must be refused.
func TestParse(t *testing.T) {
	t.Parallel()
	good := example().Marshal()
	const spec = 32 // where the header's data starts
	set := func(at int, v ...byte) []byte {
		b := slices.Clone(good)
		copy(b[at:], v)
		return b
	}
	first := spec + 37 // of the events: 28 and 8 of two algorithms, 1 of vendor information
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"empty":               {nil, "bytes wanted"},
		"padding alone":       {make([]byte, 100), "no header"},
		"header of a PCR":     {set(0, 1), "no header"},
		"header type":         {set(4, 4), "no header"},
		"header digest":       {set(8, 1), "no header"},
		"signature":           {set(spec, 'X'), "signature"},
		"no algorithm":        {set(spec+24, 0), "0 algorithms"},
		"many algorithms":     {set(spec+24, 6), "6 algorithms"},
		"all algorithms":      {set(spec+24, 0xff, 0xff, 0xff, 0xff), "4294967295 algorithms"},
		"unknown algorithm":   {set(spec+28, 0x99), "algorithm 0x0099"},
		"digest size":         {set(spec+30, 20), "digests of 20 bytes"},
		"algorithm twice":     {set(spec+32, 0x0b, 0, 32, 0), "twice"},
		"vendor information":  {set(spec+36, 9), "bytes wanted"},
		"digest count":        {set(first+8, 1), "1 digests"},
		"unlisted algorithm":  {set(first+12, 0x0d), "does not list"},
		"same algorithm":      {set(first+12+34, 0x0b), "two digests"},
		"data size":           {set(first+12+34+50, 0xff, 0xff, 0xff, 0xff), "limit"},
		"data past the end":   {set(first+12+34+50, 0, 0, 1), "bytes wanted"},
		"rubbish at the end":  {append(slices.Clone(good), 1), "bytes wanted"},
		"mixed padding":       {append(slices.Clone(good), 0xff, 0xff, 0xff, 0xff, 0), "bytes wanted"},
		"larger than a log":   {make([]byte, MaxSize+1), "limit"},
		"more events than is": {many(MaxEvents + 1), "more than"},
	} {
		_, err := Parse(c.b)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if l, err := Parse(many(MaxEvents)); err != nil || len(l.Events) != MaxEvents {
		t.Errorf("the largest log: %v", err)
	}
	// Cut anywhere but between events, the log is refused.
	ends := []int{first}
	for i := range example().Events {
		l := example()
		l.Events = l.Events[:i+1]
		ends = append(ends, len(l.Marshal()))
	}
	for n := range good {
		end := 0 // of the last whole event
		for _, e := range ends {
			if e <= n {
				end = e
			}
		}
		// Zeros that a cut leaves of the next event are taken for padding.
		whole := end > 0 && uniform(good[end:n], 0)
		if _, err := Parse(good[:n]); (err == nil) != whole {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

// many returns a log of n small events.
func many(n int) []byte {
	l := New(SHA1)
	b := l.Marshal()
	e := binary.LittleEndian.AppendUint32(nil, 1)
	e = append(e, 4, 0, 0, 0, 1, 0, 0, 0, 4, 0)
	e = append(append(e, make([]byte, 20)...), 0, 0, 0, 0)
	return append(b, bytes.Repeat(e, n)...)
}

// TestBitFlips flips every bit of the log: either it is refused, or it says
// something else, or it is a bit that no digest covers.
func TestBitFlips(t *testing.T) {
	t.Parallel()
	good := example().Marshal()
	for i := range len(good) * 8 {
		b := slices.Clone(good)
		b[i/8] ^= 1 << (i % 8)
		l, err := Parse(b)
		if err == nil && !bytes.Equal(l.Marshal(), b) {
			t.Fatalf("bit %d: two readings of one log", i)
		}
	}
}

// TestVector replays the log of a genuine TDX guest.
func TestVector(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: the event log of a genuine machine was not tested")
	}
	b, err := os.ReadFile(filepath.Join(dir, "tpm", "CCEL_data"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range []string{"2dc712306a963ead", "0fa3be56af61208b"} {
		v, err := l.Replay(SHA384, RTMR(n))
		if err != nil || hex.EncodeToString(v[:8]) != want {
			t.Errorf("RTMR %d is %x, %v, want %s…", n, v, err, want)
		}
	}
	m := l.Marshal()
	if !bytes.Equal(m, b[:len(m)]) || !uniform(b[len(m):], 0) {
		t.Error("no round trip")
	}
	own := 0
	for i := range l.Events {
		if l.IsDataOf(&l.Events[i], SHA384) {
			own++
		}
	}
	if own == 0 || own == len(l.Events) {
		t.Errorf("%d of %d events carry what was measured", own, len(l.Events))
	}
	t.Logf("%d events, %d carry what was measured", len(l.Events), own)
}

func FuzzParse(f *testing.F) {
	f.Add(example().Marshal())
	f.Add(append(example().Marshal(), 0xff, 0xff))
	f.Add(many(3))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(l.Marshal())
		if err != nil || !bytes.Equal(again.Marshal(), l.Marshal()) {
			t.Fatalf("no round trip: %v", err)
		}
		for _, a := range l.Algs {
			v, err := l.Replay(a, 0)
			if (err == nil) != (a.new() != nil) || err == nil && len(v) != a.Size() {
				t.Errorf("replay of %s: %v", a, err)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	log := many(200)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(log); err != nil {
			b.Fatal(err)
		}
	}
}
