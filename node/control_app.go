package node

import (
	"bytes"
	"context"
	"errors"
	"slices"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/flower/fab"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (c *control) ApproveApp(_ context.Context, q *concordatv1.ApproveAppRequest) (*concordatv1.ApproveAppResponse, error) {
	b, err := c.n.apps.bundles.approve(q.GetFab())
	switch {
	case errors.Is(err, fab.ErrBundle):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrNoFlower):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return nil, status.Error(codes.Internal, err.Error())
	}
	c.n.log.InfoContext(c.n.ctx, "app bundle approved by the owner", "app", b.ID(), "version", b.Version, "digest", b.Hash())
	return &concordatv1.ApproveAppResponse{App: c.bundle(b.Digest, b.Project)}, nil
}

func (c *control) RevokeApp(_ context.Context, q *concordatv1.RevokeAppRequest) (*concordatv1.RevokeAppResponse, error) {
	if len(q.GetDigest()) != len(Digest{}) {
		return nil, status.Error(codes.InvalidArgument, "app is not a digest of 32 bytes")
	}
	err := c.n.apps.bundles.revoke(Digest(q.GetDigest()))
	if errors.Is(err, ErrNotApproved) {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	c.n.log.InfoContext(c.n.ctx, "app bundle revoked by the owner", "digest", Digest(q.GetDigest()).String())
	return &concordatv1.RevokeAppResponse{}, nil
}

func (c *control) ListApps(context.Context, *concordatv1.ListAppsRequest) (*concordatv1.ListAppsResponse, error) {
	r := &concordatv1.ListAppsResponse{}
	for _, a := range c.n.apps.installedApps {
		r.Apps = append(r.Apps, &concordatv1.App{Digest: a.Digest[:], Kind: "executable", Name: a.Command[0], InPolicy: c.n.allowed(a.Digest) != nil})
	}
	for digest, p := range c.n.apps.bundles.all() {
		r.Apps = append(r.Apps, c.bundle(digest, p))
	}
	slices.SortFunc(r.Apps, func(a, b *concordatv1.App) int { return bytes.Compare(a.Digest, b.Digest) })
	return r, nil
}

func (c *control) PublishApp(ctx context.Context, q *concordatv1.PublishAppRequest) (*concordatv1.PublishAppResponse, error) {
	p, err := c.n.PublishApp(ctx, q.GetSignature())
	switch {
	case errors.Is(err, ErrSignature):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &concordatv1.PublishAppResponse{Statement: p.Statement[:], Name: p.App, Version: p.Version, Digest: p.Digest[:], Signer: p.Signer[:], Signed: p.Signed, Threshold: p.Threshold, Logged: p.Logged}, nil
}

func (c *control) bundle(digest Digest, p fab.Project) *concordatv1.App {
	return &concordatv1.App{Digest: digest[:], Kind: "fab", Name: p.ID(), Version: p.Version, Strategy: p.Strategy, InPolicy: c.n.allowed(digest) != nil}
}
