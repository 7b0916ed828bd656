package verifier

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

// world is a whole federation in memory: a log with witnesses, enclaves and nodes,
// and the runs that they signed. Tests change it and look at the verdict.
type world struct {
	t       testing.TB
	machine *sim.Machine
	policy  *policy.Policy
	chain   *policy.Chain
	clock   time.Time
	app     cose.Digest // that runs are of; the policy's first

	entries  [][]byte
	points   []receipt.Item // checkpoints
	blobs    map[blobKey][]byte
	docs     map[cose.Digest]attestation.Endorsement
	receipts map[cose.Digest][]byte
	nodes    []*testNode
	seen     receipt.Checkpoint // what acks say the node has seen
	epoch    uint64
	runs     []cose.Digest
	logItem  func(index int, raw []byte) []byte // changes what the bundle holds of an entry; nil result leaves it out
}

type testNode struct {
	member string
	key    *cose.Signer
	chain  *receipt.Chain
}

type testEnclave struct {
	w        *world
	instance attestation.ID
	key      *cose.Signer
	chain    *receipt.Chain
	claims   *attestation.Claims
	evidence cose.Digest
	policy   cose.Digest
}

func notePrivate(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func newWorld(t testing.TB, change ...func(*policy.Policy)) *world {
	t.Helper()
	m, err := sim.New(sim.Config{Platform: sim.PlatformSNP, Vendor: vendor()}, now)
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Describe()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, machine: m, policy: testPolicy(t, d), clock: now,
		blobs: make(map[blobKey][]byte), docs: make(map[cose.Digest]attestation.Endorsement), receipts: make(map[cose.Digest][]byte),
	}
	for _, f := range change {
		f(w.policy)
	}
	w.app = w.policy.Apps[0].Digest
	var approvals [][]byte
	for _, id := range []policy.MemberID{"a", "b", "c"} {
		raw, err := policy.Approve(key(string(id)+" policy"), id, w.policy)
		if err != nil {
			t.Fatal(err)
		}
		approvals = append(approvals, raw)
		w.log(raw)
		w.addNode(string(id))
	}
	if w.chain, err = policy.NewChain(w.policy.Encode(), approvals); err != nil {
		t.Fatal(err)
	}
	w.checkpoint("a", "b")
	return w
}

func (w *world) addNode(member string) {
	n := &testNode{member, key(fmt.Sprintf("node %d of %s", len(w.nodes), member)), receipt.NewChain(receipt.Digest{})}
	raw, err := policy.SignCredential(key(member+" issuer"), policy.NodeCredential{
		Federation: w.policy.FederationID(), Member: policy.MemberID(member), NodeKey: n.key.Public(), Serial: 1, NotAfter: uint64(now.Add(12 * time.Hour).Unix()),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.blobs[blobKey{receipt.RoleCredential, n.key.Public().ID()}] = raw
	w.nodes = append(w.nodes, n)
}

// log appends an entry and returns its index.
func (w *world) log(raw []byte) int {
	w.entries = append(w.entries, raw)
	return len(w.entries) - 1
}

func (w *world) root(size int) merkle.Hash {
	var r merkle.Range
	for _, e := range w.entries[:size] {
		r.Append(merkle.LeafHash(e))
	}
	return r.Root()
}

// checkpoint publishes the log as it is, cosigned by the given members' witnesses
// a second later than the last time.
func (w *world) checkpoint(witnesses ...string) {
	w.clock = w.clock.Add(time.Second)
	c := tlog.Checkpoint{Origin: w.policy.Log.Origin, Size: uint64(len(w.entries)), Root: w.root(len(w.entries))}
	note := signNote(c)
	for _, m := range witnesses {
		logKey, err := tlog.ParseVerifierKey(w.policy.Log.Key)
		if err != nil {
			w.t.Fatal(err)
		}
		name := m + ".example/witness"
		wit, err := tlog.NewWitness(tlog.WitnessConfig{
			Origin: c.Origin, LogKey: logKey, Name: name, Key: notePrivate(name),
			Save: func(tlog.State) error { return nil }, Now: func() time.Time { return w.clock },
		}, tlog.State{})
		if err != nil {
			w.t.Fatal(err)
		}
		line, err := wit.Add(0, nil, signNote(c))
		if err != nil {
			w.t.Fatal(err)
		}
		note = append(note, line...)
	}
	w.points = append(w.points, receipt.Item{Section: receipt.SectionCheckpoint, Index: c.Size, Data: note})
}

func signNote(c tlog.Checkpoint) []byte {
	text := c.Text()
	pub := notePrivate(c.Origin).Public().(ed25519.PublicKey)
	h := sha256.Sum256(slices.Concat([]byte(c.Origin), []byte{'\n', 1}, pub))
	sig := append(h[:4:4], ed25519.Sign(notePrivate(c.Origin), text)...)
	return slices.Concat(text, []byte("\n— "+c.Origin+" "+base64.StdEncoding.EncodeToString(sig)+"\n"))
}

// boot starts an enclave: its evidence is in the log.
func (w *world) boot(change ...func(*attestation.Claims)) *testEnclave {
	w.t.Helper()
	w.epoch++
	k, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		w.t.Fatal(err)
	}
	var tree attestation.NonceTree
	if _, err := tree.Add(attestation.Digest{1}, [32]byte{1}); err != nil {
		w.t.Fatal(err)
	}
	head := w.chain.Head()
	e := &testEnclave{w: w, instance: attestation.ID{byte(w.epoch), byte(len(w.entries))}, key: k, chain: receipt.NewChain(receipt.Digest{}), policy: head.Digest()}
	e.claims = &attestation.Claims{
		Federation: w.policy.FederationID(), Policy: head.Digest(), PolicyVersion: head.Version, Instance: e.instance, Role: attestation.RoleAggregator,
		Epoch: w.epoch, SignPub: k.Public(), KEMPub: make([]byte, attestation.KEMKeySize), Image: attestation.Digest{2}, Config: attestation.Digest{3},
		NonceRoot: tree.Root(), NonceCount: 1, Simulated: true, IssuedAt: uint64(w.clock.Unix()),
		Checkpoint: attestation.Checkpoint{Size: uint64(len(w.entries)), Root: w.root(len(w.entries))},
	}
	for _, f := range change {
		f(e.claims)
	}
	e.evidence = e.logEvidence()
	w.checkpoint("a", "b")
	return e
}

// logEvidence logs one evidence statement, as for one nonce window.
func (e *testEnclave) logEvidence() cose.Digest {
	e.w.t.Helper()
	f := federation{machine: e.w.machine, policy: e.w.policy, claims: e.claims}
	env, ends := f.evidence(e.w.t)
	e.w.blobs[blobKey{receipt.RoleEvidence, env.Digest()}] = env.Encode()
	var names []cose.Digest
	for _, it := range env.Items {
		for _, d := range it.Endorsements {
			doc, ok := ends.Get(d)
			if !ok {
				e.w.t.Fatalf("no endorsement %s", d)
			}
			e.w.docs[d] = doc
			names = append(names, d)
		}
	}
	slices.SortFunc(names, func(a, b cose.Digest) int { return bytes.Compare(a[:], b[:]) })
	s := e.statement(receipt.KindEvidence, cose.Digest{}, &receipt.Evidence{Claims: e.claims.Encode(), Envelope: env.Digest(), Endorsements: slices.Compact(names)})
	e.w.log(s.Raw())
	return s.Digest()
}

func (e *testEnclave) statement(kind receipt.Kind, run cose.Digest, body any) *receipt.Statement {
	e.w.t.Helper()
	s := &receipt.Statement{Kind: kind, Federation: e.w.policy.FederationID(), Run: run, Policy: e.policy, Issuer: receipt.EnclaveIssuer(e.instance), Body: body}
	s.Seq, s.Prev = e.chain.Next()
	if _, err := receipt.Sign(s, e.key); err != nil {
		e.w.t.Fatal(err)
	}
	if err := e.chain.Extend(s); err != nil {
		e.w.t.Fatal(err)
	}
	return s
}

func (n *testNode) statement(w *world, kind receipt.Kind, run cose.Digest, body any) *receipt.Statement {
	w.t.Helper()
	s := &receipt.Statement{Kind: kind, Federation: w.policy.FederationID(), Run: run, Policy: w.chain.Head().Digest(), Issuer: receipt.NodeIssuer(n.key.Public().ID()), Body: body}
	s.Seq, s.Prev = n.chain.Next()
	if _, err := receipt.Sign(s, n.key); err != nil {
		w.t.Fatal(err)
	}
	if err := n.chain.Extend(s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// testRun is a run that an enclave drives by hand.
type testRun struct {
	w       *world
	run     *receipt.Statement
	body    *receipt.Run
	last    *receipt.Statement // the newest step
	seq     uint64
	attempt uint64
	left    receipt.Code // why nodes are left out; 0 is Late
}

func (w *world) cohort() receipt.Cohort {
	var list []receipt.Participant
	for _, n := range w.nodes {
		list = append(list, receipt.Participant{Member: n.member, Node: n.key.Public().ID()})
	}
	c, err := receipt.NewCohort(list)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (e *testEnclave) begin(change ...func(*receipt.Run)) *testRun {
	w := e.w
	w.t.Helper()
	c := w.cohort()
	w.blobs[blobKey{receipt.RoleCohort, c.Digest()}] = c.Encode()
	request := w.nodes[0].statement(w, receipt.KindRunRequest, cose.Digest{}, &receipt.RunRequest{
		App: w.app, Config: cose.Digest{9}, Strategy: w.policy.Apps[0].Strategies[0], Rounds: 2, ResultsTo: "a", NotAfter: 1 << 40, Nonce: [32]byte{7},
	})
	w.blobs[blobKey{receipt.RoleRequest, request.Digest()}] = request.Raw()
	b := &receipt.Run{
		Request: request.Digest(), Requester: w.nodes[0].key.Public().ID(), App: w.app, Config: cose.Digest{9}, Strategy: "fedavg",
		Class: receipt.ClassMixing, Exposure: "aggregate", Rounds: 2, Cohort: c.Digest(), Nodes: uint64(len(c)), Members: c.Members(),
		DownlinkCommit: cose.Digest{5}, Dropouts: w.policy.Release.Dropouts, Numeric: "f32/f64/tree/rne", Evidence: e.evidence, RunID: 42,
	}
	for _, f := range change {
		f(b)
	}
	s := e.statement(receipt.KindRun, cose.Digest{}, b)
	w.log(s.Raw())
	w.runs = append(w.runs, s.Digest())
	return &testRun{w: w, run: s, body: b, last: s}
}

// step closes what the nodes in contributors sent and opens the next; nil
// contributors make step 1. It is released if release is set.
func (r *testRun) step(e *testEnclave, opens string, round uint64, contributors []*testNode, release bool, change ...func(*receipt.Step)) *receipt.Statement {
	w := r.w
	w.t.Helper()
	r.seq, r.attempt = r.seq+1, 1
	return r.repeat(e, r.last, opens, round, contributors, release, change...)
}

// repeat is another attempt of the newest step, which follows prev.
func (r *testRun) repeat(e *testEnclave, prev *receipt.Statement, opens string, round uint64, contributors []*testNode, release bool, change ...func(*receipt.Step)) *receipt.Statement {
	w := r.w
	w.t.Helper()
	b := &receipt.Step{
		Seq: r.seq, Prev: prev.Digest(), Attempt: r.attempt, Opens: opens, Round: round, OutputsRoot: cose.Digest{byte(r.seq), 1}, OutputsCount: 3,
		Cohort: r.body.Cohort, Nodes: r.body.Nodes, App: r.body.App, Evidence: e.evidence, Numeric: r.body.Numeric,
		Generation: r.body.Generation, DownlinkCommit: r.body.DownlinkCommit,
	}
	var inputs receipt.Tree
	var list [][]byte
	members := make(map[string]bool)
	for _, n := range contributors {
		c := n.statement(w, receipt.KindContribution, r.run.Digest(), &receipt.Contribution{
			Seq: r.seq - 1, Step: prev.Digest(), Manifest: cose.Digest{1}, ChunkRoot: cose.Digest{2}, Count: 4,
		})
		inputs.Append(merkle.InputEntry(c.Digest()))
		list = append(list, c.Raw())
		members[n.member] = true
	}
	b.InputsRoot, b.InputsCount, b.Members = inputs.Root(), inputs.Size(), uint64(len(members))
	var excluded receipt.Excluded
	if r.seq > 1 {
		for _, n := range w.nodes {
			if !slices.Contains(contributors, n) {
				excluded = append(excluded, receipt.Exclusion{Node: n.key.Public().ID(), Code: max(r.left, receipt.Late)})
			}
		}
		excluded.Sort()
		b.ExcludedRoot, b.ExcludedCount = excluded.Root(), uint64(len(excluded))
		b.ExcludedCodes, b.Unasked = excluded.Counts()
	}
	for _, f := range change {
		f(b)
	}
	s := e.statement(receipt.KindStep, r.run.Digest(), b)
	w.log(s.Raw())
	if list != nil {
		w.blobs[blobKey{receipt.RoleInputs, s.Digest()}] = receipt.EncodeList(list)
	}
	if len(excluded) > 0 {
		w.blobs[blobKey{receipt.RoleExcluded, s.Digest()}] = excluded.Encode()
	}
	r.last = s
	if release && list != nil {
		r.release(e, contributors)
	}
	return s
}

func (r *testRun) release(e *testEnclave, contributors []*testNode) {
	w := r.w
	b := r.last.Body.(*receipt.Step)
	var acks receipt.Tree
	var list [][]byte
	instance, _ := r.last.Instance()
	for _, n := range contributors {
		k := n.statement(w, receipt.KindAck, r.run.Digest(), &receipt.Ack{Seq: b.Seq, Attempt: b.Attempt, Step: r.last.Digest(), Instance: instance, Checkpoint: w.seen})
		acks.Append(merkle.AckEntry(k.Digest()))
		list = append(list, k.Raw())
	}
	w.blobs[blobKey{receipt.RoleAcks, r.last.Digest()}] = receipt.EncodeList(list)
	s := e.statement(receipt.KindRelease, r.run.Digest(), &receipt.Release{Seq: b.Seq, Attempt: b.Attempt, Step: r.last.Digest(), AcksRoot: acks.Root(), AcksCount: acks.Size()})
	w.log(s.Raw())
}

func (r *testRun) end(e *testEnclave) {
	s := e.statement(receipt.KindEnd, r.run.Digest(), &receipt.End{Seq: r.seq, Step: r.last.Digest(), Outcome: receipt.Completed})
	r.w.log(s.Raw())
	r.w.checkpoint("a", "b")
}

// good is a federation with one finished run of two rounds.
func good(t testing.TB) (*world, *testEnclave, *testRun) {
	t.Helper()
	w := newWorld(t)
	e := w.boot()
	r := e.begin()
	r.step(e, receipt.OpensTrain, 1, nil, true)
	r.step(e, receipt.OpensTrain, 2, w.nodes, true)
	w.checkpoint("a", "b")
	r.step(e, receipt.OpensNone, 2, w.nodes, true)
	r.end(e)
	return w, e, r
}

// logReceipt adds the log's receipt of an entry in the newest checkpoint.
func (w *world) logReceipt(index int) {
	var tree receipt.Tree
	for _, e := range w.entries {
		tree.Append(e)
	}
	k, err := cose.NewSigner(notePrivate(w.policy.Log.Origin))
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := receipt.IssueReceipt(LogReceipt(w.policy.Log.Origin, w.policy.FederationID(), tree.Size()), w.entries[index], tree.Prove(uint64(index)), tree.Root(), k)
	if err != nil {
		w.t.Fatal(err)
	}
	w.receipts[cose.Sum(w.entries[index])] = raw
}

// bundle writes everything.
func (w *world) bundle() []byte {
	w.t.Helper()
	var items []receipt.Item
	items = append(items, receipt.Item{Section: receipt.SectionPolicy, Data: w.chain.Encode()})
	items = append(items, w.points...)
	for k, b := range w.blobs {
		items = append(items, receipt.Item{Section: receipt.SectionBlob, Role: k.role, Subject: k.subject, Data: b})
	}
	for d, e := range w.docs {
		items = append(items, receipt.Item{Section: receipt.SectionEndorsement, Role: e.Type, Subject: d, Data: e.Data})
	}
	for d, b := range w.receipts {
		items = append(items, receipt.Item{Section: receipt.SectionReceipt, Role: receipt.RoleLog, Subject: d, Data: b})
	}
	for i, e := range w.entries {
		if w.logItem != nil {
			if e = w.logItem(i, e); e == nil {
				continue
			}
		}
		items = append(items, receipt.Item{Section: receipt.SectionEntry, Index: uint64(i), Data: e})
	}
	slices.SortFunc(items, func(a, b receipt.Item) int {
		return cmp.Or(cmp.Compare(a.Section, b.Section), cmp.Compare(a.Role, b.Role), bytes.Compare(a.Subject[:], b.Subject[:]), cmp.Compare(a.Index, b.Index))
	})
	runs := slices.Clone(w.runs)
	slices.SortFunc(runs, func(a, b cose.Digest) int { return bytes.Compare(a[:], b[:]) })
	var buf bytes.Buffer
	bw, err := receipt.NewBundleWriter(&buf, w.policy.FederationID(), runs)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := range items {
		if err := bw.Add(&items[i]); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := bw.Close(); err != nil {
		w.t.Fatal(err)
	}
	return buf.Bytes()
}

func (w *world) trust() *Trust {
	return &Trust{Federation: w.policy.FederationID(), Member: "a", Witness: noteKey("a.example/witness", 4), Simulated: true}
}
