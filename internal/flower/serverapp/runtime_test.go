package serverapp

import (
	"context"

	"google.golang.org/grpc"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	runtime "github.com/concordat/concordat/api/flwr/runtime"
	"github.com/concordat/concordat/internal/flower/protohttp/protohttptest"
)

// httpServerApp is a ServerApp's process that speaks dialect C, with the methods of one
// that speaks dialect A.
type httpServerApp struct {
	flwr.ServerAppIoClient // nil: what is not below is not called
	c                      *protohttptest.Client
}

func (h httpServerApp) SendAppHeartbeat(ctx context.Context, _ *flwr.SendAppHeartbeatRequest, _ ...grpc.CallOption) (*flwr.SendAppHeartbeatResponse, error) {
	var r runtime.SendTaskHeartbeatResponse
	err := h.c.Call(ctx, "send-task-heartbeat", &runtime.SendTaskHeartbeatRequest{}, &r)
	return &flwr.SendAppHeartbeatResponse{Success: r.Success}, err
}

func (h httpServerApp) PullAppInputs(ctx context.Context, _ *flwr.PullAppInputsRequest, _ ...grpc.CallOption) (*flwr.PullAppInputsResponse, error) {
	var r runtime.PullTaskInputResponse
	err := h.c.Call(ctx, "pull-task-input", &runtime.PullTaskInputRequest{}, &r)
	return &flwr.PullAppInputsResponse{Context: r.Context, Run: r.Run, Fab: r.Fab}, err
}

func (h httpServerApp) GetNodes(ctx context.Context, _ *flwr.GetNodesRequest, _ ...grpc.CallOption) (*flwr.GetNodesResponse, error) {
	var r runtime.GetNodesResponse
	err := h.c.Call(ctx, "get-nodes", &runtime.GetNodesRequest{}, &r)
	out := &flwr.GetNodesResponse{}
	for _, n := range r.Nodes {
		out.Nodes = append(out.Nodes, &flwr.Node{NodeId: n.NodeId})
	}
	return out, err
}

func (h httpServerApp) PushMessages(ctx context.Context, q *flwr.PushAppMessagesRequest, _ ...grpc.CallOption) (*flwr.PushAppMessagesResponse, error) {
	r := &flwr.PushAppMessagesResponse{}
	return r, h.c.Call(ctx, "push-messages", &runtime.PushAppMessagesRequest{MessagesList: q.MessagesList, MessageObjectTrees: q.MessageObjectTrees}, r)
}

func (h httpServerApp) PushObject(ctx context.Context, q *flwr.PushObjectRequest, _ ...grpc.CallOption) (*flwr.PushObjectResponse, error) {
	r := &flwr.PushObjectResponse{}
	return r, h.c.Call(ctx, "push-object", q, r)
}

func (h httpServerApp) PushLogs(ctx context.Context, q *flwr.PushLogsRequest, _ ...grpc.CallOption) (*flwr.PushLogsResponse, error) {
	r := &flwr.PushLogsResponse{}
	return r, h.c.Call(ctx, "push-logs", q, r)
}

func (h httpServerApp) UpdateRunStatus(ctx context.Context, q *flwr.UpdateRunStatusRequest, _ ...grpc.CallOption) (*flwr.UpdateRunStatusResponse, error) {
	return &flwr.UpdateRunStatusResponse{}, h.c.Call(ctx, "push-task-output", &runtime.PushTaskOutputRequest{SubStatus: q.RunStatus.SubStatus, Details: q.RunStatus.Details}, &runtime.PushTaskOutputResponse{})
}

func (h httpServerApp) PullMessages(ctx context.Context, q *flwr.PullAppMessagesRequest, _ ...grpc.CallOption) (*flwr.PullAppMessagesResponse, error) {
	r := &flwr.PullAppMessagesResponse{}
	return r, h.c.Call(ctx, "pull-messages", &runtime.PullAppMessagesRequest{MessageIds: q.MessageIds}, r)
}

func (h httpServerApp) PullObject(ctx context.Context, q *flwr.PullObjectRequest, _ ...grpc.CallOption) (*flwr.PullObjectResponse, error) {
	r := &flwr.PullObjectResponse{}
	return r, h.c.Call(ctx, "pull-object", q, r)
}

func (h httpServerApp) ConfirmMessageReceived(ctx context.Context, q *flwr.ConfirmMessageReceivedRequest, _ ...grpc.CallOption) (*flwr.ConfirmMessageReceivedResponse, error) {
	r := &flwr.ConfirmMessageReceivedResponse{}
	return r, h.c.Call(ctx, "confirm-message-received", q, r)
}

func (h httpServerApp) PushAppOutputs(ctx context.Context, _ *flwr.PushAppOutputsRequest, _ ...grpc.CallOption) (*flwr.PushAppOutputsResponse, error) {
	return &flwr.PushAppOutputsResponse{}, h.c.Call(ctx, "push-task-output", &runtime.PushTaskOutputRequest{SubStatus: "completed"}, &runtime.PushTaskOutputResponse{})
}
