package serverapp

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/appio"
)

// Limits of the process's connections.
const (
	maxMessage = 32 << 20 // the trees of a batch, or one object
	maxStreams = 64
	maxLogs    = 1024 // pieces of one call
)

// Serve serves the process on l until ctx is done or the listener fails, and closes
// l. The listener must be one that nobody but the process reaches: object calls of
// flwr up to 1.28 carry no token. It returns nil when ctx ended it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams), grpc.UnaryInterceptor(s.guard))
	flwr.RegisterServerAppIoServer(g, &calls{s: s})
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err := g.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// guard refuses a wrong token, and ends the process's part for what it must not do.
func (s *Server) guard(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	shown := metadata.ValueFromIncomingContext(ctx, "flwr-app-token")
	switch r := req.(type) {
	case *flwr.SendAppHeartbeatRequest, *flwr.PullAppInputsRequest, *flwr.PushAppOutputsRequest:
		shown = append(shown, r.(interface{ GetToken() string }).GetToken())
	}
	for _, token := range shown {
		if !s.authentic(token) {
			return nil, status.Error(codes.Unauthenticated, "Authentication failed.") // Flower's words
		}
	}
	res, err := handler(ctx, req)
	return res, s.judge(err)
}

// judge ends the process's part for an error that it caused, and gives it its status.
func (s *Server) judge(err error) error {
	if errors.Is(err, ErrRefused) {
		s.Fail(err)
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return err
}

// calls are the calls of the process. Whoever serves them has checked the token of each.
type calls struct {
	flwr.UnimplementedServerAppIoServer
	s *Server
}

func (c *calls) SendAppHeartbeat(context.Context, *flwr.SendAppHeartbeatRequest) (*flwr.SendAppHeartbeatResponse, error) {
	return &flwr.SendAppHeartbeatResponse{Success: true}, nil
}

func (c *calls) PullAppInputs(context.Context, *flwr.PullAppInputsRequest) (*flwr.PullAppInputsResponse, error) {
	b := c.s.config.Bundle
	return &flwr.PullAppInputsResponse{
		Context: &flwr.Context{RunId: c.s.config.RunID, NodeId: flower.Server, State: &flwr.RecordDict{}},
		Run:     c.run(),
		Fab:     &flwr.Fab{HashStr: b.Hash(), Content: b.Content},
	}, nil
}

func (c *calls) GetRun(context.Context, *flwr.GetRunRequest) (*flwr.GetRunResponse, error) {
	return &flwr.GetRunResponse{Run: c.run()}, nil
}

func (c *calls) run() *flwr.Run {
	b := c.s.config.Bundle
	return &flwr.Run{RunId: c.s.config.RunID, FabId: b.ID(), FabVersion: b.Version, FabHash: b.Hash(), RunType: "serverapp",
		OverrideConfig: flwr.Scalars(c.s.config.Overrides), Status: &flwr.RunStatus{Status: "running"}}
}

func (c *calls) PushLogs(_ context.Context, r *flwr.PushLogsRequest) (*flwr.PushLogsResponse, error) {
	return &flwr.PushLogsResponse{}, c.s.print(r.GetLogs())
}

func (c *calls) GetNodes(context.Context, *flwr.GetNodesRequest) (*flwr.GetNodesResponse, error) {
	r := &flwr.GetNodesResponse{}
	for _, id := range c.s.config.Nodes {
		r.Nodes = append(r.Nodes, &flwr.Node{NodeId: id})
	}
	return r, nil
}

func (c *calls) PushMessages(_ context.Context, r *flwr.PushAppMessagesRequest) (*flwr.PushAppMessagesResponse, error) {
	messages, trees := r.GetMessagesList(), r.GetMessageObjectTrees()
	if len(messages) != len(trees) || len(messages) > len(c.s.config.Nodes) {
		return nil, refusef("%d messages with %d trees, for %d nodes", len(messages), len(trees), len(c.s.config.Nodes))
	}
	res := &flwr.PushAppMessagesResponse{}
	var list []announced
	for i, m := range messages {
		tree, err := appio.ToTree(trees[i])
		if err != nil {
			return nil, refusef("message %d: %w", i, err)
		}
		list = append(list, announced{id: tree.ID, metadata: appio.ToMetadata(m.GetMetadata()), tree: tree, failed: m.GetError() != nil})
		res.MessageIds = append(res.MessageIds, tree.ID.String())
	}
	var err error
	res.ObjectsToPush, err = c.s.announce(list)
	return res, err
}

func (c *calls) PushObject(_ context.Context, r *flwr.PushObjectRequest) (*flwr.PushObjectResponse, error) {
	id, err := object.ParseID(r.GetObjectId())
	if err != nil {
		return nil, refusef("%w", err)
	}
	if err := c.s.take(id, r.GetObjectContent()); err != nil {
		return nil, err
	}
	return &flwr.PushObjectResponse{Stored: true}, nil
}

// PullMessages holds the call until there are replies.
func (c *calls) PullMessages(ctx context.Context, r *flwr.PullAppMessagesRequest) (*flwr.PullAppMessagesResponse, error) {
	replies, err := c.s.pull(ctx, r.GetMessageIds())
	if err != nil {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		return nil, err
	}
	res := &flwr.PullAppMessagesResponse{}
	for _, x := range replies {
		m := &flwr.Message{Metadata: appio.FromMetadata(x.metadata, x.tree.ID)}
		if x.failure != nil {
			m.Error = &flwr.Error{Code: int64(x.failure.Code), Reason: x.failure.Error()}
		} else {
			m.Content = &flwr.RecordDict{} // present and empty: Flower demands one of content and error
		}
		res.MessagesList = append(res.MessagesList, m)
		res.MessageObjectTrees = append(res.MessageObjectTrees, appio.FromTree(x.tree))
	}
	return res, nil
}

func (c *calls) PullObject(_ context.Context, r *flwr.PullObjectRequest) (*flwr.PullObjectResponse, error) {
	id, err := object.ParseID(r.GetObjectId())
	if err != nil {
		return nil, refusef("%w", err)
	}
	raw, err := c.s.object(id)
	if err != nil {
		// Not the process's fault, and nothing that it could mend.
		c.s.Fail(err)
		return nil, status.Error(codes.PermissionDenied, "the run has ended")
	}
	return &flwr.PullObjectResponse{ObjectFound: raw != nil, ObjectAvailable: raw != nil, ObjectContent: raw}, nil
}

func (c *calls) ConfirmMessageReceived(_ context.Context, r *flwr.ConfirmMessageReceivedRequest) (*flwr.ConfirmMessageReceivedResponse, error) {
	id, err := object.ParseID(r.GetMessageObjectId())
	if err != nil {
		return nil, refusef("%w", err)
	}
	c.s.confirm(id)
	return &flwr.ConfirmMessageReceivedResponse{}, nil
}

// PushAppOutputs comes from a process whose app has returned: others do not call it.
func (c *calls) PushAppOutputs(context.Context, *flwr.PushAppOutputsRequest) (*flwr.PushAppOutputsResponse, error) {
	c.s.finish(true, "", "")
	return &flwr.PushAppOutputsResponse{}, nil
}

func (c *calls) UpdateRunStatus(_ context.Context, r *flwr.UpdateRunStatusRequest) (*flwr.UpdateRunStatusResponse, error) {
	if st := r.GetRunStatus(); st.GetStatus() == "finished" {
		c.s.finish(st.GetSubStatus() == completed, st.GetSubStatus(), st.GetDetails())
	}
	return &flwr.UpdateRunStatusResponse{}, nil
}

// completed is Flower's word for a good end (flwr.common.constant.SubStatus).
const completed = "completed"
