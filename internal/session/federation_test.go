package session

import (
	"context"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

// now is when every test happens.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// world is a simulated machine and a federation of three members that accepts it.
// It is shared by all tests and never changed.
type world struct {
	vendor  *sim.Vendor
	machine *sim.Machine
	ends    *attestation.Endorsements
	policy  *policy.Policy
}

var theWorld = sync.OnceValue(func() *world {
	w, err := newWorld()
	if err != nil {
		panic(err)
	}
	return w
})

func newWorld() (*world, error) {
	v, err := intelVendor()
	if err != nil {
		return nil, err
	}
	m, err := sim.New(sim.Config{Vendor: v, Platform: sim.PlatformTDX, Chip: "session"}, now)
	if err != nil {
		return nil, err
	}
	d, err := m.Describe()
	if err != nil {
		return nil, err
	}
	ends, err := m.Endorsements()
	if err != nil {
		return nil, err
	}
	p := &policy.Policy{
		Schema: policy.Schema, Version: 1, Name: "session test", Approvals: 2,
		Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms,
		Evidence: policy.Evidence{MaxAge: 600, MaxCollateralAge: 30 * 86400, MaxEpochAge: 86400, MaxRoundsPerEpoch: 100},
		Log:      policy.Log{Origin: "log.example", Key: noteKey("log.example", 1), Witnesses: 1, MaxUnpublishedSteps: 1, DenialLag: 60},
		Release: policy.Release{
			MinContributors: 2, MaxWeightShare: 600, Cohort: policy.CohortFixed, Dropouts: policy.DropoutsRefuse,
			Downlink: policy.DownlinkShared, MaxMetricBytes: 1024, StepDeadline: 60, AckDeadline: 60,
		},
		Apps:  []policy.App{{Digest: policy.Digest{1}, Name: "app", Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: 10}},
		Nodes: policy.NodeRules{MessageTypes: []string{"train"}, MetricKeys: []string{"loss"}, CredentialAge: 86400},
	}
	for _, id := range []policy.MemberID{"a", "b", "c"} {
		p.Members = append(p.Members, policy.Member{
			ID: id, PolicyKeys: []cose.Key{edKey(string(id) + " policy").Public()}, IssuerKey: edKey(string(id) + " issuer").Public(),
			WitnessKey: noteKey(string(id)+".example/witness", 4),
		})
	}
	return &world{v, m, ends, p}, p.Check()
}

// intelVendor returns a vendor whose Intel keys are always the same. AMD's RSA
// keys, which no test here uses, are as small as they may be.
func intelVendor() (*sim.Vendor, error) {
	k, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	p := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	seed := sha256.Sum256([]byte("the vendors of the session tests"))
	file, err := json.Marshal(map[string]string{"seed": fmt.Sprintf("%x", seed), "ark": p, "ask": p})
	if err != nil {
		return nil, err
	}
	v := new(sim.Vendor)
	return v, json.Unmarshal(file, v)
}

// edKey returns the Ed25519 key with the given name, always the same.
func edKey(name string) *cose.Signer {
	seed := sha256.Sum256([]byte(name))
	s, err := cose.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	return s
}

// noteKey returns a C2SP verifier key (typ 1: Ed25519, 4: cosignature).
func noteKey(name string, typ byte) string {
	data := append([]byte{typ}, edKey(name).Public().Public().(ed25519.PublicKey)...)
	h := sha256.Sum256(slices.Concat([]byte(name), []byte{'\n'}, data))
	return fmt.Sprintf("%s+%x+%s", name, h[:4], base64.StdEncoding.EncodeToString(data))
}

// party is a node: a key and its member's word for it.
type party struct {
	key        *cose.Signer
	credential []byte
}

func (p *party) id() Digest { return p.key.Public().ID() }

// node returns the node with the given name, with a credential of member that is
// good for an hour.
func (w *world) node(t testing.TB, member policy.MemberID, name string) *party {
	t.Helper()
	return &party{edKey(name), w.credential(t, member, edKey(name).Public(), now.Add(time.Hour))}
}

func (w *world) credential(t testing.TB, member policy.MemberID, key cose.Key, until time.Time) []byte {
	t.Helper()
	c, err := policy.SignCredential(edKey(string(member)+" issuer"), policy.NodeCredential{
		Federation: w.policy.FederationID(), Member: member, NodeKey: key, Serial: 1, NotAfter: uint64(until.Unix()),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// enclaveKey is the signing key of the tests' enclave.
var enclaveKey = sync.OnceValue(func() *cose.Signer {
	v, err := intelVendor()
	if err != nil {
		panic(err)
	}
	s, err := cose.NewSigner(v.Key("enclave", elliptic.P256()))
	if err != nil {
		panic(err)
	}
	return s
})

// claims returns what an enclave with w's machine says in window win, closed.
func (w *world) claims(win *Window) *attestation.Claims {
	root, count := win.Close()
	return &attestation.Claims{
		Federation: w.policy.FederationID(), Policy: w.policy.Digest(), PolicyVersion: 1, Instance: attestation.ID{1}, Role: attestation.RoleAggregator,
		Epoch: 1, SignPub: win.self.Public(), KEMPub: win.KEMPublic(), Image: attestation.Digest{2}, Config: attestation.Digest{3},
		NonceRoot: root, NonceCount: count, Simulated: true, IssuedAt: uint64(now.Unix()),
	}
}

// envelope returns the machine's evidence for claims, encoded.
func (w *world) envelope(t testing.TB, claims []byte) []byte {
	t.Helper()
	items, err := w.machine.Collect(context.Background(), attestation.ReportData(claims, true))
	if err != nil {
		t.Fatal(err)
	}
	return (&attestation.Evidence{Claims: claims, Items: items}).Encode()
}

// logProof is one that the session carries and does not read.
var logProof = LogProof{Statement: []byte("statement"), Index: 3, Path: []Digest{{7}, {8}}, Checkpoint: []byte("note")}

// window returns an enclave's window with the given hellos, closed, and the offer
// of each.
func (w *world) window(t testing.TB, hellos ...[]byte) (*Window, [][]byte) {
	t.Helper()
	win, err := NewWindow(w.policy.FederationID(), enclaveKey(), now)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range hellos {
		if got, _, err := win.Add(h); err != nil || got != i {
			t.Fatalf("hello %d: leaf %d, %v", i, got, err)
		}
	}
	claims := w.claims(win).Encode()
	var offers [][]byte
	if err := win.Offers(claims, w.envelope(t, claims), logProof, func(_ Digest, offer []byte) error {
		offers = append(offers, offer)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return win, offers
}

func (w *world) challenge(t testing.TB, p *party) *Challenge {
	t.Helper()
	c, err := NewChallenge(w.policy.FederationID(), p.id(), now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// appraise reads an offer and has its evidence judged, as a node does.
func (w *world) appraise(t testing.TB, c *Challenge, raw []byte) (*Offer, verifier.Passed) {
	t.Helper()
	o, err := c.Offer(raw, now.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	r, err := verifier.Appraise(o.Evidence, w.ends, w.policy, &o.Nonce, now)
	if err != nil {
		t.Fatal(err)
	}
	passed, err := r.Passed()
	if err != nil {
		t.Fatal(err)
	}
	return o, passed
}

var (
	nodeHeads    = Heads{Checkpoint: []byte("the node's checkpoint"), PolicyVersion: 1, Policy: Digest{5}, Denials: Digest{6}}
	enclaveHeads = Heads{Checkpoint: []byte("the enclave's checkpoint"), PolicyVersion: 1, Policy: Digest{5}}
)

// exchange is one join, as far as it got.
type exchange struct {
	*world
	party     *party
	challenge *Challenge
	window    *Window
	offerRaw  []byte
	offer     *Offer
	joining   *Joining
	join      []byte
}

// start runs a join up to the join frame, which the enclave has not seen yet.
// Two strangers are in the same window.
func (w *world) start(t testing.TB, p *party) *exchange {
	t.Helper()
	x := &exchange{world: w, party: p, challenge: w.challenge(t, p)}
	other := w.node(t, "b", "a stranger in the window")
	win, offers := w.window(t, w.challenge(t, other).Hello(), x.challenge.Hello(), w.challenge(t, other).Hello())
	x.window, x.offerRaw = win, offers[1]
	x.sendJoin(t)
	return x
}

// sendJoin appraises the exchange's offer and makes its join frame.
func (x *exchange) sendJoin(t testing.TB) {
	t.Helper()
	var passed verifier.Passed
	x.offer, passed = x.appraise(t, x.challenge, x.offerRaw)
	var err error
	if x.joining, x.join, err = x.challenge.Join(passed, x.offer, x.party.key, x.party.credential, nodeHeads); err != nil {
		t.Fatal(err)
	}
}

func nobody(Digest) bool { return false }

// accept has the enclave answer a join frame under the exchange's window.
func (x *exchange) accept(join []byte) (*Joined, []byte, error) {
	return x.window.Accept(join, x.policy, nobody, now, enclaveHeads)
}

// finish runs the rest of the join and returns both ends of the session,
// confirmed.
func (x *exchange) finish(t testing.TB) (node, enclave *Session) {
	t.Helper()
	joined, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	node, heads, confirm, err := x.joining.Finish(accept)
	if err != nil {
		t.Fatal(err)
	}
	if err := Confirm(joined.Session, confirm); err != nil {
		t.Fatal(err)
	}
	if string(heads.Encode()) != string(enclaveHeads.Encode()) {
		t.Errorf("the node got heads %+v", heads)
	}
	return node, joined.Session
}

// mustRefuse fails the test unless err wraps want.
func mustRefuse(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}
