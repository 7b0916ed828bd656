package link

import (
	"context"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/link/mailbox"
	"github.com/concordat/concordat/link/state"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxBlob bounds a public object.
const maxBlob = 4 << 20

// PutBlob implements the Relay service.
func (r *service) PutBlob(ctx context.Context, q *concordatv1.PutBlobRequest) (*concordatv1.PutBlobResponse, error) {
	s, err := r.caller(ctx, q.GetFederation())
	if err != nil {
		return nil, err
	}
	if n := len(q.GetData()); n == 0 || n > maxBlob {
		return nil, status.Errorf(codes.InvalidArgument, "data: %d bytes, want 1 to %d", n, maxBlob)
	}
	var name *state.Name
	if q.GetName() != nil {
		if name, err = blobName(q.GetName()); err != nil {
			return nil, err
		}
		if s.address.Role != mailbox.Enclave || s.address.ID != string(name.Instance[:]) {
			return nil, status.Error(codes.PermissionDenied, "name: an enclave names what belongs to its own statements")
		}
	}
	d := cose.Sum(q.GetData())
	if err := r.state.PutBlob(ctx, s.fed.id, d, q.GetData(), name); err != nil {
		return nil, r.fault(ctx, err)
	}
	return &concordatv1.PutBlobResponse{Digest: d[:]}, nil
}

// maxRole bounds the role in a name.
const maxRole = 16

func blobName(n *concordatv1.BlobName) (*state.Name, error) {
	d, err := digest("name.statement", n.GetStatement())
	if err != nil {
		return nil, err
	}
	if len(n.GetInstance()) != 16 || n.GetRole() == "" || len(n.GetRole()) > maxRole {
		return nil, status.Error(codes.InvalidArgument, "name: want an instance of 16 bytes and a role")
	}
	return &state.Name{Instance: [16]byte(n.GetInstance()), Statement: d, Role: n.GetRole()}, nil
}

// GetBlob implements the Relay service.
func (r *service) GetBlob(ctx context.Context, q *concordatv1.GetBlobRequest) (*concordatv1.GetBlobResponse, error) {
	s, err := r.caller(ctx, q.GetFederation())
	if err != nil {
		return nil, err
	}
	var b []byte
	if q.GetName() != nil {
		var name *state.Name
		if name, err = blobName(q.GetName()); err != nil {
			return nil, err
		}
		b, err = r.state.Named(ctx, s.fed.id, *name)
	} else {
		var d cose.Digest
		if d, err = digest("digest", q.GetDigest()); err != nil {
			return nil, err
		}
		b, err = r.state.Blob(ctx, s.fed.id, d)
	}
	if err != nil {
		return nil, r.fault(ctx, err)
	}
	if b == nil {
		return nil, status.Error(codes.NotFound, "no such blob")
	}
	return &concordatv1.GetBlobResponse{Data: b}, nil
}

// Append implements the Relay service. What an entry says is for its readers; the
// link demands only that it is a statement about this federation, so that a
// reader's parser meets no surprises, and no member can fill the log with others'.
func (r *service) Append(ctx context.Context, q *concordatv1.AppendRequest) (*concordatv1.AppendResponse, error) {
	s, err := r.caller(ctx, q.GetFederation())
	if err != nil {
		return nil, err
	}
	if _, err := cose.Parse(q.GetEntry()); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "entry: %v", err)
	}
	index, err := s.fed.log.Append(ctx, q.GetEntry())
	if err != nil {
		return nil, r.fault(ctx, err)
	}
	r.metrics.entries.Inc()
	return &concordatv1.AppendResponse{Index: index}, nil
}

// GetTile implements the Relay service.
func (r *service) GetTile(ctx context.Context, q *concordatv1.GetTileRequest) (*concordatv1.GetTileResponse, error) {
	s, err := r.caller(ctx, q.GetFederation())
	if err != nil {
		return nil, err
	}
	b, err := s.fed.log.ReadTile(ctx, q.GetPath())
	if err != nil {
		return nil, r.fault(ctx, err)
	}
	return &concordatv1.GetTileResponse{Data: b}, nil
}

// GetReceipt implements the Relay service.
func (r *service) GetReceipt(ctx context.Context, q *concordatv1.GetReceiptRequest) (*concordatv1.GetReceiptResponse, error) {
	s, err := r.caller(ctx, q.GetFederation())
	if err != nil {
		return nil, err
	}
	raw, note, err := s.fed.log.Receipt(ctx, q.GetIndex(), q.GetSize())
	if err != nil {
		return nil, r.fault(ctx, err)
	}
	return &concordatv1.GetReceiptResponse{Receipt: raw, Checkpoint: note}, nil
}
