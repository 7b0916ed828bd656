package link

import (
	"context"
	"encoding/hex"
	"errors"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/link/log"
	"github.com/concordat/concordat/link/mailbox"
	"github.com/concordat/concordat/link/state"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fault words an error for a caller. What is the caller's doing is said; what is
// the link's own trouble goes to its log, and the caller is told to come again.
func (r *service) fault(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	case errors.Is(err, state.ErrFull):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, state.ErrConflict), errors.Is(err, mailbox.ErrMalformed), errors.Is(err, log.ErrPath):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, log.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, state.ErrClosed):
		return status.Error(codes.Unavailable, errDrain.Error())
	}
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	r.logger.ErrorContext(ctx, "a call failed", "error", err)
	r.metrics.faults.Inc()
	return status.Error(codes.Unavailable, "the link failed; its log says why")
}

// federation finds the federation that a call is about.
func (r *service) federation(id []byte) (*federation, error) {
	d, err := digest("federation", id)
	if err != nil {
		return nil, err
	}
	f := r.federations[d]
	if f == nil {
		return nil, status.Error(codes.FailedPrecondition, "this federation is not hosted here")
	}
	return f, nil
}

func digest(field string, b []byte) (cose.Digest, error) {
	if len(b) != len(cose.Digest{}) {
		return cose.Digest{}, status.Errorf(codes.InvalidArgument, "%s: %d bytes, want 32", field, len(b))
	}
	return cose.Digest(b), nil
}

func addressOf(a *concordatv1.Address) (mailbox.Address, error) {
	m := mailbox.Address{ID: string(a.GetId())}
	switch a.GetRole() {
	case concordatv1.Role_ROLE_NODE:
		m.Role = mailbox.Node
	case concordatv1.Role_ROLE_ENCLAVE:
		m.Role = mailbox.Enclave
	}
	if !m.Valid() {
		return m, status.Errorf(codes.InvalidArgument, "address: role %d with an id of %d bytes", a.GetRole(), len(a.GetId()))
	}
	return m, nil
}

func protoAddress(a mailbox.Address) *concordatv1.Address {
	return &concordatv1.Address{Role: concordatv1.Role(a.Role), Id: []byte(a.ID)}
}

func roleName(r mailbox.Role) string {
	if r == mailbox.Enclave {
		return "enclave"
	}
	return "node"
}

// shortID is how an id of a party stands in log lines.
func shortID(id string) string { return hex.EncodeToString([]byte(id[:min(4, len(id))])) }
