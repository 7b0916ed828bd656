package ci_test

import (
	"context"
	"crypto/rand"
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
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/verifier/receipt"
)

// enemy attaches a second node of a member, in the enemy's hands, and joins.
func enemy(t *testing.T, f *ci.Federation, m *ci.Member) (*hostile.Node, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	key := signer(t)
	n := hostile.Attach(f.Dial("enemy"), f.Policy, key, f.Credential(m, key.Public()))
	t.Cleanup(func() { _ = n.Close() })
	if err := n.Join(ctx); err != nil {
		t.Fatal(err)
	}
	// An answer to anything shows that the enclave counts it as joined.
	if err := n.Say(&session.RunRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := hostile.Hear[*session.Refused](ctx, n); err != nil {
		t.Fatal(err)
	}
	return n, ctx
}

func signer(t *testing.T) *cose.Signer {
	t.Helper()
	k, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// trained is what the app replies, with w as the value of every weight.
func trained(t *testing.T, w float64) object.RecordDict {
	t.Helper()
	var arrays object.ArrayRecord
	for _, a := range []struct {
		name string
		n    int
	}{{"b", 1}, {"w", 3}} {
		v, err := ci.Vector(slices.Repeat([]float64{w}, a.n))
		if err != nil {
			t.Fatal(err)
		}
		arrays = append(arrays, object.ArrayItem{Name: a.name, Array: v})
	}
	return object.RecordDict{{Name: "arrays", Record: arrays}, {Name: "metrics", Record: object.MetricRecord{
		{Key: "num-examples", Value: object.Sint(10)}, {Key: "loss", Value: object.Double(0.5)}}}}
}

// refusesModel demands that n tells a failure of step seq, that it never contributed to
// it, and that the run ends without it.
func refusesModel(t *testing.T, n *ci.Node, seq uint64) {
	t.Helper()
	e := n.Await(t, "its refusal of the model", func(e node.Event) bool { return e.Kind == "failed" })
	if e.Seq != seq || !strings.Contains(e.Reason, "outputs of step") {
		t.Errorf("%s failed at step %d: %s", n.Name, e.Seq, e.Reason)
	}
	for _, c := range events(n, "contributed") {
		if c.Seq >= seq {
			t.Errorf("%s contributed to step %d", n.Name, c.Seq)
		}
	}
	if e := n.AwaitKind(t, "ended"); e.Outcome != "failed" {
		t.Errorf("run ended %s", e.Outcome)
	}
}

// TestForgedDownlinkFromMember is finding F1: a member has the key under which every
// model of the run is sealed, so that it can seal any model; the link serves that to one
// victim. No step statement names the forged chunks: the victim opens none.
func TestForgedDownlinkFromMember(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	n, ctx := enemy(t, f, f.Members[2])
	victim := f.Nodes[0]
	// The run does not begin before the forgery is ready: another node's accept is late.
	release := l.Hold(from("member-b"))
	start(t, f, f.Nodes[0], 1, nil)
	secrets, err := n.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	forged := map[int][]byte{} // by size
	w := chunkstore.NewParcelWriter(chunkstore.NewDownlink(secrets.Downlink, secrets.Run, secrets.Statement.Generation), func(_ chunkstore.ID, b []byte) error {
		forged[len(b)] = slices.Clone(b)
		return nil
	})
	trap := trained(t, 1e9)[:1]
	trap = append(trap, object.RecordItem{Name: "config", Record: object.ConfigRecord{{Key: "server-round", Value: object.Sint(1)}}})
	if _, err := object.Flatten(trap, func(o object.Object) error { return w.Add(o.Raw) }); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	served := 0
	l.Substitute(func(r hostile.Read) []byte {
		if b := forged[len(r.Data)]; b != nil && r.Party == victim.Name && r.Scope.Owner.IsZero() {
			served++
			return b
		}
		return r.Data
	})
	release(nil)
	task, err := hostile.Hear[*session.Task](ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Answer(ctx, secrets, task, trained(t, 1)); err != nil {
		t.Fatal(err)
	}
	refusesModel(t, victim, 1)
	if served == 0 {
		t.Error("no forged chunk was served")
	}
}

// TestForgedTaskFromMember is finding F1 by the other way: a member sends the victim
// records of its own session with tasks in them. They are of no session of the victim.
func TestForgedTaskFromMember(t *testing.T) {
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
	victim := f.Nodes[0].Signer.Public().ID()
	forged := *task
	forged.Manifest.ID[0] ^= 1
	frame, err := n.Session.Seal(session.EncodeMessage(&forged))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range l.Seen(func(m hostile.Message) bool { return !m.Up && m.Party == "member-a" && hostile.RecordOf(m) != nil }) {
		// Also under the name of the victim's own session, in the next place.
		r := hostile.RecordOf(m)
		mine := hostile.RecordOf(hostile.Message{Body: &concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Deliver{Deliver: &concordatv1.Deliver{Payload: frame}}}})
		r.Counter, r.Sealed = r.Counter+1, mine.Sealed
		l.Inject(hostile.Message{Party: "member-a", Body: &concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Deliver{Deliver: &concordatv1.Deliver{
			Handle: make([]byte, 16), From: m.Deliver().GetFrom(), Payload: r.Frame()}}}})
	}
	for _, to := range []relay.Address{relay.Node(victim), relay.Enclave(n.Enclave)} { // the enclave counts records
		if err := n.Peer.Send(to, frame); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Answer(ctx, secrets, task, trained(t, 1)); err != nil {
		t.Fatal(err)
	}
	q, err := hostile.Hear[*session.AckRequest](ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ack(secrets.Run, q); err != nil {
		t.Fatal(err)
	}
	completed(t, f, f.Nodes[0], req)
	for _, e := range events(f.Nodes[0], "failed") {
		t.Errorf("the victim followed a forged task: %s", e.Reason)
	}
}

// TestPerVictimModelRefused is finding F1 by the link alone: one victim is served another
// authentic chunk of the run than the step names, an older model or another array.
func TestPerVictimModelRefused(t *testing.T) {
	t.Parallel()
	for _, stale := range []bool{true, false} {
		name := map[bool]string{true: "older model", false: "other array"}[stale]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := hostile.New()
			f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
			victim := f.Nodes[0]
			var order [][]byte // chunks of step 1 as the victim read them
			reads := 0
			l.Substitute(func(r hostile.Read) []byte {
				if r.Party != victim.Name || !r.Scope.Owner.IsZero() {
					return r.Data
				}
				// A step is a manifest and two arrays.
				if reads++; reads <= 3 {
					order = append(order, slices.Clone(r.Data))
					return r.Data
				}
				if stale {
					return order[reads-4]
				}
				return order[len(order)-1]
			})
			joined(t, f.Nodes...)
			start(t, f, f.Nodes[0], 2, nil)
			refusesModel(t, victim, 2)
		})
	}
}

// TestForgedEvidenceGivesNoEpoch is the same attack through the log: a member appends
// evidence that it made up, and a step and a release signed by that "enclave"; the true
// enclave is lost, and the member shows its successor the forged step as the newest. The
// evidence does not pass, so it gives nobody an epoch: the run goes on at the true step.
func TestForgedEvidenceGivesNoEpoch(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	m := newMoments()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l), ci.Observe(m.observe))
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
	answer, err := n.Answer(ctx, secrets, task, trained(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	// The forged enclave: claims of the next epoch, the true envelope's items, its own key.
	key, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	claims := attestation.Claims{Federation: f.Policy.FederationID(), Policy: f.Policy.Digest(), PolicyVersion: 1, Role: attestation.RoleAggregator,
		Epoch: 2, SignPub: key.Public(), KEMPub: make([]byte, session.KEMPublicSize), Image: ci.Digest{1}, Config: ci.Digest{2}, NonceRoot: ci.Digest{3}, NonceCount: 1, Simulated: true, IssuedAt: uint64(time.Now().Unix())}
	if _, err := rand.Read(claims.Instance[:]); err != nil {
		t.Fatal(err)
	}
	raw := claims.Encode()
	items, err := f.Machine.Collect(ctx, attestation.ReportData([]byte("other claims"), true))
	if err != nil {
		t.Fatal(err)
	}
	envelope := &attestation.Evidence{Claims: raw, Items: items}
	if _, err := n.Peer.PutBlob(ctx, envelope.Encode()); err != nil {
		t.Fatal(err)
	}
	chain := receipt.NewChain(ci.Digest{})
	say := func(kind receipt.Kind, run ci.Digest, body any) *receipt.Statement {
		t.Helper()
		seq, prev := chain.Next()
		s := &receipt.Statement{Kind: kind, Federation: f.Policy.FederationID(), Run: run, Seq: seq, Prev: prev, Policy: f.Policy.Digest(), Issuer: receipt.EnclaveIssuer(claims.Instance), Body: body}
		if _, err := receipt.Sign(s, key); err != nil {
			t.Fatal(err)
		}
		if err := chain.Extend(s); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Peer.Append(ctx, s.Raw()); err != nil {
			t.Fatal(err)
		}
		return s
	}
	evidence := say(receipt.KindEvidence, ci.Digest{}, &receipt.Evidence{Claims: raw, Envelope: envelope.Digest()})
	true1, err := n.Step(task)
	if err != nil {
		t.Fatal(err)
	}
	trap := *true1 // step 1 again, as a successor may, with other outputs
	trap.Evidence, trap.OutputsRoot = evidence.Digest(), ci.Digest{9}
	forged := say(receipt.KindStep, secrets.Run, &trap)

	if err := f.Enclave.Stop(); err != nil {
		t.Fatal(err)
	}
	f.StartEnclave(f.Machine, nil, nil)
	if err := n.Join(ctx); err != nil {
		t.Fatal(err)
	}
	resume := &session.Resume{Offer: secrets.Offer, Uplink: secrets.Uplink[:], Downlink: secrets.Downlink[:],
		Tasks: []session.Task{*task, {Step: forged.Raw(), Manifest: task.Manifest}}, Contributions: []session.Contribution{*answer}}
	if err := n.Say(resume); err != nil {
		t.Fatal(err)
	}
	q, err := hostile.Hear[*session.AckRequest](ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Ack(secrets.Run, q); err != nil {
		t.Fatal(err)
	}
	completed(t, f, f.Nodes[0], req)
	for _, x := range f.Nodes {
		for _, e := range append(events(x, "failed"), events(x, "refused")...) {
			t.Errorf("%s: %s", x.Name, e.Reason)
		}
	}
	for _, s := range l.Logged() {
		if s.Kind == receipt.KindEvidence && s.Issuer == receipt.EnclaveIssuer([16]byte([]byte(instance(l, "enclave-2")))) {
			c, err := attestation.ParseClaims(s.Body.(*receipt.Evidence).Claims)
			if err != nil || c.Epoch != 2 {
				t.Errorf("the successor has epoch %d, want 2: the forged evidence gave an epoch (%v)", c.Epoch, err)
			}
		}
	}
}
