package serverapp

import (
	"context"
	"net"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	runtime "github.com/concordat/concordat/api/flwr/runtime"
	"github.com/concordat/concordat/internal/flower/appio"
	"github.com/concordat/concordat/internal/flower/protohttp"
)

// ServeRuntime is [Server.Serve] for a process of flwr 1.35 or later, which speaks
// Flower's Runtime API over HTTP. Every call shows the token.
func (s *Server) ServeRuntime(ctx context.Context, l net.Listener) error {
	return protohttp.Serve(ctx, l, s.runtimeHandler(), maxStreams, false)
}

func (s *Server) runtimeHandler() http.Handler {
	c := &runtimeCalls{calls: &calls{s: s}}
	return protohttp.Handler(protohttp.API{Path: appio.RuntimePath, MaxBody: maxMessage,
		Guard: func(r *http.Request) error {
			if !s.authentic(r.Header.Get(appio.RuntimeToken)) {
				return status.Error(codes.Unauthenticated, "Authentication failed.") // Flower's words
			}
			return nil
		},
		Calls: map[string]protohttp.Call{
			"send-task-heartbeat":      protohttp.Unary(judged(s, c.heartbeat)),
			"pull-task-input":          protohttp.Unary(judged(s, c.input)),
			"get-nodes":                protohttp.Unary(judged(s, c.nodes)),
			"push-logs":                protohttp.Unary(judged(s, c.calls.PushLogs)),
			"push-messages":            protohttp.Unary(judged(s, c.push)),
			"push-object":              protohttp.Unary(judged(s, c.calls.PushObject)),
			"pull-messages":            protohttp.Unary(judged(s, c.pull)),
			"pull-object":              protohttp.Unary(judged(s, c.calls.PullObject)),
			"confirm-message-received": protohttp.Unary(judged(s, c.calls.ConfirmMessageReceived)),
			"push-task-output":         protohttp.Unary(judged(s, c.output)),
		}})
}

func judged[Q, R proto.Message](s *Server, f func(context.Context, Q) (R, error)) func(context.Context, Q) (R, error) {
	return func(ctx context.Context, q Q) (R, error) {
		r, err := f(ctx, q)
		return r, s.judge(err)
	}
}

// runtimeCalls turns what the Runtime API numbers in another way into the calls of the
// services before it.
type runtimeCalls struct{ calls *calls }

func (c *runtimeCalls) heartbeat(context.Context, *runtime.SendTaskHeartbeatRequest) (*runtime.SendTaskHeartbeatResponse, error) {
	return &runtime.SendTaskHeartbeatResponse{Success: true}, nil
}

func (c *runtimeCalls) input(ctx context.Context, _ *runtime.PullTaskInputRequest) (*runtime.PullTaskInputResponse, error) {
	r, err := c.calls.PullAppInputs(ctx, &flwr.PullAppInputsRequest{})
	return &runtime.PullTaskInputResponse{Context: r.GetContext(), Run: r.GetRun(), Fab: r.GetFab(), TaskId: 1}, err
}

func (c *runtimeCalls) nodes(context.Context, *runtime.GetNodesRequest) (*runtime.GetNodesResponse, error) {
	r := &runtime.GetNodesResponse{}
	for _, id := range c.calls.s.config.Nodes {
		r.Nodes = append(r.Nodes, &flwr.NodeInfo{NodeId: id, Status: "online"})
	}
	return r, nil
}

func (c *runtimeCalls) push(ctx context.Context, q *runtime.PushAppMessagesRequest) (*runtime.PushAppMessagesResponse, error) {
	r, err := c.calls.PushMessages(ctx, &flwr.PushAppMessagesRequest{MessagesList: q.GetMessagesList(), MessageObjectTrees: q.GetMessageObjectTrees()})
	return &runtime.PushAppMessagesResponse{MessageIds: r.GetMessageIds(), ObjectsToPush: r.GetObjectsToPush()}, err
}

func (c *runtimeCalls) pull(ctx context.Context, q *runtime.PullAppMessagesRequest) (*flwr.PullAppMessagesResponse, error) {
	return c.calls.PullMessages(ctx, &flwr.PullAppMessagesRequest{MessageIds: q.GetMessageIds()})
}

func (c *runtimeCalls) output(_ context.Context, q *runtime.PushTaskOutputRequest) (*runtime.PushTaskOutputResponse, error) {
	c.calls.s.finish(q.GetSubStatus() == completed, q.GetSubStatus(), q.GetDetails())
	return &runtime.PushTaskOutputResponse{}, nil
}
