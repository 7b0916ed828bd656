package link

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/link/endorse"
	"github.com/concordat/concordat/link/mailbox"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Endorsements says whether the link asks vendors for what enclaves lack, and where.
type Endorsements struct {
	Fetch bool `yaml:"fetch"` // ask vendors' services, over HTTPS; false: the link dials nobody
	// Addresses of mirrors; empty: the vendor's own. intel_root goes with Intel's own
	// service, a PCCS has the list of the root itself.
	AMD        string `yaml:"amd"`
	Intel      string `yaml:"intel"`
	IntelRoot  string `yaml:"intel_root"`
	NVIDIAOCSP string `yaml:"nvidia_ocsp"`
	NVIDIARIM  string `yaml:"nvidia_rim"`
}

const (
	endorsementsDir = "endorsements" // in the data directory: what vendors answered
	// endorsementsFresh is how long an answer that changes with time is handed out again.
	endorsementsFresh = time.Hour
	maxHave           = 32
	maxMissing        = 1 << 10
)

// vendors returns the vendors' services, or nil.
func (c *Config) vendors() (endorse.Vendors, error) {
	e := c.Endorsements
	if !e.Fetch {
		return nil, nil
	}
	cache, err := endorse.OpenCache(filepath.Join(c.Data, endorsementsDir))
	if err != nil {
		return nil, err
	}
	return endorse.NewVendors(endorse.Config{Cache: cache, Fresh: endorsementsFresh},
		endorse.Addresses{AMD: e.AMD, Intel: e.Intel, IntelRoot: e.IntelRoot, NVIDIAOCSP: e.NVIDIAOCSP, NVIDIARIM: e.NVIDIARIM}), nil
}

// FetchEndorsements implements the Relay service. One call of a stream is served at a
// time: the vendors' services are slow, and shared by all.
func (r *service) FetchEndorsements(ctx context.Context, q *concordatv1.FetchEndorsementsRequest) (*concordatv1.FetchEndorsementsResponse, error) {
	s, err := r.caller(ctx, q.GetFederation())
	switch {
	case err != nil:
		return nil, err
	case s.address.Role != mailbox.Enclave:
		return nil, status.Error(codes.PermissionDenied, "enclaves alone ask for endorsements")
	case r.vendors == nil:
		return nil, status.Error(codes.Unimplemented, "this link asks no vendor: endorsements.fetch is not set")
	case len(q.GetHave()) > maxHave:
		return nil, status.Errorf(codes.InvalidArgument, "have: %d digests, limit %d", len(q.GetHave()), maxHave)
	}
	if !s.fetching.TryLock() {
		return nil, status.Error(codes.ResourceExhausted, "endorsements of another item are being fetched")
	}
	defer s.fetching.Unlock()
	it := attestation.Item{Kind: attestation.Kind(q.GetKind()), Raw: q.GetRaw()}
	have := new(attestation.Endorsements)
	known := map[cose.Digest]bool{}
	for _, b := range q.GetHave() {
		d, err := digest("have", b)
		if err != nil {
			return nil, err
		}
		raw, err := r.state.Blob(ctx, s.fed.id, d)
		if err != nil {
			return nil, r.fault(ctx, err)
		}
		e, err := attestation.ParseEndorsement(raw)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "have: %s: %v", d.Short(), err)
		}
		if _, err := have.Add(e); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "have: %v", err)
		}
		known[d] = true
		it.Endorsements = append(it.Endorsements, d)
	}
	// The limits of an envelope hold for its item.
	if _, err := attestation.ParseEvidence((&attestation.Evidence{Claims: []byte{0}, Items: []attestation.Item{it}}).Encode()); err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "item: %v", err)
	}
	set, missing := r.vendors.Fetch(ctx, []attestation.Item{it}, have)
	if set == nil {
		return nil, r.fault(ctx, missing)
	}
	out := new(concordatv1.FetchEndorsementsResponse)
	if missing != nil {
		r.logger.WarnContext(ctx, "endorsements are not to be had", "federation", s.fed.id.Short(), "kind", q.GetKind(), "reason", missing.Error())
		out.Missing = strings.ToValidUTF8(missing.Error()[:min(len(missing.Error()), maxMissing)], "")
	}
	for _, e := range set.All() {
		d, raw := e.Digest(), e.Encode()
		if known[d] {
			continue
		}
		if err := r.state.PutBlob(ctx, s.fed.id, d, raw, nil); err != nil {
			return nil, r.fault(ctx, err)
		}
		out.Digests = append(out.Digests, d[:])
	}
	return out, nil
}
