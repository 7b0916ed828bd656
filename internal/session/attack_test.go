package session

import (
	"bytes"
	"crypto/hpke"
	"testing"
	"time"

	"github.com/concordat/concordat/internal/cose"
)

// TestJoinResignedByRival: a rival that sits at the link puts its own identity
// around a victim's join (protocol F10). The identity is inside the ciphertext and
// under the signature, and the leaf belongs to the victim's key.
func TestJoinResignedByRival(t *testing.T) {
	t.Parallel()
	w := theWorld()
	victim, rival := w.node(t, "a", "victim"), w.node(t, "b", "rival")
	v := w.start(t, victim)
	th1 := transcript1(v.challenge.hello, v.offer.Claims, v.offer.Envelope)

	// The rival's identity over the victim's leaf, sealed anew: all that it can make
	// itself. It knows the claims, which are public.
	_, _, err := v.accept(reseal(t, v, th1, rival, th1, v.joining.ephemeral))
	mustRefuse(t, "rival's identity in the victim's leaf", err, ErrBinding)

	// The victim's credential, which the rival may know, over a signature of its own.
	_, _, err = v.accept(reseal(t, v, th1, &party{rival.key, victim.credential}, th1, v.joining.ephemeral))
	mustRefuse(t, "rival's signature under the victim's credential", err, ErrBinding)

	// The victim's ciphertext in the rival's own leaf.
	r := &exchange{world: w, party: rival, challenge: w.challenge(t, rival)}
	win, offers := w.window(t, r.challenge.Hello())
	r.window, r.offerRaw = win, offers[0]
	r.sendJoin(t)
	var f, own joinFrame
	if err := parseFrame(v.join, FrameJoin, &f); err != nil {
		t.Fatal(err)
	}
	if err := parseFrame(r.join, FrameJoin, &own); err != nil {
		t.Fatal(err)
	}
	_, _, err = r.accept(cose.Marshal(joinFrame{Label: f.Label, TH1: own.TH1, Enc: f.Enc, Sealed: f.Sealed}))
	mustRefuse(t, "victim's ciphertext in the rival's leaf", err, ErrBinding)

	// Both still join as themselves.
	for _, x := range []*exchange{v, r} {
		joined, _, err := x.accept(x.join)
		if err != nil || joined.Node != x.party.id() {
			t.Errorf("the honest join: %v, %v", joined, err)
		}
	}
}

// reseal makes a join of x's window as anybody can: identity p, signing over
// signed, sealed under th1.
func reseal(t *testing.T, x *exchange, th1 Digest, p *party, signed Digest, ephemeral hpke.PrivateKey) []byte {
	t.Helper()
	pub, err := kem.NewPublicKey(x.window.KEMPublic())
	if err != nil {
		t.Fatal(err)
	}
	enc, sender, err := hpke.NewSender(pub, kdf, aead, info("n2e", th1))
	if err != nil {
		t.Fatal(err)
	}
	body := joinBody{Credential: p.credential, Ephemeral: ephemeral.PublicKey().Bytes(), Heads: nodeHeads.Encode()}
	if body.Signature, err = p.key.SignRaw(joinSignatureInput(signed, enc, body.Credential, body.Ephemeral, body.Heads)); err != nil {
		t.Fatal(err)
	}
	sealed, err := sender.Seal(th1[:], cose.Marshal(body))
	if err != nil {
		t.Fatal(err)
	}
	return cose.Marshal(joinFrame{Label: label(FrameJoin), TH1: th1, Enc: enc, Sealed: sealed})
}

// TestJoinResealedToOther: an accepted but hostile enclave opens a node's join and
// seals the signed body to another enclave, to pose there as the node. The
// signature covers enc and the transcript, which names the enclave.
func TestJoinResealedToOther(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	var f joinFrame
	if err := parseFrame(x.join, FrameJoin, &f); err != nil {
		t.Fatal(err)
	}
	r, err := hpke.NewRecipient(f.Enc, x.window.private, kdf, aead, info("n2e", f.TH1))
	if err != nil {
		t.Fatal(err)
	}
	body, err := r.Open(f.TH1[:], f.Sealed)
	if err != nil {
		t.Fatal(err)
	}

	// The other enclave has the very hello: the link relays it to both.
	other, offers := w.window(t, x.challenge.Hello())
	var offer offerFrame
	if err := parseFrame(offers[0], FrameOffer, &offer); err != nil {
		t.Fatal(err)
	}
	th1 := transcript1(x.challenge.hello, offer.Claims, offer.Evidence)
	pub, err := kem.NewPublicKey(other.KEMPublic())
	if err != nil {
		t.Fatal(err)
	}
	enc, sender, err := hpke.NewSender(pub, kdf, aead, info("n2e", th1))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := sender.Seal(th1[:], body)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = other.Accept(cose.Marshal(joinFrame{Label: f.Label, TH1: th1, Enc: enc, Sealed: sealed}), w.policy, nobody, now, enclaveHeads)
	mustRefuse(t, "body sealed to another enclave", err, ErrBinding)
	_, _, err = other.Accept(x.join, w.policy, nobody, now, enclaveHeads)
	mustRefuse(t, "join handed to another enclave", err, ErrOtherWindow)

	// Nor may the enclave itself answer the node with another body under the same
	// leaf: a second join of it.
	if _, _, err := x.accept(x.join); err != nil {
		t.Fatal(err)
	}
	_, _, err = x.accept(reseal(t, x, f.TH1, p, f.TH1, x.joining.ephemeral))
	mustRefuse(t, "second body in the leaf", err, ErrUsed)
}

// TestJoinReplayed: the link delivers a join again. The same bytes get the same
// answer and no second session, so no GCM key is used twice.
func TestJoinReplayed(t *testing.T) {
	t.Parallel()
	w := theWorld()
	x := w.start(t, w.node(t, "a", "node of a"))
	joined, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		again, answer, err := x.accept(x.join)
		if err != nil || again != nil || !bytes.Equal(answer, accept) {
			t.Errorf("the same join: session %v, same answer %v, %v", again, bytes.Equal(answer, accept), err)
		}
	}
	// Bytes that decode to the same join but differ are another join.
	_, _, err = x.accept(append(bytes.Clone(x.join), 0))
	mustRefuse(t, "trailing byte", err, ErrFrame)
	// The first accept finishes the join, a replayed confirmation does not confirm
	// twice, and a replayed record opens once.
	node, _, confirm, err := x.joining.Finish(accept)
	if err != nil {
		t.Fatal(err)
	}
	if err := Confirm(joined.Session, confirm); err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, "confirmation again", Confirm(joined.Session, confirm), ErrReplay)
	record, err := node.Seal([]byte("once"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := joined.Session.Open(record); err != nil {
		t.Fatal(err)
	}
	_, err = joined.Session.Open(record)
	mustRefuse(t, "record again", err, ErrReplay)
}

// TestJoinOldWindow: a recorded join is replayed to a later window of the same
// enclave, with the node's own old hello among its leaves, and to the old window
// after its end.
func TestJoinOldWindow(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	later, offers := w.window(t, x.challenge.Hello(), w.challenge(t, p).Hello())
	_, _, err := later.Accept(x.join, w.policy, nobody, now, enclaveHeads)
	mustRefuse(t, "join of another window", err, ErrOtherWindow)

	// Renamed to the later window's transcript, it does not open.
	var f joinFrame
	if err := parseFrame(x.join, FrameJoin, &f); err != nil {
		t.Fatal(err)
	}
	var offer offerFrame
	if err := parseFrame(offers[0], FrameOffer, &offer); err != nil {
		t.Fatal(err)
	}
	f.TH1 = transcript1(x.challenge.hello, offer.Claims, offer.Evidence)
	_, _, err = later.Accept(cose.Marshal(f), w.policy, nobody, now, enclaveHeads)
	mustRefuse(t, "join renamed to another window", err, ErrBinding)

	// The old window has ended: unused leaves stay unused.
	if !x.window.Expired(now.Add(WindowLife + time.Second)) {
		t.Error("the old window lives on")
	}
	x.window.End()
	_, _, err = x.accept(x.join)
	mustRefuse(t, "join of a window that has ended", err, ErrExpired)
}
