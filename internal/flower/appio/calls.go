package appio

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
)

// Where processes of flwr 1.35 and later make their calls, and the header that shows the
// token of each (flwr/supercore/runtime/runtime_http_client.py, flwr/supercore/constant.py).
const (
	RuntimePath  = "/v1/runtime/"
	RuntimeToken = "flwr-task-token"
)

// Calls are the calls of one app process. Whoever serves them has checked the token of
// each, and gives errors their [Status].
type Calls struct {
	flwr.UnimplementedClientAppIoServer
	app *flower.App
}

// New returns the calls of an app's process.
func New(app *flower.App) *Calls { return &Calls{app: app} }

// SendAppHeartbeat says whether the process is to go on.
func (s *Calls) SendAppHeartbeat(context.Context, *flwr.SendAppHeartbeatRequest) (*flwr.SendAppHeartbeatResponse, error) {
	select {
	case <-s.app.Done():
		return &flwr.SendAppHeartbeatResponse{}, nil
	default:
		return &flwr.SendAppHeartbeatResponse{Success: true}, nil
	}
}

// PullAppInputs returns what the process is to run, and its context.
func (s *Calls) PullAppInputs(context.Context, *flwr.PullAppInputsRequest) (*flwr.PullAppInputsResponse, error) {
	return inputs(s.app)
}

// PullMessage holds the call until there is an instruction.
func (s *Calls) PullMessage(ctx context.Context, _ *flwr.PullAppMessagesRequest) (*flwr.PullAppMessagesResponse, error) {
	m, tree, err := s.app.PullMessage(ctx)
	if err != nil {
		return nil, err
	}
	return &flwr.PullAppMessagesResponse{
		// The content is present and empty: Flower demands one of content and error.
		MessagesList:       []*flwr.Message{{Metadata: FromMetadata(m, tree.ID), Content: &flwr.RecordDict{}}},
		MessageObjectTrees: []*flwr.ObjectTree{FromTree(tree)},
	}, nil
}

// PullObject returns one object of the instruction.
func (s *Calls) PullObject(_ context.Context, r *flwr.PullObjectRequest) (*flwr.PullObjectResponse, error) {
	id, err := object.ParseID(r.ObjectId)
	if err != nil {
		return &flwr.PullObjectResponse{}, nil
	}
	content, err := s.app.PullObject(id)
	if err != nil {
		return nil, err
	}
	return &flwr.PullObjectResponse{ObjectFound: content != nil, ObjectAvailable: content != nil, ObjectContent: content}, nil
}

// ConfirmMessageReceived ends the handing out of the instruction's objects.
func (s *Calls) ConfirmMessageReceived(context.Context, *flwr.ConfirmMessageReceivedRequest) (*flwr.ConfirmMessageReceivedResponse, error) {
	if err := s.app.Confirm(); err != nil {
		return nil, err
	}
	return &flwr.ConfirmMessageReceivedResponse{}, nil
}

// PushMessage announces the reply.
func (s *Calls) PushMessage(_ context.Context, r *flwr.PushAppMessagesRequest) (*flwr.PushAppMessagesResponse, error) {
	if len(r.MessagesList) != 1 || len(r.MessageObjectTrees) != 1 {
		return nil, fmt.Errorf("%w: %d messages and %d trees, want one of each", flower.ErrRefused, len(r.MessagesList), len(r.MessageObjectTrees))
	}
	m := r.MessagesList[0]
	if m.Metadata == nil || (m.Content == nil) == (m.Error == nil) {
		return nil, fmt.Errorf("%w: message without metadata, or not with one of content and error", flower.ErrRefused)
	}
	var failed *flower.Failure
	if m.Error != nil {
		failed = flower.NewFailure(m.Error.Code, m.Error.Reason)
	}
	tree, err := ToTree(r.MessageObjectTrees[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", flower.ErrRefused, err)
	}
	missing, err := s.app.PushMessage(ToMetadata(m.Metadata), tree, failed)
	if err != nil {
		return nil, err
	}
	res := &flwr.PushAppMessagesResponse{MessageIds: []string{m.Metadata.MessageId}}
	for _, id := range missing {
		res.ObjectsToPush = append(res.ObjectsToPush, id.String())
	}
	return res, nil
}

// PushObject takes one object of the reply.
func (s *Calls) PushObject(_ context.Context, r *flwr.PushObjectRequest) (*flwr.PushObjectResponse, error) {
	id, err := object.ParseID(r.ObjectId)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", flower.ErrRefused, err)
	}
	if err := s.app.PushObject(id, r.ObjectContent); err != nil {
		return nil, err
	}
	return &flwr.PushObjectResponse{Stored: true}, nil
}

// PushAppOutputs takes the state that the process leaves.
func (s *Calls) PushAppOutputs(_ context.Context, r *flwr.PushAppOutputsRequest) (*flwr.PushAppOutputsResponse, error) {
	state, err := proto.Marshal(r.GetContext().GetState())
	if err != nil {
		return nil, fmt.Errorf("%w: state: %w", flower.ErrRefused, err)
	}
	// A process that repeats the call has not heard the answer to the first.
	if err := s.app.PushOutputs(state); err != nil && !errors.Is(err, flower.ErrFinished) {
		return nil, err
	}
	return &flwr.PushAppOutputsResponse{}, nil
}

// Status gives an error the status that makes Flower's process do the right thing:
// PERMISSION_DENIED is "the run has stopped", UNAVAILABLE is retried for ever, and all
// else ends it.
func Status(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	switch {
	case errors.Is(err, flower.ErrToken):
		return status.Error(codes.Unauthenticated, "Authentication failed.") // Flower's words
	case errors.Is(err, flower.ErrStopped), errors.Is(err, flower.ErrFinished):
		return status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, flower.ErrRefused):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Internal, err.Error())
}
