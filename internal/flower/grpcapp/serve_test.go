package grpcapp_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
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
	"github.com/concordat/concordat/internal/flower/clientapp"
	"github.com/concordat/concordat/internal/flower/grpcapp"
)

// serve runs an app behind a Unix socket and returns its address.
func serve(t *testing.T, c flower.Config) (*flower.App, string) {
	t.Helper()
	app, err := flower.NewApp(c)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "app") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- grpcapp.Serve(ctx, l, app) }()
	t.Cleanup(func() {
		app.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return app, "unix://" + l.Addr().String()
}

func dial(t *testing.T, address string) flwr.ClientAppIoClient {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return flwr.NewClientAppIoClient(conn)
}

// instruct gives the app one message.
func instruct(t *testing.T, app *flower.App, typ string, content object.RecordDict) (*flower.Reply, error) {
	t.Helper()
	objects, err := object.Objects(content)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return app.Do(ctx, flower.Instruction{Type: typ, Round: 1, Content: objects[len(objects)-1].ID, Get: func(id object.ID) ([]byte, error) {
		for _, o := range objects {
			if o.ID == id {
				return o.Raw, nil
			}
		}
		return nil, errors.New("unknown object")
	}})
}

// Object calls of flwr up to 1.28 carry no token: they are taken on a connection
// that has shown it, and on no other.
func TestToken(t *testing.T) {
	t.Parallel()
	app, address := serve(t, flower.Config{RunID: 1, NodeID: 2})
	ctx, good := t.Context(), app.Token()
	bad := strings.Repeat("0", len(good))
	header := func(tokens ...string) context.Context {
		c := ctx
		for _, token := range tokens {
			c = metadata.AppendToOutgoingContext(c, "flwr-app-token", token)
		}
		return c
	}
	object := &flwr.PullObjectRequest{ObjectId: strings.Repeat("0", 64)}
	// FAILED_PRECONDITION is an answer: no message was pulled.
	const denied, answered = codes.Unauthenticated, codes.FailedPrecondition

	for name, c := range map[string]struct {
		first func(flwr.ClientAppIoClient) error
		code  codes.Code // of first
		after codes.Code // of an object call without token on the same connection
	}{
		"nothing shown":        {nil, codes.OK, denied},
		"body":                 {func(a flwr.ClientAppIoClient) error { return beat(a, ctx, good) }, codes.OK, answered},
		"header and body":      {func(a flwr.ClientAppIoClient) error { return beat(a, header(good), good) }, codes.OK, answered},
		"wrong body":           {func(a flwr.ClientAppIoClient) error { return beat(a, ctx, bad) }, denied, denied},
		"empty body":           {func(a flwr.ClientAppIoClient) error { return beat(a, ctx, "") }, denied, denied},
		"good header, wrong":   {func(a flwr.ClientAppIoClient) error { return beat(a, header(good), bad) }, denied, answered},
		"wrong header, good":   {func(a flwr.ClientAppIoClient) error { return beat(a, header(bad), good) }, denied, denied},
		"header of two tokens": {func(a flwr.ClientAppIoClient) error { return beat(a, header(bad, good), good) }, denied, denied},
	} {
		t.Run(name, func(t *testing.T) {
			node := dial(t, address)
			if c.first != nil {
				if err := c.first(node); status.Code(err) != c.code {
					t.Errorf("first call: %v, want %v", err, c.code)
				}
			}
			if _, err := node.PullObject(ctx, object); status.Code(err) != c.after {
				t.Errorf("object call: %v, want %v", err, c.after)
			}
		})
	}
	node := dial(t, address)
	if err := beat(node, ctx, good); err != nil {
		t.Fatal(err)
	}
	if _, err := node.PullObject(header(bad), object); status.Code(err) != denied {
		t.Errorf("wrong header on a trusted connection: %v", err)
	}
}

func beat(a flwr.ClientAppIoClient, ctx context.Context, token string) error {
	_, err := a.SendAppHeartbeat(ctx, &flwr.SendAppHeartbeatRequest{Token: token})
	return err
}

// What ends a process, in the statuses that Flower's clients know.
func TestStatuses(t *testing.T) {
	t.Parallel()
	app, address := serve(t, flower.Config{RunID: 1, NodeID: 2})
	node, ctx := dial(t, address), t.Context()
	want := func(what string, err error, code codes.Code) {
		t.Helper()
		if status.Code(err) != code {
			t.Errorf("%s: %v, want %v", what, err, code)
		}
	}
	r, err := node.SendAppHeartbeat(ctx, &flwr.SendAppHeartbeatRequest{Token: app.Token()})
	if err != nil || !r.Success {
		t.Fatalf("heartbeat: %v, %v", r, err)
	}
	go func() { _, _ = instruct(t, app, "train", object.RecordDict{}) }()
	m, err := node.PullMessage(ctx, &flwr.PullAppMessagesRequest{Token: app.Token()})
	if err != nil {
		t.Fatal(err)
	}
	if msg := m.MessagesList[0]; msg.Content == nil || msg.Error != nil || msg.Metadata.MessageId != m.MessageObjectTrees[0].ObjectId {
		t.Errorf("message %v", msg)
	}
	deep := &flwr.ObjectTree{ObjectId: strings.Repeat("0", 64)}
	for range 5 {
		deep = &flwr.ObjectTree{ObjectId: deep.ObjectId, Children: []*flwr.ObjectTree{deep}}
	}
	push := func(m *flwr.Message, trees ...*flwr.ObjectTree) error {
		_, err := node.PushMessage(ctx, &flwr.PushAppMessagesRequest{Token: app.Token(), MessagesList: []*flwr.Message{m}, MessageObjectTrees: trees})
		return err
	}
	md := &flwr.Metadata{}
	want("no tree", push(&flwr.Message{Metadata: md, Content: &flwr.RecordDict{}}), codes.FailedPrecondition)
	want("neither content nor error", push(&flwr.Message{Metadata: md}, deep.Children[0]), codes.FailedPrecondition)
	want("both", push(&flwr.Message{Metadata: md, Content: &flwr.RecordDict{}, Error: &flwr.Error{}}, deep.Children[0]), codes.FailedPrecondition)
	want("no metadata", push(&flwr.Message{Content: &flwr.RecordDict{}}, deep.Children[0]), codes.FailedPrecondition)
	want("too deep", push(&flwr.Message{Metadata: md, Content: &flwr.RecordDict{}}, deep), codes.FailedPrecondition)
	want("no hex", push(&flwr.Message{Metadata: md, Content: &flwr.RecordDict{}}, &flwr.ObjectTree{ObjectId: "x"}), codes.FailedPrecondition)
	_, err = node.PushObject(ctx, &flwr.PushObjectRequest{ObjectId: "x"})
	want("object without id", err, codes.FailedPrecondition)
	if o, err := node.PullObject(ctx, &flwr.PullObjectRequest{ObjectId: "x"}); err != nil || o.ObjectFound {
		t.Errorf("unknown object: %v, %v", o, err)
	}
	_, err = node.GetRun(ctx, &flwr.GetRunRequest{})
	want("a call that is not served", err, codes.Unimplemented)

	app.Close()
	if r, err := node.SendAppHeartbeat(ctx, &flwr.SendAppHeartbeatRequest{Token: app.Token()}); err != nil || r.Success {
		t.Errorf("heartbeat after the end: %v, %v", r, err)
	}
	_, err = node.PullMessage(ctx, &flwr.PullAppMessagesRequest{Token: app.Token()})
	want("message after the end", err, codes.PermissionDenied)
}

// Our own client: one process, several messages, an array of several chunks, and
// a clean end when the node closes the app.
func TestClientApp(t *testing.T) {
	t.Parallel()
	app, address := serve(t, flower.Config{RunID: 1, NodeID: 2,
		NodeConfig: map[string]any{"b": true, "i": int64(-3), "f": 0.5, "s": "x"}, RunConfig: map[string]any{"lr": 0.1}})
	ran := make(chan error, 1)
	go func() {
		ran <- clientapp.Run(context.Background(), clientapp.Config{Address: address, Token: app.Token()},
			func(_ context.Context, m clientapp.Message) (object.RecordDict, error) {
				if m.NodeConfig["i"] != int64(-3) || m.NodeConfig["b"] != true || m.NodeConfig["s"] != "x" || m.NodeConfig["f"] != 0.5 || m.RunConfig["lr"] != 0.1 {
					return nil, errors.New("config is not as given")
				}
				if m.Type == "evaluate" {
					return nil, nil
				}
				return m.Content, nil
			})
	}()
	data := make([]byte, 11<<20)
	for i := range data {
		data[i] = byte(i >> 16)
	}
	a, err := object.NewArray(object.NPY{Descr: "|u1", Shape: []int{len(data)}}, data)
	if err != nil {
		t.Fatal(err)
	}
	content := object.RecordDict{{Name: "arrays", Record: object.ArrayRecord{{Name: "é", Array: a}}}}
	for range 2 {
		r, err := instruct(t, app, "train", content)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := object.Objects(content)
		if err != nil {
			t.Fatal(err)
		}
		if r.Root != objects[len(objects)-1].ID || len(r.Objects) != len(objects) {
			t.Errorf("reply of %d objects, sent %d", len(r.Objects), len(objects))
		}
		if r, err := instruct(t, app, "evaluate", content); err != nil || len(r.Content) != 0 {
			t.Errorf("empty reply: %v, %v", r, err)
		}
	}
	app.Close()
	select {
	case err := <-ran:
		if err != nil {
			t.Errorf("client: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("client did not end")
	}
}
