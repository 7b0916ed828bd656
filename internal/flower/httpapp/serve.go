package httpapp

import (
	"context"
	"errors"
	"net"
	"net/http"

	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	runtime "github.com/concordat/concordat/api/flwr/runtime"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/appio"
	"github.com/concordat/concordat/internal/flower/protohttp"
)

// Limits of one process. A request carries at most one object, or the context's state.
const (
	maxBody  = flower.DefaultMaxState + 1<<20
	maxCalls = 64
)

// Serve serves app on l until ctx is done or the listener fails, and closes l. Calls in
// flight are cut off then: by that time the process has finished, or is to be stopped.
// It returns nil when ctx ended it.
func Serve(ctx context.Context, l net.Listener, app *flower.App) error {
	return protohttp.Serve(ctx, l, handler(app), maxCalls, false)
}

func handler(app *flower.App) http.Handler {
	s := &server{calls: appio.New(app)}
	return protohttp.Handler(protohttp.API{Path: appio.RuntimePath, MaxBody: maxBody,
		Guard: func(r *http.Request) error {
			// An app that has ended is for the calls to say.
			if err := app.Authenticate(r.Header.Get(appio.RuntimeToken)); errors.Is(err, flower.ErrToken) {
				return appio.Status(err)
			}
			return nil
		},
		Calls: map[string]protohttp.Call{
			"send-task-heartbeat":      protohttp.Unary(with(s.heartbeat)),
			"pull-task-input":          protohttp.Unary(with(s.input)),
			"pull-messages":            protohttp.Unary(with(s.pull)),
			"pull-object":              protohttp.Unary(with(s.calls.PullObject)),
			"confirm-message-received": protohttp.Unary(with(s.calls.ConfirmMessageReceived)),
			"push-messages":            protohttp.Unary(with(s.push)),
			"push-object":              protohttp.Unary(with(s.calls.PushObject)),
			"push-task-output":         protohttp.Unary(with(s.output)),
		}})
}

// with gives a call's errors their status.
func with[Q, R proto.Message](f func(context.Context, Q) (R, error)) func(context.Context, Q) (R, error) {
	return func(ctx context.Context, q Q) (R, error) {
		r, err := f(ctx, q)
		if err != nil {
			return r, appio.Status(err)
		}
		return r, nil
	}
}

// server turns what this dialect numbers in another way into the calls of the other.
type server struct{ calls *appio.Calls }

func (s *server) heartbeat(ctx context.Context, _ *runtime.SendTaskHeartbeatRequest) (*runtime.SendTaskHeartbeatResponse, error) {
	r, err := s.calls.SendAppHeartbeat(ctx, &flwr.SendAppHeartbeatRequest{})
	return &runtime.SendTaskHeartbeatResponse{Success: r.GetSuccess()}, err
}

// taskID is the number of the one task that a process has.
const taskID = 1

func (s *server) input(ctx context.Context, _ *runtime.PullTaskInputRequest) (*runtime.PullTaskInputResponse, error) {
	r, err := s.calls.PullAppInputs(ctx, &flwr.PullAppInputsRequest{})
	return &runtime.PullTaskInputResponse{Context: r.GetContext(), Run: r.GetRun(), Fab: r.GetFab(), TaskId: taskID}, err
}

func (s *server) pull(ctx context.Context, _ *runtime.PullAppMessagesRequest) (*flwr.PullAppMessagesResponse, error) {
	return s.calls.PullMessage(ctx, &flwr.PullAppMessagesRequest{})
}

func (s *server) push(ctx context.Context, q *runtime.PushAppMessagesRequest) (*runtime.PushAppMessagesResponse, error) {
	r, err := s.calls.PushMessage(ctx, &flwr.PushAppMessagesRequest{MessagesList: q.GetMessagesList(), MessageObjectTrees: q.GetMessageObjectTrees()})
	return &runtime.PushAppMessagesResponse{MessageIds: r.GetMessageIds(), ObjectsToPush: r.GetObjectsToPush()}, err
}

func (s *server) output(ctx context.Context, q *runtime.PushTaskOutputRequest) (*runtime.PushTaskOutputResponse, error) {
	if q.GetContext() == nil { // a process that failed before it had one
		return &runtime.PushTaskOutputResponse{}, nil
	}
	_, err := s.calls.PushAppOutputs(ctx, &flwr.PushAppOutputsRequest{Context: q.GetContext()})
	return &runtime.PushTaskOutputResponse{}, err
}
