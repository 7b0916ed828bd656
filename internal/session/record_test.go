package session

import (
	"bytes"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

// joined returns both ends of a session.
func joined(t testing.TB) (node, enclave *Session) {
	t.Helper()
	w := theWorld()
	return w.start(t, w.node(t, "a", "node of a")).finish(t)
}

func TestRecordOrder(t *testing.T) {
	t.Parallel()
	node, enclave := joined(t)
	var frames [][]byte
	for i := range 4 {
		f, err := node.Seal([]byte{byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f)
	}
	open := func(i int) error {
		t.Helper()
		got, err := enclave.Open(frames[i])
		if err == nil && !bytes.Equal(got, []byte{byte(i)}) {
			t.Errorf("record %d holds %x", i, got)
		}
		return err
	}
	mustRefuse(t, "record 1 before 0", open(1), ErrOrder)
	mustRefuse(t, "record 0", open(0), nil)
	mustRefuse(t, "record 0 again", open(0), ErrReplay)
	mustRefuse(t, "record 3 after 0", open(3), ErrOrder)
	mustRefuse(t, "record 1", open(1), nil)
	mustRefuse(t, "record 2", open(2), nil)
	mustRefuse(t, "record 1 again", open(1), ErrReplay)
	mustRefuse(t, "record 3", open(3), nil)
	// A truncated stream is one that goes on: the next record still opens, and a lost
	// one stops it for good.
	if _, err := node.Seal([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	after, err := node.Seal([]byte("after"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = enclave.Open(after)
	mustRefuse(t, "after a lost record", err, ErrOrder)
}

func TestRecordRefused(t *testing.T) {
	t.Parallel()
	node, enclave := joined(t)
	stranger, _ := joined(t)
	frame, err := node.Seal([]byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := stranger.Seal([]byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	var f recordFrame
	if err := parseFrame(frame, FrameRecord, &f); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		frame []byte
		want  error
	}{
		"of another session": {foreign, ErrBinding},
		"back to its sender": {func() []byte { // ctr 1 of the other direction
			b, err := enclave.Seal([]byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}(), ErrBinding},
		"empty session id": {cose.Marshal(recordFrame{Label: f.Label, Counter: f.Counter, Sealed: f.Sealed}), ErrBinding},
		"no ciphertext":    {cose.Marshal(recordFrame{Label: f.Label, SID: f.SID, Counter: f.Counter}), ErrBinding},
		"short ciphertext": {cose.Marshal(recordFrame{Label: f.Label, SID: f.SID, Counter: f.Counter, Sealed: f.Sealed[:15]}), ErrBinding},
		"a byte more":      {cose.Marshal(recordFrame{Label: f.Label, SID: f.SID, Counter: f.Counter, Sealed: append(bytes.Clone(f.Sealed), 0)}), ErrBinding},
		"a byte less":      {cose.Marshal(recordFrame{Label: f.Label, SID: f.SID, Counter: f.Counter, Sealed: f.Sealed[:len(f.Sealed)-1]}), ErrBinding},
		"truncated frame":  {frame[:len(frame)-1], ErrFrame},
		"trailing byte":    {append(bytes.Clone(frame), 0), ErrFrame},
		"another kind":     {cose.Marshal(recordFrame{Label: label(FrameJoin), SID: f.SID, Counter: f.Counter, Sealed: f.Sealed}), ErrFrame},
		"nothing":          {nil, ErrFrame},
	} {
		_, err := enclave.Open(c.frame)
		mustRefuse(t, name, err, c.want)
	}
	if got, err := enclave.Open(frame); err != nil || string(got) != "content" {
		t.Errorf("after the refusals: %q, %v", got, err)
	}
}

func TestRecordLimit(t *testing.T) {
	t.Parallel()
	node, enclave := joined(t)
	if _, err := node.Seal(make([]byte, MaxMessage+1)); err == nil {
		t.Error("a message over the limit was sealed")
	}
	frame, err := node.Seal(make([]byte, MaxMessage))
	if err != nil {
		t.Fatal(err)
	}
	if len(frame) > MaxRecord {
		t.Errorf("the largest message makes a record of %d bytes, limit %d", len(frame), MaxRecord)
	}
	if plain, err := enclave.Open(frame); err != nil || len(plain) != MaxMessage {
		t.Errorf("%d bytes, %v", len(plain), err)
	}
}

func TestConfirmRefused(t *testing.T) {
	t.Parallel()
	w := theWorld()
	x := w.start(t, w.node(t, "a", "node of a"))
	joined, accept, err := x.accept(x.join)
	if err != nil {
		t.Fatal(err)
	}
	node, _, _, err := x.joining.Finish(accept)
	if err != nil {
		t.Fatal(err)
	}
	node.out.next = 0 // a node that says something else first
	frame, err := node.Seal([]byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, "another first record", Confirm(joined.Session, frame), ErrFrame)
}

func TestSessionOf(t *testing.T) {
	t.Parallel()
	node, _ := joined(t)
	frame, err := node.Seal(nil)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := SessionOf(frame); err != nil || id != node.ID() {
		t.Errorf("session %x, %v", id, err)
	}
	_, err = SessionOf(cose.Marshal(recordFrame{Label: label(FrameRecord), SID: make([]byte, 15)}))
	mustRefuse(t, "short id", err, ErrFrame)
	_, err = SessionOf(cose.Marshal(helloFrame{Label: label(FrameHello)}))
	mustRefuse(t, "a hello", err, ErrFrame)
}
