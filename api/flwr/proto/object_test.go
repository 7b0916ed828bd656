package flwrproto_test

import (
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
)

// The encoder of chunkstore/object, which knows no protobuf, writes what the
// generated code writes, and the generated code reads it.
func TestObjectsAreProtobuf(t *testing.T) {
	for name, c := range map[string]struct {
		object object.Node
		wire   proto.Message
	}{
		"message": {
			&object.Message{Content: object.RecordDict{}, Metadata: object.Metadata{
				RunID: math.MaxUint64, SrcNode: 1, DstNode: 1 << 63, ReplyTo: "é", Group: "7", TTL: 43200, Type: "train.default", CreatedAt: 1750000000.5,
			}},
			&flwr.Message{Metadata: &flwr.Metadata{
				RunId: math.MaxUint64, SrcNodeId: 1, DstNodeId: 1 << 63, ReplyToMessageId: "é", GroupId: "7", Ttl: 43200, MessageType: "train.default", CreatedAt: 1750000000.5,
			}},
		},
		"zeros": {&object.Message{Content: object.RecordDict{}}, &flwr.Message{Metadata: &flwr.Metadata{}}},
		"minus zero": {
			&object.Message{Content: object.RecordDict{}, Metadata: object.Metadata{TTL: math.Copysign(0, -1)}},
			&flwr.Message{Metadata: &flwr.Metadata{Ttl: math.Copysign(0, -1)}},
		},
		"error": {
			&object.Message{Metadata: object.Metadata{RunID: 7}, Error: &object.Error{Code: -2, Reason: "boom"}},
			&flwr.Message{Metadata: &flwr.Metadata{RunId: 7}, Error: &flwr.Error{Code: -2, Reason: "boom"}},
		},
		"empty error": {&object.Message{Error: &object.Error{}}, &flwr.Message{Metadata: &flwr.Metadata{}, Error: &flwr.Error{}}},
		"metrics": {
			object.MetricRecord{
				{Key: "double", Value: object.Double(-0.25)}, {Key: "nan", Value: object.Double(math.NaN())}, {Key: "zero", Value: object.Double(0)},
				{Key: "sint", Value: object.Sint(math.MinInt64)}, {Key: "uint", Value: object.Uint(1 << 63)}, {Key: "", Value: object.Sint(0)},
				{Key: "doubles", Value: object.Doubles{0, 1.5}}, {Key: "sints", Value: object.Sints{-1, 0, 300}}, {Key: "uints", Value: object.Uints{0, math.MaxUint64}},
				{Key: "none", Value: object.Doubles{}},
			},
			&flwr.MetricRecord{Items: []*flwr.MetricRecord_Item{
				metric("double", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_Double{Double: -0.25}}),
				metric("nan", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_Double{Double: math.NaN()}}),
				metric("zero", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_Double{}}),
				metric("sint", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_Sint64{Sint64: math.MinInt64}}),
				metric("uint", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_Uint64{Uint64: 1 << 63}}),
				metric("", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_Sint64{}}),
				metric("doubles", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_DoubleList{DoubleList: &flwr.DoubleList{Vals: []float64{0, 1.5}}}}),
				metric("sints", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_SintList{SintList: &flwr.SintList{Vals: []int64{-1, 0, 300}}}}),
				metric("uints", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_UintList{UintList: &flwr.UintList{Vals: []uint64{0, math.MaxUint64}}}}),
				metric("none", &flwr.MetricRecordValue{Value: &flwr.MetricRecordValue_DoubleList{DoubleList: &flwr.DoubleList{}}}),
			}},
		},
		"config": {
			object.ConfigRecord{
				{Key: "bool", Value: object.Bool(true)}, {Key: "false", Value: object.Bool(false)}, {Key: "string", Value: object.String("ü")},
				{Key: "empty", Value: object.String("")}, {Key: "bytes", Value: object.Bytes{0, 255}}, {Key: "bools", Value: object.Bools{true, false}},
				{Key: "strings", Value: object.Strings{"", "a"}}, {Key: "blobs", Value: object.Blobs{{}, {1}}}, {Key: "sint", Value: object.Sint(-300)},
			},
			&flwr.ConfigRecord{Items: []*flwr.ConfigRecord_Item{
				config("bool", &flwr.ConfigRecordValue{Value: &flwr.ConfigRecordValue_Bool{Bool: true}}),
				config("false", &flwr.ConfigRecordValue{Value: &flwr.ConfigRecordValue_Bool{}}),
				config("string", &flwr.ConfigRecordValue{Value: &flwr.ConfigRecordValue_String_{String_: "ü"}}),
				config("empty", &flwr.ConfigRecordValue{Value: &flwr.ConfigRecordValue_String_{}}),
				config("bytes", &flwr.ConfigRecordValue{Value: &flwr.ConfigRecordValue_Bytes{Bytes: []byte{0, 255}}}),
				config("bools", &flwr.ConfigRecordValue{Value: &flwr.ConfigRecordValue_BoolList{BoolList: &flwr.BoolList{Vals: []bool{true, false}}}}),
				config("strings", &flwr.ConfigRecordValue{Value: &flwr.ConfigRecordValue_StringList{StringList: &flwr.StringList{Vals: []string{"", "a"}}}}),
				config("blobs", &flwr.ConfigRecordValue{Value: &flwr.ConfigRecordValue_BytesList{BytesList: &flwr.BytesList{Vals: [][]byte{{}, {1}}}}}),
				config("sint", &flwr.ConfigRecordValue{Value: &flwr.ConfigRecordValue_Sint64{Sint64: -300}}),
			}},
		},
		"empty record": {object.ConfigRecord{}, &flwr.ConfigRecord{}},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := object.Objects(c.object)
			if err != nil {
				t.Fatal(err)
			}
			h, err := object.ParseHead(objects[len(objects)-1].Raw)
			if err != nil {
				t.Fatal(err)
			}
			want, err := proto.MarshalOptions{Deterministic: true}.Marshal(c.wire)
			if err != nil {
				t.Fatal(err)
			}
			if string(h.Body) != string(want) {
				t.Errorf("object  %x\nprotobuf %x", h.Body, want)
			}
			got := c.wire.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(h.Body, got); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, c.wire) {
				t.Errorf("read as %s", prototext.Format(got))
			}
		})
	}
}

func metric(key string, v *flwr.MetricRecordValue) *flwr.MetricRecord_Item {
	return &flwr.MetricRecord_Item{Key: key, Value: v}
}

func config(key string, v *flwr.ConfigRecordValue) *flwr.ConfigRecord_Item {
	return &flwr.ConfigRecord_Item{Key: key, Value: v}
}
