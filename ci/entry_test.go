package ci_test

import (
	"context"
	"strings"
	"testing"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
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
