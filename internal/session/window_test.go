package session

import (
	"bytes"
	"testing"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

func TestWindowAdd(t *testing.T) {
	t.Parallel()
	w := theWorld()
	win, err := NewWindow(w.policy.FederationID(), enclaveKey(), now)
	if err != nil {
		t.Fatal(err)
	}
	if root, count := win.tree.Root(), win.tree.Count(); !root.IsZero() || count != 0 {
		t.Errorf("an empty window has root %s, count %d", root, count)
	}
	first, second := w.challenge(t, w.node(t, "a", "node of a")), w.challenge(t, w.node(t, "a", "node of a"))
	for _, c := range []struct {
		hello []byte
		want  int
	}{{first.Hello(), 0}, {second.Hello(), 1}, {first.Hello(), 0}, {second.Hello(), 1}} {
		i, node, err := win.Add(c.hello)
		if err != nil || i != c.want || node != first.node {
			t.Errorf("leaf %d of %s, %v; want leaf %d", i, node.Short(), err, c.want)
		}
	}
	good := helloFrame{Label: label(FrameHello), Federation: w.policy.FederationID(), Node: Digest{1}, Nonce: make([]byte, 32)}
	for name, c := range map[string]struct {
		spoil func(h *helloFrame)
		want  error
	}{
		"foreign federation": {func(h *helloFrame) { h.Federation = Digest{9} }, ErrBinding},
		"no federation":      {func(h *helloFrame) { h.Federation = Digest{} }, ErrBinding},
		"no node":            {func(h *helloFrame) { h.Node = Digest{} }, ErrFrame},
		"short nonce":        {func(h *helloFrame) { h.Nonce = h.Nonce[:31] }, ErrFrame},
		"long nonce":         {func(h *helloFrame) { h.Nonce = append(h.Nonce, 0) }, ErrFrame},
		"another label":      {func(h *helloFrame) { h.Label = label(FrameOffer) }, ErrFrame},
	} {
		h := good
		c.spoil(&h)
		_, _, err := win.Add(cose.Marshal(h))
		mustRefuse(t, name, err, c.want)
	}
	if _, count := win.Close(); count != 2 {
		t.Errorf("%d leaves, want 2: what was refused has none, and a repeated hello no second", count)
	}
	_, _, err = win.Add(w.challenge(t, w.node(t, "b", "node of b")).Hello())
	mustRefuse(t, "after Close", err, ErrExpired)
}

// TestOffersOfOtherClaims: a window offers nothing under claims that are not its
// own, for no join of them could be answered.
func TestOffersOfOtherClaims(t *testing.T) {
	t.Parallel()
	w := theWorld()
	open := func() *Window {
		win, err := NewWindow(w.policy.FederationID(), enclaveKey(), now)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := win.Add(w.challenge(t, w.node(t, "a", "node of a")).Hello()); err != nil {
			t.Fatal(err)
		}
		return win
	}
	win, other := open(), open()
	good := w.claims(win)
	for name, claims := range map[string]func() []byte{
		"another KEM key":     func() []byte { c := *good; c.KEMPub = other.KEMPublic(); return c.Encode() },
		"another window":      func() []byte { return w.claims(other).Encode() },
		"another nonce root":  func() []byte { c := *good; c.NonceRoot = Digest{9}; return c.Encode() },
		"another nonce count": func() []byte { c := *good; c.NonceCount = 2; return c.Encode() },
		"another federation":  func() []byte { c := *good; c.Federation = Digest{9}; return c.Encode() },
		"another signing key": func() []byte {
			s, err := cose.GenerateSigner(cose.ES256)
			if err != nil {
				t.Fatal(err)
			}
			c := *good
			c.SignPub = s.Public()
			return c.Encode()
		},
		"no claims": func() []byte { return nil },
	} {
		if err := win.Offers(claims(), []byte("evidence"), logProof, func(Digest, []byte) error {
			t.Errorf("%s: an offer was sent", name)
			return nil
		}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := win.Offers(good.Encode(), make([]byte, MaxOffer), logProof, func(Digest, []byte) error { return nil }); err == nil {
		t.Error("an offer over the limit was sent")
	}
}

func TestWindowEnds(t *testing.T) {
	t.Parallel()
	w := theWorld()
	x := w.start(t, w.node(t, "a", "node of a"))
	if x.window.Expired(now.Add(WindowLife)) {
		t.Error("expired within its life")
	}
	if !x.window.Expired(now.Add(WindowLife + time.Nanosecond)) {
		t.Error("not expired after its life")
	}
	x.window.End()
	if !x.window.Expired(now) || x.window.private != nil {
		t.Error("a window that was ended has a key")
	}
	_, _, err := x.accept(x.join)
	mustRefuse(t, "a join after the end", err, ErrExpired)
	if len(x.window.KEMPublic()) != KEMPublicSize {
		t.Error("the public key is gone too")
	}

	// The same, once the join was answered: its answer outlives the key.
	x = w.start(t, w.node(t, "a", "node of a"))
	_, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	x.window.End()
	if joined, again, err := x.accept(x.join); err != nil || joined != nil || !bytes.Equal(again, accept) {
		t.Errorf("the same join after the end: %v, %v", joined, err)
	}
	if !bytes.Equal(x.window.Answered(x.join), accept) {
		t.Error("the answer was forgotten")
	}
}

// TestLastLeafEndsTheKey: the KEM key is gone once every leaf of the window has
// joined.
func TestLastLeafEndsTheKey(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := &exchange{world: w, party: p, challenge: w.challenge(t, p)}
	y := &exchange{world: w, party: p, challenge: w.challenge(t, p)}
	win, offers := w.window(t, x.challenge.Hello(), y.challenge.Hello())
	for i, e := range []*exchange{x, y} {
		e.window, e.offerRaw = win, offers[i]
		e.sendJoin(t)
		if win.private == nil {
			t.Fatal("the key went too early")
		}
		if _, _, err := e.accept(e.join); err != nil {
			t.Fatal(err)
		}
	}
	if win.private != nil || !win.Expired(now) {
		t.Error("the key outlives its last leaf")
	}
}

func TestSecondJoinOfALeaf(t *testing.T) {
	t.Parallel()
	w := theWorld()
	x := w.start(t, w.node(t, "a", "node of a"))
	first := x.join
	x.sendJoin(t) // the same challenge, another ephemeral key
	if bytes.Equal(first, x.join) {
		t.Fatal("two joins are the same")
	}
	if x.window.Answered(first) != nil {
		t.Error("answered before it was accepted")
	}
	joined, accept, err := x.accept(first)
	if err != nil || joined == nil {
		t.Fatal(err)
	}
	_, _, err = x.accept(x.join)
	mustRefuse(t, "a second join", err, ErrUsed)
	if x.window.Answered(x.join) != nil {
		t.Error("the second join has an answer")
	}
	joined, again, err := x.accept(first)
	if err != nil || joined != nil || !bytes.Equal(accept, again) {
		t.Errorf("the first join again: %v, another answer %v, %v", joined, !bytes.Equal(accept, again), err)
	}
}

func TestAcceptRefused(t *testing.T) {
	t.Parallel()
	w := theWorld()
	p := w.node(t, "a", "node of a")
	x := w.start(t, p)
	_, _, err := x.window.Accept(x.join, x.policy, func(key Digest) bool { return key == p.id() }, now, enclaveHeads)
	mustRefuse(t, "denied node", err, ErrBinding)
	_, _, err = x.window.Accept(x.join, x.policy, nobody, now.Add(2*time.Hour), enclaveHeads)
	mustRefuse(t, "credential that has expired since", err, ErrBinding)
	stranger := *w.policy
	stranger.Name = "another genesis"
	_, _, err = x.window.Accept(x.join, &stranger, nobody, now, enclaveHeads)
	mustRefuse(t, "credential under another federation's policy", err, ErrBinding)
	without := *w.policy
	without.Members = append([]policy.Member(nil), w.policy.Members[1:]...)
	without.Version, without.Federation, without.Previous = 2, w.policy.FederationID(), w.policy.Digest()
	_, _, err = x.window.Accept(x.join, &without, nobody, now, enclaveHeads)
	mustRefuse(t, "member that is none any more", err, ErrBinding)
	_, _, err = x.window.Accept(x.offerRaw, x.policy, nobody, now, enclaveHeads)
	mustRefuse(t, "an offer", err, ErrFrame)
	if _, _, err := x.window.Accept(x.join, x.policy, nobody, now, Heads{Checkpoint: make([]byte, MaxAccept)}); err == nil {
		t.Error("an accept over the limit was made")
	}
	// Nothing of this has used the leaf.
	if _, _, err := x.accept(x.join); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
}

// TestOversized: what is over its kind's limit is refused before it is parsed.
func TestOversized(t *testing.T) {
	t.Parallel()
	for kind, limit := range map[FrameKind]int{FrameHello: 1 << 10, FrameOffer: 1 << 20, FrameJoin: 16 << 10, FrameAccept: 64 << 10, FrameRecord: 1<<20 + 32<<10} {
		frame := func(size int) []byte {
			l := label(kind)
			b := append([]byte{0x84, 0x60 + byte(len(l))}, l...)
			return append(b, make([]byte, size-len(b))...)
		}
		if k, err := KindOf(frame(limit)); err != nil || k != kind {
			t.Errorf("%s of %d bytes: %v, %v", kind, limit, k, err)
		}
		_, err := KindOf(frame(limit + 1))
		mustRefuse(t, string(kind), err, ErrFrame)
	}
	w := theWorld()
	c := w.challenge(t, w.node(t, "a", "node of a"))
	long := cose.Marshal(offerFrame{Label: label(FrameOffer), Evidence: make([]byte, MaxOffer)})
	_, err := c.Offer(long, now)
	mustRefuse(t, "offer", err, ErrFrame)
}
