package httpapp

import (
	"bytes"
	"context"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	runtime "github.com/concordat/concordat/api/flwr/runtime"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/appio"
)

// FuzzCalls: whatever a process that has its message sends, it gets an answer or a refusal.
func FuzzCalls(f *testing.F) {
	golden := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add("push-messages", golden("120d0a0908074205747261696e12001a0a0a02616112040a026262")) // of flwr 1.42.0
	f.Add("push-task-output", golden("0a040807100212066661696c65641a03776879"))
	f.Add("pull-task-input", []byte{})
	f.Add("pull-messages", []byte{})
	f.Add("send-task-heartbeat", []byte("\x08\x01"))
	id := strings.Repeat("0", 64)
	for path, m := range map[string]proto.Message{
		"push-object":              &flwr.PushObjectRequest{ObjectId: id, ObjectContent: []byte("RecordDict  2\x00{}")},
		"pull-object":              &flwr.PullObjectRequest{ObjectId: id},
		"confirm-message-received": &flwr.ConfirmMessageReceivedRequest{MessageObjectId: id},
		"push-messages": &runtime.PushAppMessagesRequest{
			MessagesList:       []*flwr.Message{{Metadata: &flwr.Metadata{RunId: 1, SrcNodeId: 2, DstNodeId: 1, ReplyToMessageId: id}, Error: &flwr.Error{Code: 2, Reason: "<class 'ValueError'>:<'x'>"}}},
			MessageObjectTrees: []*flwr.ObjectTree{{ObjectId: id}},
		},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(path, b)
	}
	objects, err := object.Objects(object.RecordDict{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		app, err := flower.NewApp(flower.Config{RunID: 1, NodeID: 2})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, err := app.Do(ctx, flower.Instruction{Type: "train", Content: objects[0].ID, Get: func(object.ID) ([]byte, error) { return objects[0].Raw, nil }})
			if err == nil {
				t.Error("it took a reply of one call")
			}
		}()
		if _, _, err := app.PullMessage(ctx); err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body)).WithContext(ctx)
		r.Host, r.URL.Path = "127.0.0.1", appio.RuntimePath+path
		r.Header.Set("Content-Type", "application/protobuf")
		r.Header.Set(appio.RuntimeToken, app.Token())
		w := httptest.NewRecorder()
		handler(app).ServeHTTP(w, r)
		if w.Code != http.StatusOK && !strings.HasPrefix(w.Body.String(), `{"detail":"`) {
			t.Errorf("%d %q", w.Code, w.Body)
		}
		cancel()
		<-done
	})
}
