package clientapp

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/chunkstore/object"
)

// Config says where the node is. Both values come from the command line that
// the node started the program with.
type Config struct {
	Address string // --clientappio-api-address: "unix:///path" or host:port
	Token   string // --token
	// Once ends Run after one message, as flwr-clientapp does.
	Once bool
}

// Message is one instruction.
type Message struct {
	Type       string // "train", "evaluate" or "query"
	Group      string // the round, in decimal
	Content    object.RecordDict
	NodeConfig map[string]any // of this node: bool, int64, float64 or string
	RunConfig  map[string]any // of the run, the same types
	// State is what the handler left here when it answered the run's message before; it may
	// change it. Only a program that ends after its answer ([Config.Once]) hands it over.
	State *flwr.RecordDict
}

// Handler answers one message. An error becomes an error reply: the node lets
// only the name of its type leave.
type Handler func(context.Context, Message) (object.RecordDict, error)

// Limits of what is taken from the node, which is trusted and may be wrong.
const (
	maxMessage = 96 << 20 // bytes of one call; an object is at most 64 MiB
	maxContent = 8 << 30  // bytes of one message's objects
	maxObjects = 1 << 16
)

// heartbeat is how often the node is told that the program lives; Flower's
// servers give up after 30 s.
const heartbeat = 20 * time.Second

// Run answers the node's messages with handle, one after another, until the node
// says that the run has stopped, or ctx is done: both return nil. A fault of the
// connection is returned.
func Run(ctx context.Context, c Config, handle Handler) error {
	conn, err := grpc.NewClient(c.Address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a Unix socket, or loopback
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(showToken(c.Token)),
	)
	if err != nil {
		return fmt.Errorf("clientapp: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{node: flwr.NewClientAppIoClient(conn), token: c.Token}
	go s.beat(ctx, cancel)
	err = s.run(ctx, c.Once, handle)
	if ctx.Err() != nil || status.Code(err) == codes.PermissionDenied {
		return nil // Flower's word for a run that has stopped
	}
	if err != nil {
		return fmt.Errorf("clientapp: %w", err)
	}
	return nil
}

func (s *session) run(ctx context.Context, once bool, handle Handler) error {
	in, err := s.node.PullAppInputs(ctx, &flwr.PullAppInputsRequest{Token: s.token})
	if err != nil {
		return err
	}
	if s.context = in.GetContext(); s.context == nil {
		s.context = &flwr.Context{}
	}
	if s.context.State == nil {
		s.context.State = &flwr.RecordDict{}
	}
	for {
		m, envelope, id, err := s.pull(ctx)
		if err != nil {
			return err
		}
		m.State, m.NodeConfig, m.RunConfig = s.context.GetState(), values(s.context.GetNodeConfig()), values(s.context.GetRunConfig())
		reply := &object.Message{Metadata: object.Metadata{
			RunID: envelope.RunID, SrcNode: envelope.DstNode, DstNode: envelope.SrcNode, ReplyTo: id.String(),
			Group: envelope.Group, Type: envelope.Type, CreatedAt: float64(time.Now().UnixMicro()) / 1e6,
		}}
		if reply.Content, err = handle(ctx, m); err != nil {
			reply.Content, reply.Error = nil, failure(err)
		} else if reply.Content == nil {
			reply.Content = object.RecordDict{}
		}
		reply.Metadata.TTL = envelope.CreatedAt + envelope.TTL - reply.Metadata.CreatedAt
		if err := s.push(ctx, reply); err != nil {
			return err
		}
		if once {
			_, err := s.node.PushAppOutputs(ctx, &flwr.PushAppOutputsRequest{Token: s.token, Context: s.context})
			return err
		}
	}
}

// codeRaised is Flower's CLIENT_APP_RAISED_EXCEPTION.
const codeRaised = 2

// failure writes an error as flwr-clientapp writes an exception.
func failure(err error) *object.Error {
	name := strings.TrimLeft(fmt.Sprintf("%T", err), "*")
	return &object.Error{Code: codeRaised, Reason: fmt.Sprintf("<class '%s'>:<'%s'>", name, strings.ToValidUTF8(err.Error(), "?"))}
}

// beat tells the node that the program lives, and ends it when the node does not
// want that.
func (s *session) beat(ctx context.Context, stop context.CancelFunc) {
	tick := time.NewTicker(heartbeat)
	defer tick.Stop()
	for {
		r, err := s.node.SendAppHeartbeat(ctx, &flwr.SendAppHeartbeatRequest{Token: s.token})
		if err == nil && !r.Success {
			stop()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
