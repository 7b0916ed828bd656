package serverapp

import (
	"context"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/fab"
)

// FuzzCalls makes the calls of a process that sends what it likes, in any order: each is a
// byte that says which, the length of its body in two, and the body. Whatever it does, a
// batch is handed out whole, and answered once.
func FuzzCalls(f *testing.F) {
	raw, err := os.ReadFile("../fab/testdata/flwr-1.29.0.fab")
	if err != nil {
		f.Fatal(err)
	}
	bundle, err := fab.Parse(raw)
	if err != nil {
		f.Fatal(err)
	}
	call := func(b []byte, op byte, m proto.Message) []byte {
		body, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return append(binary.BigEndian.AppendUint16(append(b, op), uint16(len(body))), body...)
	}
	var seed []byte
	for _, node := range []uint64{2, 3} {
		objects, err := object.Objects(&object.Message{Metadata: object.Metadata{SrcNode: 1, DstNode: node, Type: "train", TTL: 60, CreatedAt: 2e9},
			Content: object.RecordDict{{Name: "config", Record: object.ConfigRecord{{Key: "a", Value: object.Sint(1)}}}}})
		if err != nil {
			f.Fatal(err)
		}
		id := func(i int) string { return objects[i].ID.String() }
		seed = call(seed, 0, &flwr.PushAppMessagesRequest{
			MessagesList:       []*flwr.Message{{Metadata: &flwr.Metadata{MessageType: "train", DstNodeId: node, Ttl: 60, CreatedAt: 2e9}}},
			MessageObjectTrees: []*flwr.ObjectTree{{ObjectId: id(2), Children: []*flwr.ObjectTree{{ObjectId: id(1), Children: []*flwr.ObjectTree{{ObjectId: id(0)}}}}}},
		})
		for _, o := range objects[:2] {
			seed = call(seed, 1, &flwr.PushObjectRequest{ObjectId: o.ID.String(), ObjectContent: o.Raw})
		}
		f.Add(seed)
		seed = call(seed, 2, &flwr.PullAppMessagesRequest{MessageIds: []string{id(2)}})
	}
	f.Add(append([]byte{132}, seed[1:]...)) // contents may differ
	f.Add(call(seed, 5, &flwr.UpdateRunStatusRequest{RunStatus: &flwr.RunStatus{Status: "finished", SubStatus: "failed"}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		addressed := len(in) > 0 && in[0]&0x80 != 0
		s := New(Config{Bundle: bundle, Nodes: []uint64{2, 3}, MaxBytes: 1 << 16, Settle: time.Hour, Addressed: addressed})
		defer s.Fail(ErrFinished)
		c := &calls{s: s}
		// A call that would be held for the answer ends at once: whether there is one by then
		// is all that matters here.
		held, cancel := context.WithCancel(context.Background())
		cancel()
		batches := 0
		for len(in) >= 3 {
			n := min(int(binary.BigEndian.Uint16(in[1:])), len(in)-3)
			op, body := in[0], in[3:3+n]
			in = in[3+n:]
			var err error
			switch op % 6 {
			case 0:
				var q flwr.PushAppMessagesRequest
				if proto.Unmarshal(body, &q) == nil {
					_, err = c.PushMessages(held, &q)
				}
			case 1:
				var q flwr.PushObjectRequest
				if proto.Unmarshal(body, &q) == nil {
					_, err = c.PushObject(held, &q)
				}
			case 2:
				var q flwr.PullAppMessagesRequest
				if proto.Unmarshal(body, &q) == nil {
					_, err = c.PullMessages(held, &q)
				}
			case 3:
				var q flwr.PullObjectRequest
				if proto.Unmarshal(body, &q) == nil {
					_, err = c.PullObject(held, &q)
				}
			case 4:
				var q flwr.ConfirmMessageReceivedRequest
				if proto.Unmarshal(body, &q) == nil {
					_, err = c.ConfirmMessageReceived(held, &q)
				}
			case 5:
				var q flwr.UpdateRunStatusRequest
				if proto.Unmarshal(body, &q) == nil {
					_, err = c.UpdateRunStatus(held, &q)
				}
			}
			_ = s.judge(err)
			select {
			case b := <-s.ready:
				batches++
				if len(b.Contents) != len(b.To) {
					t.Fatalf("%d contents for %d nodes", len(b.Contents), len(b.To))
				}
				for _, content := range b.Contents {
					n, err := object.Inflate(content, b.Get, object.Limits{Objects: flower.MaxObjects, Bytes: 1 << 20})
					if err != nil || n.Kind() != object.KindRecordDict {
						t.Fatalf("a batch that is not whole: %v", err)
					}
					if !addressed && content != b.Contents[0] {
						t.Fatal("a batch with different contents")
					}
				}
				var replies []Reply
				for _, to := range b.To {
					replies = append(replies, Reply{Node: to, Failure: flower.NewFailure(1, "")})
				}
				if err := s.Answer(replies); err != nil {
					t.Fatal(err)
				}
			default:
			}
		}
		if batches > 0 && s.batch == nil {
			t.Fatal("a batch from nowhere")
		}
	})
}
