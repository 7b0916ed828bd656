package enclave

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower/serverapp"
	"github.com/concordat/concordat/internal/loop"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
	"google.golang.org/grpc"
)

// Digest is a SHA-256 value.
type Digest = cose.Digest

// ServerApps starts ServerApps: package apps does. An enclave without them links nothing
// that starts a process.
type ServerApps interface {
	// Start starts the process of one run, which ends with ctx at the latest.
	Start(ctx context.Context, c serverapp.Config) (ServerApp, error)
}

// ServerApp is the process of one run. Next and Answer are as of a [serverapp.Server], one
// call at a time.
type ServerApp interface {
	Next(ctx context.Context) (*serverapp.Batch, error)
	Answer(replies []serverapp.Reply) error
	// Close ends the process and waits for all that belongs to it. It may be called again,
	// and while Next waits.
	Close()
}

// Machine is the hardware that the enclave runs on.
type Machine interface {
	attestation.Collector
	// CollectGPU returns the evidence of every GPU beside the CPU, GPU i over
	// nonces[i]. It is called with GPUs() nonces.
	CollectGPU(ctx context.Context, nonces [][32]byte) ([]attestation.Item, error)
	GPUs() int
	// Endorsements returns the documents that the evidence names.
	Endorsements() (*attestation.Endorsements, error)
}

// Config is all that an enclave is given. Every field but Apps, Observe and WindowDelay
// is required.
type Config struct {
	Conn    grpc.ClientConnInterface // to the link, which is not trusted
	Policy  []byte                   // the signed policy chain
	Machine Machine
	Image   Digest // of the measured image, as the policy's members know it
	Config  Digest // of the host-chosen configuration (protocol F19)
	Log     *slog.Logger

	// Apps runs the ServerApps that policies list with exposure individual; nil: this
	// enclave's image has none, and such runs are refused.
	Apps ServerApps

	// Now is the host's clock: it drives time-outs only (protocol F27).
	Now func() time.Time
	// WindowDelay is how long a nonce window collects hellos; 0 is 100 ms, the most
	// is 2 s (protocol F18).
	WindowDelay time.Duration
	// Observe, if set, is told what happens, from the loop; it must not block. A
	// simulated machine uses it to fail at a chosen moment.
	Observe func(Event)
}

// Event is something that happened, for Config.Observe. It names no secret.
type Event struct {
	Kind string // "evidence", "joined", "run", "step", "acked", "released", "ended"
	Seq  uint64
}

// ErrSuperseded ends an enclave whose epoch another instance has taken.
var ErrSuperseded = errors.New("enclave: another instance has a later epoch, or this one first")

// maxWindowDelay is the most that protocol F18 allows.
const maxWindowDelay = 2 * time.Second

// maxReading is how many contributions, and stored initial models, are read for the first
// time at once: each holds a chunk, sealed and open, where all later readings hold
// segments.
const maxReading = 2

// Enclave is one instance, with one signing key, in one epoch.
type Enclave struct {
	cfg      Config
	log      *slog.Logger
	chain    *policy.Chain
	policy   *policy.Policy
	fed      Digest
	instance attestation.ID
	signer   *cose.Signer
	peer     *relay.Peer
	chunks   *transfer.Client

	loop *loop.Loop
	ctx  context.Context // of the loop

	// Owned by the loop.
	history  history
	ledger   ledger
	window   *session.Window   // collecting hellos, or nil
	windows  []*session.Window // closed, answering joins
	sessions map[session.ID]*node
	nodes    map[Digest]*node // by node id: the newest confirmed session
	runs     map[Digest]*run
	waiting  []*pendingRequest
	booted   bool
	early    [][]byte // hellos from before the log was read
	epoch    uint64
	evidence Digest // first evidence statement of this instance that counts: runs and steps name it
	served   bool   // this instance has had keys of some run
	spent    bool   // it has run a ServerApp
	wanted   bool   // a run waits for an instance of its own
	retiring bool   // it ends in a moment, and begins nothing more

	collecting sync.Mutex    // held by the job that collects evidence
	reading    chan struct{} // a place in it is held by each job that reads arrays for the first time
}

// New checks cfg and makes the instance's keys.
func New(cfg Config) (*Enclave, error) {
	chain, err := policy.ParseChain(cfg.Policy)
	if err != nil {
		return nil, fmt.Errorf("enclave: %w", err)
	}
	if cfg.WindowDelay == 0 {
		cfg.WindowDelay = 100 * time.Millisecond
	}
	if cfg.WindowDelay < 0 || cfg.WindowDelay > maxWindowDelay {
		return nil, fmt.Errorf("enclave: window of %s, limit %s", cfg.WindowDelay, maxWindowDelay)
	}
	signer, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		return nil, fmt.Errorf("enclave: %w", err)
	}
	e := &Enclave{
		cfg: cfg, chain: chain, policy: chain.Head(), signer: signer,
		sessions: map[session.ID]*node{}, nodes: map[Digest]*node{}, runs: map[Digest]*run{},
		reading: make(chan struct{}, maxReading),
	}
	e.fed = e.policy.FederationID()
	if _, err := rand.Read(e.instance[:]); err != nil {
		return nil, fmt.Errorf("enclave: %w", err)
	}
	e.log = cfg.Log.With("federation", e.fed.Short(), "instance", e.instance.String()[:8])
	e.peer = relay.New(relay.Config{Conn: cfg.Conn, Federation: e.fed, Self: relay.Enclave(e.instance), Signer: signer, Log: e.log})
	e.chunks = transfer.NewClient(cfg.Conn)
	e.history, err = newHistory(e.policy)
	if err != nil {
		return nil, fmt.Errorf("enclave: %w", err)
	}
	e.history.signed.Denials = &e.history.denials
	e.ledger = ledger{written: make(chan *receipt.Statement, 1024), published: map[Digest]uint64{}, then: map[Digest][]func(){}}
	return e, nil
}

// Instance returns the random name of this boot.
func (e *Enclave) Instance() attestation.ID { return e.instance }

// Run works until ctx ends, and then returns nil once everything it started has
// stopped. Nothing is lost with it: contributions lie at the link as ciphertext,
// and nodes keep their keys. It may be called once.
func (e *Enclave) Run(ctx context.Context) error {
	e.loop = loop.New(ctx)
	e.ctx = e.loop.Context()
	e.log.InfoContext(e.ctx, "enclave started", "policy_version", e.policy.Version, "simulated", e.policy.Simulated)
	return loop.Run(e.loop, e.peer.Events(), e.event, e.peer.Run, e.write)
}

// event takes what the stream brought. Frames that are refused are logged with
// their reason and forgotten: an unauthenticated sender costs no more.
func (e *Enclave) event(ev relay.Event) {
	switch ev := ev.(type) {
	case relay.Checkpoint:
		e.checkpoint(ev.Note)
	case relay.Attached:
		if !e.history.known() {
			// No checkpoint came with the attachment: the log is empty.
			e.boot()
		}
	case relay.Delivered:
		if err := e.frame(ev); err != nil {
			e.log.WarnContext(e.ctx, "frame refused", "from", shortAddress(ev.From), "reason", err.Error())
		}
		if err := e.peer.Received(ev.Handle); err != nil {
			e.loop.Stop(err)
		}
	}
}

func shortAddress(a relay.Address) string {
	if len(a.ID) < 4 {
		return "none"
	}
	return fmt.Sprintf("%x", a.ID[:4])
}

func (e *Enclave) frame(d relay.Delivered) error {
	kind, err := session.KindOf(d.Payload)
	if err != nil {
		return err
	}
	switch kind {
	case session.FrameHello:
		return e.hello(d.Payload)
	case session.FrameJoin:
		return e.join(d.From, d.Payload)
	case session.FrameRecord:
		return e.record(d.Payload)
	}
	return fmt.Errorf("%w: an enclave takes no %s", session.ErrFrame, kind)
}

func (e *Enclave) observe(kind string, seq uint64) {
	if e.cfg.Observe != nil {
		e.cfg.Observe(Event{Kind: kind, Seq: seq})
	}
}
