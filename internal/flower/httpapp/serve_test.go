package httpapp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	runtime "github.com/concordat/concordat/api/flwr/runtime"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/appio"
)

// process makes calls as flwr-clientapp does.
type process struct {
	t     *testing.T
	base  string
	token string
}

func (p process) post(call string, q proto.Message) (int, []byte) {
	p.t.Helper()
	b, err := proto.Marshal(q)
	if err != nil {
		p.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.base+appio.RuntimePath+call, bytes.NewReader(b))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/protobuf")
	r.Header.Set(appio.RuntimeToken, p.token)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, nil // cut off
	}
	return res.StatusCode, body
}

func (p process) call(call string, q, into proto.Message) {
	p.t.Helper()
	code, body := p.post(call, q)
	if code != http.StatusOK {
		p.t.Fatalf("%s: %d: %s", call, code, body)
	}
	if err := proto.Unmarshal(body, into); err != nil {
		p.t.Fatal(err)
	}
}

func serve(t *testing.T) (*flower.App, process) {
	t.Helper()
	app, err := flower.NewApp(flower.Config{RunID: 1<<63 + 5, NodeID: 9, FabID: "a/b", FabVersion: "1.0.0", Fab: []byte("zip"),
		RunConfig: map[string]any{"lr": 0.5}, NodeConfig: map[string]any{"part": int64(1)}})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(handler(app, time.Millisecond))
	t.Cleanup(func() { app.Close(); s.Close() })
	return app, process{t, s.URL, app.Token()}
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
	time.AfterFunc(20*time.Millisecond, func() { close(begun) }) // some bytes are sent meanwhile; nothing depends on it
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
	if code, body := p.post("pull-object", &flwr.PullObjectRequest{ObjectId: tree.GetObjectId()}); code == http.StatusOK {
		t.Errorf("an object after the end: %q", body)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	app, p := serve(t)
	stranger := p
	for _, stranger.token = range []string{"", strings.Repeat("0", len(p.token)), p.token[:10]} {
		if code, _ := stranger.post("pull-task-input", &runtime.PullTaskInputRequest{}); code != http.StatusUnauthorized {
			t.Errorf("token %.10q: %d", stranger.token, code)
		}
	}
	for call, q := range map[string]proto.Message{
		"push-messages": &runtime.PushAppMessagesRequest{},
		"push-object":   &flwr.PushObjectRequest{ObjectId: strings.Repeat("0", 64), ObjectContent: []byte("x")},
		"get-nodes":     &runtime.GetNodesRequest{},
	} {
		if code, body := p.post(call, q); code < 400 || code == http.StatusUnauthorized {
			t.Errorf("%s: %d, %s", call, code, body)
		}
	}
	// A process that waits learns that its run has stopped.
	done := make(chan int, 1)
	go func() { code, _ := p.post("pull-messages", &runtime.PullAppMessagesRequest{}); done <- code }()
	app.Close()
	if code := <-done; code == http.StatusOK {
		t.Error("a message after the end")
	}
	if code, _ := p.post("pull-messages", &runtime.PullAppMessagesRequest{}); code != http.StatusForbidden {
		t.Errorf("status %d, want 403: the run has stopped", code)
	}
}
