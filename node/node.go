package node

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	flowercontrol "github.com/concordat/concordat/internal/flower/control"
	"github.com/concordat/concordat/internal/loop"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/atrest"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/node/state"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
	"google.golang.org/grpc"
)

// Digest is a SHA-256 value.
type Digest = cose.Digest

// App is a program that this node's owner has installed and allows the policy to ask
// for. Its digest is checked against the file before every start.
type App struct {
	Digest     Digest            `yaml:"digest"`
	Command    []string          `yaml:"command"`   // the executable, whose SHA-256 is Digest, and its own arguments
	ReadOnly   []string          `yaml:"read_only"` // paths that the app may read beside its home
	NodeConfig map[string]string `yaml:"node_config"`
}

// Flower says how a node runs the app bundles that its owner has approved.
type Flower struct {
	// Environment is the folder of a Python environment (venv) with flwr (1.26 to 1.29, or 1.35 and later) and
	// whatever the apps import. The owner answers for it: no digest covers it.
	Environment string         `yaml:"environment"`
	ReadOnly    []string       `yaml:"read_only"`   // paths that the apps may read beside it: the data
	NodeConfig  map[string]any `yaml:"node_config"` // what ClientApps read as context.node_config
}

// How a node approves runs (protocol F17).
const (
	ApproveEachRun = "each_run" // the owner says yes to each: the default
	ApprovePolicy  = "policy"   // whatever the policy and the ledger allow
)

// Config is all that a node is given. Zero values are refused unless they say what
// they mean.
type Config struct {
	Conn       grpc.ClientConnInterface // to the link, which is not trusted
	Policy     []byte                   // the signed policy chain
	Member     policy.MemberID          // the data owner
	Signer     *cose.Signer             // the node's key
	Credential []byte                   // the member's statement about it
	// WitnessName and WitnessKey are the key with which the node cosigns the log for
	// its member; nil: another node of the member does.
	WitnessName string
	WitnessKey  ed25519.PrivateKey
	Dir         string // the node's state
	Apps        []App
	Flower      *Flower // how Flower app bundles are run; nil: none is
	// FlowerControl is where the flwr command of this member's users connects, or nil.
	// Whom it lets in may start runs of approved bundles.
	FlowerControl *flowercontrol.Listener
	Approve       string       // [ApproveEachRun] or [ApprovePolicy]; empty is the former
	Isolation     string       // of apps: "sandbox" (empty) or "none"
	Control       net.Listener // for the member's own users; nil: no control
	Log           *slog.Logger
	Now           func() time.Time // of the node's own clock
	Observer      func(Event)      // nil, or told what happens, from the loop; must not block
	// CheckStrategy says, in words for users, whether enclaves have a native strategy and it
	// takes those arguments; nil leaves that to the enclave, which answers with a code.
	CheckStrategy func(name string, arguments map[string]any) error
	// CheckArray says so of an array of the initial model, by its numpy type: whether native
	// strategies aggregate such elements; nil as above.
	CheckArray func(name, descr string) error
}

// Event is something that happened to a run or a session, for people and tests.
type Event struct {
	Kind      string // as in concordat.v1 WatchRunsResponse, or "joined", "refused"
	Run       Digest
	Request   Digest
	Seq       uint64
	Round     uint64
	Opens     string
	Inputs    uint64
	Excluded  uint64
	Metrics   map[string]float64
	Moved     uint64 // sealed bytes sent and received
	Saved     uint64 // sealed bytes that were here or there already
	Reason    string
	Outcome   string
	Instance  string // of the enclave
	Simulated bool
}

// Node is one daemon.
type Node struct {
	cfg    Config
	log    *slog.Logger
	chain  *policy.Chain
	policy *policy.Policy
	fed    Digest
	id     Digest
	peer   *relay.Peer
	chunks *transfer.Client
	loop   *loop.Loop
	ctx    context.Context // of the loop
	dir    string
	key    *atrest.Key

	// Owned by the loop.
	journal *journal.Journal
	place   *receipt.Chain // the node's own chain of statements
	history history
	witness *tlog.Witness

	attached   bool               // to the link, once at least
	challenge  *session.Challenge // open, or nil
	appraising bool
	joining    *session.Joining
	pending    *enclave // that joining is for
	enclave    *enclave // joined, or nil
	runs       map[Digest]*run
	offers     map[Digest]*offered // runs that wait for the owner
	requests   []*request
	denials    []journal.Denial // taken by hand, and not in the log yet
	apps       *apps

	joined   atomic.Bool // whether enclave is set, for others than the loop
	eventsMu sync.Mutex  // owns the two below
	events   []Event     // appended by the loop alone
	watchers map[chan struct{}]bool
}

// New checks cfg, opens the node's state and replays it.
func New(cfg Config) (*Node, error) {
	chain, err := policy.ParseChain(cfg.Policy)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	p := chain.Head()
	if p.Version > 1 && !chain.Followable(cfg.Member) {
		return nil, fmt.Errorf("node: policy version %d is not signed by %s itself: have it signed, or stay with the version before (protocol F13)", p.Version, cfg.Member)
	}
	if p.Member(cfg.Member) == nil {
		return nil, fmt.Errorf("node: %q is not a member of federation %q", cfg.Member, p.Name)
	}
	cred, member, err := p.VerifyCredential(cfg.Credential, cfg.Now())
	if err != nil {
		// The enclave decides; a node with a credential of nobody may as well say so first.
		cfg.Log.Warn("this node's credential is not accepted by the policy; the enclave will refuse it", "reason", err.Error())
	} else if member != cfg.Member || cred.NodeID() != cfg.Signer.Public().ID() {
		return nil, fmt.Errorf("node: the credential is of node %s of %s, this is node %s of %s", cred.NodeID().Short(), member, cfg.Signer.Public().ID().Short(), cfg.Member)
	}
	switch cfg.Approve {
	case "":
		cfg.Approve = ApproveEachRun
	case ApproveEachRun, ApprovePolicy:
	default:
		return nil, fmt.Errorf("node: approve %q, want %q or %q", cfg.Approve, ApproveEachRun, ApprovePolicy)
	}
	n := &Node{cfg: cfg, chain: chain, policy: p, fed: p.FederationID(), id: cfg.Signer.Public().ID(),
		runs: map[Digest]*run{}, offers: map[Digest]*offered{}, watchers: map[chan struct{}]bool{}}
	n.log = cfg.Log.With("federation", n.fed.Short(), "node", n.id.Short(), "member", string(cfg.Member))
	dir, err := filepath.Abs(cfg.Dir) // the sandbox takes absolute paths alone
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	n.dir = filepath.Join(dir, n.fed.String())
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	fsys := durable.OS{}
	if n.key, err = atrest.Open(fsys, n.dir); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if n.journal, err = journal.Open(fsys, n.dir, n.key); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	if err := n.restore(fsys); err != nil {
		return nil, errors.Join(fmt.Errorf("node: %w", err), n.close())
	}
	n.peer = relay.New(relay.Config{Conn: cfg.Conn, Federation: n.fed, Self: relay.Node(n.id), Signer: cfg.Signer,
		Credential: cfg.Credential, Witness: n.witnessName(), Witnessed: n.witnessedSize, Log: n.log})
	n.chunks = transfer.NewClient(cfg.Conn)
	states := state.New(fsys, filepath.Join(n.dir, "runs"), n.id, n.key)
	if err := states.Sweep(n.statesInUse()); err != nil {
		return nil, errors.Join(fmt.Errorf("node: %w", err), n.close())
	}
	if n.apps, err = newApps(cfg, n.dir, states); err != nil {
		return nil, errors.Join(fmt.Errorf("node: %w", err), n.close())
	}
	return n, nil
}

// restore rebuilds what the journal and the mirror know.
func (n *Node) restore(fsys durable.FS) error {
	if err := n.openHistory(fsys); err != nil {
		return err
	}
	n.restoreDenials()
	n.journal.View(func(s *journal.State) {
		n.place = receipt.NewChain(Digest{})
		if s.Seq > 0 {
			n.place = receipt.ResumeChain(s.Seq, s.Last)
		}
	})
	if err := n.openWitness(); err != nil {
		return err
	}
	return n.restoreRuns()
}

// statesInUse are the runs that go on, each with the number of the oldest step whose
// answer's state it may still need.
func (n *Node) statesInUse() map[Digest]uint64 {
	live := map[Digest]uint64{}
	for digest, r := range n.runs {
		live[digest] = r.before(r.before(math.MaxUint64).Seq).Seq
	}
	return live
}

func (n *Node) close() error {
	return errors.Join(n.journal.Close(), n.history.close())
}

// Run works until ctx ends, and returns nil once everything it started has stopped.
// What was acknowledged is on disk. It may be called once.
func (n *Node) Run(ctx context.Context) error {
	n.loop = loop.New(ctx)
	n.ctx = n.loop.Context()
	n.log.InfoContext(n.ctx, "node started", "policy_version", n.policy.Version, "simulated", n.policy.Simulated)
	parts := []func(context.Context) error{n.peer.Run}
	if n.cfg.Control != nil {
		parts = append(parts, n.serveControl)
	}
	if n.cfg.FlowerControl != nil {
		parts = append(parts, n.serveFlower)
	}
	err := loop.Run(n.loop, n.peer.Events(), n.event, parts...)
	return errors.Join(err, n.close())
}

func (n *Node) event(ev relay.Event) {
	switch ev := ev.(type) {
	case relay.Attached:
		if !n.attached {
			n.attached = true
			n.wrapUpEnded()
		}
		n.knock()
		n.publishDenials()
	case relay.Checkpoint:
		n.checkpoint(ev.Note)
	case relay.Presence:
		n.presence(ev.Instance)
	case relay.WitnessRequest:
		n.cosign(ev)
	case relay.Delivered:
		if err := n.frame(ev); err != nil {
			n.log.WarnContext(n.ctx, "frame refused", "reason", err.Error())
		}
		if err := n.peer.Received(ev.Handle); err != nil {
			n.loop.Stop(err)
		}
	}
}

func (n *Node) frame(d relay.Delivered) error {
	kind, err := session.KindOf(d.Payload)
	if err != nil {
		return err
	}
	switch kind {
	case session.FrameOffer:
		return n.offer(d.From, d.Payload)
	case session.FrameAccept:
		return n.accept(d.Payload)
	case session.FrameRecord:
		return n.record(d.Payload)
	}
	return fmt.Errorf("%w: a node takes no %s", session.ErrFrame, kind)
}

// onLoop runs f on the loop and returns its error; for goroutines other than the loop.
func (n *Node) onLoop(f func() error) error {
	_, err := loop.Ask(n.ctx, n.loop, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// tell records an event for the member's users and whoever watches.
func (n *Node) tell(e Event) {
	n.eventsMu.Lock()
	n.events = append(n.events, e)
	for w := range n.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
	n.eventsMu.Unlock()
	if n.cfg.Observer != nil {
		n.cfg.Observer(e)
	}
}

// sign makes the node's next statement. The caller makes it durable before it sends
// it.
func (n *Node) sign(kind receipt.Kind, run Digest, body any) (*receipt.Statement, error) {
	seq, prev := n.place.Next()
	s := &receipt.Statement{Kind: kind, Federation: n.fed, Run: run, Seq: seq, Prev: prev,
		Policy: n.policy.Digest(), Issuer: receipt.NodeIssuer(n.id), Body: body}
	if _, err := receipt.Sign(s, n.cfg.Signer); err != nil {
		return nil, err
	}
	return s, n.place.Extend(s)
}
