package serverapp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/fab"
	"github.com/concordat/concordat/internal/flower/protohttp/protohttptest"
)

// inEach runs a test with a process of each dialect.
func inEach(t *testing.T, test func(t *testing.T, runtime bool)) {
	t.Parallel()
	for name, runtime := range map[string]bool{"gRPC": false, "HTTP": true} {
		t.Run(name, func(t *testing.T) { test(t, runtime) })
	}
}

// serve returns an opening and a client of it, which is to act as a ServerApp.
func serve(t *testing.T, runtime bool, maxBytes int64, change ...func(*Config)) (*Server, flwr.ServerAppIoClient) {
	t.Helper()
	raw, err := os.ReadFile("../fab/testdata/flwr-1.29.0.fab")
	if err != nil {
		t.Fatal(err)
	}
	b, err := fab.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "opening") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	network, address := "unix", filepath.Join(dir, "s")
	if runtime {
		network, address = "tcp", "127.0.0.1:0"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Bundle: b, Overrides: map[string]any{"epochs": int64(2)}, Nodes: []uint64{2, 3}, MaxBytes: maxBytes, Settle: 50 * time.Millisecond, Print: func(s string) { t.Log(s) }}
	for _, f := range change {
		f(&c)
	}
	o := New(c)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	serve := o.Serve
	if runtime {
		serve = o.ServeRuntime
	}
	go func() { served <- serve(ctx, l) }()
	conn, err := grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		os.RemoveAll(dir)
	})
	if runtime {
		return o, httpServerApp{c: &protohttptest.Client{Base: "http://" + l.Addr().String() + "/v1/runtime/", Token: o.Token()}}
	}
	return o, flwr.NewServerAppIoClient(conn)
}

// next returns the next batch.
func next(t *testing.T, o *Server) (*Batch, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return o.Next(ctx)
}

// wait returns what a native run begins with.
func wait(t *testing.T, o *Server) (*Start, error) {
	t.Helper()
	b, err := next(t, o)
	if err != nil {
		return nil, err
	}
	return b.Start()
}

// message is a content for some node, with its tree and its objects.
func message(t *testing.T, kind string, node uint64, content object.RecordDict) (*flwr.Message, *flwr.ObjectTree, []object.Object) {
	t.Helper()
	objects, err := object.Objects(&object.Message{Metadata: object.Metadata{SrcNode: 1, DstNode: node, Type: kind, TTL: 60, CreatedAt: 2e9}, Content: content})
	if err != nil {
		t.Fatal(err)
	}
	byID := map[object.ID]object.Object{}
	for _, o := range objects {
		byID[o.ID] = o
	}
	var tree func(object.ID) *flwr.ObjectTree
	tree = func(id object.ID) *flwr.ObjectTree {
		h, err := object.ParseHead(byID[id].Raw)
		if err != nil {
			t.Fatal(err)
		}
		out := &flwr.ObjectTree{ObjectId: id.String()}
		for _, c := range h.Children {
			out.Children = append(out.Children, tree(c))
		}
		return out
	}
	root := objects[len(objects)-1]
	m := &flwr.Message{Metadata: &flwr.Metadata{MessageId: root.ID.String(), MessageType: kind, SrcNodeId: 1, DstNodeId: node, Ttl: 60, CreatedAt: 2e9}, Content: &flwr.RecordDict{}}
	return m, tree(root.ID), objects
}

func arrays(t *testing.T, n int) object.ArrayRecord {
	t.Helper()
	a, err := object.NewArray(object.NPY{Descr: "<f8", Shape: []int{n}}, make([]byte, 8*n))
	if err != nil {
		t.Fatal(err)
	}
	return object.ArrayRecord{{Name: "w", Array: a}}
}

// usual is what Flower's FedAvg sends.
func usual(t *testing.T) object.RecordDict {
	return object.RecordDict{{Name: "arrays", Record: arrays(t, 3)},
		{Name: "config", Record: object.ConfigRecord{{Key: "lr", Value: object.Double(0.5)}, {Key: "on", Value: object.Bool(true)}, {Key: "server-round", Value: object.Sint(1)}}}}
}

func TestStart(t *testing.T) { inEach(t, testStart) }

func testStart(t *testing.T, runtime bool) {
	o, app := serve(t, runtime, 1<<20)
	ctx := t.Context()
	in, err := app.PullAppInputs(ctx, &flwr.PullAppInputsRequest{Token: o.Token()})
	if err != nil || in.Context.NodeId != 1 || in.Run.OverrideConfig["epochs"].GetSint64() != 2 || in.Fab.HashStr != in.Run.FabHash || len(in.Fab.Content) == 0 {
		t.Fatalf("inputs %v, %v", in.GetRun(), err)
	}
	nodes, err := app.GetNodes(ctx, &flwr.GetNodesRequest{RunId: in.Run.RunId})
	if err != nil || len(nodes.Nodes) != 2 || nodes.Nodes[0].NodeId == nodes.Nodes[1].NodeId || nodes.Nodes[0].NodeId <= 1 {
		t.Fatalf("nodes %v, %v", nodes, err)
	}
	a, treeA, objects := message(t, "train", 2, usual(t))
	b, treeB, _ := message(t, "train", 3, usual(t))
	r, err := app.PushMessages(ctx, &flwr.PushAppMessagesRequest{MessagesList: []*flwr.Message{a, b}, MessageObjectTrees: []*flwr.ObjectTree{treeA, treeB}})
	if err != nil || len(r.MessageIds) != 2 || len(r.ObjectsToPush) != len(objects)-1 {
		t.Fatalf("push: %v, %v", r, err)
	}
	if _, err := app.PushLogs(ctx, &flwr.PushLogsRequest{Logs: []string{"hello", ""}}); err != nil {
		t.Error(err)
	}
	for _, x := range objects[:len(objects)-1] {
		for range 2 { // again: the answer may have been lost
			if p, err := app.PushObject(ctx, &flwr.PushObjectRequest{ObjectId: x.ID.String(), ObjectContent: x.Raw}); err != nil || !p.Stored {
				t.Fatalf("object: %v, %v", p, err)
			}
		}
	}
	s, err := wait(t, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Config) != 2 || s.Config["lr"] != 0.5 || s.Config["on"] != true {
		t.Errorf("config %v", s.Config)
	}
	want, err := object.Objects(object.RecordDict{{Name: "arrays", Record: arrays(t, 3)}})
	if err != nil || len(s.Arrays) != len(want) || object.Sum(s.Arrays[len(want)-1]) != want[len(want)-1].ID {
		t.Errorf("%d objects, want those of the arrays alone, %d", len(s.Arrays), len(want))
	}
}

func TestRefused(t *testing.T) { inEach(t, testRefused) }

func testRefused(t *testing.T, runtime bool) {
	type batch struct {
		messages []*flwr.Message
		trees    []*flwr.ObjectTree
		objects  []object.Object
	}
	of := func(kind string, contents ...object.RecordDict) batch {
		var b batch
		for i, c := range contents {
			m, tree, objects := message(t, kind, uint64(i)+2, c)
			b.messages, b.trees, b.objects = append(b.messages, m), append(b.trees, tree), append(b.objects, objects...)
		}
		return b
	}
	with := func(name string, r object.Record) object.RecordDict {
		return append(usual(t), object.RecordItem{Name: name, Record: r})
	}
	other := usual(t)
	other[0].Record = arrays(t, 4)
	errorReply := of("train", usual(t))
	errorReply.messages[0].Error = &flwr.Error{Code: 1}
	stranger := of("train", usual(t))
	stranger.messages[0].Metadata.DstNodeId = 4
	deep := of("train", usual(t))
	for range 5 {
		deep.trees[0].Children[0] = &flwr.ObjectTree{ObjectId: deep.trees[0].ObjectId, Children: []*flwr.ObjectTree{deep.trees[0].Children[0]}}
	}
	for what, c := range map[string]struct {
		batch batch
		want  string
	}{
		"nothing":          {batch{}, "0 messages"},
		"query first":      {of("query", usual(t)), "initial arrays"},
		"evaluate first":   {of("evaluate", usual(t)), "evaluate first"},
		"action":           {of("train.other", usual(t)), "first message"},
		"a model each":     {of("train", usual(t), other), "different messages"},
		"error":            {errorReply, "no content"},
		"unknown node":     {stranger, "which there is not"},
		"too deep":         {deep, "too deep"},
		"no arrays":        {of("train", usual(t)[1:]), "no arrays"},
		"legacy names":     {of("train", object.RecordDict{{Name: "fitins.parameters", Record: arrays(t, 3)}}), "fitins.parameters"},
		"another config":   {of("train", with("more", object.ConfigRecord{})), "want \"config\""},
		"metrics":          {of("train", with("m", object.MetricRecord{})), "MetricRecord"},
		"list in a config": {of("train", object.RecordDict{usual(t)[0], {Name: "config", Record: object.ConfigRecord{{Key: "l", Value: object.Sints{1}}}}}), "no bool"},
		"too large":        {of("train", object.RecordDict{{Name: "arrays", Record: arrays(t, 1<<17)}}), "do not fit"},
	} {
		t.Run(what, func(t *testing.T) {
			o, app := serve(t, runtime, 1<<20)
			r, err := app.PushMessages(t.Context(), &flwr.PushAppMessagesRequest{MessagesList: c.batch.messages, MessageObjectTrees: c.batch.trees})
			for _, id := range r.GetObjectsToPush() {
				for _, x := range c.batch.objects {
					if x.ID.String() == id && err == nil {
						_, err = app.PushObject(t.Context(), &flwr.PushObjectRequest{ObjectId: id, ObjectContent: x.Raw})
					}
				}
			}
			if err != nil && status.Code(err) != codes.FailedPrecondition { // the rest, its reader finds
				t.Errorf("the app was told %v", err)
			}
			if _, err := wait(t, o); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// What a broken or hostile process may do besides.
func TestMisuse(t *testing.T) { inEach(t, testMisuse) }

func testMisuse(t *testing.T, runtime bool) {
	a, tree, objects := message(t, "train", 2, usual(t))
	push := &flwr.PushAppMessagesRequest{MessagesList: []*flwr.Message{a}, MessageObjectTrees: []*flwr.ObjectTree{tree}}
	for what, act := range map[string]func(*Server, flwr.ServerAppIoClient) error{
		"object before its message": func(_ *Server, app flwr.ServerAppIoClient) error {
			_, err := app.PushObject(t.Context(), &flwr.PushObjectRequest{ObjectId: objects[0].ID.String(), ObjectContent: objects[0].Raw})
			return err
		},
		"another content": func(_ *Server, app flwr.ServerAppIoClient) error {
			if _, err := app.PushMessages(t.Context(), push); err != nil {
				return err
			}
			_, err := app.PushObject(t.Context(), &flwr.PushObjectRequest{ObjectId: objects[0].ID.String(), ObjectContent: objects[1].Raw})
			return err
		},
		"no id": func(_ *Server, app flwr.ServerAppIoClient) error {
			_, err := app.PushObject(t.Context(), &flwr.PushObjectRequest{ObjectId: "x"})
			return err
		},
		"second batch": func(_ *Server, app flwr.ServerAppIoClient) error {
			if _, err := app.PushMessages(t.Context(), push); err != nil {
				return err
			}
			_, err := app.PushMessages(t.Context(), push)
			return err
		},
		"too many logs": func(_ *Server, app flwr.ServerAppIoClient) error {
			_, err := app.PushLogs(t.Context(), &flwr.PushLogsRequest{Logs: make([]string, maxLogs+1)})
			return err
		},
	} {
		o, app := serve(t, runtime, 1<<20)
		if err := act(o, app); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s: the app was told %v", what, err)
		}
		if _, err := wait(t, o); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", what, err)
		}
	}

	o, app := serve(t, runtime, 1<<20)
	if r, err := app.SendAppHeartbeat(t.Context(), &flwr.SendAppHeartbeatRequest{Token: o.Token()}); err != nil || !r.Success {
		t.Errorf("heartbeat: %v, %v", r, err)
	}
	if _, err := app.UpdateRunStatus(t.Context(), &flwr.UpdateRunStatusRequest{RunStatus: &flwr.RunStatus{Status: "finished", SubStatus: "failed", Details: "ValueError"}}); err != nil {
		t.Error(err)
	}
	if _, err := wait(t, o); err == nil || !strings.Contains(err.Error(), "ValueError") {
		t.Errorf("an app that failed: %v", err)
	}
}

// A wrong token is no app's: nothing is answered, and the opening goes on.
func TestToken(t *testing.T) {
	t.Parallel()
	o, app := serve(t, false, 1<<20)
	bad := strings.Repeat("0", len(o.Token()))
	if _, err := app.PullAppInputs(t.Context(), &flwr.PullAppInputsRequest{Token: bad}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("wrong token: %v", err)
	}
	if _, err := app.PullAppInputs(t.Context(), &flwr.PullAppInputsRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("no token: %v", err)
	}
	if _, err := app.GetNodes(metadata.AppendToOutgoingContext(t.Context(), "flwr-app-token", bad), &flwr.GetNodesRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("wrong token in the header: %v", err)
	}
	o, app = serve(t, true, 1<<20)
	for _, token := range []string{"", bad, o.Token()[1:]} {
		app.(httpServerApp).c.Token = token
		if _, err := app.PullAppInputs(t.Context(), &flwr.PullAppInputsRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("wrong token over HTTP: %v", err)
		}
	}
}

// TestConversation is a whole run: two batches, replies of which one is a failure, in the
// order of the nodes, and an end.
func TestConversation(t *testing.T) { inEach(t, testConversation) }

func testConversation(t *testing.T, runtime bool) {
	s, app := serve(t, runtime, 1<<20)
	ctx := t.Context()
	send := func(kind string) (ids []string) {
		t.Helper()
		a, treeA, objects := message(t, kind, 2, usual(t))
		b, treeB, _ := message(t, kind, 3, usual(t))
		r, err := app.PushMessages(ctx, &flwr.PushAppMessagesRequest{MessagesList: []*flwr.Message{a, b}, MessageObjectTrees: []*flwr.ObjectTree{treeA, treeB}})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range objects[:len(objects)-1] {
			if _, err := app.PushObject(ctx, &flwr.PushObjectRequest{ObjectId: x.ID.String(), ObjectContent: x.Raw}); err != nil {
				t.Fatal(err)
			}
		}
		return r.MessageIds
	}
	for _, kind := range []string{"train.all", "query"} {
		ids := send(kind)
		b, err := next(t, s)
		if err != nil || b.Type != kind || len(b.To) != 2 || len(b.Objects) == 0 {
			t.Fatalf("batch %+v, %v", b, err)
		}
		pulled := make(chan *flwr.PullAppMessagesResponse)
		go func() {
			r, err := app.PullMessages(ctx, &flwr.PullAppMessagesRequest{MessageIds: append(ids, strings.Repeat("0", 64))})
			if err != nil {
				t.Error(err)
			}
			pulled <- r
		}()
		answer, err := object.Objects(object.RecordDict{{Name: "m", Record: object.MetricRecord{{Key: "loss", Value: object.Double(0.5)}}}})
		if err != nil {
			t.Fatal(err)
		}
		root := answer[len(answer)-1].ID
		err = s.Answer([]Reply{
			{Node: 3, Failure: flower.NewFailure(2, "<class 'ValueError'>:<'patient 4711'>")},
			{Node: 2, Content: root, Get: func(id object.ID) ([]byte, error) {
				for _, o := range answer {
					if o.ID == id {
						return o.Raw, nil
					}
				}
				return nil, errors.New("no such object")
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		r := <-pulled
		if len(r.GetMessagesList()) != 2 || len(r.MessageObjectTrees) != 2 {
			t.Fatalf("replies %v", r)
		}
		failed, ok := r.MessagesList[0], r.MessagesList[1]
		if failed.Metadata.SrcNodeId != 3 || failed.Metadata.ReplyToMessageId != ids[1] || failed.GetError().GetCode() != 2 || strings.Contains(failed.Error.Reason, "4711") {
			t.Errorf("failure %v", failed)
		}
		if ok.Metadata.SrcNodeId != 2 || ok.Metadata.ReplyToMessageId != ids[0] || ok.Metadata.MessageType != kind || ok.Metadata.DstNodeId != 1 || ok.Content == nil {
			t.Errorf("reply %v", ok)
		}
		got := map[object.ID][]byte{}
		for i, tree := range r.MessageObjectTrees {
			var walk func(*flwr.ObjectTree)
			walk = func(x *flwr.ObjectTree) {
				o, err := app.PullObject(ctx, &flwr.PullObjectRequest{ObjectId: x.ObjectId})
				if err != nil || !o.ObjectAvailable || object.Sum(o.ObjectContent).String() != x.ObjectId {
					t.Errorf("object %v, %v", o.GetObjectFound(), err)
				}
				got[object.Sum(o.GetObjectContent())] = o.GetObjectContent()
				for _, c := range x.Children {
					walk(c)
				}
			}
			walk(tree)
			id, _ := object.ParseID(r.MessagesList[i].Metadata.MessageId)
			n, err := object.Inflate(id, func(id object.ID) ([]byte, error) { return got[id], nil }, object.Limits{Objects: 10, Bytes: 1 << 20})
			if err != nil || n.Kind() != object.KindMessage {
				t.Errorf("message %d: %v, %v", i, n, err)
			}
			if _, err := app.ConfirmMessageReceived(ctx, &flwr.ConfirmMessageReceivedRequest{MessageObjectId: id.String()}); err != nil {
				t.Error(err)
			}
			if o, err := app.PullObject(ctx, &flwr.PullObjectRequest{ObjectId: tree.ObjectId}); err != nil || o.ObjectFound {
				t.Errorf("an object after its confirmation: %v, %v", o, err)
			}
		}
		if r, err := app.PullMessages(ctx, &flwr.PullAppMessagesRequest{MessageIds: ids}); err != nil || len(r.MessagesList) != 0 {
			t.Errorf("replies again: %v, %v", r, err)
		}
	}
	if _, err := app.PushAppOutputs(ctx, &flwr.PushAppOutputsRequest{Token: s.Token()}); err != nil {
		t.Fatal(err)
	}
	if _, err := next(t, s); !errors.Is(err, ErrFinished) {
		t.Errorf("after the end: %v", err)
	}
}

// TestRule: what may be told of a refusal holds nothing of the process's.
func TestRule(t *testing.T) {
	err := refusef("it ended: %.40s %.500s", "failed", "patient 4711")
	if Rule(err) == "" || strings.Contains(Rule(err), "4711") || !strings.Contains(err.Error(), "4711") || !errors.Is(err, ErrRefused) {
		t.Errorf("rule %q of %v", Rule(err), err)
	}
	if r := Rule(errors.New("other")); r != "" {
		t.Errorf("rule %q of another error", r)
	}
}

// TestThreads: strategies from before the Message API send from a thread for each node,
// which waits for its own answer.
func TestThreads(t *testing.T) { inEach(t, testThreads) }

func testThreads(t *testing.T, runtime bool) {
	s, app := serve(t, runtime, 1<<20)
	ctx := t.Context()
	answers := make(chan uint64)
	for node := uint64(2); node <= 3; node++ {
		m, tree, objects := message(t, "train", node, usual(t))
		go func() {
			r, err := app.PushMessages(ctx, &flwr.PushAppMessagesRequest{MessagesList: []*flwr.Message{m}, MessageObjectTrees: []*flwr.ObjectTree{tree}})
			for _, id := range r.GetObjectsToPush() {
				for _, x := range objects {
					if x.ID.String() == id && err == nil {
						_, err = app.PushObject(ctx, &flwr.PushObjectRequest{ObjectId: id, ObjectContent: x.Raw})
					}
				}
			}
			got, pulled := app.PullMessages(ctx, &flwr.PullAppMessagesRequest{MessageIds: r.GetMessageIds()})
			if err != nil || pulled != nil || len(got.GetMessagesList()) != 1 {
				t.Errorf("node %d: %v, %v, %v", node, got, err, pulled)
				answers <- 0
				return
			}
			answers <- got.MessagesList[0].Metadata.SrcNodeId
		}()
	}
	b, err := next(t, s)
	if err != nil || len(b.To) != 2 {
		t.Fatalf("batch %+v, %v", b, err)
	}
	failed := flower.NewFailure(2, "")
	if err := s.Answer([]Reply{{Node: 2, Failure: failed}, {Node: 3, Failure: failed}}); err != nil {
		t.Fatal(err)
	}
	if a, b := <-answers, <-answers; a+b != 5 {
		t.Errorf("answers of %d and %d", a, b)
	}
}

// TestSome: a process that sends some nodes a message, and asks for all their replies at
// once, sends no others one; they are not waited for.
func TestSome(t *testing.T) { inEach(t, testSome) }

func testSome(t *testing.T, runtime bool) {
	s, app := serve(t, runtime, 1<<20, func(c *Config) { c.Nodes, c.Settle = []uint64{2, 3, 4}, time.Hour })
	ctx := t.Context()
	var ids []string
	for _, node := range []uint64{4, 2} {
		m, tree, objects := message(t, "evaluate", node, usual(t))
		r, err := app.PushMessages(ctx, &flwr.PushAppMessagesRequest{MessagesList: []*flwr.Message{m}, MessageObjectTrees: []*flwr.ObjectTree{tree}})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range objects {
			if slices.Contains(r.ObjectsToPush, x.ID.String()) {
				if _, err := app.PushObject(ctx, &flwr.PushObjectRequest{ObjectId: x.ID.String(), ObjectContent: x.Raw}); err != nil {
					t.Fatal(err)
				}
			}
		}
		ids = append(ids, r.MessageIds...)
	}
	pulled := make(chan *flwr.PullAppMessagesResponse)
	go func() {
		r, err := app.PullMessages(ctx, &flwr.PullAppMessagesRequest{MessageIds: ids})
		if err != nil {
			t.Error(err)
		}
		pulled <- r
	}()
	b, err := next(t, s)
	if err != nil || !slices.Equal(b.To, []uint64{4, 2}) {
		t.Fatalf("batch %+v, %v", b, err)
	}
	failed := flower.NewFailure(2, "")
	if err := s.Answer([]Reply{{Node: 2, Failure: failed}, {Node: 3, Failure: failed}}); err == nil {
		t.Error("a reply of a node that was not asked was taken")
	}
	if err := s.Answer([]Reply{{Node: 2, Failure: failed}, {Node: 4, Failure: failed}}); err != nil {
		t.Fatal(err)
	}
	if r := <-pulled; len(r.GetMessagesList()) != 2 {
		t.Errorf("replies %v", r)
	}
}

// TestPool: a pool of fewer threads than there are nodes sends what is for all in waves, of
// which each waits for the one before. All nodes are asked at once, and the later messages
// are answered from what came.
func TestPool(t *testing.T) { inEach(t, testPool) }

func testPool(t *testing.T, runtime bool) {
	nodes := []uint64{2, 3, 4, 5, 6, 7, 8, 9}
	for name, c := range map[string]struct {
		waves []int // messages, each with a call of its own
		other bool  // the last wave has another content
		want  string
	}{
		"whole":             {[]int{5, 3}, false, ""},
		"three waves":       {[]int{5, 2, 1}, false, ""},
		"ends too early":    {[]int{5, 1}, false, "sent some of the nodes no message"},
		"goes on too early": {[]int{5, 3}, true, "different messages"},
	} {
		t.Run(name, func(t *testing.T) {
			s, app := serve(t, runtime, 1<<20, func(c *Config) { c.Nodes, c.All = nodes, true })
			ctx := t.Context()
			failed := make(chan error, len(nodes))
			node := 0
			for w, n := range c.waves {
				var wave sync.WaitGroup
				for range n {
					content := usual(t)
					if c.other && w == len(c.waves)-1 {
						content[0].Record = arrays(t, 4)
					}
					to := nodes[node]
					m, tree, objects := message(t, "train", to, content)
					node++
					wave.Go(func() {
						r, err := app.PushMessages(ctx, &flwr.PushAppMessagesRequest{MessagesList: []*flwr.Message{m}, MessageObjectTrees: []*flwr.ObjectTree{tree}})
						for _, x := range objects {
							if err == nil && slices.Contains(r.ObjectsToPush, x.ID.String()) {
								_, err = app.PushObject(ctx, &flwr.PushObjectRequest{ObjectId: x.ID.String(), ObjectContent: x.Raw})
							}
						}
						var got *flwr.PullAppMessagesResponse
						if err == nil {
							got, err = app.PullMessages(ctx, &flwr.PullAppMessagesRequest{MessageIds: r.GetMessageIds()})
						}
						if err == nil && (len(got.MessagesList) != 1 || got.MessagesList[0].Metadata.SrcNodeId != to || got.MessagesList[0].Metadata.ReplyToMessageId != r.MessageIds[0]) {
							err = fmt.Errorf("node %d: %v", to, got)
						}
						if err != nil {
							failed <- err
						}
					})
				}
				if w == 0 {
					b, err := next(t, s)
					if err != nil || len(b.To) != len(nodes) {
						t.Fatalf("batch %+v, %v", b, err)
					}
					var replies []Reply
					for _, n := range nodes {
						replies = append(replies, Reply{Node: n, Failure: flower.NewFailure(2, "")})
					}
					if err := s.Answer(replies); err != nil {
						t.Fatal(err)
					}
				}
				wave.Wait()
			}
			if !c.other {
				if _, err := app.PushAppOutputs(ctx, &flwr.PushAppOutputsRequest{Token: s.Token()}); err != nil {
					t.Fatal(err)
				}
			}
			_, err := next(t, s)
			switch {
			case c.want == "" && (!errors.Is(err, ErrFinished) || len(failed) > 0):
				t.Errorf("%v", err)
				for len(failed) > 0 {
					t.Error(<-failed)
				}
			case c.want != "" && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.want)):
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestAddressed: where messages may differ, each node's content comes with it, with what
// they have in common once; a batch is handed out when all of it is here.
func TestAddressed(t *testing.T) { inEach(t, testAddressed) }

func testAddressed(t *testing.T, runtime bool) {
	s, app := serve(t, runtime, 1<<20, func(c *Config) { c.Nodes, c.Addressed, c.All = []uint64{2, 3, 4}, true, true })
	ctx := t.Context()
	want := map[uint64]object.RecordDict{}
	pushed := map[string]int{}
	var ids []string
	send := func(kind string, nodes ...uint64) error {
		q := &flwr.PushAppMessagesRequest{}
		raw := map[string][]byte{}
		for _, n := range nodes {
			d := append(usual(t), object.RecordItem{Name: "own", Record: object.ConfigRecord{{Key: "node", Value: object.Sint(n)}}})
			want[n] = d
			m, tree, objects := message(t, kind, n, d)
			q.MessagesList, q.MessageObjectTrees = append(q.MessagesList, m), append(q.MessageObjectTrees, tree)
			for _, o := range objects {
				raw[o.ID.String()] = o.Raw
			}
		}
		r, err := app.PushMessages(ctx, q)
		if err != nil {
			return err
		}
		ids = append(ids, r.MessageIds...)
		for _, id := range r.ObjectsToPush {
			pushed[id]++
			if _, err := app.PushObject(ctx, &flwr.PushObjectRequest{ObjectId: id, ObjectContent: raw[id]}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, nodes := range [][]uint64{{3, 2}, {4}} {
		if err := send("train", nodes...); err != nil {
			t.Fatal(err)
		}
	}
	b, err := next(t, s)
	if err != nil || !slices.Equal(b.To, []uint64{3, 2, 4}) || len(b.Contents) != 3 {
		t.Fatalf("batch %+v, %v", b, err)
	}
	for i, n := range b.To {
		got, err := object.Inflate(b.Contents[i], b.Get, object.Limits{Objects: 100, Bytes: 1 << 20})
		whole, wrong := object.Objects(want[n])
		if err != nil || wrong != nil || b.Contents[i] != whole[len(whole)-1].ID {
			t.Errorf("node %d is to get %v, %v", n, got, err)
		}
	}
	for id, n := range pushed {
		if n != 1 {
			t.Errorf("object %s is asked for %d times", id, n)
		}
	}
	var replies []Reply
	for _, n := range b.To {
		replies = append(replies, Reply{Node: n, Failure: flower.NewFailure(2, "")})
	}
	if err := s.Answer(replies); err != nil {
		t.Fatal(err)
	}
	if r, err := app.PullMessages(ctx, &flwr.PullAppMessagesRequest{MessageIds: ids}); err != nil || len(r.MessagesList) != 3 {
		t.Errorf("replies %v, %v", r, err)
	}
	// What one batch is called stays one all the same.
	if err := send("train", 2); err != nil {
		t.Fatal(err)
	}
	if err := send("evaluate", 3); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("messages of two types at once: %v", err)
	}
}
