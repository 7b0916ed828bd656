package ci

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/apps"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/sandbox"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// ServerApp is what this test binary does where an enclave has started it as one.
type ServerApp func(ctx context.Context, g *Grid) error

// Grid is a ServerApp's side of its connection, as flwr.serverapp.Grid is.
type Grid struct {
	Nodes  []uint64
	Config map[string]any // of the run
	server flwr.ServerAppIoClient
}

// Answer is one reply: with a content, or the failure that the enclave tells.
type Answer struct {
	Node    uint64
	Content object.RecordDict
	Failed  string
}

// Send sends content to some nodes, and returns the messages' ids.
func (g *Grid) Send(ctx context.Context, kind, group string, content object.RecordDict, to ...uint64) ([]string, error) {
	return g.SendEach(ctx, kind, group, func(uint64) object.RecordDict { return content }, to...)
}

// SendEach is Send with a content for each node.
func (g *Grid) SendEach(ctx context.Context, kind, group string, content func(node uint64) object.RecordDict, to ...uint64) ([]string, error) {
	q := &flwr.PushAppMessagesRequest{}
	objects := map[object.ID][]byte{}
	for _, n := range to {
		list, err := object.Objects(&object.Message{Content: content(n),
			Metadata: object.Metadata{SrcNode: flower.Server, DstNode: n, Group: group, TTL: 3600, Type: kind, CreatedAt: float64(time.Now().Unix())}})
		if err != nil {
			return nil, err
		}
		for _, o := range list {
			objects[o.ID] = o.Raw
		}
		root := list[len(list)-1].ID
		q.MessagesList = append(q.MessagesList, &flwr.Message{Content: &flwr.RecordDict{}, Metadata: &flwr.Metadata{
			MessageId: root.String(), SrcNodeId: flower.Server, DstNodeId: n, GroupId: group, Ttl: 3600, MessageType: kind, CreatedAt: float64(time.Now().Unix())}})
		q.MessageObjectTrees = append(q.MessageObjectTrees, treeOf(root, objects))
	}
	r, err := g.server.PushMessages(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, id := range r.ObjectsToPush {
		oid, err := object.ParseID(id)
		if err != nil {
			return nil, err
		}
		if _, err := g.server.PushObject(ctx, &flwr.PushObjectRequest{ObjectId: id, ObjectContent: objects[oid]}); err != nil {
			return nil, err
		}
	}
	return r.MessageIds, nil
}

func treeOf(id object.ID, objects map[object.ID][]byte) *flwr.ObjectTree {
	t := &flwr.ObjectTree{ObjectId: id.String()}
	if h, err := object.ParseHead(objects[id]); err == nil {
		for _, c := range h.Children {
			t.Children = append(t.Children, treeOf(c, objects))
		}
	}
	return t
}

// Receive waits for the answers to messages.
func (g *Grid) Receive(ctx context.Context, ids []string) (out []Answer, err error) {
	r, err := g.server.PullMessages(ctx, &flwr.PullAppMessagesRequest{MessageIds: ids})
	if err != nil {
		return nil, err
	}
	for _, m := range r.MessagesList {
		a := Answer{Node: m.Metadata.SrcNodeId}
		id, err := object.ParseID(m.Metadata.MessageId)
		if err != nil {
			return nil, err
		}
		n, err := object.Inflate(id, func(id object.ID) ([]byte, error) {
			o, err := g.server.PullObject(ctx, &flwr.PullObjectRequest{ObjectId: id.String()})
			if err == nil && !o.ObjectAvailable {
				err = errors.New("an object is not to be had")
			}
			return o.GetObjectContent(), err
		}, object.Limits{Objects: 1 << 10, Bytes: 1 << 30})
		if err != nil {
			return nil, err
		}
		got := n.(*object.Message)
		if a.Content = got.Content; got.Error != nil {
			a.Failed = got.Error.Reason
		}
		out = append(out, a)
		if _, err := g.server.ConfirmMessageReceived(ctx, &flwr.ConfirmMessageReceivedRequest{MessageObjectId: m.Metadata.MessageId}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Print sends pieces of what the app prints, as Flower's process does of its output.
func (g *Grid) Print(ctx context.Context, pieces ...string) error {
	_, err := g.server.PushLogs(ctx, &flwr.PushLogsRequest{Logs: pieces})
	return err
}

// serverAppMain is this binary as flwr-serverapp.
func serverAppMain(app ServerApp) error {
	set := flag.NewFlagSet("serverapp", flag.ExitOnError)
	set.Bool("insecure", false, "")
	address := set.String("serverappio-api-address", "", "")
	token := set.String("token", "", "")
	_ = set.Parse(os.Args[1:])
	conn, err := grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx := context.Background()
	g := &Grid{server: flwr.NewServerAppIoClient(conn)}
	in, err := g.server.PullAppInputs(ctx, &flwr.PullAppInputsRequest{Token: *token})
	if err != nil {
		return err
	}
	if g.Config, err = flwr.Values(in.Run.OverrideConfig); err != nil {
		return err
	}
	nodes, err := g.server.GetNodes(ctx, &flwr.GetNodesRequest{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Nodes {
		g.Nodes = append(g.Nodes, n.NodeId)
	}
	if err := app(ctx, g); err != nil {
		_, told := g.server.UpdateRunStatus(ctx, &flwr.UpdateRunStatusRequest{RunStatus: &flwr.RunStatus{Status: "finished", SubStatus: "failed", Details: err.Error()}})
		return errors.Join(err, told)
	}
	_, err = g.server.PushAppOutputs(ctx, &flwr.PushAppOutputsRequest{Token: *token, Context: &flwr.Context{}})
	return err
}

// bundle is an app bundle that flwr 1.29 built; this binary acts as its programs.
const bundle = "../internal/flower/fab/testdata/flwr-1.29.0.fab"

// OwnServerApp makes a federation one whose policy has a Flower app that aggregates by
// itself, with configs; its enclaves and nodes run this binary as both parts of it, and
// every owner has approved it. It returns the app's digest and what a run request begins
// with.
func OwnServerApp(t testing.TB, configs ...map[string]any) (opts []Option, app Digest, initial [][]byte) {
	t.Helper()
	raw, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	app = Digest(object.Sum(raw))
	objects, err := object.Objects(flower.PackBundle(raw))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		initial = append(initial, o.Raw)
	}
	env := environment(t)
	a, err := apps.Open(apps.Config{Environment: env, Isolation: sandbox.None})
	if err != nil {
		t.Fatal(err)
	}
	opts = []Option{ServerApps(a),
		NodeConfig(func(_ string, c *node.Config) {
			c.Flower = &node.Flower{Environment: env}
			chain, err := policy.ParseChain(c.Policy)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(c.Dir, chain.Federation().String(), "fabs")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, app.String()+".fab"), raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}),
		Policy(func(p *policy.Policy) {
			x := policy.App{Digest: app, Name: "own", Exposure: policy.ExposureIndividual, Strategies: []string{policy.StrategyCustom}, MaxRounds: 5}
			for _, c := range configs {
				x.Configs = append(x.Configs, policy.ConfigDigest(c))
			}
			slices.SortFunc(x.Configs, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
			p.Apps = append(p.Apps, x)
			slices.SortFunc(p.Apps, func(a, b policy.App) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
			p.Nodes.MessageTypes = []string{"evaluate", "query", "train"}
		})}
	return opts, app, initial
}

// environment is a Python environment by its looks: its programs are this binary.
func environment(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"bin", "lib/python3.11/site-packages/flwr-1.29.0.dist-info"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"python3", "flwr-clientapp", "flwr-serverapp"} {
		if err := os.Symlink(self, filepath.Join(dir, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
