package ci

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/enclave/apps"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/dial"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/link"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
	"google.golang.org/grpc"
)

// Digest is a SHA-256 value.
type Digest = cose.Digest

// Option changes a federation before it starts.
type Option func(*settings)

type settings struct {
	approve  string
	members  int
	platform string
	gpus     int
	policy   []func(*policy.Policy)
	node     []func(string, *node.Config)
	wrap     func(grpc.ClientConnInterface) grpc.ClientConnInterface
	verbose  bool
	observe  func(enclave.Event)
	through  *hostile.Link
	output   io.Writer
	host     *Federation
	process  bool
	link     func(*link.Config)
	machine  func(enclave.Machine) enclave.Machine
	apps     enclave.ServerApps // nil: none
}

// Members sets how many members there are, each with one node; 3 by default.
func Members(n int) Option { return func(s *settings) { s.members = n } }

// Platform sets the simulated platform, "snp" (the default) or "tdx".
func Platform(p string) Option { return func(s *settings) { s.platform = p } }

// GPUs sets how many simulated GPUs stand beside the CPU; none by default.
func GPUs(n int) Option { return func(s *settings) { s.gpus = n } }

// Policy changes the policy before its members sign it.
func Policy(f func(*policy.Policy)) Option {
	return func(s *settings) { s.policy = append(s.policy, f) }
}

// NodeConfig changes the configuration of every node before it starts; the name is
// [Node].Name.
func NodeConfig(f func(name string, c *node.Config)) Option {
	return func(s *settings) { s.node = append(s.node, f) }
}

// HostileLink puts f between the first enclave and the link: what f returns may drop,
// delay, replay or invent.
func HostileLink(f func(grpc.ClientConnInterface) grpc.ClientConnInterface) Option {
	return func(s *settings) { s.wrap = f }
}

// ApproveEachRun has every node wait for its owner, as nodes do unless they are told
// otherwise.
func ApproveEachRun() Option { return func(s *settings) { s.approve = node.ApproveEachRun } }

// LinkConfig changes what the link is configured with.
func LinkConfig(f func(*link.Config)) Option { return func(s *settings) { s.link = f } }

// WrapMachine puts f between the enclaves and their machine.
func WrapMachine(f func(enclave.Machine) enclave.Machine) Option {
	return func(s *settings) { s.machine = f }
}

// Observe is told what happens in the first enclave.
func Observe(f func(enclave.Event)) Option { return func(s *settings) { s.observe = f } }

// ServerApps gives the enclaves something to run ServerApps in.
func ServerApps(a *apps.Apps) Option { return func(s *settings) { s.apps = a } }

// Verbose logs every daemon to the test's output.
func Verbose() Option { return func(s *settings) { s.verbose = true } }

// Federation is a running one. Its methods may be called from the test's goroutine.
type Federation struct {
	Policy  *policy.Policy
	Chain   *policy.Chain
	Machine *sim.Machine
	Members []*Member
	Nodes   []*Node
	Link    *Daemon
	Enclave *Daemon
	Address string // of the link
	Dir     string

	t        testing.TB
	settings settings
	app      Digest
	command  []string
	log      *slog.Logger
	guests   []*Federation // on this federation's link
	process  *linkProcess
	enclaves int // started so far
}

// Member is one company with its keys.
type Member struct {
	ID                     policy.MemberID
	PolicyKey, IssuerKey   *cose.Signer
	Witness                string // verifier key
	witnessFile, directory string
	nodes                  int // started so far
}

// Daemon is something that runs until it is stopped.
type Daemon struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error // set before done is closed
}

// Stop ends it and returns its error. A second call returns the same.
func (d *Daemon) Stop() error {
	d.cancel()
	<-d.done
	return d.err
}

// Cancel has it end, and does not wait for that.
func (d *Daemon) Cancel() { d.cancel() }

// Done is closed when it has ended.
func (d *Daemon) Done() <-chan struct{} { return d.done }

func run(f func(context.Context) error) *Daemon {
	ctx, cancel := context.WithCancel(context.Background())
	d := &Daemon{cancel: cancel, done: make(chan struct{})}
	go func() {
		d.err = f(ctx)
		close(d.done)
	}()
	return d
}

// vendor is the simulated hardware vendor of this test process: its RSA keys cost
// seconds, so there is one.
var vendor = sync.OnceValues(sim.NewVendor)

// StartFederation starts a link, an enclave and a node for every member, and stops
// them when the test ends. It fails the test if it cannot.
func StartFederation(t testing.TB, opts ...Option) *Federation {
	t.Helper()
	s := settings{approve: node.ApprovePolicy, members: 3, platform: sim.PlatformSNP}
	for _, o := range opts {
		o(&s)
	}
	f := &Federation{t: t, settings: s, Dir: t.TempDir()}
	if s.output == nil {
		if s.output = (logWriter{t}); !s.verbose && !testing.Verbose() {
			s.output = kept(t)
		}
	}
	f.log = slog.New(slog.NewTextHandler(s.output, &slog.HandlerOptions{Level: slog.LevelDebug}))
	v, err := vendor()
	if err != nil {
		t.Fatal(err)
	}
	if f.Machine, err = sim.New(sim.Config{Vendor: v, Platform: s.platform, Chip: "chip-1", GPUs: s.gpus}, time.Now()); err != nil {
		t.Fatal(err)
	}
	f.application()
	f.agree(s)
	if s.host == nil {
		f.startLink()
	} else {
		f.visit(s.host)
	}
	f.Enclave = f.StartEnclave(f.Machine, s.observe, s.wrap)
	for _, m := range f.Members {
		f.Nodes = append(f.Nodes, f.StartNode(m))
	}
	return f
}

// application is this test binary, which [Main] makes an app.
func (f *Federation) application() {
	exe, err := os.Executable()
	if err != nil {
		f.t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		f.t.Fatal(err)
	}
	f.app, f.command = sha256.Sum256(b), []string{exe}
}

// agree makes the members' keys and the policy, and has all of them sign it.
func (f *Federation) agree(s settings) {
	t := f.t
	t.Helper()
	origin := "log.concordat.test"
	if s.host != nil {
		origin = fmt.Sprintf("log-%d.concordat.test", len(s.host.guests)+2)
	}
	logKey, err := link.LogKey(f.linkDir(), origin)
	if err != nil {
		t.Fatal(err)
	}
	d, err := f.Machine.Describe()
	if err != nil {
		t.Fatal(err)
	}
	p := &policy.Policy{
		Schema: policy.Schema, Version: 1, Name: "ci", Approvals: uint64(s.members/2 + 1),
		Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms,
		Evidence: policy.Evidence{MaxAge: 3600, MaxCollateralAge: 30 * 86400, MaxEpochAge: 86400, MaxRoundsPerEpoch: 1000},
		Log:      policy.Log{Origin: origin, Key: logKey, Witnesses: uint64(s.members), MaxUnpublishedSteps: 1, DenialLag: 60},
		Release: policy.Release{
			MinContributors: 2, MaxWeightShare: 600, Cohort: policy.CohortFixed, Dropouts: policy.DropoutsRefuse,
			Downlink: policy.DownlinkShared, MaxMetricBytes: 4096, StepDeadline: 60, AckDeadline: 60,
		},
		Apps:  []policy.App{{Digest: f.app, Name: "test", Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: 100}},
		Nodes: policy.NodeRules{MessageTypes: []string{"evaluate", "train"}, CredentialAge: 86400},
	}
	for i := range s.members {
		m := f.newMember(policy.MemberID(fmt.Sprintf("member-%c", 'a'+i)))
		f.Members = append(f.Members, m)
		p.Members = append(p.Members, policy.Member{ID: m.ID, PolicyKeys: []cose.Key{m.PolicyKey.Public()}, IssuerKey: m.IssuerKey.Public(), WitnessKey: m.Witness})
	}
	for _, change := range s.policy {
		change(p)
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	var approvals [][]byte
	for _, m := range f.Members {
		a, err := policy.Approve(m.PolicyKey, m.ID, p)
		if err != nil {
			t.Fatal(err)
		}
		approvals = append(approvals, a)
	}
	if f.Chain, err = policy.NewChain(p.Encode(), approvals); err != nil {
		t.Fatal(err)
	}
	f.Policy = f.Chain.Head()
}

// linkDir is the data directory of the link that f is on.
func (f *Federation) linkDir() string {
	if f.settings.host != nil {
		return f.settings.host.linkDir()
	}
	return filepath.Join(f.Dir, "link")
}

func (f *Federation) newMember(id policy.MemberID) *Member {
	f.t.Helper()
	m := &Member{ID: id, directory: filepath.Join(f.Dir, string(id))}
	if err := os.MkdirAll(m.directory, 0o700); err != nil {
		f.t.Fatal(err)
	}
	m.PolicyKey, m.IssuerKey = f.signer(), f.signer()
	m.witnessFile = filepath.Join(m.directory, "witness.key")
	k, err := keyfile.CreateWitness(m.witnessFile, string(id)+"/witness")
	if err != nil {
		f.t.Fatal(err)
	}
	m.Witness = k.String()
	return m
}

func (f *Federation) signer() *cose.Signer {
	f.t.Helper()
	s, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

func (f *Federation) ended(what string, err error) {
	if err != nil {
		f.t.Logf("%s ended: %v", what, err)
	}
}

// Dial connects a party to the link, through what [Through] put between them. The
// name is how rules know the party.
func (f *Federation) Dial(party string) grpc.ClientConnInterface {
	f.t.Helper()
	c, err := dial.Dial(f.Address, dial.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	if f.settings.through != nil {
		return f.settings.through.Conn(party, c)
	}
	return c
}

// StartEnclave starts an enclave on a machine. observe and wrap may be nil.
func (f *Federation) StartEnclave(m *sim.Machine, observe func(enclave.Event), wrap func(grpc.ClientConnInterface) grpc.ClientConnInterface) *Daemon {
	f.t.Helper()
	f.enclaves++
	conn := f.Dial(numbered("enclave", f.enclaves))
	if wrap != nil {
		conn = wrap(conn)
	}
	var machine enclave.Machine = m
	if f.settings.machine != nil {
		machine = f.settings.machine(m)
	}
	e, err := enclave.New(enclave.Config{
		Conn: conn, Policy: f.Chain.Encode(), Machine: machine, Image: cose.Sum([]byte("ci image")), Config: cose.Sum(nil),
		Log: f.log.With("daemon", "enclave"), Now: time.Now, WindowDelay: 20 * time.Millisecond, Observe: observe, Apps: f.settings.apps,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	d := run(e.Run)
	f.t.Cleanup(func() { f.ended("enclave", d.Stop()) })
	return d
}

// numbered is name for the first of its kind, name-2 for the second, …
func numbered(name string, i int) string {
	if i == 1 {
		return name
	}
	return fmt.Sprintf("%s-%d", name, i)
}

// Node is one member's node.
type Node struct {
	*Daemon
	Node   *node.Node
	Name   string // "member-a", or "member-a-2" for a member's second node
	Member *Member
	Dir    string
	Signer *cose.Signer

	witness bool
	events  *events
}

// StartNode starts a new node of a member, with a credential of that member. The
// member's first node is its witness.
func (f *Federation) StartNode(m *Member) *Node {
	f.t.Helper()
	m.nodes++
	n := &Node{Member: m, Name: numbered(string(m.ID), m.nodes), Dir: filepath.Join(m.directory, numbered("node", m.nodes)), Signer: f.signer(), witness: m.nodes == 1}
	f.startNode(n)
	return n
}

// Credential makes one for a key, signed by the member's issuer key.
func (f *Federation) Credential(m *Member, key cose.Key) []byte {
	f.t.Helper()
	c, err := policy.SignCredential(m.IssuerKey, policy.NodeCredential{
		Federation: f.Chain.Federation(), Member: m.ID, NodeKey: key, Serial: 1, NotAfter: uint64(time.Now().Add(12 * time.Hour).Unix())})
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *Federation) startNode(n *Node) {
	f.t.Helper()
	told := n.events
	n.events = newEvents()
	if told != nil { // what ended before, the restarted node does not tell again
		for _, e := range told.list {
			if e.Kind == "ended" {
				n.events.list = append(n.events.list, e)
			}
		}
	}
	c := node.Config{
		Conn: f.Dial(n.Name), Policy: f.Chain.Encode(), Member: n.Member.ID, Signer: n.Signer, Credential: f.Credential(n.Member, n.Signer.Public()), Dir: n.Dir,
		Apps:    []node.App{{Digest: f.app, Command: f.command, NodeConfig: map[string]string{"node": n.Name}}},
		Approve: f.settings.approve, Isolation: "none", Log: f.log.With("daemon", "node "+n.Name), Now: time.Now, Observer: n.events.add,
	}
	if n.witness {
		key, vkey, err := keyfile.ReadWitness(n.Member.witnessFile)
		if err != nil {
			f.t.Fatal(err)
		}
		c.WitnessName, c.WitnessKey = vkey.Name(), key
	}
	for _, change := range f.settings.node {
		change(n.Name, &c)
	}
	var err error
	if n.Node, err = node.New(c); err != nil {
		f.t.Fatal(err)
	}
	n.Daemon = run(n.Node.Run)
	d := n.Daemon
	f.t.Cleanup(func() { f.ended("node", d.Stop()) })
}

// Restart stops a node and starts it again on its data.
func (f *Federation) Restart(n *Node) {
	f.t.Helper()
	if err := n.Stop(); err != nil {
		f.t.Fatalf("node: %v", err)
	}
	f.startNode(n)
}

// events collects what a node tells.
type events struct {
	mu   sync.Mutex
	list []node.Event
	wake chan struct{}
}

func newEvents() *events { return &events{wake: make(chan struct{})} }

func (e *events) add(ev node.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
	close(e.wake)
	e.wake = make(chan struct{})
}

// Events returns what the node has told since it was started, and the ends that it told
// before.
func (n *Node) Events() []node.Event {
	n.events.mu.Lock()
	defer n.events.mu.Unlock()
	return slices.Clone(n.events.list)
}

// Await returns the first event that match accepts, of those told and those to come.
// It fails the test if there is none within a minute.
func (n *Node) Await(t testing.TB, what string, match func(node.Event) bool) node.Event {
	t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for seen := 0; ; {
		n.events.mu.Lock()
		list, wake := n.events.list, n.events.wake
		n.events.mu.Unlock()
		for ; seen < len(list); seen++ {
			if match(list[seen]) {
				return list[seen]
			}
		}
		select {
		case <-wake:
		case <-n.Done():
			t.Fatalf("node of %s ended (%v) while it was to tell: %s", n.Member.ID, n.err, what)
		case <-limit.C:
			t.Fatalf("node of %s did not tell: %s; it told %+v", n.Member.ID, what, list)
		}
	}
}

// AwaitKind is [Node.Await] for the first event of a kind.
func (n *Node) AwaitKind(t testing.TB, kind string) node.Event {
	t.Helper()
	return n.Await(t, kind, func(e node.Event) bool { return e.Kind == kind })
}

// App is the digest of the federation's app, for requests.
func (f *Federation) App() Digest { return f.app }

// BundleOf returns the path of the bundle that a node wrote for an ended run.
func (f *Federation) BundleOf(n *Node, run Digest) string {
	return filepath.Join(n.Dir, f.Chain.Federation().String(), "runs", run.String(), "bundle.cbor")
}
