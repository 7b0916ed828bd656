package httpapp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	runtime "github.com/concordat/concordat/api/flwr/runtime"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/appio"
	"github.com/concordat/concordat/internal/flower/protohttp/protohttptest"
)

// process makes calls as flwr-clientapp does.
type process struct {
	t *testing.T
	*protohttptest.Client
}

func (p process) call(call string, q, into proto.Message) {
	p.t.Helper()
	if err := p.Call(p.t.Context(), call, q, into); err != nil {
		p.t.Fatalf("%s: %v", call, err)
	}
}

// refused makes a call of which no answer is wanted, and returns the error's code.
func (p process) refused(call string, q proto.Message) codes.Code {
	return status.Code(p.Call(p.t.Context(), call, q, &flwr.PullObjectResponse{}))
}

func serve(t *testing.T) (*flower.App, process) {
	t.Helper()
	app, err := flower.NewApp(flower.Config{RunID: 1<<63 + 5, NodeID: 9, FabID: "a/b", FabVersion: "1.0.0", Fab: []byte("zip"),
		RunConfig: map[string]any{"lr": 0.5}, NodeConfig: map[string]any{"part": int64(1)}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(handler(app))
	t.Cleanup(func() { app.Close(); s.Close() })
	return app, process{t, &protohttptest.Client{Base: s.URL + appio.RuntimePath, Token: app.Token()}}
}

// TestOneInstruction goes through all calls of a process, in the order of flwr-clientapp.
func TestOneInstruction(t *testing.T) {
	t.Parallel()
	app, p := serve(t)
	content := object.RecordDict{{Name: "config", Record: object.ConfigRecord{{Key: "server-round", Value: object.Sint(1)}}}}
	objects, err := object.Objects(content)
	if err != nil {
		t.Fatal(err)
	}
	byID := map[object.ID][]byte{}
	for _, o := range objects {
		byID[o.ID] = o.Raw
	}
	type answer struct {
		r   *flower.Reply
		err error
	}
	answered := make(chan answer, 1)
	begun := make(chan struct{})
	go func() {
		<-begun // the process asks before there is an instruction
		r, err := app.Do(t.Context(), flower.Instruction{Type: "train", Round: 1, Content: objects[len(objects)-1].ID, Get: func(id object.ID) ([]byte, error) {
			if raw, ok := byID[id]; ok {
				return raw, nil
			}
			return nil, errors.New("unknown object")
		}})
		answered <- answer{r, err}
	}()
	var alive runtime.SendTaskHeartbeatResponse
	if p.call("send-task-heartbeat", &runtime.SendTaskHeartbeatRequest{}, &alive); !alive.Success {
		t.Error("the process is not to go on")
	}
	var in runtime.PullTaskInputResponse
	p.call("pull-task-input", &runtime.PullTaskInputRequest{}, &in)
	if in.GetRun().GetRunId() != 1<<63+5 || in.GetContext().GetNodeId() != 9 || string(in.GetFab().GetContent()) != "zip" || in.GetTaskId() == 0 || in.GetContext().GetRunConfig()["lr"].GetDouble() != 0.5 {
		t.Errorf("input %v", &in)
	}
	close(begun) // before or after the process asks: both are right
	var pulled flwr.PullAppMessagesResponse
	p.call("pull-messages", &runtime.PullAppMessagesRequest{}, &pulled)
	if len(pulled.GetMessagesList()) != 1 || len(pulled.GetMessageObjectTrees()) != 1 {
		t.Fatalf("messages %v", &pulled)
	}
	m, tree := pulled.MessagesList[0].GetMetadata(), pulled.MessageObjectTrees[0]
	var got flwr.PullObjectResponse
	p.call("pull-object", &flwr.PullObjectRequest{ObjectId: tree.GetChildren()[0].GetObjectId()}, &got)
	if !bytes.Equal(got.GetObjectContent(), objects[len(objects)-1].Raw) {
		t.Error("another object")
	}
	p.call("confirm-message-received", &flwr.ConfirmMessageReceivedRequest{}, &flwr.ConfirmMessageReceivedResponse{})
	reply := &object.Message{Metadata: object.Metadata{RunID: m.GetRunId(), SrcNode: m.GetDstNodeId(), DstNode: m.GetSrcNodeId(), ReplyTo: tree.GetObjectId(), Group: m.GetGroupId(), Type: "train",
		TTL: 60, CreatedAt: m.GetCreatedAt()}, Content: object.RecordDict{{Name: "metrics", Record: object.MetricRecord{{Key: "num-examples", Value: object.Sint(3)}}}}}
	out, err := object.Objects(reply)
	if err != nil {
		t.Fatal(err)
	}
	id := func(i int) string { return hex.EncodeToString(out[i].ID[:]) }
	var pushed runtime.PushAppMessagesResponse
	p.call("push-messages", &runtime.PushAppMessagesRequest{
		MessagesList: []*flwr.Message{{Metadata: &flwr.Metadata{RunId: m.GetRunId(), MessageId: id(2), SrcNodeId: m.GetDstNodeId(), DstNodeId: m.GetSrcNodeId(), ReplyToMessageId: tree.GetObjectId(),
			GroupId: m.GetGroupId(), Ttl: 60, MessageType: "train", CreatedAt: m.GetCreatedAt()}, Content: &flwr.RecordDict{}}},
		MessageObjectTrees: []*flwr.ObjectTree{{ObjectId: id(2), Children: []*flwr.ObjectTree{{ObjectId: id(1), Children: []*flwr.ObjectTree{{ObjectId: id(0)}}}}}},
	}, &pushed)
	if len(pushed.GetObjectsToPush()) != 2 {
		t.Errorf("to push: %v", &pushed)
	}
	for i := range 2 {
		p.call("push-object", &flwr.PushObjectRequest{ObjectId: id(i), ObjectContent: out[i].Raw}, &flwr.PushObjectResponse{})
	}
	a := <-answered
	if a.err != nil || a.r.Content.Get("metrics").(object.MetricRecord).Get("num-examples") != object.Sint(3) {
		t.Fatalf("%v, %v", a.r, a.err)
	}
	p.call("push-task-output", &runtime.PushTaskOutputRequest{SubStatus: "completed"}, &runtime.PushTaskOutputResponse{}) // of a process that never had a context
	select {
	case <-app.Done():
		t.Error("an output without a context ended the app")
	default:
	}
	p.call("push-task-output", &runtime.PushTaskOutputRequest{Context: in.GetContext(), SubStatus: "completed"}, &runtime.PushTaskOutputResponse{})
	<-app.Done()
	if p.call("send-task-heartbeat", &runtime.SendTaskHeartbeatRequest{}, &alive); alive.Success {
		t.Error("the process is to go on after its end")
	}
	if code := p.refused("pull-object", &flwr.PullObjectRequest{ObjectId: tree.GetObjectId()}); code != codes.PermissionDenied {
		t.Errorf("an object after the end: %v", code)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	app, p := serve(t)
	for _, token := range []string{"", strings.Repeat("0", len(p.Token)), p.Token[:10]} {
		stranger := process{t, &protohttptest.Client{Base: p.Base, Token: token}}
		if code := stranger.refused("pull-task-input", &runtime.PullTaskInputRequest{}); code != codes.Unauthenticated {
			t.Errorf("token %.10q: %v", token, code)
		}
	}
	for call, c := range map[string]struct {
		q    proto.Message
		want codes.Code
	}{
		"push-messages": {&runtime.PushAppMessagesRequest{}, codes.FailedPrecondition},
		"push-object":   {&flwr.PushObjectRequest{ObjectId: strings.Repeat("0", 64), ObjectContent: []byte("x")}, codes.FailedPrecondition},
		"get-nodes":     {&runtime.GetNodesRequest{}, codes.Unimplemented},
	} {
		if code := p.refused(call, c.q); code != c.want {
			t.Errorf("%s: %v, want %v", call, code, c.want)
		}
	}
	// A process that waits learns that its run has stopped.
	done := make(chan codes.Code, 1)
	go func() { done <- p.refused("pull-messages", &runtime.PullAppMessagesRequest{}) }()
	app.Close()
	if code := <-done; code != codes.PermissionDenied {
		t.Errorf("while it waits: %v, want PermissionDenied: the run has stopped", code)
	}
	if code := p.refused("pull-messages", &runtime.PullAppMessagesRequest{}); code != codes.PermissionDenied {
		t.Errorf("later: %v, want PermissionDenied", code)
	}
}
