package grpcapp

import (
	"context"
	"errors"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/appio"
)

// Limits of one process's connections. A message carries at most one object, or
// the context's state, and a little beside it.
const (
	maxMessage = flower.DefaultMaxState + 1<<20
	maxStreams = 64
)

// Serve serves app on l until ctx is done or the listener fails, and closes l.
// Calls in flight are cut off then: by that time the process has finished, or is
// to be stopped. It returns nil when ctx ended it.
func Serve(ctx context.Context, l net.Listener, app *flower.App) error {
	s := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.StatsHandler(tagger{}),
		grpc.ChainUnaryInterceptor(guard(app)),
	)
	flwr.RegisterClientAppIoServer(s, appio.New(app))
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	err := s.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// A connection is trusted from the first call on that shows the token.
type connKey struct{}

type tagger struct{}

func (tagger) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context {
	return context.WithValue(ctx, connKey{}, new(atomic.Bool))
}
func (tagger) HandleConn(context.Context, stats.ConnStats)                     {}
func (tagger) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }
func (tagger) HandleRPC(context.Context, stats.RPCStats)                       {}

// tokenHeader carries the token from flwr 1.29 on, beside the body.
const tokenHeader = "flwr-app-token"

// guard lets a call through if its body or header shows the token, or if its
// connection has shown it before and the call carries none.
func guard(app *flower.App) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		trusted, ok := ctx.Value(connKey{}).(*atomic.Bool)
		if !ok {
			return nil, status.Error(codes.Internal, "connection is not tagged")
		}
		shown := metadata.ValueFromIncomingContext(ctx, tokenHeader)
		if r, ok := req.(interface{ GetToken() string }); ok {
			shown = append(shown, r.GetToken())
		}
		if len(shown) == 0 && !trusted.Load() {
			return nil, appio.Status(flower.ErrToken)
		}
		for _, token := range shown {
			if err := app.Authenticate(token); errors.Is(err, flower.ErrToken) {
				return nil, appio.Status(err)
			}
			trusted.Store(true)
		}
		res, err := handler(ctx, req)
		if err != nil {
			return nil, appio.Status(err)
		}
		return res, nil
	}
}
