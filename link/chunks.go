package link

import (
	"context"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/link/mailbox"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// access is what a call does to a scope.
type access int

const (
	read access = iota
	write
)

// scope parses a scope and checks that the caller may touch it: an enclave all of
// its federation's, a node what it owns and, to read, the downlink. So no member
// asks whether another's chunk is there.
func (r *service) scope(ctx context.Context, p *concordatv1.Scope, a access) (chunkstore.Scope, error) {
	s, err := r.caller(ctx, p.GetFederation())
	if err != nil {
		return chunkstore.Scope{}, err
	}
	sc, err := transfer.ParseScope(p)
	if err != nil {
		return sc, err
	}
	mine := s.address.Role == mailbox.Node && s.address.ID == string(sc.Owner[:])
	if s.address.Role != mailbox.Enclave && !mine && !(a == read && sc.Owner == cose.Digest{}) {
		return sc, status.Error(codes.PermissionDenied, "scope: not this node's")
	}
	return sc, nil
}

// Missing implements the Relay service.
func (r *service) Missing(ctx context.Context, q *concordatv1.MissingRequest) (*concordatv1.MissingResponse, error) {
	sc, err := r.scope(ctx, q.GetScope(), read)
	if err != nil {
		return nil, err
	}
	m, err := r.chunks.Missing(ctx, sc, q)
	return m, r.fault(ctx, err)
}

// PutChunks implements the Relay service.
func (r *service) PutChunks(stream concordatv1.Relay_PutChunksServer) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if err != nil {
		return r.fault(ctx, err)
	}
	sc, err := r.scope(ctx, first.GetScope(), write)
	if err != nil {
		return err
	}
	done, err := r.chunks.Put(stream, sc, first)
	if err != nil {
		return r.fault(ctx, err)
	}
	r.metrics.chunks.Add(float64(done.GetChunks()))
	r.metrics.chunkBytes.Add(float64(done.GetBytes()))
	return stream.SendAndClose(done)
}

// GetChunks implements the Relay service.
func (r *service) GetChunks(q *concordatv1.GetChunksRequest, stream concordatv1.Relay_GetChunksServer) error {
	sc, err := r.scope(stream.Context(), q.GetScope(), read)
	if err != nil {
		return err
	}
	return r.fault(stream.Context(), r.released(stream.Context(), sc, r.chunks.Get(stream, sc, q)))
}

// released words the error about a chunk that is not there: a run whose chunks were
// released is no riddle to whoever comes for them.
func (r *service) released(ctx context.Context, sc chunkstore.Scope, err error) error {
	if status.Code(err) != codes.NotFound {
		return err
	}
	was, serr := r.state.Retirement(ctx, sc.Federation, sc.Run)
	if serr != nil {
		return serr
	}
	if was.Released.IsZero() {
		return err
	}
	why := "its log had no end of it"
	if !was.Ended.IsZero() {
		why = "it had ended by " + was.Ended.UTC().Format(time.DateOnly)
	}
	return status.Errorf(codes.NotFound, "%s: this link released the chunks of run %s on %s; %s", status.Convert(err).Message(), sc.Run.Short(), was.Released.UTC().Format(time.DateOnly), why)
}
