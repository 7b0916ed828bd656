package relay

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
)

func unavailable() error { return status.Error(codes.Unavailable, "link restarts") }

func TestAttach(t *testing.T) {
	t.Parallel()
	l := newFakeLink(t)
	p := l.peer()
	stop, event := run(t, p)
	s := l.next(t)
	a := s.attach
	key, err := cose.ParseKey(a.GetKey())
	if err != nil {
		t.Fatal(err)
	}
	id := key.ID()
	if string(a.GetFederation()) != string(federation[:]) || a.GetAddress().GetRole() != concordatv1.Role_ROLE_NODE || string(a.GetAddress().GetId()) != string(id[:]) ||
		string(a.GetCredential()) != "credential" || a.GetWitness() != "witness.example+00000000+AAAA" || a.GetWitnessedSize() != 7 {
		t.Errorf("attach %v", a)
	}
	h := cose.Hash("concordat/attach/1", s.nonce, federation[:], []byte{1}, id[:], []byte("credential"))
	if err := key.VerifyRaw(h[:], a.GetSignature()); err != nil {
		t.Error(err)
	}
	s.welcome("checkpoint")
	if e := event(); !reflect.DeepEqual(e, Checkpoint{[]byte("checkpoint")}) {
		t.Errorf("event %v", e)
	}
	if e := event(); e != (Attached{}) {
		t.Errorf("event %v", e)
	}
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if e := event(); e != nil {
		t.Errorf("event after the end: %v", e)
	}
}

// TestAttachSignatureInput: no two parties, and no two credentials, sign the same
// bytes.
func TestAttachSignatureInput(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for name, in := range map[string][]byte{
		"node":               AttachSignatureInput([]byte("n"), Digest{1}, Node(Digest{1}), nil),
		"other nonce":        AttachSignatureInput([]byte("m"), Digest{1}, Node(Digest{1}), nil),
		"other federation":   AttachSignatureInput([]byte("n"), Digest{2}, Node(Digest{1}), nil),
		"other node":         AttachSignatureInput([]byte("n"), Digest{1}, Node(Digest{2}), nil),
		"credential":         AttachSignatureInput([]byte("n"), Digest{1}, Node(Digest{1}), []byte("c")),
		"enclave":            AttachSignatureInput([]byte("n"), Digest{1}, Enclave([16]byte{1}), nil),
		"enclave of that id": AttachSignatureInput([]byte("n"), Digest{1}, Address{Enclave: true, ID: Node(Digest{1}).ID}, nil),
		"any enclave":        AttachSignatureInput([]byte("n"), Digest{1}, AnyEnclave, nil),
	} {
		if other, ok := seen[string(in)]; ok {
			t.Errorf("%s signs what %s signs", name, other)
		}
		seen[string(in)] = name
	}
}

// TestSentUntilConfirmed: what the link did not confirm is sent again on the next
// stream, in order, under the same handles; what it confirmed is not.
func TestSentUntilConfirmed(t *testing.T) {
	t.Parallel()
	l := newFakeLink(t)
	p := l.peer()
	enclave := Enclave([16]byte{5})
	if err := p.Send(enclave, []byte("1")); err != nil { // before there is a stream
		t.Fatal(err)
	}
	_, event := run(t, p)
	s := l.next(t)
	s.welcome("")
	event()
	first := s.recvSend("1")
	if first.GetTo().GetRole() != concordatv1.Role_ROLE_ENCLAVE || string(first.GetTo().GetId()) != enclave.ID {
		t.Errorf("sent to %v", first.GetTo())
	}
	for i := 2; i <= 4; i++ {
		if err := p.Send(AnyEnclave, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	second, third, fourth := s.recvSend("2"), s.recvSend("3"), s.recvSend("4")
	s.sent(first.GetHandle())
	s.sent(third.GetHandle())
	s.sent([]byte("no handle of ours"))
	// The confirmations have arrived when what follows them has.
	s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Checkpoint{Checkpoint: &concordatv1.Checkpoint{Note: []byte("note")}}})
	event()
	s.end <- unavailable()

	s = l.next(t)
	s.welcome("")
	event()
	for i, want := range []*concordatv1.Send{second, fourth} {
		got := s.recvSend(string(want.GetPayload()))
		if string(got.GetHandle()) != string(want.GetHandle()) {
			t.Errorf("payload %d has another handle", i)
		}
		s.sent(got.GetHandle())
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Flush(ctx); err != nil {
		t.Errorf("not flushed: %v", err)
	}
}

// TestNothingBeforeWelcome: the peer sends nothing until the link has attached it.
func TestNothingBeforeWelcome(t *testing.T) {
	t.Parallel()
	l := newFakeLink(t)
	p := l.peer()
	if err := p.Send(AnyEnclave, []byte("early")); err != nil {
		t.Fatal(err)
	}
	_, event := run(t, p)
	s := l.next(t)
	// The answer to a first event proves that the peer reads, and has sent nothing.
	s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Presence{Presence: &concordatv1.Presence{Instance: []byte("x")}}})
	if e := event(); e != (Presence{"x"}) {
		t.Errorf("event %v", e)
	}
	select {
	case m := <-s.in:
		t.Errorf("the peer sent %v", m)
	default:
	}
	s.welcome("")
	event()
	s.recvSend("early")
}

// TestReceivedAndCosign: answers are sent once and not kept; they do not disturb
// the order of what is.
func TestReceivedAndCosign(t *testing.T) {
	t.Parallel()
	l := newFakeLink(t)
	p := l.peer()
	_, event := run(t, p)
	s := l.next(t)
	s.welcome("")
	event()
	for _, err := range []error{p.Send(AnyEnclave, []byte("a")), p.Received("handle"), p.Cosign([]byte("sig"), 9), p.Send(AnyEnclave, []byte("b"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.recvSend("a")
	if m := s.recv().GetReceived(); len(m.GetHandles()) != 1 || string(m.GetHandles()[0]) != "handle" {
		t.Errorf("received %v", m)
	}
	if m := s.recv().GetCosign(); string(m.GetCosignature()) != "sig" || m.GetSize() != 9 {
		t.Errorf("cosign %v", m)
	}
	s.recvSend("b")
	s.end <- unavailable()
	s = l.next(t)
	s.welcome("")
	s.recvSend("a")
	s.recvSend("b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Flush(ctx); err == nil {
		t.Error("flushed, and nothing is confirmed")
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	l := newFakeLink(t)
	_, event := run(t, l.peer())
	s := l.next(t)
	s.welcome("")
	event()
	from := Node(Digest{3})
	for _, c := range []struct {
		send *concordatv1.AttachResponse
		want Event
	}{
		{&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Deliver{Deliver: &concordatv1.Deliver{Handle: []byte("h"), From: from.proto(), Payload: []byte("p")}}},
			Delivered{"h", from, []byte("p")}},
		{&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Checkpoint{Checkpoint: &concordatv1.Checkpoint{Note: []byte("note")}}},
			Checkpoint{[]byte("note")}},
		{&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Witness{Witness: &concordatv1.WitnessRequest{Note: []byte("note"), OldSize: 4, Proof: [][]byte{make([]byte, 32)}}}},
			WitnessRequest{[]byte("note"), 4, []Digest{{}}}},
		{&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Presence{Presence: &concordatv1.Presence{Instance: []byte("i")}}},
			Presence{"i"}},
	} {
		s.send(&concordatv1.AttachResponse{}) // of a kind that this peer does not know: skipped
		s.send(c.send)
		if got := event(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("event %#v, want %#v", got, c.want)
		}
	}
}

// TestRefusedPayload: a full mailbox makes the peer come back with the same payload
// later; a payload that the link will never take does not stand in the way.
func TestRefusedPayload(t *testing.T) {
	t.Parallel()
	l := newFakeLink(t)
	p := l.peer()
	_, event := run(t, p)
	s := l.next(t)
	s.welcome("")
	event()
	if err := p.Send(AnyEnclave, []byte("x")); err != nil {
		t.Fatal(err)
	}
	first := s.recvSend("x")
	s.refuse(first.GetHandle(), codes.ResourceExhausted)
	s = l.next(t)
	s.welcome("")
	event()
	again := s.recvSend("x")
	if string(again.GetHandle()) != string(first.GetHandle()) {
		t.Error("another handle")
	}
	s.refuse(again.GetHandle(), codes.InvalidArgument)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Flush(ctx); err != nil {
		t.Errorf("a payload that was refused for good waits: %v", err)
	}
	if err := p.Send(AnyEnclave, []byte("y")); err != nil {
		t.Fatal(err)
	}
	s.recvSend("y") // on the same stream
}

// TestRunEnds: refusals that dialling again cannot help end Run.
func TestRunEnds(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated, codes.InvalidArgument} {
		l := newFakeLink(t)
		l.refusal = status.Error(code, "not here")
		p := l.peer()
		done := make(chan error, 1)
		go func() { done <- p.Run(context.Background()) }()
		select {
		case err := <-done:
			if status.Code(err) != code || !strings.Contains(err.Error(), "the link refuses this party") {
				t.Errorf("%s: %v", code, err)
			}
		case <-time.After(patience):
			t.Fatalf("%s: Run goes on", code)
		}
		if _, open := <-p.Events(); open {
			t.Errorf("%s: the events go on", code)
		}
	}
}

// TestReattaches: a link that breaks the protocol of the stream is left, and dialled
// again.
func TestReattaches(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(s *stream){
		"stream ends":    func(s *stream) { s.end <- nil },
		"unavailable":    func(s *stream) { s.end <- unavailable() },
		"attached twice": func(s *stream) { s.welcome("") },
		"malformed proof": func(s *stream) {
			s.send(&concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Witness{Witness: &concordatv1.WitnessRequest{Proof: [][]byte{make([]byte, 31)}}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newFakeLink(t)
			_, event := run(t, l.peer())
			s := l.next(t)
			s.welcome("")
			event()
			spoil(s)
			s = l.next(t)
			s.welcome("")
			if e := event(); e != (Attached{}) {
				t.Errorf("event %v", e)
			}
		})
	}
}

// TestNoChallenge: without a fresh nonce of 32 bytes the peer signs nothing.
func TestNoChallenge(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]*concordatv1.AttachResponse{
		"attached at once": {Kind: &concordatv1.AttachResponse_Attached{Attached: new(concordatv1.Attached)}},
		"short nonce":      {Kind: &concordatv1.AttachResponse_Challenge{Challenge: &concordatv1.Challenge{Nonce: make([]byte, 31)}}},
	} {
		l := newFakeLink(t)
		l.greeting = []*concordatv1.AttachResponse{m}
		if err := l.peer().attach(t.Context()); err == nil || !strings.Contains(err.Error(), "no challenge") {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case s := <-l.streams:
			t.Errorf("%s: the peer answered %v", name, s.attach)
		default:
		}
	}
}

// TestQueueIsBounded: a link that takes nothing cannot make the peer grow for ever.
func TestQueueIsBounded(t *testing.T) {
	t.Parallel()
	p := newFakeLink(t).peer()
	for range maxQueue {
		if err := p.Send(AnyEnclave, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Send(AnyEnclave, nil); err == nil {
		t.Error("the queue grows over its limit")
	}
}
