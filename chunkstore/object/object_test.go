package object

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// The vectors below were computed by flwr 1.28 itself.
const (
	chunkID   = "0bd55c552a4d962cf4398ecd7b71d1a05377410b9b904603b85f1760b8928530"
	arrayID   = "9a6df3451aa0b992591a9034c8bd92ed282fdd133b06f879662523e78df61e38"
	recordID  = "c4af0da254aa53a2c081a07f76a6c926065e8139d826103ba13dfa0619d4ff5e"
	dictID    = "af5f3d6df052c836dad3ea4c037641b24c79fb22fd7d4dd03f9826c0345cb493"
	messageID = "451219a77cd58577c63396ab293b569b13788528b128dff1981dfcf3dc893563"
)

func workedArray(t *testing.T) *Array {
	t.Helper()
	data, _ := hex.DecodeString("0000803f000000400000404000008040")
	a, err := NewArray(NPY{Descr: "<f4", Shape: []int{2, 2}}, data)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func workedMessage(t *testing.T) *Message {
	return &Message{
		Metadata: Metadata{RunID: 7, SrcNode: 1, DstNode: 42, Group: "1", TTL: 43200, Type: "train", CreatedAt: 1750000000},
		Content:  RecordDict{{"arrays", ArrayRecord{{"0", workedArray(t)}}}},
	}
}

func TestWorkedExample(t *testing.T) {
	t.Parallel()
	objs, err := Objects(workedMessage(t))
	if err != nil {
		t.Fatal(err)
	}
	npy := "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }" + strings.Repeat(" ", 58) + "\n"
	data, _ := hex.DecodeString("0000803f000000400000404000008040")
	message, _ := hex.DecodeString("4d65737361676520" + hex.EncodeToString([]byte(dictID)) + "20333600" +
		"0a2208071801202a32013139000000000018e5404205747261696e4900000060b813da41")
	want := []struct {
		kind Kind
		id   string
		raw  string
	}{
		{KindArrayChunk, chunkID, "ArrayChunk  144\x00" + npy + string(data)},
		{KindArray, arrayID, "Array " + chunkID + " 86\x00" + `{"dtype": "float32", "shape": [2, 2], "stype": "numpy.ndarray", "arraychunk_ids": [0]}`},
		{KindArrayRecord, recordID, "ArrayRecord " + arrayID + " 73\x00" + `{"0": "` + arrayID + `"}`},
		{KindRecordDict, dictID, "RecordDict " + recordID + " 78\x00" + `{"arrays": "` + recordID + `"}`},
		{KindMessage, messageID, string(message)},
	}
	if len(objs) != len(want) {
		t.Fatalf("%d objects, want %d", len(objs), len(want))
	}
	for i, w := range want {
		if o := objs[i]; o.Kind != w.kind || o.ID.String() != w.id || string(o.Raw) != w.raw {
			t.Errorf("object %d: %v %v\n got %q\nwant %q (%s)", i, o.Kind, o.ID, o.Raw, w.raw, w.id)
		}
	}
}

func TestVectors(t *testing.T) {
	t.Parallel()
	zeros, err := NewArray(NPY{Descr: "<f4", Shape: []int{4194304}}, make([]byte, 16<<20))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []struct {
		name string
		node Node
		id   string // "" where only the bytes are published
		raw  string // its start, in hex if it starts with "0x"
		body string // hex
	}{
		{name: "ConfigRecord", node: ConfigRecord{{"lr", Double(0.5)}, {"server-round", Sint(1)}, {"flag", Bool(true)}, {"name", String("x")},
			{"b", Bytes{1}}, {"l", Sints{1, 2}}, {"e", Bools{}}},
			id: "0014f88e05a9ad7f773edc59b397ab949ad996de93ff126577c4040e4d954f26", raw: "ConfigRecord  96\x00",
			body: "0a0f0a026c72120909000000000000e03f" + "0a120a0c7365727665722d726f756e6412021002" + "0a0a0a04666c616712022001" + "0a0b0a046e616d6512032a0178" +
				"0a080a01621203320101" + "0a0c0a016c1207b201040a020204" + "0a080a01651203c20100"},
		{name: "MetricRecord", node: MetricRecord{{"num-examples", Sint(10)}, {"loss", Double(0.25)}, {"big", Uint(1 << 63)}, {"neg", Sint(-1)}, {"lst", Doubles{0.5, 1.5}}},
			id: "905691fd7ce1f367c085333402481b994d9e0246381ea1e0d8fe0afee0d09aa7", raw: "MetricRecord  100\x00",
			body: "0a120a0c6e756d2d6578616d706c657312021014" + "0a110a046c6f7373120909000000000000d03f" + "0a120a03626967120b1880808080808080808001" +
				"0a090a036e656712021001" + "0a1c0a036c73741215aa01120a10000000000000e03f000000000000f83f"},
		{name: "error reply", node: &Message{Metadata: Metadata{RunID: 7, SrcNode: 42, DstNode: 1, ReplyTo: messageID, Group: "1", TTL: 43198.5, Type: "train", CreatedAt: 1750000001.5},
			Error: &Error{2, "boom"}},
			id: "ed7d43f04713632d89366fffcb87e3a6e335819ff62cc76d88cdf4856e4f8972", raw: "Message  112\x00",
			body: "0a640807182a20012a40" + hex.EncodeToString([]byte(messageID)) + "3201313900000000d017e5404205747261696e4900006060b813da41" + "1a0808041204626f6f6d"},
		{name: "empty RecordDict", node: RecordDict{}, raw: "RecordDict  2\x00{}"},
		{name: "empty ArrayRecord", node: ArrayRecord{}, raw: "ArrayRecord  2\x00{}"},
		{name: "empty ConfigRecord", node: ConfigRecord{}, raw: "ConfigRecord  0\x00"},
		{name: "empty MetricRecord", node: MetricRecord{}, raw: "MetricRecord  0\x00"},
		{name: "16 MiB of zeros", node: zeros, raw: "Array b361753c"},
		{name: "non-ASCII key", node: ArrayRecord{{"é/x", workedArray(t)}}, raw: "ArrayRecord " + arrayID + " 80\x00" + `{"\u00e9/x": "` + arrayID + `"}`},
	} {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			objs, err := Objects(v.node)
			if err != nil {
				t.Fatal(err)
			}
			o := objs[len(objs)-1]
			if v.id != "" && o.ID.String() != v.id {
				t.Errorf("id %v, want %s", o.ID, v.id)
			}
			if !strings.HasPrefix(string(o.Raw), v.raw) {
				t.Errorf("object %.120q, want %q…", o.Raw, v.raw)
			}
			h, err := ParseHead(o.Raw)
			if err != nil {
				t.Fatal(err)
			}
			if v.body != "" && hex.EncodeToString(h.Body) != v.body {
				t.Errorf("body\n got %x\nwant %s", h.Body, v.body)
			}
		})
	}
	objs, err := Objects(zeros)
	if err != nil {
		t.Fatal(err)
	}
	var starts []string
	for _, o := range objs[:3] {
		starts = append(starts, o.ID.String()[:8])
	}
	if got := strings.Join(starts, ","); got != "b361753c,312ec6f2,d8e98200" || !strings.HasSuffix(string(objs[3].Raw), `"arraychunk_ids": [0, 1, 1, 2]}`) {
		t.Errorf("16 MiB of zeros: chunks %s, array …%s", got, objs[3].Raw[len(objs[3].Raw)-40:])
	}
	sizes := []int{5242880, 5242880, 5242880, 1048704}
	for i, c := range zeros.Chunks {
		if len(c.Data) != sizes[i] {
			t.Errorf("chunk %d has %d bytes, want %d", i, len(c.Data), sizes[i])
		}
	}
}

// lookup serves the objects of a list.
func lookup(objs []Object) func(ID) ([]byte, error) {
	m := make(map[ID][]byte, len(objs))
	for _, o := range objs {
		m[o.ID] = o.Raw
	}
	return func(id ID) ([]byte, error) {
		if raw, ok := m[id]; ok {
			return raw, nil
		}
		return nil, errors.New("no such object")
	}
}

var roomy = Limits{Objects: 1000, Bytes: 64 << 20}

// random makes messages with every type of value, names that need escapes, and
// parts that occur twice.
type random struct{ *rand.Rand }

func (r random) name() string {
	return []string{"w", "conv.1/é", "日本", "𝔘\n\t\"\\\x7f\x00\x1f\b\f\r", "/"}[r.IntN(5)] + string(rune('a'+r.IntN(26)))
}

func (r random) value(metric bool) Value {
	n := 12
	if metric {
		n = 6
	}
	switch r.IntN(n) {
	case 0:
		return Double(math.Float64frombits(r.Uint64()))
	case 1:
		return Sint(r.Int64() - r.Int64())
	case 2:
		return Uint(r.Uint64())
	case 3:
		return Doubles{1, math.NaN(), math.Copysign(0, -1)}[:r.IntN(4)]
	case 4:
		return Sints{math.MinInt64, -1, 0, math.MaxInt64}[:r.IntN(5)]
	case 5:
		return Uints{0, 1, math.MaxUint64}[:r.IntN(4)]
	case 6:
		return Bool(r.IntN(2) == 0)
	case 7:
		return String(r.name())
	case 8:
		return Bytes(r.name())
	case 9:
		return Bools{true, false, true}[:r.IntN(4)]
	case 10:
		return Strings{"", r.name()}[:r.IntN(3)]
	}
	return Blobs{{}, {0, 255}}[:r.IntN(3)]
}

func (r random) items(metric bool) (items []ValueItem) {
	for _, i := range r.Perm(5)[:r.IntN(6)] {
		items = append(items, ValueItem{r.name() + string(rune('0'+i)), r.value(metric)})
	}
	return items
}

func (r random) message() *Message {
	same := &Array{DType: "float32", Shape: []int{3}, SType: "x", Chunks: []Chunk{{Data: []byte("abc")}, {Data: []byte("def")}, {Data: []byte("abc")}}}
	m := &Message{Metadata: Metadata{RunID: r.Uint64(), SrcNode: r.Uint64N(3), TTL: r.Float64(), Type: "train", CreatedAt: r.Float64(), ReplyTo: r.name()}, Content: RecordDict{}}
	if r.IntN(3) == 0 {
		zero := uint64(0)
		m.Metadata.SrcTask = &zero
	}
	for i := range r.IntN(5) {
		var rec Record
		switch r.IntN(3) {
		case 0:
			arrays := ArrayRecord{{"same", same}, {"again", same}, {"none", &Array{SType: "x", Shape: []int{}}}}
			for j := range r.IntN(3) {
				b := make([]byte, 1+r.IntN(300))
				binary.LittleEndian.PutUint64(append(b, make([]byte, 8)...), r.Uint64())
				arrays = append(arrays, ArrayItem{r.name() + string(rune('0'+j)), &Array{DType: "f", Shape: []int{j}, SType: "x", Chunks: []Chunk{{Data: b}}}})
			}
			rec = arrays
		case 1:
			rec = ConfigRecord(r.items(false))
		case 2:
			rec = MetricRecord(r.items(true))
		}
		m.Content = append(m.Content, RecordItem{r.name() + string(rune('0'+i)), rec})
	}
	return m
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	r := random{rand.New(rand.NewPCG(1, 2))}
	for i := range 300 {
		objs, err := Objects(r.message())
		if err != nil {
			t.Fatal(err)
		}
		root := objs[len(objs)-1].ID
		for _, outline := range []bool{false, true} {
			limits := roomy
			limits.Outline = outline
			n, err := Inflate(root, lookup(objs), limits)
			if err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			again, err := Objects(n)
			if err != nil {
				t.Fatal(err)
			}
			want := objs
			if outline {
				want = nil
				for _, o := range objs {
					if o.Kind != KindArrayChunk {
						want = append(want, o)
					}
				}
			}
			if len(again) != len(want) {
				t.Fatalf("message %d: %d objects, want %d", i, len(again), len(want))
			}
			for j, o := range again {
				if o.ID != want[j].ID || !bytes.Equal(o.Raw, want[j].Raw) {
					t.Fatalf("message %d: object %d changed", i, j)
				}
			}
		}
	}
}

// TestPostOrder: children come before parents, nothing twice.
func TestPostOrder(t *testing.T) {
	t.Parallel()
	r := random{rand.New(rand.NewPCG(3, 4))}
	for range 50 {
		seen := map[ID]bool{}
		_, err := Flatten(r.message(), func(o Object) error {
			h, err := ParseHead(o.Raw)
			if err != nil {
				return err
			}
			for _, c := range h.Children {
				if !seen[c] {
					t.Errorf("%v comes before its child", o.Kind)
				}
			}
			if seen[o.ID] {
				t.Errorf("%v comes twice", o.Kind)
			}
			seen[o.ID] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
