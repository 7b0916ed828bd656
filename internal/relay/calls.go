package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// retry repeats an idempotent call while the link is unavailable.
func retry[T any](ctx context.Context, call func() (T, error)) (T, error) {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		v, err := call()
		if err == nil {
			return v, nil
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		default:
			return v, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return v, err
		}
	}
}

// Append adds a statement to the federation's log and returns its index once the
// link has it durably. The index is the link's word until a checkpoint proves it.
func (p *Peer) Append(ctx context.Context, entry []byte) (uint64, error) {
	r, err := retry(ctx, func() (*concordatv1.AppendResponse, error) {
		return p.rpc.Append(ctx, &concordatv1.AppendRequest{Federation: p.cfg.Federation[:], Entry: entry}, grpc.WaitForReady(true))
	})
	if err != nil {
		return 0, fmt.Errorf("relay: append: %w", err)
	}
	return r.GetIndex(), nil
}

// PutBlob stores a public object and returns its digest.
func (p *Peer) PutBlob(ctx context.Context, data []byte) (Digest, error) {
	return p.putBlob(ctx, data, nil)
}

// Name is what a public object is found by beside its digest: the list under a root of
// a statement, in a role of a bundle, by the enclave whose statement it is. Only that
// enclave can give it.
type Name struct {
	Instance  [16]byte
	Statement Digest
	Role      string
}

func (n Name) proto() *concordatv1.BlobName {
	return &concordatv1.BlobName{Instance: n.Instance[:], Statement: n.Statement[:], Role: n.Role}
}

// PutNamed is PutBlob of an object that others find by name too. The first of a name
// stays.
func (p *Peer) PutNamed(ctx context.Context, name Name, data []byte) (Digest, error) {
	return p.putBlob(ctx, data, name.proto())
}

func (p *Peer) putBlob(ctx context.Context, data []byte, name *concordatv1.BlobName) (Digest, error) {
	_, err := retry(ctx, func() (*concordatv1.PutBlobResponse, error) {
		return p.rpc.PutBlob(ctx, &concordatv1.PutBlobRequest{Federation: p.cfg.Federation[:], Data: data, Name: name}, grpc.WaitForReady(true))
	})
	if err != nil {
		return Digest{}, fmt.Errorf("relay: put blob: %w", err)
	}
	return cose.Sum(data), nil
}

// Blob returns a public object and checks its digest.
func (p *Peer) Blob(ctx context.Context, d Digest) ([]byte, error) {
	b, err := p.getBlob(ctx, &concordatv1.GetBlobRequest{Digest: d[:]})
	if err != nil {
		return nil, fmt.Errorf("relay: blob %s: %w", d.Short(), err)
	}
	if got := cose.Sum(b); got != d {
		return nil, fmt.Errorf("relay: blob %s: the link sent other bytes (%s)", d.Short(), got.Short())
	}
	return b, nil
}

// Named returns the public object of a name: the link's word, which the caller checks
// against the root in the statement.
func (p *Peer) Named(ctx context.Context, name Name) ([]byte, error) {
	b, err := p.getBlob(ctx, &concordatv1.GetBlobRequest{Name: name.proto()})
	if err != nil {
		return nil, fmt.Errorf("relay: %s of statement %s: %w", name.Role, name.Statement.Short(), err)
	}
	return b, nil
}

func (p *Peer) getBlob(ctx context.Context, q *concordatv1.GetBlobRequest) ([]byte, error) {
	q.Federation = p.cfg.Federation[:]
	r, err := retry(ctx, func() (*concordatv1.GetBlobResponse, error) {
		return p.rpc.GetBlob(ctx, q, grpc.WaitForReady(true))
	})
	return r.GetData(), err
}

// maxFetched bounds what one answer of FetchEndorsements may name.
const maxFetched = 32

// ErrNotFetched says that the link asks no vendor for endorsements.
var ErrNotFetched = errors.New("relay: the link fetches no endorsements")

// FetchEndorsements has the link ask a vendor for the documents by which an item of
// evidence is checked, and returns their digests, in no order, and what was not to be
// had. have are documents that came with the item, blobs of the link. It is asked once:
// the link's vendors have distances of seconds. Nothing of it is to be believed.
func (p *Peer) FetchEndorsements(ctx context.Context, kind string, raw []byte, have []Digest) (digests []Digest, missing string, err error) {
	q := &concordatv1.FetchEndorsementsRequest{Federation: p.cfg.Federation[:], Kind: kind, Raw: raw}
	for _, d := range have {
		q.Have = append(q.Have, d[:])
	}
	r, err := p.rpc.FetchEndorsements(ctx, q, grpc.WaitForReady(true))
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, "", ErrNotFetched
	case err != nil:
		return nil, "", fmt.Errorf("relay: endorsements: %w", err)
	case len(r.GetDigests()) > maxFetched:
		return nil, "", fmt.Errorf("relay: endorsements: %d documents, limit %d", len(r.GetDigests()), maxFetched)
	}
	for _, b := range r.GetDigests() {
		if len(b) != len(Digest{}) {
			return nil, "", fmt.Errorf("relay: endorsements: a digest of %d bytes", len(b))
		}
		digests = append(digests, Digest(b))
	}
	return digests, fmt.Sprintf("%.1024s", r.GetMissing()), nil
}

// ReadTile returns a static file of the log, unverified. It implements
// tlog.Tiles.
func (p *Peer) ReadTile(ctx context.Context, path string) ([]byte, error) {
	r, err := retry(ctx, func() (*concordatv1.GetTileResponse, error) {
		return p.rpc.GetTile(ctx, &concordatv1.GetTileRequest{Federation: p.cfg.Federation[:], Path: path}, grpc.WaitForReady(true))
	})
	if err != nil {
		return nil, fmt.Errorf("relay: tile %s: %w", path, err)
	}
	return r.GetData(), nil
}

// Receipt returns the COSE receipt of log entry index in the checkpoint of the
// given size, unverified.
func (p *Peer) Receipt(ctx context.Context, index, size uint64) ([]byte, error) {
	r, err := retry(ctx, func() (*concordatv1.GetReceiptResponse, error) {
		return p.rpc.GetReceipt(ctx, &concordatv1.GetReceiptRequest{Federation: p.cfg.Federation[:], Index: index, Size: size}, grpc.WaitForReady(true))
	})
	if err != nil {
		return nil, fmt.Errorf("relay: receipt of entry %d: %w", index, err)
	}
	return r.GetReceipt(), nil
}
