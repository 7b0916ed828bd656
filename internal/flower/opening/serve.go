package opening

import (
	"context"
	"encoding/binary"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
)

// Limits of the process's connections.
const (
	maxMessage = 32 << 20 // the trees of a batch, or one object
	maxStreams = 64
	maxLogs    = 1024 // pieces of one call
)

// Serve serves the opening on l until ctx is done or the listener fails, and closes
// l. The listener must be one that nobody but the process reaches: object calls of
// flwr up to 1.28 carry no token. It returns nil when ctx ended it.
func (o *Opening) Serve(ctx context.Context, l net.Listener) error {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams), grpc.UnaryInterceptor(o.guard))
	flwr.RegisterServerAppIoServer(s, &server{o: o})
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	err := s.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// guard refuses a wrong token, and ends the opening for what cannot open a run.
func (o *Opening) guard(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	shown := metadata.ValueFromIncomingContext(ctx, "flwr-app-token")
	switch r := req.(type) {
	case *flwr.SendAppHeartbeatRequest, *flwr.PullAppInputsRequest, *flwr.PushAppOutputsRequest:
		shown = append(shown, r.(interface{ GetToken() string }).GetToken())
	}
	for _, token := range shown {
		if !o.authentic(token) {
			return nil, status.Error(codes.Unauthenticated, "Authentication failed.") // Flower's words
		}
	}
	res, err := handler(ctx, req)
	if errors.Is(err, ErrRefused) {
		o.Fail(err)
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return res, err
}

type server struct {
	flwr.UnimplementedServerAppIoServer
	o *Opening
}

// runID is what the process calls its run: the run has no number before the enclave
// gives it one.
func (s *server) runID() uint64 {
	return binary.LittleEndian.Uint64(s.o.config.Bundle.Digest[:8]) | 1
}

func (s *server) SendAppHeartbeat(context.Context, *flwr.SendAppHeartbeatRequest) (*flwr.SendAppHeartbeatResponse, error) {
	return &flwr.SendAppHeartbeatResponse{Success: true}, nil
}

func (s *server) PullAppInputs(context.Context, *flwr.PullAppInputsRequest) (*flwr.PullAppInputsResponse, error) {
	b := s.o.config.Bundle
	return &flwr.PullAppInputsResponse{
		Context: &flwr.Context{RunId: s.runID(), NodeId: flower.Server, State: &flwr.RecordDict{}},
		Run:     s.run(),
		Fab:     &flwr.Fab{HashStr: b.Hash(), Content: b.Content},
	}, nil
}

func (s *server) GetRun(context.Context, *flwr.GetRunRequest) (*flwr.GetRunResponse, error) {
	return &flwr.GetRunResponse{Run: s.run()}, nil
}

func (s *server) run() *flwr.Run {
	b := s.o.config.Bundle
	return &flwr.Run{RunId: s.runID(), FabId: b.ID(), FabVersion: b.Version, FabHash: b.Hash(), RunType: "serverapp",
		OverrideConfig: flwr.Scalars(s.o.config.Overrides), Status: &flwr.RunStatus{Status: "running"}}
}

func (s *server) PushLogs(_ context.Context, r *flwr.PushLogsRequest) (*flwr.PushLogsResponse, error) {
	if len(r.GetLogs()) > maxLogs {
		return nil, refusef("%d pieces of log in one call", len(r.GetLogs()))
	}
	s.o.mu.Lock() // one piece after another
	defer s.o.mu.Unlock()
	if !s.o.ended && s.o.config.Print != nil {
		for _, l := range r.GetLogs() {
			s.o.config.Print(l)
		}
	}
	return &flwr.PushLogsResponse{}, nil
}

// GetNodes returns nodes that stand for the federation's; their numbers mean nothing.
func (s *server) GetNodes(context.Context, *flwr.GetNodesRequest) (*flwr.GetNodesResponse, error) {
	r := &flwr.GetNodesResponse{}
	for i := range s.o.config.Nodes {
		r.Nodes = append(r.Nodes, &flwr.Node{NodeId: uint64(i) + flower.Server + 1})
	}
	return r, nil
}

func (s *server) PushMessages(_ context.Context, r *flwr.PushAppMessagesRequest) (*flwr.PushAppMessagesResponse, error) {
	want, err := s.o.announce(r.GetMessagesList(), r.GetMessageObjectTrees())
	if err != nil {
		return nil, err
	}
	res := &flwr.PushAppMessagesResponse{ObjectsToPush: want}
	for _, m := range r.GetMessagesList() {
		res.MessageIds = append(res.MessageIds, m.GetMetadata().GetMessageId())
	}
	return res, nil
}

func (s *server) PushObject(_ context.Context, r *flwr.PushObjectRequest) (*flwr.PushObjectResponse, error) {
	id, err := object.ParseID(r.GetObjectId())
	if err != nil {
		return nil, refusef("%w", err)
	}
	if err := s.o.take(id, r.GetObjectContent()); err != nil {
		return nil, err
	}
	return &flwr.PushObjectResponse{Stored: true}, nil
}

// PullMessages holds the call: nobody answers the first message here, and the process
// is ended when it is read.
func (s *server) PullMessages(ctx context.Context, _ *flwr.PullAppMessagesRequest) (*flwr.PullAppMessagesResponse, error) {
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

func (s *server) PushAppOutputs(context.Context, *flwr.PushAppOutputsRequest) (*flwr.PushAppOutputsResponse, error) {
	s.o.Fail(refusef("it ended without a train message"))
	return &flwr.PushAppOutputsResponse{}, nil
}

func (s *server) UpdateRunStatus(_ context.Context, r *flwr.UpdateRunStatusRequest) (*flwr.UpdateRunStatusResponse, error) {
	if st := r.GetRunStatus(); st.GetStatus() == "finished" {
		s.o.Fail(refusef("it ended without a train message: %s %.500s", st.GetSubStatus(), st.GetDetails()))
	}
	return &flwr.UpdateRunStatusResponse{}, nil
}
