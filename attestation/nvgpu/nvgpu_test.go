package nvgpu

import (
	"bytes"
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

var update = flag.Bool("update", false, "rewrite the golden files")

// sample returns a small report of three blocks with every field that is read.
func sample(t testing.TB) *Report {
	t.Helper()
	vbios, err := EncodeVBIOS("96.00.9F.00.01")
	if err != nil {
		t.Fatal(err)
	}
	r := &Report{
		Blocks: []Block{{Index: 1, Type: 1}, {Index: 35, Type: 1, Value: [48]byte{1}}, {Index: 36, Type: 1, Value: [48]byte{2}}},
		Opaque: []Field{
			{FieldVBIOS, vbios},
			{FieldDriver, []byte("550.90.07\x00")},
			{FieldNVDEC0, []byte{NVDEC0Off}},
			{FieldFWID, bytes.Repeat([]byte{7}, 48)},
			{FieldFeatureFlag, []byte{1}},
			{999, nil}, // nobody knows it: kept
		},
	}
	for i := range r.Signature {
		r.Signature[i] = byte(i)
	}
	r.RequestNonce[0], r.ResponseNonce[0] = 0xaa, 0xbb
	return r
}

func marshal(t testing.TB, r *Report) []byte {
	t.Helper()
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGolden(t *testing.T) {
	b := marshal(t, sample(t))
	name := filepath.Join("testdata", "report.hex")
	got := hex.EncodeToString(b) + "\n" + MeasurementsDigest(sample(t)).String() + "\n"
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("bytes or measurements digest changed:\n%s", got)
	}
}

// TestReal reads NVIDIA's own Hopper sample.
func TestReal(t *testing.T) {
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: the real H100 report is not read")
	}
	text, err := os.ReadFile(filepath.Join(dir, "nvidia", "hopperAttestationReport.txt"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(marshal(t, r), raw) {
		t.Error("another encoding")
	}
	driver, err1 := r.Driver()
	vbios, err2 := r.VBIOS()
	_, hasFWID, err3 := r.FWID()
	_, hasFeature, err4 := r.Feature()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	if driver != "550.90.07" || vbios != "96.00.9F.00.01" || !hasFWID || hasFeature || !r.SkipsNVDEC0() || len(r.Blocks) != 64 || len(r.Opaque) != 14 {
		t.Errorf("driver %q, VBIOS %q, FWID %v, feature %v, skips %v, %d blocks, %d fields", driver, vbios, hasFWID, hasFeature, r.SkipsNVDEC0(), len(r.Blocks), len(r.Opaque))
	}
}

func TestRoundTrip(t *testing.T) {
	want := sample(t)
	b := marshal(t, want)
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(marshal(t, got), b) {
		t.Error("another encoding")
	}
	if d, ok := got.Field(999); !ok || len(d) != 0 {
		t.Error("an unknown field was lost")
	}
	if f, ok, err := got.Feature(); f != MultiPassThrough || !ok || err != nil || f.String() != "MPT" {
		t.Errorf("feature %v, %v, %v", f, ok, err)
	}
	signed, err := got.AppendSigned(nil)
	if err != nil || !bytes.Equal(signed, b[:len(b)-SignatureSize]) {
		t.Errorf("signed bytes are not all but the signature: %v", err)
	}
	// The report shares nothing with what it was read from.
	clear(b)
	if again := marshal(t, got); bytes.Equal(again, b) {
		t.Error("the report changed with its source")
	}
}

// at returns where the n-th byte after the response header is.
func at(n int) int { return requestSize + responseHeader + n }

func TestParseRefuses(t *testing.T) {
	good := marshal(t, sample(t))
	opaque := at(3*blockSize + NonceSize)
	for name, change := range map[string]func([]byte) []byte{
		"nothing":            func(b []byte) []byte { return nil },
		"cut":                func(b []byte) []byte { return b[:len(b)-1] },
		"trailing zero":      func(b []byte) []byte { return append(b, 0) },
		"too long":           func(b []byte) []byte { return append(b, make([]byte, MaxReport)...) },
		"request version":    func(b []byte) []byte { b[0] = 0x12; return b },
		"request code":       func(b []byte) []byte { b[1] = 0xE1; return b },
		"unsigned request":   func(b []byte) []byte { b[2] = 0; return b },
		"one measurement":    func(b []byte) []byte { b[3] = 1; return b },
		"slot":               func(b []byte) []byte { b[36] = 1; return b },
		"response version":   func(b []byte) []byte { b[37] = 0x10; return b },
		"error response":     func(b []byte) []byte { b[38] = 0x7F; return b },
		"more blocks":        func(b []byte) []byte { b[41]++; return b },
		"fewer blocks":       func(b []byte) []byte { b[41]--; return b },
		"record length":      func(b []byte) []byte { b[42]++; return b },
		"huge record":        func(b []byte) []byte { b[41], b[42], b[43], b[44] = 255, 0xff, 0xff, 0xff; return b },
		"index 0":            func(b []byte) []byte { b[at(0)] = 0; return b },
		"index twice":        func(b []byte) []byte { b[at(blockSize)] = 1; return b },
		"descending":         func(b []byte) []byte { b[at(0)] = 40; return b },
		"specification":      func(b []byte) []byte { b[at(1)] = 2; return b },
		"block size":         func(b []byte) []byte { b[at(2)]++; return b },
		"value size":         func(b []byte) []byte { b[at(5)]--; return b },
		"opaque length":      func(b []byte) []byte { b[opaque]++; return b },
		"field length":       func(b []byte) []byte { b[opaque+2+2] = 0xff; return b },
		"field type twice":   func(b []byte) []byte { b[opaque+2] = byte(FieldDriver); return b },
		"half a field":       func(b []byte) []byte { return resize(b, opaque, 2) },
		"too many fields":    func(b []byte) []byte { return resize(b, opaque, 4*(maxFields+1)) },
		"response too short": func(b []byte) []byte { return b[:minReport] },
	} {
		if r, err := Parse(change(slices.Clone(good))); !errors.Is(err, ErrFormat) || r != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// resize replaces the opaque data, whose length lies at off, by n bytes of fields
// of their own types and no data.
func resize(b []byte, off, n int) []byte {
	out := binary.LittleEndian.AppendUint16(slices.Clone(b[:off]), uint16(n))
	for i := range n {
		out = append(out, [4]byte{byte(i / 4), byte(i / 4 >> 8), 0, 0}[i%4])
	}
	return append(out, b[len(b)-SignatureSize:]...)
}

func TestMarshalRefuses(t *testing.T) {
	for name, change := range map[string]func(*Report){
		"field twice":     func(r *Report) { r.Opaque = append(r.Opaque, r.Opaque[0]) },
		"field too long":  func(r *Report) { r.Opaque[0].Data = make([]byte, 1<<16) },
		"report too long": func(r *Report) { r.Opaque[0].Data = make([]byte, MaxReport) },
		"too many blocks": func(r *Report) { r.Blocks = make([]Block, 256) },
		"unsorted blocks": func(r *Report) { slices.Reverse(r.Blocks) },
	} {
		r := sample(t)
		change(r)
		if _, err := r.Marshal(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFields(t *testing.T) {
	for name, c := range map[string]struct {
		typ  FieldType
		data []byte
		read func(*Report) error
	}{
		"driver with letters": {FieldDriver, []byte("550.x\x00"), func(r *Report) error { _, err := r.Driver(); return err }},
		"driver of spaces":    {FieldDriver, []byte(" 550.90"), func(r *Report) error { _, err := r.Driver(); return err }},
		"driver, NUL inside":  {FieldDriver, []byte("550\x00.90"), func(r *Report) error { _, err := r.Driver(); return err }},
		"empty driver":        {FieldDriver, []byte("\x00"), func(r *Report) error { _, err := r.Driver(); return err }},
		"short VBIOS":         {FieldVBIOS, make([]byte, 7), func(r *Report) error { _, err := r.VBIOS(); return err }},
		"long VBIOS":          {FieldVBIOS, []byte{0, 0, 0, 0, 0, 0, 0, 1}, func(r *Report) error { _, err := r.VBIOS(); return err }},
		"short FWID":          {FieldFWID, make([]byte, 32), func(r *Report) error { _, _, err := r.FWID(); return err }},
		"no feature":          {FieldFeatureFlag, nil, func(r *Report) error { _, _, err := r.Feature(); return err }},
		"big feature":         {FieldFeatureFlag, []byte{0, 1}, func(r *Report) error { _, _, err := r.Feature(); return err }},
	} {
		r := sample(t)
		for i := range r.Opaque {
			if r.Opaque[i].Type == c.typ {
				r.Opaque[i].Data = c.data
			}
		}
		if c.read(r) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	empty := new(Report)
	if _, err := empty.Driver(); err == nil {
		t.Error("a driver from nowhere")
	}
	if _, err := empty.VBIOS(); err == nil {
		t.Error("a VBIOS from nowhere")
	}
	if _, ok, err := empty.FWID(); ok || err != nil {
		t.Error("a firmware id from nowhere")
	}
}

func TestVersions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"550.90.07", "550.90.7", 0}, {"550.9", "550.90", -1}, {"550.90", "550.90.0.0", 0}, {"551", "550.999", 1}, {"535.104.5", "550", -1},
	} {
		a, err1 := ParseDriver(c.a)
		b, err2 := ParseDriver(c.b)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if got := a.Compare(b); got != c.want || b.Compare(a) != -c.want {
			t.Errorf("%s, %s: %d, want %d", c.a, c.b, got, c.want)
		}
	}
	lo, _ := ParseVBIOS("96.00.9F.00.01")
	hi, _ := ParseVBIOS("96.00.a0.00.00")
	if lo.Compare(hi) != -1 {
		t.Error("hex parts are compared as numbers")
	}
	for _, s := range []string{"", ".", "1.", "1..2", "-1", "+1", "0x1", "1_0", "1.2.3.4.5.6.7.8.9", "4294967296", "00000000001"} {
		if v, err := ParseDriver(s); err == nil {
			t.Errorf("driver %q: %v", s, v)
		}
	}
	for _, s := range []string{"", "100.00", "9g", "96.00.9F.00.-1"} {
		if v, err := ParseVBIOS(s); err == nil {
			t.Errorf("VBIOS %q: %v", s, v)
		}
	}
	if _, err := EncodeVBIOS("96.00"); err == nil {
		t.Error("a VBIOS of two parts was encoded")
	}
}

func TestMeasurementsDigest(t *testing.T) {
	base := MeasurementsDigest(sample(t))
	for name, c := range map[string]struct {
		change func(*Report)
		same   bool
	}{
		"nonce":                     {func(r *Report) { r.RequestNonce[1]++; r.ResponseNonce[1]++; r.Signature[1]++ }, true},
		"decoder's, decoder off":    {func(r *Report) { r.Blocks[2].Value[0]++ }, true},
		"decoder's gone, off":       {func(r *Report) { r.Blocks = r.Blocks[:2] }, true},
		"value":                     {func(r *Report) { r.Blocks[1].Value[47]++ }, false},
		"index":                     {func(r *Report) { r.Blocks[1].Index-- }, false},
		"block gone":                {func(r *Report) { r.Blocks = r.Blocks[1:] }, false},
		"block more":                {func(r *Report) { r.Blocks = append(r.Blocks, Block{Index: 37, Type: 1}) }, false},
		"decoder on":                {func(r *Report) { r.Opaque[2].Data = []byte{NVDEC0On} }, false},
		"decoder unknown":           {func(r *Report) { r.Opaque[2].Data = []byte{0} }, false},
		"decoder off, but two byte": {func(r *Report) { r.Opaque[2].Data = []byte{NVDEC0Off, 0} }, false},
		"decoder not stated":        {func(r *Report) { r.Opaque = r.Opaque[:2] }, false},
	} {
		r := sample(t)
		c.change(r)
		if got := MeasurementsDigest(r); (got == base) != c.same {
			t.Errorf("%s: same digest %v, want %v", name, got == base, c.same)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(marshal(f, sample(f)))
	f.Add(make([]byte, minReport))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		if again, err := r.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("another encoding: %v", err)
		}
		_ = MeasurementsDigest(r)
		if s, err := r.Driver(); err == nil {
			if _, err := ParseDriver(s); err != nil {
				t.Error(err)
			}
		}
		if s, err := r.VBIOS(); err == nil {
			if e, err := EncodeVBIOS(s); err != nil {
				t.Error(err)
			} else if d, _ := r.Field(FieldVBIOS); len(d) == 8 && !bytes.Equal(e, d) {
				t.Errorf("VBIOS %s is %x, not %x", s, e, d)
			}
		}
	})
}
