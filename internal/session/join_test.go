package session

import (
	"bytes"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

func TestJoin(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	joined, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	if joined.Node != p.id() || joined.Member != "a" || joined.Key != p.key.Public() || !bytes.Equal(joined.Credential, p.credential) ||
		!bytes.Equal(joined.Heads.Encode(), nodeHeads.Encode()) {
		t.Errorf("the enclave joined %+v", joined)
	}
	node, heads, confirm, err := x.joining.Finish(accept)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(heads.Encode(), enclaveHeads.Encode()) {
		t.Errorf("the node got heads %+v", heads)
	}
	if err := Confirm(joined.Session, confirm); err != nil {
		t.Fatal(err)
	}
	if node.ID() != joined.Session.ID() || node.ID() == (ID{}) {
		t.Errorf("session %x of the node, %x of the enclave", node.ID(), joined.Session.ID())
	}
	for i := range 3 {
		for _, way := range []struct{ from, to *Session }{{node, joined.Session}, {joined.Session, node}} {
			text := bytes.Repeat([]byte{byte(i)}, i)
			frame, err := way.from.Seal(text)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := way.to.Open(frame); err != nil || !bytes.Equal(got, text) {
				t.Fatalf("record %d: %x, %v", i, got, err)
			}
		}
	}
	// The exchange is over on both sides.
	_, _, _, err = x.joining.Finish(accept)
	mustRefuse(t, "the same accept again", err, ErrUsed)
}

// TestOfferTimer: evidence counts for 60 seconds after the hello (protocol F18).
func TestOfferTimer(t *testing.T) {
	t.Parallel()
	w := theWorld()
	x := w.start(t, w.node(t, "a", "node of a"))
	if _, err := x.challenge.Offer(x.offerRaw, now.Add(ChallengeLife)); err != nil {
		t.Errorf("in time: %v", err)
	}
	_, err := x.challenge.Offer(x.offerRaw, now.Add(ChallengeLife+time.Nanosecond))
	mustRefuse(t, "late", err, ErrExpired)
	_, err = x.challenge.Offer(x.offerRaw, now.Add(-time.Nanosecond))
	mustRefuse(t, "before the hello", err, ErrExpired)
}

// TestOfferRefused shows a node offers that are not for it.
func TestOfferRefused(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	var good offerFrame
	if err := parseFrame(x.offerRaw, FrameOffer, &good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(o *offerFrame)
		want  error
	}{
		"another federation": {func(o *offerFrame) {
			c, _ := attestation.ParseClaims(o.Claims)
			c.Federation = Digest{9}
			o.Claims = c.Encode()
			o.Evidence = w.envelope(t, o.Claims)
		}, ErrBinding},
		"evidence of other claims": {func(o *offerFrame) {
			c, _ := attestation.ParseClaims(o.Claims)
			c.Epoch++
			o.Evidence = w.envelope(t, c.Encode())
		}, ErrBinding},
		"claims beside the evidence": {func(o *offerFrame) {
			c, _ := attestation.ParseClaims(o.Claims)
			c.Epoch++
			o.Claims = c.Encode()
		}, ErrBinding},
		"no claims":              {func(o *offerFrame) { o.Claims = nil }, ErrFrame},
		"claims of another kind": {func(o *offerFrame) { o.Claims = []byte{0xa0} }, ErrFrame},
		"no evidence":            {func(o *offerFrame) { o.Evidence = nil }, ErrFrame},
		"a path without end":     {func(o *offerFrame) { o.Path = make([]Digest, 64) }, ErrFrame},
		"a log path without end": {func(o *offerFrame) {
			o.LogProof.Path = make([]Digest, 64)
		}, ErrFrame},
		"another label": {func(o *offerFrame) { o.Label = label(FrameJoin) }, ErrFrame},
	} {
		o := good
		c.spoil(&o)
		_, err := x.challenge.Offer(cose.Marshal(o), now)
		mustRefuse(t, name, err, c.want)
	}
}

// TestOfferForAnotherNonce: an offer that answers another challenge, of another
// node or of the same one, is not appraised as fresh and cannot be joined.
func TestOfferForAnotherNonce(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	later := w.challenge(t, p)
	o, err := later.Offer(x.offerRaw, now)
	if err != nil {
		t.Fatal(err) // the form is good; the appraisal decides
	}
	r, err := verifier.Appraise(o.Evidence, w.ends, w.policy, &o.Nonce, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Passed(); err == nil {
		t.Error("evidence for another challenge passed")
	}
	// Neither does the pass of one challenge open another: not with its own offer,
	// not with the one it was appraised for.
	mine, passed := w.appraise(t, x.challenge, x.offerRaw)
	_, _, err = later.Join(passed, o, p.key, p.credential, nodeHeads)
	mustRefuse(t, "own offer, another's pass", err, ErrBinding)
	_, _, err = later.Join(passed, mine, p.key, p.credential, nodeHeads)
	mustRefuse(t, "another's offer", err, ErrBinding)
}

func TestJoinRefusedByNode(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	o, passed := w.appraise(t, x.challenge, x.offerRaw)
	_, _, err := x.challenge.Join(verifier.Passed{}, o, p.key, p.credential, nodeHeads)
	mustRefuse(t, "no appraisal", err, ErrBinding)
	_, _, err = x.challenge.Join(passed, o, edKey("another key"), p.credential, nodeHeads)
	mustRefuse(t, "another key than the hello's", err, ErrBinding)
	y := w.start(t, p)
	other, _ := w.appraise(t, y.challenge, y.offerRaw)
	_, _, err = x.challenge.Join(passed, other, p.key, p.credential, nodeHeads)
	mustRefuse(t, "an offer that was not appraised", err, ErrBinding)
	claims := passed.Claims() // the same nonces, and other claims about the enclave
	claims.Epoch++
	changed := *o
	changed.Claims = claims.Encode()
	_, _, err = x.challenge.Join(passed, &changed, p.key, p.credential, nodeHeads)
	mustRefuse(t, "an offer of other claims than were appraised", err, ErrBinding)
	huge := Heads{Checkpoint: make([]byte, MaxJoin)}
	if _, _, err = x.challenge.Join(passed, o, p.key, p.credential, huge); err == nil {
		t.Error("a join over the limit was made")
	}
}

// TestFinishRefused shows a node accepts that its enclave did not make for it.
func TestFinishRefused(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	_, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	other := w.start(t, p)
	_, foreign, err := other.accept(other.join)
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, err = x.joining.Finish(foreign)
	mustRefuse(t, "accept of another join", err, ErrBinding)
	_, _, _, err = x.joining.Finish(x.join)
	mustRefuse(t, "its own join", err, ErrFrame)
	// An enclave that has the window's KEM key but not the signing key of the claims.
	impostor := w.start(t, p)
	impostor.window.self = edKey("impostor")
	_, forged, err := impostor.accept(impostor.join)
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, err = impostor.joining.Finish(forged)
	mustRefuse(t, "signed by another key", err, ErrBinding)
	// What was refused has changed nothing.
	if _, _, _, err := x.joining.Finish(accept); err != nil {
		t.Errorf("the accept after forged ones: %v", err)
	}
}

// TestFlippedBits flips bits all over the frames of one join, every one of the small
// frames; whoever reads them refuses, and the join goes on all the same. TestTamper…
// change every field.
func TestFlippedBits(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)

	// A changed hello makes another leaf or none: what it answers is not for this
	// challenge.
	flips(x.challenge.Hello(), 1, func(bit int, frame []byte) {
		win, err := NewWindow(w.policy.FederationID(), enclaveKey(), now)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := win.Add(frame); err != nil {
			return
		}
		root, count := win.Close()
		proof := win.tree.Proof(0)
		if proof.Node, proof.Nonce = x.challenge.node, x.challenge.nonce; proof.Verify(root, count) == nil {
			t.Errorf("hello, bit %d: the evidence still answers the challenge", bit)
		}
	})
	// A changed offer is refused, or its evidence does not pass; what is left is the
	// log proof, which is the caller's to check. One bit in 509, for each costs an
	// appraisal.
	logged := bytes.LastIndex(x.offerRaw, cose.Marshal(logProof))
	if logged < 0 {
		t.Fatal("no log proof in the offer")
	}
	flips(x.offerRaw[:logged], 509, func(bit int, head []byte) {
		o, err := x.challenge.Offer(append(head, x.offerRaw[logged:]...), now)
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
		// The endorsements that an item names are a suggestion, not signed by the
		// platform: then the transcript differs, and the enclave refuses the join.
		_, join, err := x.challenge.Join(passed, o, p.key, p.credential, nodeHeads)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := x.accept(join); err == nil {
			t.Errorf("offer, bit %d: joined", bit)
		}
	})
	flips(x.join, 61, func(bit int, frame []byte) {
		if _, _, err := x.accept(frame); err == nil {
			t.Errorf("join, bit %d: accepted", bit)
		}
	})
	joined, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	flips(accept, 61, func(bit int, frame []byte) {
		if _, _, _, err := x.joining.Finish(frame); err == nil {
			t.Fatalf("accept, bit %d: finished", bit)
		}
	})
	_, _, confirm, err := x.joining.Finish(accept)
	if err != nil {
		t.Fatal(err)
	}
	flips(confirm, 1, func(bit int, frame []byte) {
		if err := Confirm(joined.Session, frame); err == nil {
			t.Fatalf("confirm, bit %d: confirmed", bit)
		}
	})
	if err := Confirm(joined.Session, confirm); err != nil {
		t.Fatal(err)
	}
}

// flips calls f with copies of b in which one bit, every step-th, is flipped.
func flips(b []byte, step int, f func(bit int, flipped []byte)) {
	for i := 0; i < 8*len(b); i += step {
		c := bytes.Clone(b)
		c[i/8] ^= 1 << (i % 8)
		f(i, c)
	}
}

// TestHash pins the transcript hash of protocol part 2 to its definition.
func TestHash(t *testing.T) {
	t.Parallel()
	want := sha256.Sum256([]byte("label\x00\x00\x00\x00\x02ab\x00\x00\x00\x00\x00\x00\x00\x01c"))
	if got := cose.Hash("label", []byte("ab"), nil, []byte("c")); got != want {
		t.Errorf("H = %s", got)
	}
}

// TestWrongCredential: what a node's member did not sign, the enclave does not
// accept, whoever sealed the join.
func TestWrongCredential(t *testing.T) {
	t.Parallel()
	w := theWorld()
	key := edKey("node of a")
	for name, credential := range map[string][]byte{
		"none":                   nil,
		"of another key":         w.credential(t, "a", edKey("another node").Public(), now.Add(time.Hour)),
		"of an unknown member":   w.credential(t, "d", key.Public(), now.Add(time.Hour)),
		"expired":                w.credential(t, "a", key.Public(), now.Add(-time.Second)),
		"longer than the policy": w.credential(t, "a", key.Public(), now.Add(48*time.Hour)),
		"signed by another member": func() []byte {
			c, err := policy.SignCredential(edKey("b issuer"), policy.NodeCredential{
				Federation: w.policy.FederationID(), Member: "a", NodeKey: key.Public(), Serial: 1, NotAfter: uint64(now.Add(time.Hour).Unix())})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}(),
		"of another federation": func() []byte {
			c, err := policy.SignCredential(edKey("a issuer"), policy.NodeCredential{
				Federation: Digest{9}, Member: "a", NodeKey: key.Public(), Serial: 1, NotAfter: uint64(now.Add(time.Hour).Unix())})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}(),
	} {
		x := w.start(t, &party{key, credential})
		_, _, err := x.accept(x.join)
		mustRefuse(t, name, err, ErrBinding)
	}
}
