package session

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

// recording is what a link stores of a join and its session.
type recording struct {
	hello, offer, join, accept []byte
	records                    [][]byte // the confirmation first, node to enclave
	answers                    [][]byte // enclave to node
}

// tap runs a whole join as a link sees it. The two KEM keys are returned beside it:
// they are what honest parties forget.
func (x *exchange) tap(t *testing.T) (r recording, window, ephemeral hpke.PrivateKey) {
	t.Helper()
	window, ephemeral = x.window.private, x.joining.ephemeral
	joined, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	node, _, confirm, err := x.joining.Finish(accept)
	if err != nil {
		t.Fatal(err)
	}
	if err := Confirm(joined.Session, confirm); err != nil {
		t.Fatal(err)
	}
	r = recording{hello: x.challenge.Hello(), offer: x.offerRaw, join: x.join, accept: accept, records: [][]byte{confirm}}
	for _, s := range []struct {
		from *Session
		to   *[][]byte
	}{{node, &r.records}, {joined.Session, &r.answers}} {
		frame, err := s.from.Seal([]byte("a secret"))
		if err != nil {
			t.Fatal(err)
		}
		*s.to = append(*s.to, frame)
	}
	return r, window, ephemeral
}

// thief tries to open a recording with what it has. Nil keys are those it lacks.
// It is written from docs/protocol.md, not with the package's own key schedule.
type thief struct {
	window, ephemeral hpke.PrivateKey
	enclave, node     *cose.Signer
}

// opens reports whether any recorded ciphertext opens for the thief, and the whole
// session with it.
func (th thief) opens(t *testing.T, r recording) (join, session bool) {
	t.Helper()
	const p = "concordat/join/1/"
	var offer offerFrame
	var jf joinFrame
	var af acceptFrame
	for raw, v := range map[*[]byte]any{&r.offer: &offer, &r.join: &jf, &r.accept: &af} {
		if err := cose.Unmarshal(*raw, v); err != nil {
			t.Fatal(err)
		}
	}
	evidence := sha256.Sum256(offer.Evidence)
	th1 := cose.Hash(p+"th1", r.hello, offer.Claims, evidence[:])
	th2 := cose.Hash(p+"th2", th1[:], r.join)
	th3 := cose.Hash(p+"th3", th2[:], af.Enc2)
	export := func(enc []byte, key hpke.PrivateKey, info []byte) (*hpke.Recipient, []byte) {
		r, err := hpke.NewRecipient(enc, key, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
		if err != nil {
			t.Fatal(err)
		}
		ss, err := r.Export(p+"ss", 32)
		if err != nil {
			t.Fatal(err)
		}
		return r, ss
	}
	// A secret that the thief lacks stays 32 zero bytes: any fixed guess would do.
	ss1, ss2 := make([]byte, 32), make([]byte, 32)
	if th.window != nil {
		var rec *hpke.Recipient
		rec, ss1 = export(jf.Enc, th.window, append([]byte(p+"n2e\x00"), th1[:]...))
		_, err := rec.Open(th1[:], jf.Sealed)
		join = err == nil
	}
	if th.ephemeral != nil {
		_, ss2 = export(af.Enc2, th.ephemeral, append([]byte(p+"e2n\x00"), th2[:]...))
	}
	// Signing keys sign; there is no secret that they open. The thief tries them as
	// key material all the same: as the input of the schedule in place of a secret.
	guesses := [][]byte{bytes.Join([][]byte{ss1, ss2}, nil)}
	for _, s := range []*cose.Signer{th.enclave, th.node} {
		if s == nil {
			continue
		}
		der, err := s.MarshalPEM()
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256(der)
		guesses = append(guesses, bytes.Join([][]byte{h[:], ss2}, nil), bytes.Join([][]byte{ss1, h[:]}, nil), bytes.Join([][]byte{h[:], h[:]}, nil))
	}
	for _, ikm := range guesses {
		prk, err := hkdf.Extract(sha256.New, ikm, th3[:])
		if err != nil {
			t.Fatal(err)
		}
		half := func(label string) cipher.AEAD {
			k, err := hkdf.Expand(sha256.New, prk, p+"key/"+label, 32)
			if err != nil {
				t.Fatal(err)
			}
			return gcm(t, k)
		}
		_, err = half("e2n").Open(nil, make([]byte, 12), af.Sealed, th3[:])
		opened := err == nil
		all := opened
		for label, frames := range map[string][][]byte{"n2e": r.records, "e2n": r.answers} {
			for _, raw := range frames {
				var f recordFrame
				if err := cose.Unmarshal(raw, &f); err != nil {
					t.Fatal(err)
				}
				nonce := make([]byte, 12)
				nonce[11] = byte(f.Counter)
				_, err := half(label).Open(nil, nonce, f.Sealed, th3[:])
				opened, all = opened || err == nil, all && err == nil
			}
		}
		if opened != all {
			t.Fatal("some records of a session open and others do not")
		}
		session = session || opened
	}
	return join, session
}

// TestLeakedEpochKeyOpensNoRecording: the link has recorded everything; later the
// enclave's signing key, or a node's key, or one of the two KEM keys leaks (protocol
// F10). Both KEM keys together open the session, so the thief's method is sound;
// either one alone, with every signing key, does not.
func TestLeakedEpochKeyOpensNoRecording(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	r, window, ephemeral := x.tap(t)

	for _, c := range []struct {
		name          string
		thief         thief
		join, session bool
	}{
		{"both KEM keys", thief{window: window, ephemeral: ephemeral}, true, true},
		{"nothing", thief{}, false, false},
		{"the epoch's signing key", thief{enclave: enclaveKey()}, false, false},
		{"the node's key", thief{node: p.key}, false, false},
		{"both signing keys", thief{enclave: enclaveKey(), node: p.key}, false, false},
		// The window's key opens the join: credential and heads, no key of the session.
		{"the window's KEM key", thief{window: window, enclave: enclaveKey(), node: p.key}, true, false},
		{"the node's ephemeral key", thief{ephemeral: ephemeral, enclave: enclaveKey(), node: p.key}, false, false},
	} {
		join, session := c.thief.opens(t, r)
		if join != c.join || session != c.session {
			t.Errorf("%s: opens the join %v, the session %v; want %v, %v", c.name, join, session, c.join, c.session)
		}
	}
	// And the honest parties forget: the node at once, the window at its end.
	if x.joining.ephemeral != nil || x.joining.sender != nil {
		t.Error("the node keeps its ephemeral key")
	}
	if x.window.End(); x.window.private != nil {
		t.Error("the window keeps its key")
	}
}

// TestStolenNodeKeyIsNoEnclave: whoever has a node's key cannot pose to that node
// as the enclave (no key compromise impersonation): the accept needs the window's KEM
// key and the enclave's signature.
func TestStolenNodeKeyIsNoEnclave(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	th2 := x.joining.th2
	// The thief knows e_pk only if it opened the join; give it that too.
	enc2, sender, err := hpke.NewSender(x.joining.ephemeral.PublicKey(), kdf, aead, info("e2n", th2))
	if err != nil {
		t.Fatal(err)
	}
	th3 := transcript3(th2, enc2)
	s, err := newSession(sender, sender, th3, false) // in place of the first context, which it lacks
	if err != nil {
		t.Fatal(err)
	}
	sig, err := p.key.SignRaw(acceptSignatureInput(th3))
	if err != nil {
		t.Fatal(err)
	}
	answer := cose.Marshal(acceptBody{SID: s.id[:], Heads: enclaveHeads.Encode(), Signature: sig})
	_, _, _, err = x.joining.Finish(cose.Marshal(acceptFrame{Label: label(FrameAccept), Enc2: enc2, Sealed: s.out.aead.Seal(nil, counterNonce(0), answer, th3[:])}))
	mustRefuse(t, "accept by a thief", err, ErrBinding)
}

func gcm(t testing.TB, key []byte) cipher.AEAD {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	g, err := cipher.NewGCM(b)
	if err != nil {
		t.Fatal(err)
	}
	return g
}
