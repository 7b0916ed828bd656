package ci_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// TestRunRequestTwice is finding F3 from a member: an enclave takes every request once,
// only from the node that signed it, and only under the policy.
func TestRunRequestTwice(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	n, ctx := enemy(t, f, f.Members[2])
	config := cose.Marshal(map[string]any{})
	body := receipt.RunRequest{App: f.App(), Config: cose.Sum(config), Strategy: "fedavg", Rounds: 1, ResultsTo: "member-c", NotAfter: uint64(time.Now().Add(time.Hour).Unix()), Nonce: [32]byte{1}}
	sign := func(change func(*receipt.RunRequest)) []byte {
		b := body
		change(&b)
		s, err := n.Sign(receipt.KindRunRequest, ci.Digest{}, &b)
		if err != nil {
			t.Fatal(err)
		}
		return s.Raw()
	}
	frozenConfig := func(names string) []byte { return cose.Marshal(map[string]any{policy.KeyFrozen: names}) }
	freezes := func(names string) func(*receipt.RunRequest) {
		return func(b *receipt.RunRequest) { b.Config = cose.Sum(frozenConfig(names)) }
	}
	good := sign(func(*receipt.RunRequest) {})
	other, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	stolen := &receipt.Statement{Kind: receipt.KindRunRequest, Federation: f.Policy.FederationID(), Seq: 1, Policy: f.Policy.Digest(), Issuer: receipt.NodeIssuer(other.Public().ID()), Body: &body}
	if _, err := receipt.Sign(stolen, other); err != nil {
		t.Fatal(err)
	}
	outdated := &receipt.Statement{Kind: receipt.KindRunRequest, Federation: f.Policy.FederationID(), Seq: 9, Prev: ci.Digest{1}, Policy: ci.Digest{7}, Issuer: receipt.NodeIssuer(n.ID()), Body: &body}
	if _, err := receipt.Sign(outdated, n.Signer); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, code string
		msg        session.RunRequest
	}{
		{"another node's", "invalid", session.RunRequest{Statement: stolen.Raw(), Config: config, Initial: initial(t)}},
		{"under another policy", "policy", session.RunRequest{Statement: outdated.Raw(), Config: config, Initial: initial(t)}},
		{"another config", "invalid", session.RunRequest{Statement: sign(func(*receipt.RunRequest) {}), Config: cose.Marshal(map[string]any{"a": true}), Initial: initial(t)}},
		{"an app that the policy lacks", "policy", session.RunRequest{Statement: sign(func(b *receipt.RunRequest) { b.App = ci.Digest{5} }), Config: config, Initial: initial(t)}},
		{"too many rounds", "policy", session.RunRequest{Statement: sign(func(b *receipt.RunRequest) { b.Rounds = 101 }), Config: config, Initial: initial(t)}},
		{"a cohort too small", "policy", session.RunRequest{Statement: sign(func(b *receipt.RunRequest) { b.Cohort = []string{"member-a"} }), Config: config, Initial: initial(t)}},
		{"a stranger in the cohort", "policy", session.RunRequest{Statement: sign(func(b *receipt.RunRequest) { b.Cohort = []string{"member-a", "member-x"} }), Config: config, Initial: initial(t)}},
		{"no initial model", "invalid", session.RunRequest{Statement: sign(func(*receipt.RunRequest) {}), Config: config}},
		{"garbage for a model", "invalid", session.RunRequest{Statement: sign(func(*receipt.RunRequest) {}), Config: config, Initial: [][]byte{{1, 2, 3}}}},
		{"garbage", "invalid", session.RunRequest{Statement: []byte{1, 2, 3}}},
		{"a frozen array that the model lacks", "invalid", session.RunRequest{Statement: sign(freezes("x")), Config: frozenConfig("x"), Initial: initial(t)}},
		{"all arrays frozen", "invalid", session.RunRequest{Statement: sign(freezes("b,w")), Config: frozenConfig("b,w"), Initial: initial(t)}},
	} {
		if err := n.Say(&c.msg); err != nil {
			t.Fatal(err)
		}
		m, err := hostile.Hear[*session.Refused](ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != cose.Sum(c.msg.Statement) || m.Code != c.code {
			t.Errorf("%s: refused with %q, want %q", c.name, m.Code, c.code)
		}
	}
	if n := len(runs(l)); n != 0 {
		t.Errorf("%d runs began", n)
	}
	ok := &session.RunRequest{Statement: good, Config: config, Initial: initial(t)}
	for range 2 {
		if err := n.Say(ok); err != nil {
			t.Fatal(err)
		}
	}
	m, err := hostile.Hear[*session.Refused](ctx, n)
	if err != nil || m.Subject != cose.Sum(good) || m.Code != "policy" {
		t.Errorf("the same request again: %+v, %v", m, err)
	}
	l.Await(t, "the run", hostile.IsLogged(receipt.KindRun))
	if n := len(runs(l)); n != 1 {
		t.Errorf("%d runs began, want 1", n)
	}
}

// TestHostileContributions sends, from a member's node, contributions that are of another
// step, run, policy or node. Each is refused with a coarse code, and nothing is lost: the
// right one is admitted afterwards, and the run completes.
func TestHostileContributions(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	n, ctx := enemy(t, f, f.Members[2])
	req := start(t, f, f.Nodes[0], 1, nil)
	secrets, err := n.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	task, err := hostile.Hear[*session.Task](ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := n.Seal(ctx, secrets, 1, trained(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	good := receipt.Contribution{Seq: 1, Step: cose.Sum(task.Step), Manifest: cose.Digest(sealed.Manifest.ID), ChunkRoot: sealed.Root, Count: sealed.Count}
	of := func(change func(*receipt.Contribution)) *receipt.Contribution {
		b := good
		change(&b)
		return &b
	}
	refused := func(name, code string) {
		t.Helper()
		m, err := hostile.Hear[*session.Refused](ctx, n)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m.Code != code {
			t.Errorf("%s: refused with %q, want %q", name, m.Code, code)
		}
	}
	for _, c := range []struct {
		name, code string
		run        ci.Digest
		body       *receipt.Contribution
	}{
		{"another round", "late", secrets.Run, of(func(b *receipt.Contribution) { b.Seq = 2 })},
		{"the step before", "late", secrets.Run, of(func(b *receipt.Contribution) { b.Step = secrets.Run })},
		{"a step that never was", "late", secrets.Run, of(func(b *receipt.Contribution) { b.Step = ci.Digest{3} })},
		{"another run", "policy", ci.Digest{4}, of(func(*receipt.Contribution) {})},
	} {
		if _, err := n.Contribute(c.run, c.body, sealed.Manifest); err != nil {
			t.Fatal(err)
		}
		refused(c.name, c.code)
	}
	// Under another policy, in another federation, by another node.
	for name, s := range map[string]*receipt.Statement{
		"policy":  {Policy: ci.Digest{7}, Federation: f.Policy.FederationID(), Issuer: receipt.NodeIssuer(n.ID())},
		"invalid": {Policy: f.Policy.Digest(), Federation: ci.Digest{8}, Issuer: receipt.NodeIssuer(n.ID())},
	} {
		s.Kind, s.Run, s.Seq, s.Prev, s.Body = receipt.KindContribution, secrets.Run, 9, ci.Digest{1}, &good
		if _, err := receipt.Sign(s, n.Signer); err != nil {
			t.Fatal(err)
		}
		if err := n.Say(&session.Contribution{Statement: s.Raw(), Manifest: session.ManifestRef{OID: ci.Digest(sealed.Manifest.OID), ID: good.Manifest, Size: sealed.Manifest.Size}}); err != nil {
			t.Fatal(err)
		}
		refused(name, name)
	}
	// Acks and refusals of acks of what waits for none, and messages that are not a node's to say.
	bogus := &session.AckRequest{Step: task.Step}
	if err := n.Ack(secrets.Run, bogus); err != nil {
		t.Fatal(err)
	}
	refused("ack of the open step", "late")
	for _, m := range []session.Message{
		&session.AckRefused{Run: secrets.Run, Step: cose.Sum(task.Step), Code: "policy"},
		&session.RunDecline{Run: secrets.Run, Code: "policy"},
		&session.RunAccept{Run: secrets.Run, Uplink: make([]byte, 32)},
		&session.RunKey{Run: secrets.Run, Downlink: make([]byte, 32)},
		&session.Ended{Statement: task.Step},
		&session.Failed{Run: secrets.Run, Step: ci.Digest{1}, Code: 2},
		&session.Resume{Offer: secrets.Offer, Uplink: make([]byte, 32)},
	} {
		if err := n.Say(m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Contribute(secrets.Run, &good, sealed.Manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := hostile.Hear[*session.Admitted](ctx, n); err != nil {
		t.Fatal(err)
	}
	q, err := hostile.Hear[*session.AckRequest](ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	// Twice: the second changes nothing.
	for range 2 {
		if err := n.Ack(secrets.Run, q); err != nil {
			t.Fatal(err)
		}
	}
	completed(t, f, f.Nodes[0], req)
}

// TestStrangerCannotStopRun has a node that is joined but not of the cohort refuse acks,
// decline and fail in its name: the run does not notice.
func TestStrangerCannotStopRun(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	release := make(chan func(func([]hostile.Message)), 1)
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l), ci.Observe(func(e enclave.Event) {
		if e.Kind == "step" && e.Seq == 2 { // the acks wait until the stranger has spoken
			release <- l.Hold(func(m hostile.Message) bool { return m.Send() != nil && strings.HasPrefix(m.Party, "member") })
		}
	}))
	joined(t, f.Nodes...)
	n, ctx := enemy(t, f, f.Members[2])
	req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: 1, Initial: initial(t), Cohort: []string{"member-a", "member-b"}})
	if err != nil {
		t.Fatal(err)
	}
	var runID, stepID ci.Digest
	l.Await(t, "step 2", func(hostile.Message) bool {
		for _, s := range l.Logged() {
			if b, ok := s.Body.(*receipt.Step); ok && b.Seq == 2 {
				runID, stepID = s.Run, s.Digest()
			}
		}
		return !stepID.IsZero()
	})
	for _, x := range []session.Message{
		&session.AckRefused{Run: runID, Step: stepID, Code: "policy"},
		&session.RunDecline{Run: runID, Code: "policy"},
		&session.Failed{Run: runID, Step: stepID, Code: 2},
	} {
		if err := n.Say(x); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Say(&session.RunRequest{}); err != nil { // heard when all before it was judged
		t.Fatal(err)
	}
	if _, err := hostile.Hear[*session.Refused](ctx, n); err != nil {
		t.Fatal(err)
	}
	(<-release)(nil)
	completed(t, f, f.Nodes[0], req)
}

// TestBadContributionBytes has contributions that are signed as they should be, and
// whose bytes are not what they should be: they are excluded, and the run goes on.
func TestBadContributionBytes(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]func() object.RecordDict{
		"an array too few": func() object.RecordDict {
			d := trained(t, 1)
			d[0].Record = d[0].Record.(object.ArrayRecord)[:1]
			return d
		},
		"another shape":      func() object.RecordDict { return withArray(t, []float64{1, 2}) },
		"not a number":       func() object.RecordDict { return withArray(t, []float64{1, nan(), 3}) },
		"no metrics":         func() object.RecordDict { return trained(t, 1)[:1] },
		"negative weight":    func() object.RecordDict { return withExamples(t, -1) },
		"metrics for a book": func() object.RecordDict { return withMetrics(t, 5000) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			badContribution(t, nil, nil, reply())
		})
	}
	// The link cuts what it serves of a contribution, or serves none.
	for name, f := range map[string]func([]byte) []byte{
		"truncated by the link": func(b []byte) []byte { return b[:len(b)-1] },
		"emptied by the link":   func(b []byte) []byte { return b[:1] },
		"longer by the link":    func(b []byte) []byte { return append(slices.Clone(b), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			badContribution(t, nil, f, trained(t, 1))
		})
	}
}

// badContribution demands that a run with dropouts goes on without the enemy's
// contribution, and says so.
func badContribution(t *testing.T, config map[string]any, serve func([]byte) []byte, d object.RecordDict) {
	t.Helper()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Policy(dropouts(30)), ci.Through(l))
	joined(t, f.Nodes...)
	n, ctx := enemy(t, f, f.Members[2])
	me := n.ID()
	if serve != nil {
		l.Substitute(func(r hostile.Read) []byte {
			if r.Scope.Owner == me {
				return serve(r.Data)
			}
			return r.Data
		})
	}
	req := start(t, f, f.Nodes[0], 1, config)
	secrets, err := n.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	task, err := hostile.Hear[*session.Task](ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Answer(ctx, secrets, task, d); err != nil {
		t.Fatal(err)
	}
	m, err := hostile.Hear[*session.Refused](ctx, n)
	if err != nil || m.Code != "invalid" {
		t.Errorf("%+v, %v", m, err)
	}
	completed(t, f, f.Nodes[0], req)
	for _, e := range events(f.Nodes[0], "acked") {
		if e.Inputs != 3 || e.Excluded != 1 {
			t.Errorf("step %d has %d inputs and %d excluded nodes", e.Seq, e.Inputs, e.Excluded)
		}
	}
}

// TestLinkStoresNoOtherChunk uploads bytes under the id of others: the honest link
// refuses them.
func TestLinkStoresNoOtherChunk(t *testing.T) {
	t.Parallel()
	f := ci.StartFederation(t, ci.Policy(trainOnly))
	joined(t, f.Nodes...)
	n, ctx := enemy(t, f, f.Members[2])
	id, stored := chunkstore.Seal(nil, chunkstore.NewUplink([32]byte{1}, ci.Digest{2}, 1), object.Sum([]byte("chunk")), []byte("chunk"))
	scope := chunkstore.Scope{Federation: f.Policy.FederationID(), Run: ci.Digest{2}, Owner: n.ID()}
	for name, b := range map[string][]byte{"truncated": stored[:len(stored)-1], "longer": append(slices.Clone(stored), 0), "other": append([]byte("CCH2"), stored[4:]...)} {
		up := n.Chunks.Upload(ctx, scope)
		if err := up.Add(id, b); err != nil {
			t.Fatal(err)
		}
		if err := up.Close(); err == nil {
			t.Errorf("%s: stored", name)
		}
	}
	missing, err := n.Chunks.Missing(ctx, scope, []chunkstore.ID{id})
	if err != nil || !missing[0] {
		t.Errorf("the chunk is there: %v, %v", missing, err)
	}
	// Nor under another's name.
	scope.Owner = f.Nodes[0].Signer.Public().ID()
	up := n.Chunks.Upload(ctx, scope)
	if err := up.Add(id, stored); err != nil {
		t.Fatal(err)
	}
	if err := up.Close(); err == nil || !strings.Contains(err.Error(), "PermissionDenied") {
		t.Errorf("stored as another node: %v", err)
	}
}
