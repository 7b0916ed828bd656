package flwrruntime_test

import (
	"encoding/hex"
	"testing"

	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	runtime "github.com/concordat/concordat/api/flwr/runtime"
)

// What flwr 1.42.0 writes of these messages, by its own generated code, is what both
// packages write: those of dialect C's own numbers, and those that it shares with dialect
// A. One binary holds both.
func TestWireOfFlower(t *testing.T) {
	trees := []*flwr.ObjectTree{{ObjectId: "aa", Children: []*flwr.ObjectTree{{ObjectId: "bb"}}}}
	messages := []*flwr.Message{{Metadata: &flwr.Metadata{RunId: 7, MessageType: "train"}, Content: &flwr.RecordDict{}}}
	limit, run := uint64(2), uint64(7)
	for want, m := range map[string]proto.Message{
		"0a06080710022200121708071203612f622a0263638201097365727665726170701a070a02636312017a2801": &runtime.PullTaskInputResponse{
			Context: &flwr.Context{RunId: 7, NodeId: 2, State: &flwr.RecordDict{}}, Run: &flwr.Run{RunId: 7, FabId: "a/b", FabHash: "cc", RunType: "serverapp"},
			Fab: &flwr.Fab{HashStr: "cc", Content: []byte("z")}, TaskId: 1},
		"0a040807100212066661696c65641a03776879":                 &runtime.PushTaskOutputRequest{Context: &flwr.Context{RunId: 7, NodeId: 2}, SubStatus: "failed", Details: "why"},
		"120d0a0908074205747261696e12001a0a0a02616112040a026262": &runtime.PushAppMessagesRequest{MessagesList: messages, MessageObjectTrees: trees},
		"12026161":                 &runtime.PullAppMessagesRequest{MessageIds: []string{"aa"}},
		"0a0a080222066f6e6c696e65": &runtime.GetNodesResponse{Nodes: []*flwr.NodeInfo{{NodeId: 2, Status: "online"}}},
		"0801":                     &runtime.SendTaskHeartbeatResponse{Success: true},
		// The same in both dialects.
		"0a040a02080712040a026161":                   &flwr.PullAppMessagesResponse{MessagesList: []*flwr.Message{{Metadata: &flwr.Metadata{RunId: 7}}}, MessageObjectTrees: []*flwr.ObjectTree{{ObjectId: "aa"}}},
		"0a02616112026262":                           &flwr.PushAppMessagesResponse{MessageIds: []string{"aa"}, ObjectsToPush: []string{"bb"}},
		"0a070a02636312017a220440612f622a0440632f64": &flwr.StartRunRequest{Fab: &flwr.Fab{HashStr: "cc", Content: []byte("z")}, AppSpec: "@a/b", Federation: "@c/d"},
		"0a017811000000000000f83f":                   &flwr.StreamLogsResponse{LogOutput: "x", LatestTimestamp: 1.5},
		"08071002":                                   &flwr.ListRunsRequest{RunId: &run, Limit: &limit},
	} {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil || hex.EncodeToString(b) != want {
			t.Errorf("%T: %x, %v, want %s", m, b, err, want)
		}
	}
	// Where dialect A has the trees, dialect C has nothing: they must not be read as one.
	a, err := proto.Marshal(&flwr.PushAppMessagesRequest{MessagesList: messages, MessageObjectTrees: trees})
	if err != nil {
		t.Fatal(err)
	}
	var c runtime.PushAppMessagesRequest
	if err := proto.Unmarshal(a, &c); err != nil || len(c.MessagesList) != 1 || len(c.MessageObjectTrees) != 0 {
		t.Errorf("dialect A's message read as dialect C's: %v, %v", &c, err)
	}
}
