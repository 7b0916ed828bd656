package session

import (
	"bytes"
	"testing"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier"
)

func FuzzKindOf(f *testing.F) {
	for _, k := range []FrameKind{FrameHello, FrameOffer, FrameJoin, FrameAccept, FrameRecord, "other"} {
		f.Add(cose.Marshal([]any{label(k), []byte("x")}))
	}
	f.Add([]byte{0x98, 0x76})
	f.Add([]byte{0x81, 0x7f, 'x'})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := KindOf(b)
		if err != nil {
			mustRefuse(t, "frame", err, ErrFrame)
			return
		}
		if l, ok := frameLimits[k]; !ok || len(b) > l || !bytes.Contains(b, []byte(label(k))) {
			t.Errorf("%x is a %q", b, k)
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	for _, m := range everyMessage() {
		f.Add(EncodeMessage(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			mustRefuse(t, "message", err, ErrFrame)
			return
		}
		if !bytes.Equal(EncodeMessage(m), b) {
			t.Errorf("%s has two encodings", m.kind())
		}
	})
}

// FuzzOffer: no offer but the enclave's own leads to a join that it accepts.
func FuzzOffer(f *testing.F) {
	w := theWorld()
	p := w.node(f, "a", "node of a")
	x := w.start(f, p)
	f.Add(x.offerRaw)
	f.Add(w.start(f, p).offerRaw)
	f.Add(cose.Marshal(offerFrame{Label: label(FrameOffer)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := x.challenge.Offer(b, now)
		if err != nil {
			return
		}
		if !bytes.Equal(o.Evidence.Claims, o.Claims) || o.Nonce.Node != p.id() {
			t.Errorf("offer %+v", o)
		}
		r, err := verifier.Appraise(o.Evidence, w.ends, w.policy, &o.Nonce, now)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Passed(); err == nil && !bytes.Equal(o.Claims, x.offer.Claims) {
			t.Error("claims of no enclave passed")
		}
	})
}

func FuzzWindowAdd(f *testing.F) {
	w := theWorld()
	f.Add(w.challenge(f, w.node(f, "a", "node of a")).Hello())
	f.Add(cose.Marshal(helloFrame{Label: label(FrameHello), Federation: w.policy.FederationID()}))
	f.Fuzz(func(t *testing.T, b []byte) {
		win, err := NewWindow(w.policy.FederationID(), enclaveKey(), now)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = win.Add(b)
		again, _, err2 := win.Add(b)
		_, count := win.Close()
		if (err == nil) != (count == 1) || (err == nil) != (err2 == nil) || again != 0 {
			t.Errorf("%d leaves, %v, %v", count, err, err2)
		}
	})
}

func FuzzWindowAccept(f *testing.F) {
	w := theWorld()
	x := w.start(f, w.node(f, "a", "node of a"))
	f.Add(x.join)
	f.Add(w.start(f, x.party).join)
	f.Add(cose.Marshal(joinFrame{Label: label(FrameJoin), TH1: Digest{1}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := x.accept(b); err == nil && !bytes.Equal(b, x.join) {
			t.Error("a join that the node did not make was accepted")
		}
	})
}

func FuzzSessionOpen(f *testing.F) {
	node, enclave := joined(f)
	frame, err := node.Seal([]byte("content"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame)
	f.Add(cose.Marshal(recordFrame{Label: label(FrameRecord), SID: enclave.id[:], Counter: 1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := enclave.Open(b); err == nil && (!bytes.Equal(b, frame) || string(got) != "content") {
			t.Error("a record that the node did not seal was opened")
		}
		if id, err := SessionOf(b); err == nil && !bytes.Contains(b, id[:]) {
			t.Errorf("session %x", id)
		}
	})
}
