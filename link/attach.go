package link

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/link/mailbox"
	"github.com/concordat/concordat/link/state"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/tlog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limits of an attach request.
const (
	attachDeadline = 10 * time.Second // from the stream's start to its first message
	maxKey         = 256
	maxSignature   = 64
)

type attachStream = concordatv1.Relay_AttachServer

// attached is a party that has proven what keeps mailboxes apart.
type attached struct {
	fed     *federation
	address mailbox.Address
	rank    int64            // of an enclave
	member  policy.MemberID  // of a node
	witness tlog.VerifierKey // of a node that cosigns
	size    uint64           // that it cosigned
}

// challenge sends a nonce and checks the answer to it.
func (r *service) challenge(stream attachStream, c *conn, first func() (*concordatv1.AttachRequest, error)) (*attached, error) {
	nonce := make([]byte, 32)
	if _, err := rand.Read(nonce); err != nil {
		return nil, status.Error(codes.Internal, "no randomness")
	}
	if err := stream.Send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Challenge{Challenge: &concordatv1.Challenge{Nonce: nonce}}}); err != nil {
		return nil, err
	}
	m, err := first()
	if err != nil {
		return nil, err
	}
	a := m.GetAttach()
	if a == nil {
		return nil, status.Error(codes.InvalidArgument, "the first message is not attach")
	}
	return r.verify(stream.Context(), c, nonce, a)
}

func (r *service) verify(ctx context.Context, c *conn, nonce []byte, a *concordatv1.Attach) (*attached, error) {
	f, err := r.federation(a.GetFederation())
	if err != nil {
		return nil, err
	}
	address, err := addressOf(a.GetAddress())
	if err != nil {
		return nil, err
	}
	if address == mailbox.NewestEnclave {
		return nil, status.Error(codes.InvalidArgument, "address: an enclave attaches by its instance")
	}
	if len(a.GetKey()) > maxKey || len(a.GetSignature()) > maxSignature || len(a.GetCredential()) > cose.MaxMessage {
		return nil, status.Error(codes.InvalidArgument, "attach: a field is too long")
	}
	k, err := cose.ParseKey(a.GetKey())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, "key: not a COSE_Key of the profile")
	}
	signed := signedBytes(nonce, f.id, address, a.GetCredential())
	if err := k.VerifyRaw(signed[:], a.GetSignature()); err != nil {
		return nil, status.Error(codes.PermissionDenied, "signature does not verify")
	}
	p := &attached{fed: f, address: address}
	switch address.Role {
	case mailbox.Node:
		err = r.verifyNode(p, k, a)
	case mailbox.Enclave:
		err = r.verifyEnclave(ctx, p, k, a, c.remote)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// signedBytes is what an attaching party signs: H of protocol part 2 over the
// challenge and everything that it says of itself.
func signedBytes(nonce []byte, federation cose.Digest, a mailbox.Address, credential []byte) cose.Digest {
	return cose.Hash("concordat/attach/1", nonce, federation[:], []byte{byte(a.Role)}, []byte(a.ID), credential)
}

// verifyNode checks that a member vouches for the node's key, and that its witness
// is that member's.
func (r *service) verifyNode(p *attached, k cose.Key, a *concordatv1.Attach) error {
	if id := k.ID(); p.address.ID != string(id[:]) {
		return status.Error(codes.PermissionDenied, "address: the id is not the key's")
	}
	cred, member, err := p.fed.policy.VerifyCredential(a.GetCredential(), r.now())
	if err != nil {
		return status.Errorf(codes.PermissionDenied, "%v", err)
	}
	if cred.NodeKey != k {
		return status.Error(codes.PermissionDenied, "credential: of another key")
	}
	p.member = member
	if a.GetWitness() == "" {
		return nil
	}
	if p.witness, err = tlog.ParseVerifierKey(a.GetWitness()); err != nil {
		return status.Errorf(codes.InvalidArgument, "witness: %v", err)
	}
	if p.fed.witness[member] != p.witness {
		return status.Errorf(codes.PermissionDenied, "witness: not the key of %s in the policy", member)
	}
	p.size = a.GetWitnessedSize()
	return nil
}

// verifyEnclave binds the instance to the first key that it came with. That the
// enclave is genuine is for nodes to find out.
func (r *service) verifyEnclave(ctx context.Context, p *attached, k cose.Key, a *concordatv1.Attach, remote net.Addr) error {
	if len(a.GetCredential()) != 0 || a.GetWitness() != "" {
		return status.Error(codes.InvalidArgument, "an enclave has no credential and is no witness")
	}
	if len(r.enclaves) > 0 {
		from, err := netip.ParseAddrPort(remote.String())
		if err != nil || !slices.ContainsFunc(r.enclaves, func(n netip.Prefix) bool { return n.Contains(from.Addr().Unmap()) }) {
			return status.Error(codes.PermissionDenied, "enclaves do not attach from this network")
		}
	}
	var err error
	p.rank, err = r.state.BindInstance(ctx, p.fed.id, []byte(p.address.ID), k.Encode())
	if errors.Is(err, state.ErrConflict) {
		return status.Error(codes.PermissionDenied, "address: the instance belongs to another key")
	}
	return r.fault(ctx, err)
}
