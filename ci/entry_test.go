package ci_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// deliver is a payload that the link puts into a party's mailbox, whoever it claims to
// be from.
func deliver(party string, from *concordatv1.Address, payload []byte) hostile.Message {
	h := cose.Hash("handle", payload)
	return hostile.Message{Party: party, Method: "Attach", Body: &concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Deliver{
		Deliver: &concordatv1.Deliver{Handle: h[:16], From: from, Payload: payload}}}}
}

func address(id ci.Digest) *concordatv1.Address {
	return &concordatv1.Address{Role: concordatv1.Role_ROLE_NODE, Id: id[:]}
}

// runs counts the runs that enclaves began.
func runs(l *hostile.Link) (list []*receipt.Run) {
	for _, s := range l.Logged() {
		if b, ok := s.Body.(*receipt.Run); ok {
			list = append(list, b)
		}
	}
	return list
}

// TestLinkCannotStartRun is finding F3: a link that has seen a run requested shows
// everything that it saw to the enclave again, while it runs, afterwards, and to the
// next enclave, and as any node. A run begins only where a node asks anew.
func TestLinkCannotStartRun(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	replay := func(enclave string) {
		t.Helper()
		n := 0
		for _, m := range l.Seen(func(m hostile.Message) bool {
			return !m.Up && m.Deliver() != nil && strings.HasPrefix(m.Party, "enclave")
		}) {
			for _, x := range f.Nodes {
				l.Inject(deliver(enclave, address(x.Signer.Public().ID()), m.Payload()))
				n++
			}
		}
		if n == 0 {
			t.Fatal("nothing was replayed")
		}
	}
	first := start(t, f, f.Nodes[0], 1, nil)
	f.Nodes[0].AwaitKind(t, "started")
	replay("enclave")
	completed(t, f, f.Nodes[0], first)
	replay("enclave")
	if err := f.Enclave.Stop(); err != nil {
		t.Fatal(err)
	}
	f.StartEnclave(f.Machine, nil, nil)
	for _, n := range f.Nodes {
		n.Await(t, "join of the second enclave", func(e node.Event) bool {
			return e.Kind == "joined" && e.Instance == hexOf(instance(l, "enclave-2"))
		})
	}
	replay("enclave-2")
	// Frames are taken in order: what was replayed is done with before this one.
	second := start(t, f, f.Nodes[1], 1, nil)
	completed(t, f, f.Nodes[1], second)
	got := runs(l)
	if len(got) != 2 || got[0].Request != first || got[1].Request != second {
		t.Errorf("%d runs began, want 2: %v", len(got), got)
	}
}

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

// TestLinkCannotEnrol is finding F6: the link makes nodes of its own and passes their
// frames to the enclave, past its own check of credentials. The enclave takes no node
// for which no member's issuer key speaks.
func TestLinkCannotEnrol(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	a := f.Members[0]
	link := &ci.Member{ID: a.ID, IssuerKey: signer(t)} // calls itself member-a
	key := signer(t)
	expired, err := policy.SignCredential(a.IssuerKey, policy.NodeCredential{Federation: f.Policy.FederationID(), Member: a.ID, NodeKey: key.Public(), Serial: 1, NotAfter: uint64(time.Now().Add(-time.Minute).Unix())})
	if err != nil {
		t.Fatal(err)
	}
	forEver, err := policy.SignCredential(a.IssuerKey, policy.NodeCredential{Federation: f.Policy.FederationID(), Member: a.ID, NodeKey: key.Public(), Serial: 1, NotAfter: uint64(time.Now().AddDate(50, 0, 0).Unix())})
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := policy.SignCredential(a.IssuerKey, policy.NodeCredential{Federation: ci.Digest{1}, Member: a.ID, NodeKey: key.Public(), Serial: 1, NotAfter: uint64(time.Now().Add(time.Hour).Unix())})
	if err != nil {
		t.Fatal(err)
	}
	for name, credential := range map[string][]byte{
		"issued by the link":       f.Credential(link, key.Public()),
		"of an unknown member":     f.Credential(&ci.Member{ID: "member-x", IssuerKey: link.IssuerKey}, key.Public()),
		"of another node":          f.Credential(a, f.Nodes[0].Signer.Public()),
		"expired":                  expired,
		"valid for too long":       forEver,
		"of another federation":    elsewhere,
		"by another member's key":  f.Credential(&ci.Member{ID: a.ID, IssuerKey: f.Members[1].IssuerKey}, key.Public()),
		"garbage":                  []byte("credential"),
		"none":                     nil,
		"by the member, the truth": f.Credential(a, key.Public()), // the last word: it is taken
	} {
		t.Run(name, func(t *testing.T) {
			accepted := enrol(t, f, l, key, credential)
			if want := name == "by the member, the truth"; accepted != want {
				t.Errorf("accepted: %v, want %v", accepted, want)
			}
		})
	}
	// The honest link does not even let such a node attach.
	n := hostile.Attach(f.Dial("sybil"), f.Policy, key, f.Credential(link, key.Public()))
	if err := n.Wait(); err == nil || !strings.Contains(err.Error(), "PermissionDenied") {
		t.Errorf("attach: %v", err)
	}
}

// enrol has the link say hello and join to the enclave as a node of its own, and
// reports whether the enclave accepts it.
func enrol(t *testing.T, f *ci.Federation, l *hostile.Link, key *cose.Signer, credential []byte) bool {
	t.Helper()
	ask := func(key *cose.Signer, credential []byte) (replied func() bool) {
		t.Helper()
		id := key.Public().ID()
		to := func(kind session.FrameKind) hostile.Match {
			return func(m hostile.Message) bool {
				k, err := session.KindOf(m.Payload())
				return err == nil && k == kind && m.Send() != nil && string(m.Send().GetTo().GetId()) == string(id[:])
			}
		}
		offers, accepts := len(l.Seen(to(session.FrameOffer))), len(l.Seen(to(session.FrameAccept)))
		c, err := session.NewChallenge(f.Policy.FederationID(), id, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		l.Inject(deliver("enclave", address(id), c.Hello()))
		var offer hostile.Message
		l.Await(t, "an offer", func(m hostile.Message) bool {
			all := l.Seen(to(session.FrameOffer))
			if len(all) > offers {
				offer = all[offers]
			}
			return len(all) > offers
		})
		o, err := c.Offer(offer.Payload(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		ends, err := f.Machine.Endorsements()
		if err != nil {
			t.Fatal(err)
		}
		r, err := verifier.Appraise(o.Evidence, ends, f.Policy, &o.Nonce, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		passed, err := r.Passed()
		if err != nil {
			t.Fatal(err)
		}
		_, join, err := c.Join(passed, o, key, credential, session.Heads{PolicyVersion: 1, Policy: f.Policy.Digest()})
		if err != nil {
			t.Fatal(err)
		}
		l.Inject(deliver("enclave", address(id), join))
		return func() bool { return len(l.Seen(to(session.FrameAccept))) > accepts }
	}
	replied := ask(key, credential)
	// Frames are taken in order: once a good join is accepted, the one before was judged.
	good := signer(t)
	sentinel := ask(good, f.Credential(f.Members[1], good.Public()))
	l.Await(t, "the accept of a good join", func(hostile.Message) bool { return sentinel() })
	return replied()
}

// TestReplayedJoin shows the enclave a node's join again, in its own window and after
// the enclave was replaced: it makes no second session, and disturbs no first.
func TestReplayedJoin(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	joins := func() []hostile.Message {
		return l.Seen(func(m hostile.Message) bool {
			k, err := session.KindOf(m.Payload())
			return err == nil && k == session.FrameJoin && !m.Up && m.Party == "enclave"
		})
	}
	if n := len(joins()); n != 3 {
		t.Fatalf("%d joins, want 3", n)
	}
	again := func(party string) {
		for _, m := range joins() {
			for _, from := range f.Nodes { // also as somebody else's
				l.Inject(deliver(party, address(from.Signer.Public().ID()), m.Payload()))
			}
		}
	}
	again("enclave")
	completed(t, f, f.Nodes[0], start(t, f, f.Nodes[0], 1, nil))
	for _, n := range f.Nodes {
		if k := len(events(n, "joined")); k != 1 {
			t.Errorf("%s joined %d times", n.Name, k)
		}
	}
	if err := f.Enclave.Stop(); err != nil {
		t.Fatal(err)
	}
	f.StartEnclave(f.Machine, nil, nil)
	l.Await(t, "attachment", func(m hostile.Message) bool { return m.Party == "enclave-2" && !m.Up })
	again("enclave-2")
	completed(t, f, f.Nodes[1], start(t, f, f.Nodes[1], 1, nil))
}

// TestStaleNonce gives a node that asks anew the evidence that answered its question
// before (protocol F18): it is refused, and the fresh answer is taken.
func TestStaleNonce(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	isOffer := func(m hostile.Message) bool {
		k, err := session.KindOf(m.Payload())
		return err == nil && k == session.FrameOffer && !m.Up && m.Party == "member-a"
	}
	old := l.Await(t, "offer", isOffer)
	// The old offer comes in place of the first new one.
	replaced := false
	l.Add(func(m hostile.Message) []hostile.Message {
		if !isOffer(m) || replaced {
			return []hostile.Message{m}
		}
		replaced = true
		m.Deliver().Payload = old.Payload()
		return []hostile.Message{m}
	})
	f.Restart(f.Nodes[0])
	e := f.Nodes[0].AwaitKind(t, "refused")
	if !strings.Contains(e.Reason, "nonce") {
		t.Errorf("refused because %s", e.Reason)
	}
	f.Nodes[0].AwaitKind(t, "joined")
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
	req, err := f.Nodes[0].Node.StartRun(node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: 1, Initial: initial(t), Cohort: []string{"member-a", "member-b"}})
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
			badContribution(t, nil, reply())
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
			badContribution(t, f, trained(t, 1))
		})
	}
}

// badContribution demands that a run with dropouts goes on without the enemy's
// contribution, and says so.
func badContribution(t *testing.T, serve func([]byte) []byte, d object.RecordDict) {
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
	req := start(t, f, f.Nodes[0], 1, nil)
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

// TestWrongPolicyJoin joins with heads of another policy: the enclave does not answer.
func TestWrongPolicyJoin(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Through(l))
	joined(t, f.Nodes...)
	key := signer(t)
	n := hostile.Attach(f.Dial("enemy"), f.Policy, key, f.Credential(f.Members[2], key.Public()))
	t.Cleanup(func() { _ = n.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, heads := range []session.Heads{
		{PolicyVersion: 1, Policy: ci.Digest{1}},
		{PolicyVersion: 2, Policy: ci.Digest{1}},
		{PolicyVersion: 1, Policy: f.Policy.Digest(), Checkpoint: []byte("note")},
	} {
		if err := n.JoinWith(ctx, heads); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Join(ctx); err != nil {
		t.Fatal(err)
	}
	id := n.ID()
	accepts := l.Seen(func(m hostile.Message) bool {
		k, err := session.KindOf(m.Payload())
		return err == nil && k == session.FrameAccept && m.Up && string(m.Send().GetTo().GetId()) == string(id[:])
	})
	if len(accepts) != 1 {
		t.Errorf("%d joins of 4 were accepted, want the last alone", len(accepts))
	}
}

// TestSimulatedNeverReal is finding F24: members of a real federation list the
// measurement and the chip of a simulated machine, and somebody runs the simulator for
// them. Its evidence hangs under the simulator's roots: no node joins it.
func TestSimulatedNeverReal(t *testing.T) {
	t.Parallel()
	for _, platform := range []string{"snp", "tdx"} {
		t.Run(platform, func(t *testing.T) {
			t.Parallel()
			l := hostile.New()
			f := ci.StartFederation(t, ci.Platform(platform), ci.Through(l), ci.Policy(func(p *policy.Policy) { p.Simulated, p.SimulatedRoots = false, nil }))
			for _, n := range f.Nodes {
				e := n.AwaitKind(t, "refused")
				if e.Instance != hexOf(instance(l, "enclave")) {
					t.Errorf("%s refused %s", n.Name, e.Instance)
				}
				if len(events(n, "joined")) > 0 {
					t.Errorf("%s joined a simulated enclave under a real policy", n.Name)
				}
			}
			// No node said more than hello.
			for _, m := range l.Seen(func(m hostile.Message) bool { return m.Send() != nil && strings.HasPrefix(m.Party, "member") }) {
				if k, err := session.KindOf(m.Payload()); err != nil || k != session.FrameHello {
					t.Errorf("%s sent a %s", m.Party, k)
				}
			}
			for _, s := range l.Logged() {
				if c, err := attestation.ParseClaims(s.Body.(*receipt.Evidence).Claims); err != nil || c.Simulated {
					t.Errorf("claims %v, %v", c, err)
				}
			}
		})
	}
}
