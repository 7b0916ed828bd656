package link

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/tlog"
	"google.golang.org/grpc"
)

// consortium is a federation's members and its signed policy.
type consortium struct {
	name   string
	policy *policy.Policy
	chain  *policy.Chain
}

var members = []policy.MemberID{"bank", "hospital", "lab"}

// seed returns the key that the words always give.
func seed(words ...string) ed25519.PrivateKey {
	h := sha256.Sum256([]byte(strings.Join(words, " ")))
	return ed25519.NewKeyFromSeed(h[:])
}

func signer(words ...string) *cose.Signer {
	s, err := cose.NewSigner(seed(words...))
	if err != nil {
		panic(err)
	}
	return s
}

// newConsortium founds a federation whose log is on the link in data.
func newConsortium(t testing.TB, data, name string, witnesses uint64) *consortium {
	t.Helper()
	origin := "log.example/" + name
	logKey, err := LogKey(data, origin)
	if err != nil {
		t.Fatal(err)
	}
	p := &policy.Policy{
		Schema: policy.Schema, Version: 1, Name: name, Approvals: 2, Simulated: true, SimulatedRoots: []policy.Digest{cose.Sum([]byte("root"))},
		Platforms: policy.Platforms{SNP: &policy.SNP{
			Products: []string{"Genoa"}, Measurements: []policy.Hex{bytes.Repeat([]byte{1}, 48)}, MinTCB: []policy.ProdTCB{{Product: "Genoa"}},
			AnyChip: true, MinVersion: 3,
		}},
		Evidence: policy.Evidence{MaxAge: 600, MaxCollateralAge: 86400, MaxEpochAge: 86400, MaxRoundsPerEpoch: 1000},
		Log:      policy.Log{Origin: origin, Key: logKey, Witnesses: witnesses, MaxUnpublishedSteps: 1, DenialLag: 3600},
		Apps:     []policy.App{{Digest: policy.Digest{1}, Name: "app", Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: 10}},
		Release: policy.Release{MinContributors: 3, Collusion: 1, MaxWeightShare: 600, Cohort: policy.CohortFixed, Dropouts: policy.DropoutsRefuse,
			Downlink: policy.DownlinkShared, MaxMetricBytes: 4096, StepDeadline: 60, AckDeadline: 60},
		Nodes: policy.NodeRules{MessageTypes: []string{"train"}, CredentialAge: 90 * 86400},
	}
	for _, m := range members {
		p.Members = append(p.Members, policy.Member{
			ID: m, PolicyKeys: []cose.Key{signer(name, string(m), "policy").Public()}, IssuerKey: signer(name, string(m), "issuer").Public(),
			WitnessKey: witnessKey(t, name, m).String(),
		})
	}
	var approvals [][]byte
	for _, m := range members[:2] {
		a, err := policy.Approve(signer(name, string(m), "policy"), m, p)
		if err != nil {
			t.Fatal(err)
		}
		approvals = append(approvals, a)
	}
	c, err := policy.NewChain(p.Encode(), approvals)
	if err != nil {
		t.Fatal(err)
	}
	return &consortium{name, p, c}
}

func (c *consortium) id() cose.Digest { return c.chain.Federation() }

// host puts the policy where the link in data finds it.
func (c *consortium) host(t testing.TB, data string) {
	t.Helper()
	dir := filepath.Join(data, federationsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, c.name+".policy"), c.chain.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func witnessKey(t testing.TB, name string, m policy.MemberID) tlog.VerifierKey {
	t.Helper()
	k, err := tlog.NewWitnessKey(name+"/"+string(m), seed(name, string(m), "witness").Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (c *consortium) credential(t testing.TB, m policy.MemberID, node *cose.Signer) []byte {
	t.Helper()
	raw, err := policy.SignCredential(signer(c.name, string(m), "issuer"), policy.NodeCredential{
		Federation: c.id(), Member: m, NodeKey: node.Public(), Serial: 1, NotAfter: uint64(time.Now().Add(89 * 24 * time.Hour).Unix())})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// party is an attached node or enclave that collects what its stream brings.
type party struct {
	*relay.Peer
	self        relay.Address
	conn        *grpc.ClientConn
	delivered   chan relay.Delivered
	checkpoints chan []byte
	attached    chan struct{}
	failed      chan error // of Run
	stop        context.CancelFunc
}

// node attaches a node of the member, which cosigns as well.
func (c *consortium) node(t testing.TB, addr string, m policy.MemberID) *party {
	t.Helper()
	key := signer(c.name, string(m), "node")
	logKey, err := tlog.ParseVerifierKey(c.policy.Log.Key)
	if err != nil {
		t.Fatal(err)
	}
	w, err := tlog.NewWitness(tlog.WitnessConfig{Origin: c.policy.Log.Origin, LogKey: logKey, Name: c.name + "/" + string(m), Key: seed(c.name, string(m), "witness"),
		Save: func(tlog.State) error { return nil }, Now: time.Now}, tlog.State{})
	if err != nil {
		t.Fatal(err)
	}
	return attach(t, addr, relay.Config{
		Federation: c.id(), Self: relay.Node(key.Public().ID()), Signer: key, Credential: c.credential(t, m, key),
		Witness: w.Key().String(), Witnessed: func() uint64 { return 0 },
	}, w)
}

func (c *consortium) enclave(t testing.TB, addr string, n byte) *party {
	t.Helper()
	return attach(t, addr, relay.Config{Federation: c.id(), Self: relay.Enclave([16]byte{15: n}), Signer: signer(c.name, "enclave", string(n))}, nil)
}

func attach(t testing.TB, addr string, cfg relay.Config, w *tlog.Witness) *party {
	t.Helper()
	conn, err := dial.Dial(addr, dial.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Conn = conn
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &party{Peer: relay.New(cfg), self: cfg.Self, conn: conn, delivered: make(chan relay.Delivered, 1<<16), checkpoints: make(chan []byte, 1<<16), attached: make(chan struct{}, 1<<16), failed: make(chan error, 1), stop: cancel}
	ended := make(chan struct{})
	go func() { p.failed <- p.Run(ctx) }()
	go func() {
		defer close(ended)
		for e := range p.Events() {
			switch e := e.(type) {
			case relay.Attached:
				p.attached <- struct{}{}
			case relay.Delivered:
				p.delivered <- e
			case relay.Checkpoint:
				p.checkpoints <- e.Note
			case relay.WitnessRequest:
				line, err := w.Add(e.OldSize, e.Proof, e.Note)
				size := uint64(0)
				var held *tlog.HeldError
				if errors.As(err, &held) {
					size = held.Held
				} else if err != nil {
					t.Errorf("witness: %v", err)
				}
				p.Cosign(line, size)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended; conn.Close() })
	return p
}

func recv[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatalf("%s: nothing came", what)
		panic("unreachable")
	}
}

func (p *party) ready(t testing.TB) *party {
	t.Helper()
	recv(t, p.attached, "attach")
	return p
}

// want takes the next payloads in order and lets the link forget them.
func (p *party) want(t testing.TB, payloads ...string) {
	t.Helper()
	for _, w := range payloads {
		d := recv(t, p.delivered, "payload "+w)
		if string(d.Payload) != w {
			t.Fatalf("got payload %q, want %q", d.Payload, w)
		}
		if err := p.Received(d.Handle); err != nil {
			t.Fatal(err)
		}
	}
}

// statement returns a log entry.
func (c *consortium) statement(t testing.TB, words ...any) []byte {
	t.Helper()
	f := c.id()
	raw, err := cose.Sign(signer(c.name, "author"), cose.Header{Type: "application/vnd.concordat.test+cose", Issuer: "test", Subject: f.String()}, fmt.Append(nil, words...), f[:])
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// startLink runs a link on the directory until the test ends, or until stop.
func startLink(t testing.TB, data string, edit ...func(*Config)) (addr string, stop func()) {
	t.Helper()
	cfg := Config{Data: data, Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	for _, e := range edit {
		e(&cfg)
	}
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("link: %v", err)
		}
	}
	t.Cleanup(stop)
	return l.Address(), stop
}

// published waits for a checkpoint of at least the size that has the cosignatures
// that the policy asks for.
func (c *consortium) published(t testing.TB, p *party, size uint64) *tlog.Checkpoint {
	t.Helper()
	trust := tlog.Trust{Origin: c.policy.Log.Origin, Need: int(c.policy.Log.Witnesses)}
	var err error
	if trust.LogKey, err = tlog.ParseVerifierKey(c.policy.Log.Key); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		trust.Witnesses = append(trust.Witnesses, witnessKey(t, c.name, m))
	}
	for {
		note := recv(t, p.checkpoints, fmt.Sprint("checkpoint of size ", size))
		cp, _, err := tlog.Open(note, trust)
		if err != nil {
			t.Fatalf("%v\n%s", err, note)
		}
		if cp.Size >= size {
			return cp
		}
	}
}
