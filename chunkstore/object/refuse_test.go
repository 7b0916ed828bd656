package object

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// TestOneSpelling changes every byte of every object of a message: what still
// parses must be another object that spells itself, never a second spelling.
func TestOneSpelling(t *testing.T) {
	t.Parallel()
	r := random{rand.New(rand.NewPCG(5, 6))}
	m := r.message()
	m.Content = append(m.Content, RecordItem{"all", ConfigRecord{{"d", Double(1)}, {"l", Sints{1, -1}}, {"é", Strings{"a", ""}}, {"b", Bools{true}}}})
	objs, err := Objects(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objs {
		for i := range o.Raw {
			for _, flip := range []byte{0x01, 0x20, 0x80} {
				raw := bytes.Clone(o.Raw)
				raw[i] ^= flip
				id := Sum(raw)
				n, err := Inflate(id, func(want ID) ([]byte, error) {
					if want == id {
						return raw, nil
					}
					return lookup(objs)(want)
				}, roomy)
				if err != nil {
					continue
				}
				again, err := Objects(n)
				if err != nil || !bytes.Equal(again[len(again)-1].Raw, raw) {
					t.Fatalf("%v with byte %d changed by %#x is read and spelled otherwise: %v", o.Kind, i, flip, err)
				}
			}
		}
	}
}

func TestParseHeadRefuses(t *testing.T) {
	t.Parallel()
	id, other := strings.Repeat("a", 64), strings.Repeat("b", 64)
	for _, raw := range []string{
		"", "Array", "Array ", "Array  ", "Array  0", "Array  0\x00x", "Array  1\x00", "Array  00\x00", "Array  +0\x00", "Array  -0\x00", "Array  01\x00x",
		"array  0\x00", "None  0\x00", "none  0\x00", "Thing  0\x00", " 0\x00", "Array 0\x00", "Array   0\x00",
		"Array " + id[1:] + " 0\x00", "Array " + id + ", 0\x00", "Array " + id + "," + id + " 0\x00", "Array " + id + ";" + other + " 0\x00",
		"Array " + strings.ToUpper(id) + " 0\x00", "Array " + id + "," + other[1:] + " 0\x00", "Array " + id + "  0\x00",
		"ArrayChunk " + id + " 0\x00", "ConfigRecord " + id + " 0\x00", "MetricRecord " + id + " 0\x00", "Message " + id + "," + other + " 0\x00",
		"Array  99999999999999999999\x00", "Array " + id + "\x00 0\x00",
		"RecordDict  16777216\x00" + strings.Repeat("x", 16777216),
		"ArrayChunk  67108864\x00" + strings.Repeat("x", 67108864),
	} {
		if h, err := ParseHead([]byte(raw)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.100q is accepted as %v (%v)", raw, h.Kind, err)
		}
	}
	for _, raw := range []string{"ArrayChunk  0\x00", "Array " + id + "," + other + " 2\x00\x00\x00"} {
		if _, err := ParseHead([]byte(raw)); err != nil {
			t.Errorf("%.100q: %v", raw, err)
		}
	}
}

// TestBodyRefuses serves single objects whose heads are right and whose bodies
// are not.
func TestBodyRefuses(t *testing.T) {
	t.Parallel()
	chunk := Head{Kind: KindArrayChunk, Body: []byte("x")}.encode()
	chunk2 := Head{Kind: KindArrayChunk, Body: []byte("y")}.encode()
	c1, c2 := Sum(chunk), Sum(chunk2)
	empty := Head{Kind: KindRecordDict, Body: []byte("{}")}.encode()
	rec := Head{Kind: KindConfigRecord}.encode()
	known := map[ID][]byte{c1: chunk, c2: chunk2, Sum(empty): empty, Sum(rec): rec}
	array := func(shape, refs string) []byte {
		return []byte(`{"dtype": "f", "shape": [` + shape + `], "stype": "s", "arraychunk_ids": [` + refs + `]}`)
	}
	e, r := Sum(empty).String(), Sum(rec).String()
	for name, h := range map[string]Head{
		"chunk refers past the list":   {KindArray, []ID{c1}, array("1", "0, 1")},
		"chunk is not used":            {KindArray, []ID{c1, c2}, array("1", "0")},
		"chunks out of order":          {KindArray, []ID{c1, c2}, array("1", "1, 0")},
		"negative dimension":           {KindArray, []ID{c1}, array("-1", "0")},
		"leading zero":                 {KindArray, []ID{c1}, array("01", "0")},
		"float dimension":              {KindArray, []ID{c1}, array("1.0", "0")},
		"huge dimension":               {KindArray, []ID{c1}, array("9223372036854775808", "0")},
		"too many dimensions":          {KindArray, []ID{c1}, array(strings.Repeat("1, ", 64)+"1", "0")},
		"no space":                     {KindArray, []ID{c1}, array("1,1", "0")},
		"trailing newline":             {KindArray, []ID{c1}, append(array("1", "0"), '\n')},
		"a record as chunk":            {KindArray, []ID{Sum(rec)}, array("1", "0")},
		"dict in dict":                 {KindRecordDict, []ID{Sum(empty)}, []byte(`{"a": "` + e + `"}`)},
		"record in array record":       {KindArrayRecord, []ID{Sum(rec)}, []byte(`{"a": "` + r + `"}`)},
		"head lists less":              {KindRecordDict, nil, []byte(`{"a": "` + r + `"}`)},
		"head lists more":              {KindRecordDict, []ID{Sum(rec), Sum(empty)}, []byte(`{"a": "` + r + `"}`)},
		"name twice":                   {KindRecordDict, []ID{Sum(rec)}, []byte(`{"a": "` + r + `", "a": "` + r + `"}`)},
		"raw UTF-8":                    {KindRecordDict, []ID{Sum(rec)}, []byte(`{"é": "` + r + `"}`)},
		"needless escape":              {KindRecordDict, []ID{Sum(rec)}, []byte(`{"\u0061": "` + r + `"}`)},
		"upper-case escape":            {KindRecordDict, []ID{Sum(rec)}, []byte(`{"\u00E9": "` + r + `"}`)},
		"lone surrogate":               {KindRecordDict, []ID{Sum(rec)}, []byte(`{"\ud800": "` + r + `"}`)},
		"surrogates swapped":           {KindRecordDict, []ID{Sum(rec)}, []byte(`{"\udc00\ud800": "` + r + `"}`)},
		"unterminated":                 {KindRecordDict, nil, []byte(`{"`)},
		"trailing comma":               {KindRecordDict, []ID{Sum(rec)}, []byte(`{"a": "` + r + `", }`)},
		"config field 7":               {KindConfigRecord, nil, []byte("\x0a\x06\x0a\x01a\x12\x02\x38\x01")},
		"config without value":         {KindConfigRecord, nil, []byte("\x0a\x03\x0a\x01a")},
		"config with two values":       {KindConfigRecord, nil, []byte("\x0a\x09\x0a\x01a\x12\x04\x10\x02\x10\x02")},
		"config key twice":             {KindConfigRecord, nil, []byte("\x0a\x07\x0a\x01a\x12\x02\x10\x02\x0a\x07\x0a\x01a\x12\x02\x10\x02")},
		"config bool of two":           {KindConfigRecord, nil, []byte("\x0a\x07\x0a\x01a\x12\x02\x20\x02")},
		"config long varint":           {KindConfigRecord, nil, []byte("\x0a\x08\x0a\x01a\x12\x03\x10\x82\x00")},
		"config text is not UTF-8":     {KindConfigRecord, nil, []byte("\x0a\x08\x0a\x01a\x12\x03\x2a\x01\xff")},
		"config unpacked list":         {KindConfigRecord, nil, []byte("\x0a\x0a\x0a\x01a\x12\x05\xb2\x01\x02\x08\x02")},
		"config truncated":             {KindConfigRecord, nil, []byte("\x0a\x07\x0a\x01a\x12\x02\x10")},
		"metric text":                  {KindMetricRecord, nil, []byte("\x0a\x08\x0a\x01a\x12\x03\x2a\x01x")},
		"message of nothing":           {KindMessage, nil, []byte("\x0a\x00")},
		"message with both":            {KindMessage, []ID{Sum(empty)}, []byte("\x0a\x00\x1a\x00")},
		"message with its own id":      {KindMessage, []ID{Sum(empty)}, []byte("\x0a\x03\x12\x01x")},
		"message with content inside":  {KindMessage, []ID{Sum(empty)}, []byte("\x0a\x00\x12\x00")},
		"message with unknown field":   {KindMessage, []ID{Sum(empty)}, []byte("\x0a\x02\x60\x01")},
		"message with a zero spelled":  {KindMessage, []ID{Sum(empty)}, []byte("\x0a\x02\x08\x00")},
		"message with fields reversed": {KindMessage, []ID{Sum(empty)}, []byte("\x0a\x04\x18\x01\x08\x01")},
		"message of a record":          {KindMessage, []ID{Sum(rec)}, []byte("\x0a\x00")},
	} {
		raw := h.encode()
		n, err := Inflate(Sum(raw), func(id ID) ([]byte, error) {
			if id == Sum(raw) {
				return raw, nil
			}
			if b, ok := known[id]; ok {
				return b, nil
			}
			return nil, errors.New("asked for an unknown object")
		}, roomy)
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, %v, want ErrInvalid", name, n, err)
		}
	}
}

func TestInflateRefuses(t *testing.T) {
	t.Parallel()
	objs, err := Objects(workedMessage(t))
	if err != nil {
		t.Fatal(err)
	}
	root := objs[4].ID
	total := 0
	for _, o := range objs {
		total += len(o.Raw)
	}
	if _, err := Inflate(root, lookup(objs), Limits{Objects: 5, Bytes: int64(total)}); err != nil {
		t.Errorf("at the limits: %v", err)
	}
	if _, err := Inflate(root, lookup(objs), Limits{Objects: 4, Bytes: int64(total)}); !errors.Is(err, ErrInvalid) {
		t.Errorf("one object too many: %v", err)
	}
	if _, err := Inflate(root, lookup(objs), Limits{Objects: 5, Bytes: int64(total) - 1}); !errors.Is(err, ErrInvalid) {
		t.Errorf("one byte too many: %v", err)
	}
	if _, err := Inflate(root, lookup(objs), Limits{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no limits set: %v", err)
	}
	if _, err := Inflate(objs[0].ID, lookup(objs), roomy); !errors.Is(err, ErrInvalid) {
		t.Errorf("a chunk as root: %v", err)
	}
	if _, err := Inflate(root, lookup(objs[1:]), roomy); err == nil || errors.Is(err, ErrInvalid) {
		t.Errorf("a missing object is the lookup's error, got %v", err)
	}
	wrong := func(id ID) ([]byte, error) { return objs[3].Raw, nil }
	if _, err := Inflate(root, wrong, roomy); !errors.Is(err, ErrInvalid) {
		t.Errorf("bytes of another object: %v", err)
	}
}

// TestInflateBomb: few objects that name each other often must not pass for a
// small message.
func TestInflateBomb(t *testing.T) {
	t.Parallel()
	a := &Array{SType: "x", Chunks: make([]Chunk, 1000)}
	for i := range a.Chunks {
		a.Chunks[i].Data = make([]byte, 1000)
	}
	var rec ArrayRecord
	for i := range 50 {
		rec = append(rec, ArrayItem{string(rune('a' + i)), a})
	}
	objs, err := Objects(&Message{Content: RecordDict{{"a", rec}, {"b", rec}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(objs) != 5 {
		t.Fatalf("%d objects, want 5", len(objs))
	}
	if _, err := Inflate(objs[4].ID, lookup(objs), Limits{Objects: 10, Bytes: 100e6}); !errors.Is(err, ErrInvalid) {
		t.Fatalf("100 MB in %d small objects: %v, want ErrInvalid", len(objs), err)
	}
	if _, err := Inflate(objs[4].ID, lookup(objs), Limits{Objects: 10, Bytes: 110e6}); err != nil {
		t.Fatal(err)
	}
}

func TestFlattenRefuses(t *testing.T) {
	t.Parallel()
	type other struct{ ConfigRecord }
	for name, n := range map[string]Node{
		"nil message":          (*Message)(nil),
		"neither":              &Message{},
		"both":                 &Message{Content: RecordDict{}, Error: &Error{}},
		"name twice":           RecordDict{{"a", ConfigRecord{}}, {"a", MetricRecord{}}},
		"key twice":            ConfigRecord{{"a", Sint(1)}, {"a", Sint(2)}},
		"no record":            RecordDict{{"a", nil}},
		"no array":             ArrayRecord{{"a", nil}},
		"no value":             ConfigRecord{{"a", nil}},
		"text metric":          MetricRecord{{"a", String("x")}},
		"bool metric":          MetricRecord{{"a", Bool(true)}},
		"name is not UTF-8":    ArrayRecord{{"\xff", &Array{}}},
		"text is not UTF-8":    ConfigRecord{{"a", Strings{"\xff"}}},
		"type is not UTF-8":    &Message{Metadata: Metadata{Type: "\xff"}, Content: RecordDict{}},
		"reason is not UTF-8":  &Message{Error: &Error{Reason: "\xff"}},
		"negative dimension":   &Array{Shape: []int{-1}},
		"chunk without data":   &Array{Chunks: []Chunk{{}}},
		"chunk over the limit": &Array{Chunks: []Chunk{{Data: make([]byte, MaxSize)}}},
		"not an object":        other{},
	} {
		if _, err := Objects(n); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	stop := errors.New("stop")
	if _, err := Flatten(RecordDict{}, func(Object) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("emit's error: got %v", err)
	}
}

func TestNPYRefuses(t *testing.T) {
	t.Parallel()
	wrap := func(dict string) []byte {
		return append([]byte{0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, byte(len(dict)), 0}, dict...)
	}
	for _, ok := range []string{
		"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }  \n", "{\"shape\":(), 'descr':'|b1','fortran_order':True}",
		"{'descr': '<U3', 'fortran_order': False, 'shape': (3,), }", "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807), }",
	} {
		if _, err := ParseNPY(wrap(ok)); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"", "{}", "{'descr': '<f4'}", "{'descr': '<f4', 'fortran_order': 0, 'shape': ()}", "{'descr': '<f4', 'fortran_order': False, 'shape': (2)}",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", "{'descr': '<f4', 'fortran_order': False, 'shape': [2]}",
		"{'descr': '|O', 'fortran_order': False, 'shape': ()}", "{'descr': '|O8', 'fortran_order': False, 'shape': ()}",
		"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': ()}", "{'descr': '<f99', 'fortran_order': False, 'shape': ()}",
		"{'descr': '<f4', 'fortran_order': False, 'shape': (), 'x': 1}", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}",
		"{'descr': '<f4', 'fortran_order': False, 'shape': ()} x", "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
		"{'descr': '<f8', 'fortran_order': False, 'shape': (2305843009213693952,)}", "{'descr': '<f\\x34', 'fortran_order': False, 'shape': ()}",
	} {
		if h, err := ParseNPY(wrap(bad)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q is read as %+v, %v", bad, h, err)
		}
	}
	good := NPY{Descr: "<f4", Shape: []int{2}}.Append(nil)
	fault := errors.New("fault")
	for n := range good {
		if _, err := ParseNPY(good[:n]); !errors.Is(err, ErrInvalid) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
		if _, err := ReadNPY(bytes.NewReader(good[:n])); !errors.Is(err, ErrInvalid) {
			t.Errorf("read and cut to %d bytes: %v", n, err)
		}
		if _, err := ReadNPY(io.MultiReader(bytes.NewReader(good[:n]), iotest.ErrReader(fault))); !errors.Is(err, fault) {
			t.Errorf("a fault after %d bytes: %v", n, err)
		}
	}
	for _, v := range []NPY{{Descr: "<f4", Shape: []int{3}}, {Descr: ">f4", Shape: []int{2}}, {Descr: "|f4", Shape: []int{2}}, {Descr: "<S4", Shape: []int{2}},
		{Descr: "<f4", Shape: []int{-2}}, {Descr: "", Shape: []int{2}}, {Descr: "<f4", Shape: []int{math.MaxInt, 2}}} {
		if _, err := NewArray(v, make([]byte, 8)); !errors.Is(err, ErrInvalid) {
			t.Errorf("NewArray(%+v): %v", v, err)
		}
	}
}

// TestNPYForms reads what numpy wrote: versions 2.0 and 3.0, Fortran order, big
// endian.
func TestNPYForms(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		raw  string
		want NPY
	}{
		{"\x93NUMPY\x02\x00\x74\x00\x00\x00{'descr': '>f4', 'fortran_order': True, 'shape': (3, 1), }" + strings.Repeat(" ", 57) + "\n", NPY{">f4", true, []int{3, 1}, 128}},
		{"\x93NUMPY\x03\x00\x74\x00\x00\x00{'descr': '<f2', 'fortran_order': False, 'shape': (), }" + strings.Repeat(" ", 60) + "\n", NPY{"<f2", false, []int{}, 128}},
	} {
		if read, err := ReadNPY(strings.NewReader(v.raw + "data")); err != nil || read.HeaderSize != v.want.HeaderSize {
			t.Errorf("read as %+v, %v", read, err)
		}
		got, err := ParseNPY([]byte(v.raw + "data"))
		if err != nil {
			t.Fatal(err)
		}
		if got.Descr != v.want.Descr || got.Fortran != v.want.Fortran || len(got.Shape) != len(v.want.Shape) || got.HeaderSize != v.want.HeaderSize {
			t.Errorf("got %+v, want %+v", got, v.want)
		}
	}
	if _, err := ParseNPY([]byte("\x93NUMPY\x04\x00\x02\x00\x00\x00{}")); !errors.Is(err, ErrInvalid) {
		t.Errorf("version 4.0: %v", err)
	}
	if _, err := ParseNPY([]byte("\x93NUMPY\x02\x00\xff\xff\xff\xff{}")); !errors.Is(err, ErrInvalid) {
		t.Errorf("header of 4 GiB: %v", err)
	}
}
