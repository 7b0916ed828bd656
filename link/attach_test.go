package link

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/link/mailbox"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// TestSignedBytes freezes what an attaching party signs, and holds it against the
// other side's code.
func TestSignedBytes(t *testing.T) {
	nonce, f := []byte(strings.Repeat("n", 32)), cose.Sum([]byte("federation"))
	node := cose.Sum([]byte("node"))
	for name, x := range map[string]struct {
		link       mailbox.Address
		peer       relay.Address
		credential []byte
		want       string
	}{
		"node":    {mailbox.Address{Role: mailbox.Node, ID: string(node[:])}, relay.Node(node), []byte("credential"), "0d1e3df7d39521db02c0919f734df1af396f19dd3510af7520cfd9cb28c4b8f0"},
		"enclave": {mailbox.Address{Role: mailbox.Enclave, ID: strings.Repeat("i", 16)}, relay.Enclave([16]byte([]byte(strings.Repeat("i", 16)))), nil, "bba0f9a812bd99938f0bd058891f0e66e3cf2bf10009f412439dd68bb7b2d0e6"},
	} {
		got := signedBytes(nonce, f, x.link, x.credential)
		if got.String() != x.want {
			t.Errorf("%s: %s, want %s", name, got, x.want)
		}
		if peer := relay.AttachSignatureInput(nonce, f, x.peer, x.credential); string(peer) != string(got[:]) {
			t.Errorf("%s: the dialling side signs %x", name, peer)
		}
	}
}

// TestPendingStreams opens streams that never attach: a connection has few.
func TestPendingStreams(t *testing.T) {
	t.Parallel()
	addr, _ := startLink(t, t.TempDir())
	conn, err := dial.Dial(addr, dial.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rpc := concordatv1.NewRelayClient(conn)
	for i := range maxPending + 1 {
		s, err := rpc.Attach(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.Recv()
		if i < maxPending && (err != nil || m.GetChallenge() == nil) || i == maxPending && status.Code(err) != codes.ResourceExhausted {
			t.Errorf("stream %d: %v, %v", i, m, err)
		}
	}
}

func TestBucket(t *testing.T) {
	b := newBucket(10)
	now := time.Unix(1000, 0)
	for i, x := range []struct {
		n     float64
		after time.Duration
		want  time.Duration
	}{
		{40, 0, 0},                     // the whole burst
		{1, 0, 100 * time.Millisecond}, // a tenth of a second each
		{1, 0, 200 * time.Millisecond}, // behind the one before
		{1, time.Second, 0},            // 10 more by now
		{7, 0, 0},                      // all of them
		{1, 0, 100 * time.Millisecond}, //
		{40, time.Hour, 0},             // never more than the burst
		{10, 0, time.Second},           //
		{0, time.Second, 0},            //
	} {
		now = now.Add(x.after)
		if got := b.reserve(x.n, now).Round(time.Millisecond); max(got, 0) != x.want {
			t.Errorf("take %d: wait %v, want %v", i, got, x.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.take(ctx, 1000); err == nil {
		t.Error("took a hundred seconds' worth at once")
	}
}

// FuzzAttach verifies attach requests of strangers: none gets in, whatever it
// says.
func FuzzAttach(f *testing.F) {
	data := f.TempDir()
	c := newConsortium(f, data, "fuzz", 1)
	id := c.id()
	c.host(f, data)
	l, err := New(Config{Data: data, Listen: "127.0.0.1:0"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { l.close() })
	key := signer("fuzz", "bank", "node")
	node := key.Public().ID()
	a := attachOf(id[:], concordatv1.Role_ROLE_NODE, node[:], key.Public().Encode(), make([]byte, 64)).GetAttach()
	a.Credential, a.Witness = c.credential(f, "bank", key), witnessKey(f, "fuzz", "bank").String()
	seed, err := proto.Marshal(a)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte{})
	remote := &conn{remote: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := new(concordatv1.Attach)
		if proto.Unmarshal(b, a) != nil {
			return
		}
		if p, err := l.relay.verify(t.Context(), remote, make([]byte, 32), a); err == nil {
			t.Errorf("attached as %v", p.address)
		}
	})
}
