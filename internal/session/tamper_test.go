package session

import (
	"bytes"
	"crypto/hpke"
	"strings"
	"testing"
	"testing/cryptotest"

	"github.com/concordat/concordat/ci/tamper"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier"
)

// TestTamperHello: evidence that answers a changed hello answers no challenge.
func TestTamperHello(t *testing.T) {
	t.Parallel()
	w := theWorld()
	c := w.challenge(t, w.node(t, "a", "node of a"))
	tamper.Each(c.Hello(), func(path string, mutated []byte) {
		win, err := NewWindow(w.policy.FederationID(), enclaveKey(), now)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := win.Add(mutated); err != nil {
			return
		}
		root, count := win.Close()
		proof := win.tree.Proof(0)
		if proof.Node, proof.Nonce = c.node, c.nonce; proof.Verify(root, count) == nil {
			t.Errorf("hello%s: the challenge is answered", path)
		}
	})
}

// TestTamperOffer: of a changed offer comes no session, whatever was changed in
// frame, claims, evidence or proof. The log proof is the exception: it is not the
// session's to judge.
func TestTamperOffer(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	carried := 0
	tamper.Each(x.offerRaw, func(path string, mutated []byte) {
		o, err := x.challenge.Offer(mutated, now)
		if err != nil {
			return
		}
		r, err := verifier.Appraise(o.Evidence, w.ends, w.policy, &o.Nonce, now)
		if err != nil {
			t.Fatal(err)
		}
		passed, err := r.Passed()
		if err != nil {
			return
		}
		if strings.HasPrefix(path, "[5]") {
			carried++
			return
		}
		_, join, err := x.challenge.Join(passed, o, p.key, p.credential, nodeHeads)
		if err != nil {
			return
		}
		if _, _, err := x.accept(join); err == nil {
			t.Errorf("offer%s: joined", path)
		}
	})
	if carried == 0 {
		t.Error("no log proof was changed: the exception hides nothing")
	}
	if _, _, err := x.accept(x.join); err != nil {
		t.Errorf("the offer as it was: %v", err)
	}
}

// TestTamperJoinBody changes every field of the node's signed body and seals it as
// the node would: the signature covers them all.
func TestTamperJoinBody(t *testing.T) {
	w := theWorld()
	x := w.start(t, w.node(t, "a", "node of a"))
	var f joinFrame
	if err := parseFrame(x.join, FrameJoin, &f); err != nil {
		t.Fatal(err)
	}
	pub, err := kem.NewPublicKey(x.window.KEMPublic())
	if err != nil {
		t.Fatal(err)
	}
	// A sender seals once here, and the signature covers its enc: the same randomness
	// makes the same sender for every change.
	sender := func() ([]byte, *hpke.Sender) {
		cryptotest.SetGlobalRandom(t, 2)
		enc, s, err := hpke.NewSender(pub, kdf, aead, info("n2e", f.TH1))
		if err != nil {
			t.Fatal(err)
		}
		return enc, s
	}
	enc, _ := sender()
	body := joinBody{Credential: x.party.credential, Ephemeral: x.joining.ephemeral.PublicKey().Bytes(), Heads: nodeHeads.Encode()}
	if body.Signature, err = x.party.key.SignRaw(joinSignatureInput(f.TH1, enc, body.Credential, body.Ephemeral, body.Heads)); err != nil {
		t.Fatal(err)
	}
	accept := func(plain []byte) error {
		again, s := sender()
		if !bytes.Equal(again, enc) {
			t.Fatal("another sender: the signature would not hold for any body")
		}
		sealed, err := s.Seal(f.TH1[:], plain)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = x.accept(cose.Marshal(joinFrame{Label: f.Label, TH1: f.TH1, Enc: enc, Sealed: sealed}))
		return err
	}
	n := 0
	tamper.Each(cose.Marshal(body), func(path string, mutated []byte) {
		n++
		if accept(mutated) == nil {
			t.Errorf("join body%s: accepted", path)
		}
	})
	if n < 60 {
		t.Errorf("only %d changes", n)
	}
	if err := accept(cose.Marshal(body)); err != nil {
		t.Errorf("the body as it was: %v", err)
	}
}

// TestTamperAcceptBody changes what the enclave says in its accept and seals it
// under the session's key. Its heads are under that key alone, which nobody but the
// enclave has; everything else is signed or derived.
func TestTamperAcceptBody(t *testing.T) {
	t.Parallel()
	w := theWorld()
	x := w.start(t, w.node(t, "a", "node of a"))
	joined, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	var f acceptFrame
	if err := parseFrame(accept, FrameAccept, &f); err != nil {
		t.Fatal(err)
	}
	out, th3 := joined.Session.out.aead, joined.Session.th3
	plain, err := out.Open(nil, counterNonce(0), f.Sealed, th3[:])
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	tamper.Each(plain, func(path string, mutated []byte) {
		if path == "[1] flip" || strings.HasPrefix(path, "[1]<>") {
			return
		}
		n++
		frame := cose.Marshal(acceptFrame{Label: f.Label, Enc2: f.Enc2, Sealed: out.Seal(nil, counterNonce(0), mutated, th3[:])})
		if _, _, _, err := x.joining.Finish(frame); err == nil {
			t.Fatalf("accept body%s: finished", path)
		}
	})
	if n < 10 {
		t.Errorf("only %d changes", n)
	}
	if _, _, _, err := x.joining.Finish(accept); err != nil {
		t.Errorf("the accept as it was: %v", err)
	}
}

// TestTamperFrames changes every field of the join, the accept and a record.
func TestTamperFrames(t *testing.T) {
	t.Parallel()
	w := theWorld()
	x := w.start(t, w.node(t, "a", "node of a"))
	tamper.Each(x.join, func(path string, mutated []byte) {
		if _, _, err := x.accept(mutated); err == nil {
			t.Errorf("join%s: accepted", path)
		}
	})
	joined, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	tamper.Each(accept, func(path string, mutated []byte) {
		if _, _, _, err := x.joining.Finish(mutated); err == nil {
			t.Fatalf("accept%s: finished", path)
		}
	})
	_, _, confirm, err := x.joining.Finish(accept)
	if err != nil {
		t.Fatal(err)
	}
	tamper.Each(confirm, func(path string, mutated []byte) {
		if Confirm(joined.Session, mutated) == nil {
			t.Fatalf("record%s: opened", path)
		}
	})
	if err := Confirm(joined.Session, confirm); err != nil {
		t.Fatal(err)
	}
}
