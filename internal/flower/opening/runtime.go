package opening

import (
	"context"
	"errors"
	"net"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	runtime "github.com/concordat/concordat/api/flwr/runtime"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/appio"
	"github.com/concordat/concordat/internal/flower/protohttp"
)

// ServeRuntime is [Opening.Serve] for a process of flwr 1.35 or later, which speaks
// Flower's Runtime API over HTTP. Every call shows the token.
func (o *Opening) ServeRuntime(ctx context.Context, l net.Listener) error {
	return protohttp.Serve(ctx, l, o.runtimeHandler(), maxStreams, false)
}

func (o *Opening) runtimeHandler() http.Handler {
	s := &runtimeServer{s: &server{o: o}}
	return protohttp.Handler(protohttp.API{Path: appio.RuntimePath, MaxBody: maxMessage,
		Guard: func(r *http.Request) error {
			if !o.authentic(r.Header.Get(appio.RuntimeToken)) {
				return status.Error(codes.Unauthenticated, "Authentication failed.") // Flower's words
			}
			return nil
		},
		Calls: map[string]protohttp.Call{
			"send-task-heartbeat": protohttp.Unary(guarded(o, s.heartbeat)),
			"pull-task-input":     protohttp.Unary(guarded(o, s.input)),
			"get-nodes":           protohttp.Unary(guarded(o, s.nodes)),
			"push-logs":           protohttp.Unary(guarded(o, s.s.PushLogs)),
			"push-messages":       protohttp.Unary(guarded(o, s.push)),
			"push-object":         protohttp.Unary(guarded(o, s.s.PushObject)),
			"pull-messages":       protohttp.Unary(guarded(o, s.pull)),
			"push-task-output":    protohttp.Unary(guarded(o, s.output)),
		}})
}

// guarded ends the opening for what cannot open a run.
func guarded[Q, R proto.Message](o *Opening, f func(context.Context, Q) (R, error)) func(context.Context, Q) (R, error) {
	return func(ctx context.Context, q Q) (R, error) {
		r, err := f(ctx, q)
		if errors.Is(err, ErrRefused) {
			o.Fail(err)
			return r, status.Error(codes.FailedPrecondition, err.Error())
		}
		return r, err
	}
}

// runtimeServer turns what the Runtime API numbers in another way into the calls of the
// services before it.
type runtimeServer struct{ s *server }

func (v *runtimeServer) heartbeat(context.Context, *runtime.SendTaskHeartbeatRequest) (*runtime.SendTaskHeartbeatResponse, error) {
	return &runtime.SendTaskHeartbeatResponse{Success: true}, nil
}

func (v *runtimeServer) input(ctx context.Context, _ *runtime.PullTaskInputRequest) (*runtime.PullTaskInputResponse, error) {
	r, err := v.s.PullAppInputs(ctx, &flwr.PullAppInputsRequest{})
	return &runtime.PullTaskInputResponse{Context: r.GetContext(), Run: r.GetRun(), Fab: r.GetFab(), TaskId: 1}, err
}

func (v *runtimeServer) nodes(context.Context, *runtime.GetNodesRequest) (*runtime.GetNodesResponse, error) {
	r := &runtime.GetNodesResponse{}
	for i := range v.s.o.config.Nodes {
		r.Nodes = append(r.Nodes, &flwr.NodeInfo{NodeId: uint64(i) + flower.Server + 1, Status: "online"})
	}
	return r, nil
}

func (v *runtimeServer) push(ctx context.Context, q *runtime.PushAppMessagesRequest) (*runtime.PushAppMessagesResponse, error) {
	r, err := v.s.PushMessages(ctx, &flwr.PushAppMessagesRequest{MessagesList: q.GetMessagesList(), MessageObjectTrees: q.GetMessageObjectTrees()})
	return &runtime.PushAppMessagesResponse{MessageIds: r.GetMessageIds(), ObjectsToPush: r.GetObjectsToPush()}, err
}

// pull holds the call: nobody answers the first message here, and the process is ended
// when it is read.
func (v *runtimeServer) pull(ctx context.Context, _ *runtime.PullAppMessagesRequest) (*flwr.PullAppMessagesResponse, error) {
	return v.s.PullMessages(ctx, &flwr.PullAppMessagesRequest{})
}

func (v *runtimeServer) output(_ context.Context, q *runtime.PushTaskOutputRequest) (*runtime.PushTaskOutputResponse, error) {
	v.s.o.Fail(refusef("it ended without a train message: %.40s %.500s", q.GetSubStatus(), q.GetDetails()))
	return &runtime.PushTaskOutputResponse{}, nil
}
