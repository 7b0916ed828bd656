package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestFederation takes one federation through what its parties ask of a link,
// across a restart.
func TestFederation(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	c := newConsortium(t, data, "one", 2)
	c.host(t, data)
	addr, stop := startLink(t, data)
	ctx := t.Context()

	// Witnesses publish the first entry before anybody has joined anything.
	e := c.enclave(t, addr, 1).ready(t)
	index, err := e.Append(ctx, c.statement(t, "evidence"))
	if err != nil || index != 0 {
		t.Fatalf("index %d, %v", index, err)
	}
	bank, hospital := c.node(t, addr, "bank").ready(t), c.node(t, addr, "hospital").ready(t)
	for _, p := range []*party{e, bank, hospital} {
		c.published(t, p, 1)
	}

	// A conversation; the enclave is found without a name.
	if err := bank.Send(relay.AnyEnclave, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	d := recv(t, e.delivered, "hello")
	if d.From != bank.self || string(d.Payload) != "hello" {
		t.Fatalf("delivered %+v", d)
	}
	e.Received(d.Handle)
	for i := range 300 {
		if err := e.Send(bank.self, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 300 {
		bank.want(t, fmt.Sprint(i))
	}

	blob, err := hospital.PutBlob(ctx, []byte("evidence envelope"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := bank.Blob(ctx, blob); err != nil || string(b) != "evidence envelope" {
		t.Errorf("blob %q, %v", b, err)
	}
	name := relay.Name{Instance: [16]byte([]byte(e.self.ID)), Statement: cose.Sum([]byte("a step")), Role: "acks"}
	if _, err := e.PutNamed(ctx, name, []byte("the acks")); err != nil {
		t.Fatal(err)
	}
	if b, err := bank.Named(ctx, name); err != nil || string(b) != "the acks" {
		t.Errorf("named blob %q, %v", b, err)
	}
	foreign := name
	foreign.Instance[0] ^= 1
	for who, p := range map[string]*relay.Peer{"a node": hospital.Peer, "another enclave": e.Peer} {
		n := name
		if who != "a node" {
			n = foreign
		}
		if _, err := p.PutNamed(ctx, n, []byte("mine")); status.Code(errors.Unwrap(err)) != codes.PermissionDenied {
			t.Errorf("%s names what is not its own: %v", who, err)
		}
	}
	for _, bad := range []relay.Name{foreign, {Instance: name.Instance, Statement: name.Statement, Role: "inputs"}} {
		if _, err := bank.Named(ctx, bad); status.Code(errors.Unwrap(err)) != codes.NotFound {
			t.Errorf("no such name: %v", err)
		}
	}
	if _, err := bank.Named(ctx, relay.Name{Role: "a role that is too long"}); status.Code(errors.Unwrap(err)) != codes.InvalidArgument {
		t.Errorf("malformed name: %v", err)
	}
	if _, _, err := e.FetchEndorsements(ctx, "amd-sev-snp", []byte{1}, nil); !errors.Is(err, relay.ErrNotFetched) {
		t.Errorf("a link that asks no vendor: %v", err)
	}
	if _, _, err := bank.FetchEndorsements(ctx, "amd-sev-snp", []byte{1}, nil); status.Code(errors.Unwrap(err)) != codes.PermissionDenied {
		t.Errorf("a node has vendors asked: %v", err)
	}
	if _, err := bank.Blob(ctx, cose.Sum([]byte("nothing"))); status.Code(errors.Unwrap(err)) != codes.NotFound {
		t.Errorf("no such blob: %v", err)
	}

	// What nobody received is there after a restart, as are log and blobs.
	if err := bank.Send(hospital.self, []byte("for later")); err != nil {
		t.Fatal(err)
	}
	if err := bank.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	stop()
	addr, _ = startLink(t, data)
	e, bank, hospital = c.enclave(t, addr, 1).ready(t), c.node(t, addr, "bank").ready(t), c.node(t, addr, "hospital").ready(t)
	hospital.want(t, "for later")
	if b, err := bank.Blob(ctx, blob); err != nil || string(b) != "evidence envelope" {
		t.Errorf("blob after restart: %q, %v", b, err)
	}
	if i, err := e.Append(ctx, c.statement(t, "evidence")); i != 0 || err != nil {
		t.Errorf("the same entry again: %d, %v", i, err)
	}
	second := c.statement(t, "second")
	if i, err := bank.Append(ctx, second); i != 1 || err != nil {
		t.Errorf("second entry: %d, %v", i, err)
	}
	cp := c.published(t, hospital, 2)
	var entries [][]byte
	if err := tlog.Audit(ctx, hospital, nil, cp, func(_ uint64, e []byte) error { entries = append(entries, bytes.Clone(e)); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(entries) != 2 || !bytes.Equal(entries[1], second) {
		t.Errorf("%d entries", len(entries))
	}
	raw, err := hospital.Receipt(ctx, 1, cp.Size)
	if err != nil {
		t.Fatal(err)
	}
	logKey, _ := tlog.ParseVerifierKey(c.policy.Log.Key)
	k, _ := logKey.COSE()
	h := receipt.ReceiptHeader{Issuer: c.policy.Log.Origin, Subject: c.id().String(), Origin: c.policy.Log.Origin, Size: cp.Size}
	if err := receipt.VerifyReceipt(second, raw, k, receipt.Own(h).ForRoot(cp.Root)); err != nil {
		t.Error(err)
	}
}

// TestHostileFederations hosts two federations whose members know everything of
// each other's names and ids, and checks that neither reads or writes the other's.
func TestHostileFederations(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	a, b := newConsortium(t, data, "a", 1), newConsortium(t, data, "b", 1)
	a.host(t, data)
	b.host(t, data)
	addr, _ := startLink(t, data)
	ctx := t.Context()
	victim := a.node(t, addr, "bank").ready(t)
	if _, err := victim.Append(ctx, a.statement(t, "x")); err != nil {
		t.Fatal(err)
	}
	a.published(t, victim, 1)
	blob, err := victim.PutBlob(ctx, []byte("a's"))
	if err != nil {
		t.Fatal(err)
	}
	thief := b.node(t, addr, "bank").ready(t)
	f := a.id()
	rpc := concordatv1.NewRelayClient(thief.conn)
	for name, call := range map[string]func() error{
		"blob": func() error {
			_, err := rpc.GetBlob(ctx, &concordatv1.GetBlobRequest{Federation: f[:], Digest: blob[:]})
			return err
		},
		"put": func() error {
			_, err := rpc.PutBlob(ctx, &concordatv1.PutBlobRequest{Federation: f[:], Data: []byte("x")})
			return err
		},
		"append": func() error {
			_, err := rpc.Append(ctx, &concordatv1.AppendRequest{Federation: f[:], Entry: a.statement(t, "y")})
			return err
		},
		"tile": func() error {
			_, err := rpc.GetTile(ctx, &concordatv1.GetTileRequest{Federation: f[:], Path: "checkpoint"})
			return err
		},
		"receipt": func() error {
			_, err := rpc.GetReceipt(ctx, &concordatv1.GetReceiptRequest{Federation: f[:]})
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s across federations: %v", name, err)
		}
	}
	// In its own federation the same ids name nothing.
	if _, err := thief.Blob(ctx, blob); status.Code(errors.Unwrap(err)) != codes.NotFound {
		t.Errorf("the other federation's blob: %v", err)
	}
	if err := thief.Send(victim.self, []byte("stray")); err != nil {
		t.Fatal(err)
	}
	if err := thief.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if err := victim.Send(victim.self, []byte("mine")); err != nil {
		t.Fatal(err)
	}
	victim.want(t, "mine") // and not the stray, which came before

	// Its credentials and keys open nothing there either.
	key := signer("b", "bank", "node")
	for name, cfg := range map[string]relay.Config{
		"own credential":      {Federation: f, Self: relay.Node(key.Public().ID()), Signer: key, Credential: b.credential(t, "bank", key)},
		"no credential":       {Federation: f, Self: relay.Node(key.Public().ID()), Signer: key},
		"victim's credential": {Federation: f, Self: relay.Node(key.Public().ID()), Signer: key, Credential: a.credential(t, "bank", signer("a", "bank", "node"))},
		"victim's id":         {Federation: f, Self: victim.self, Signer: key, Credential: a.credential(t, "bank", signer("a", "bank", "node"))},
		"own witness key":     {Federation: f, Self: victim.self, Signer: signer("a", "bank", "node"), Credential: a.credential(t, "bank", signer("a", "bank", "node")), Witness: witnessKey(t, "b", "bank").String(), Witnessed: func() uint64 { return 0 }},
		"another member's":    {Federation: f, Self: victim.self, Signer: signer("a", "bank", "node"), Credential: a.credential(t, "bank", signer("a", "bank", "node")), Witness: witnessKey(t, "a", "lab").String(), Witnessed: func() uint64 { return 0 }},
		"newest enclave":      {Federation: f, Self: relay.AnyEnclave, Signer: key},
		"enclave with papers": {Federation: f, Self: relay.Enclave([16]byte{1}), Signer: key, Credential: b.credential(t, "bank", key)},
	} {
		err := recv(t, attach(t, addr, cfg, nil).failed, name)
		if c := status.Code(errors.Unwrap(err)); c != codes.PermissionDenied && c != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	err = recv(t, attach(t, addr, relay.Config{Federation: cose.Sum([]byte("elsewhere")), Self: victim.self, Signer: key}, nil).failed, "not hosted")
	if status.Code(errors.Unwrap(err)) != codes.FailedPrecondition {
		t.Errorf("federation that is not hosted: %v", err)
	}
}

// TestStrangers calls without an attached stream.
func TestStrangers(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	c := newConsortium(t, data, "c", 1)
	c.host(t, data)
	addr, _ := startLink(t, data, func(cfg *Config) { cfg.EnclaveNetworks = []string{"10.0.0.0/8"} })
	conn, err := dial.Dial(addr, dial.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rpc, f := concordatv1.NewRelayClient(conn), c.id()
	for name, call := range map[string]struct {
		do   func() error
		want codes.Code
	}{
		"tile": {func() error {
			_, err := rpc.GetTile(t.Context(), &concordatv1.GetTileRequest{Federation: f[:], Path: "checkpoint"})
			return err
		}, codes.Unavailable},
		"blob": {func() error {
			_, err := rpc.PutBlob(t.Context(), &concordatv1.PutBlobRequest{Federation: f[:], Data: []byte("x")})
			return err
		}, codes.Unavailable},
		"short id": {func() error {
			_, err := rpc.GetTile(t.Context(), &concordatv1.GetTileRequest{Federation: f[:31]})
			return err
		}, codes.InvalidArgument},
		"no id":      {func() error { _, err := rpc.Append(t.Context(), &concordatv1.AppendRequest{}); return err }, codes.InvalidArgument},
		"send first": {func() error { return talk(t, rpc, &concordatv1.AttachRequest{Kind: &concordatv1.AttachRequest_Send{}}) }, codes.InvalidArgument},
		"nothing":    {func() error { return talk(t, rpc, &concordatv1.AttachRequest{}) }, codes.InvalidArgument},
		"hang up":    {func() error { return talk(t, rpc) }, codes.Canceled},
		"no key":     {func() error { return talk(t, rpc, attachOf(f[:], 1, make([]byte, 32), nil, make([]byte, 64))) }, codes.InvalidArgument},
		"long key": {func() error {
			return talk(t, rpc, attachOf(f[:], 1, make([]byte, 32), make([]byte, 1<<16), make([]byte, 64)))
		}, codes.InvalidArgument},
		"no role": {func() error {
			return talk(t, rpc, attachOf(f[:], 0, make([]byte, 32), signer("x").Public().Encode(), make([]byte, 64)))
		}, codes.InvalidArgument},
		"short node": {func() error {
			return talk(t, rpc, attachOf(f[:], 1, make([]byte, 16), signer("x").Public().Encode(), make([]byte, 64)))
		}, codes.InvalidArgument},
		"unsigned": {func() error {
			return talk(t, rpc, attachOf(f[:], 1, make([]byte, 32), signer("x").Public().Encode(), make([]byte, 64)))
		}, codes.PermissionDenied},
	} {
		if err := call.do(); status.Code(err) != call.want {
			t.Errorf("%s: %v, want %v", name, err, call.want)
		}
	}
	err = recv(t, attach(t, addr, relay.Config{Federation: f, Self: relay.Enclave([16]byte{1}), Signer: signer("e")}, nil).failed, "enclave")
	if status.Code(errors.Unwrap(err)) != codes.PermissionDenied {
		t.Errorf("an enclave from another network: %v", err)
	}
}

func attachOf(f []byte, role concordatv1.Role, id, key, sig []byte) *concordatv1.AttachRequest {
	return &concordatv1.AttachRequest{Kind: &concordatv1.AttachRequest_Attach{Attach: &concordatv1.Attach{
		Federation: f, Address: &concordatv1.Address{Role: role, Id: id}, Key: key, Signature: sig}}}
}

// talk opens a stream, sends the requests, closes, and returns how it ended.
func talk(t *testing.T, rpc concordatv1.RelayClient, requests ...*concordatv1.AttachRequest) error {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	s, err := rpc.Attach(ctx)
	if err != nil {
		return err
	}
	if m, err := s.Recv(); err != nil || len(m.GetChallenge().GetNonce()) != 32 {
		return fmt.Errorf("no challenge: %w", err)
	}
	for _, r := range requests {
		if err := s.Send(r); err != nil {
			break
		}
	}
	s.CloseSend()
	_, err = s.Recv()
	return err
}

// TestSecondAttach checks that a second stream of an address ends the first, and
// that another key cannot take an enclave's address.
func TestSecondAttach(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	c := newConsortium(t, data, "d", 1)
	c.host(t, data)
	addr, _ := startLink(t, data)
	e := c.enclave(t, addr, 1).ready(t)
	thief := attach(t, addr, relay.Config{Federation: c.id(), Self: e.self, Signer: signer("thief")}, nil)
	if err := recv(t, thief.failed, "thief"); status.Code(errors.Unwrap(err)) != codes.PermissionDenied {
		t.Errorf("another key for the instance: %v", err)
	}
	bank := c.node(t, addr, "bank").ready(t)
	second := signer("d", "lab", "node")
	old := c.open(t, bank.conn, relay.Node(second.Public().ID()), second, c.credential(t, "lab", second))
	c.open(t, bank.conn, relay.Node(second.Public().ID()), second, c.credential(t, "lab", second))
	for {
		if _, err := old.Recv(); err != nil {
			if status.Code(err) != codes.Aborted {
				t.Errorf("the first stream ends with %v", err)
			}
			break
		}
	}
	// A process that ends, and the next one that takes over.
	if err := e.Send(bank.self, []byte("x")); err != nil {
		t.Fatal(err)
	}
	bank.stop()
	recv(t, bank.failed, "end")
	next := c.node(t, addr, "bank").ready(t)
	if d := recv(t, next.delivered, "payload"); string(d.Payload) != "x" {
		t.Errorf("delivered %q", d.Payload)
	}
}

// open attaches by hand and returns the stream after its first answer.
func (c *consortium) open(t *testing.T, conn *grpc.ClientConn, self relay.Address, key *cose.Signer, credential []byte) concordatv1.Relay_AttachClient {
	t.Helper()
	s, err := concordatv1.NewRelayClient(conn).Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	f, role := c.id(), concordatv1.Role_ROLE_NODE
	if self.Enclave {
		role = concordatv1.Role_ROLE_ENCLAVE
	}
	sig, err := key.SignRaw(relay.AttachSignatureInput(m.GetChallenge().GetNonce(), f, self, credential))
	if err != nil {
		t.Fatal(err)
	}
	a := attachOf(f[:], role, []byte(self.ID), key.Public().Encode(), sig)
	a.GetAttach().Credential = credential
	if err := s.Send(a); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Recv(); err != nil || m.GetAttached() == nil {
		t.Fatalf("%v, %v", m, err)
	}
	return s
}

// TestFullMailbox checks that a full mailbox refuses and says so on a stream that
// goes on.
func TestFullMailbox(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	c := newConsortium(t, data, "f", 1)
	c.host(t, data)
	addr, _ := startLink(t, data, func(cfg *Config) { cfg.Limits.QueueBytes = 1000 })
	bank := c.node(t, addr, "bank").ready(t)
	s := c.open(t, bank.conn, relay.Enclave([16]byte{9}), signer("f", "enclave"), nil)
	offline := &concordatv1.Address{Role: concordatv1.Role_ROLE_NODE, Id: make([]byte, 32)}
	for i, size := range []int{600, 600, 100, 1<<20 + 64<<10 + 1} {
		h := make([]byte, 16)
		h[0] = byte(i)
		if err := s.Send(&concordatv1.AttachRequest{Kind: &concordatv1.AttachRequest_Send{Send: &concordatv1.Send{Handle: h, To: offline, Payload: make([]byte, size)}}}); err != nil {
			t.Fatal(err)
		}
	}
	want := []codes.Code{codes.OK, codes.ResourceExhausted, codes.OK, codes.InvalidArgument}
	for i := 0; i < len(want); {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		handle, code := m.GetSent().GetHandle(), codes.OK
		if r := m.GetRefused(); r != nil {
			handle, code = r.GetHandle(), codes.Code(r.GetCode())
		}
		if handle == nil {
			continue
		}
		if int(handle[0]) != i || code != want[i] {
			t.Errorf("answer %d is for payload %d: %v, want %v", i, handle[0], code, want[i])
		}
		i++
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(t *testing.T, cfg *Config)
		want string
	}{
		"no data":        {func(t *testing.T, c *Config) { c.Data = "" }, "no data directory"},
		"half of TLS":    {func(t *testing.T, c *Config) { c.TLSCert = "x" }, "come together"},
		"bad network":    {func(t *testing.T, c *Config) { c.EnclaveNetworks = []string{"10.0.0.1/99"} }, "enclave_networks"},
		"bad address":    {func(t *testing.T, c *Config) { c.Address = "here" }, "address"},
		"negative limit": {func(t *testing.T, c *Config) { c.Limits.ChunkBytes = -1 }, "chunk_bytes"},
		"no policy":      {func(t *testing.T, c *Config) { c.Policies = []string{"/nonexistent"} }, "no such file"},
		"damaged policy": {func(t *testing.T, c *Config) {
			newConsortium(t, c.Data, "g", 1).host(t, c.Data)
			p := filepath.Join(c.Data, federationsDir, "g.policy")
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "g.policy"},
		"two of one": {func(t *testing.T, c *Config) {
			g := newConsortium(t, c.Data, "g", 1)
			g.host(t, c.Data)
			g.name = "copy"
			g.host(t, c.Data)
		}, "same federation"},
		"log key of another link": {func(t *testing.T, c *Config) { newConsortium(t, t.TempDir(), "g", 1).host(t, c.Data) }, "log key"},
		"in use": {func(t *testing.T, c *Config) {
			f, err := lock(c.Data)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
		}, "locked"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{Data: t.TempDir(), Listen: "127.0.0.1:0"}
			c.do(t, &cfg)
			l, err := New(cfg)
			if err == nil {
				l.close()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestAddressFile checks that the address has the pin of a key that outlives the
// process.
func TestAddressFile(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	first, stop := startLink(t, data)
	b, err := os.ReadFile(filepath.Join(data, addressFile))
	if err != nil || string(b) != first+"\n" {
		t.Errorf("%q, %v, want %q", b, err, first)
	}
	stop()
	second, _ := startLink(t, data)
	if _, pin, _ := strings.Cut(first, "#"); pin == "" || !strings.HasSuffix(second, "#"+pin) {
		t.Errorf("%s, then %s", first, second)
	}
	for _, name := range []string{tlsKeyFile, logKeyFile} {
		if i, err := os.Stat(filepath.Join(data, name)); err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, i, err)
		}
	}
}
