package ci_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// undisturbed is the final model of a run of two rounds in which nothing fails.
var undisturbed = struct {
	sync.Once
	model string
}{}

func undisturbedModel(t *testing.T) string {
	undisturbed.Do(func() {
		f := ci.StartFederation(t, ci.Policy(trainOnly))
		joined(t, f.Nodes...)
		undisturbed.model = completed(t, f, f.Nodes[0], start(t, f, f.Nodes[0], 2, nil))
	})
	if undisturbed.model == "" {
		t.Fatal("the undisturbed run failed")
	}
	return undisturbed.model
}

// sameEverywhere demands that every node got the model of the undisturbed run.
func sameEverywhere(t *testing.T, f *ci.Federation, request ci.Digest) {
	t.Helper()
	want := undisturbedModel(t)
	for _, n := range f.Nodes {
		if got := completed(t, f, n, request); got != want {
			t.Errorf("%s has another final model than after a run that nothing disturbed", n.Name)
		}
		verifies(t, f, n, ended(t, n, request).Run)
	}
}

// verifies demands that the bundle which n wrote of a run passes.
func verifies(t *testing.T, f *ci.Federation, n *ci.Node, run ci.Digest) *verifier.Report {
	t.Helper()
	b, err := os.Open(f.BundleOf(n, run))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	trust := &verifier.Trust{Federation: f.Chain.Federation(), Member: n.Member.ID, Witness: n.Member.Witness, Simulated: true}
	report, err := verifier.VerifyBundle(t.Context(), b, trust, time.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if report.Verdict != verifier.PassSimulated {
		t.Errorf("bundle of %s: %s", n.Name, report.Text())
	}
	return report
}

// TestLinkKilledAnywhere kills the link, as kill -9 does, in the middle of a run, again
// and again: what was acknowledged is not lost, and the run completes (P5).
func TestLinkKilledAnywhere(t *testing.T) {
	t.Parallel()
	m := newMoments()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.LinkProcess(), ci.Observe(m.observe))
	joined(t, f.Nodes...)
	req := start(t, f, f.Nodes[0], 2, nil)
	for _, at := range []enclave.Event{{Kind: "run"}, {Kind: "step", Seq: 1}, {Kind: "released", Seq: 1}, {Kind: "step", Seq: 2}, {Kind: "acked", Seq: 2}, {Kind: "released", Seq: 3}} {
		m.await(t, at.Kind, at.Seq)
		f.KillLink()
	}
	sameEverywhere(t, f, req)
}

// TestNodeRestart stops one node at every moment of a run and starts it again on its
// data: the run completes, though it allows no dropouts (P5).
func TestNodeRestart(t *testing.T) {
	t.Parallel()
	for _, at := range []node.Event{{Kind: "joined"}, {Kind: "started"}, {Kind: "step", Seq: 1}, {Kind: "contributed", Seq: 1}, {Kind: "admitted", Seq: 1}, {Kind: "acked", Seq: 2}, {Kind: "step", Seq: 2}, {Kind: "acked", Seq: 3}, {Kind: "step", Seq: 3}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			f := ci.StartFederation(t, ci.Policy(trainOnly))
			b := f.Nodes[1]
			if at.Kind == "joined" {
				joined(t, b)
				f.Restart(b)
			}
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 2, nil)
			if at.Kind != "joined" {
				b.Await(t, at.Kind, func(e node.Event) bool { return e.Kind == at.Kind && e.Seq == at.Seq })
				f.Restart(b)
			}
			sameEverywhere(t, f, req)
		})
	}
}

// TestNodeStopsAtEnd stops a node when it has noted the end of a run, and has written
// neither its bundle nor, perhaps, the model: it does so after its next start.
func TestNodeStopsAtEnd(t *testing.T) {
	t.Parallel()
	log := &breakpoint{line: `msg="run ended" daemon="node member-b"`, reached: make(chan struct{}), goOn: make(chan struct{})}
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.LogTo(log))
	joined(t, f.Nodes...)
	req := start(t, f, f.Nodes[0], 2, nil)
	<-log.reached
	f.Nodes[1].Cancel()
	close(log.goOn)
	f.Restart(f.Nodes[1])
	sameEverywhere(t, f, req)
}

// breakpoint holds whoever logs a line, once.
type breakpoint struct {
	line          string
	once          sync.Once
	reached, goOn chan struct{}
}

func (p *breakpoint) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte(p.line)) {
		p.once.Do(func() {
			close(p.reached)
			<-p.goOn
		})
	}
	return len(b), nil
}

// TestEnclaveRestart stops the enclave at every moment of a run and starts another one:
// it resumes from ciphertext, with the keys that the nodes bring, and the final model is
// that of a run that nothing disturbed (protocol F11).
func TestEnclaveRestart(t *testing.T) {
	t.Parallel()
	for _, at := range []enclave.Event{{Kind: "step", Seq: 2}, {Kind: "acked", Seq: 2}, {Kind: "released", Seq: 2}, {Kind: "step", Seq: 3}, {Kind: "acked", Seq: 3}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			m := newMoments()
			f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Observe(m.observe))
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 2, nil)
			m.await(t, at.Kind, at.Seq)
			if err := f.Enclave.Stop(); err != nil {
				t.Fatal(err)
			}
			f.StartEnclave(f.Machine, nil, nil)
			sameEverywhere(t, f, req)
		})
	}
}

// TestEnclaveLostEarly stops the enclave before any node surely has a model: the run
// completes where somebody had one, and otherwise it ends at every node, or is refused;
// none waits for ever (protocol F11).
func TestEnclaveLostEarly(t *testing.T) {
	t.Parallel()
	for _, at := range []enclave.Event{{Kind: "run"}, {Kind: "step", Seq: 1}, {Kind: "released", Seq: 1}} {
		t.Run(fmt.Sprint(at.Kind, at.Seq), func(t *testing.T) {
			t.Parallel()
			m := newMoments()
			f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Observe(m.observe))
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 2, nil)
			m.await(t, at.Kind, at.Seq)
			if err := f.Enclave.Stop(); err != nil {
				t.Fatal(err)
			}
			f.StartEnclave(f.Machine, nil, nil)
			told := f.Nodes[0].Await(t, "end or refusal", func(e node.Event) bool {
				return e.Request == req && (e.Kind == "ended" || e.Kind == "refused")
			})
			for _, n := range f.Nodes[1:] {
				if told.Kind == "refused" {
					break // the run was offered to nobody
				}
				if e := ended(t, n, req); e.Outcome != told.Outcome {
					t.Errorf("%s: run %s, elsewhere %s", n.Name, e.Outcome, told.Outcome)
				}
			}
			if told.Outcome == "completed" {
				sameEverywhere(t, f, req)
			}
		})
	}
}

// TestSuccessorWaitsForTask: a node that missed the newest step joins the successor first.
// It cannot say what the step was; the others can, and then it has a part in the run again.
func TestSuccessorWaitsForTask(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	var hear func()
	var speak func(func([]hostile.Message))
	ready := make(chan struct{})
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l), ci.Observe(func(e enclave.Event) {
		if e.Kind == "step" && e.Seq == 1 { // on the enclave's loop: the step is not released yet
			hear = l.Drop(func(m hostile.Message) bool { return m.Party == "member-c" && m.Deliver() != nil })
			speak = l.Hold(func(m hostile.Message) bool {
				return m.Send() != nil && (m.Party == "member-a" || m.Party == "member-b")
			})
			close(ready)
		}
	}))
	joined(t, f.Nodes...)
	req := start(t, f, f.Nodes[0], 2, nil)
	<-ready
	for _, n := range f.Nodes[:2] {
		n.AwaitKind(t, "step")
	}
	if err := f.Enclave.Stop(); err != nil {
		t.Fatal(err)
	}
	hear()
	f.StartEnclave(f.Machine, nil, nil)
	late := f.Nodes[2]
	joins := 0
	late.Await(t, "the successor", func(e node.Event) bool {
		if e.Kind == "step" {
			t.Error("the node did not miss the step")
		}
		if e.Kind == "joined" {
			joins++
		}
		return joins == 2
	})
	speak(nil)
	sameEverywhere(t, f, req)
}

// TestDoubleFetchBetweenPasses is finding F9: the link serves a contribution honestly
// while it is admitted, and something else when it is read again to be summed up. Every
// pass checks every segment against the signed contribution: the run fails as a fault,
// nobody is blamed, and nothing is released.
func TestDoubleFetchBetweenPasses(t *testing.T) {
	t.Parallel()
	flip := func(b []byte) []byte {
		b = slices.Clone(b)
		b[len(b)/2] ^= 1
		return b
	}
	for name, c := range map[string]struct {
		pass  int
		other func(mine, rivals []byte) []byte
	}{
		"changed":         {2, func(mine, _ []byte) []byte { return flip(mine) }},
		"truncated":       {2, func(mine, _ []byte) []byte { return mine[:len(mine)-1] }},
		"a rival's chunk": {2, func(_, rivals []byte) []byte { return rivals }},
		"after the acks":  {3, func(mine, _ []byte) []byte { return flip(mine) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := hostile.New()
			f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
			victim, rival := f.Nodes[0].Signer.Public().ID(), f.Nodes[1].Signer.Public().ID()
			rivals := map[int][]byte{} // by size
			served := 0
			l.Substitute(func(r hostile.Read) []byte {
				switch {
				case r.Party != "enclave":
				case r.Scope.Owner == rival:
					rivals[len(r.Data)] = slices.Clone(r.Data)
				case r.Scope.Owner == victim && r.Times == c.pass:
					served++
					return c.other(r.Data, rivals[len(r.Data)])
				}
				return r.Data
			})
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 2, nil)
			if e := ended(t, f.Nodes[0], req); e.Outcome != "failed" || e.Reason != "other" {
				t.Errorf("run ended %s: %s, want failed: other", e.Outcome, e.Reason)
			}
			if served == 0 {
				t.Error("nothing was served in place of a chunk")
			}
			for _, s := range l.Logged() {
				switch b := s.Body.(type) {
				case *receipt.Release:
					t.Errorf("step %d was released", b.Seq)
				case *receipt.Step:
					if b.ExcludedCount > 0 {
						t.Errorf("step %d excludes %d nodes", b.Seq, b.ExcludedCount)
					}
				}
			}
			if n := len(l.Seen(storedDownlink("enclave"))); n != 1 {
				t.Errorf("outputs were stored %d times, want 1: the initial model", n)
			}
		})
	}
}

// TestFinalModelStoredAgain serves a changed chunk once while the final model is made:
// its release is signed and witnessed by then, so it is made again and the run completes.
func TestFinalModelStoredAgain(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	victim := f.Nodes[0].Signer.Public().ID()
	l.Substitute(func(r hostile.Read) []byte {
		if r.Party == "enclave" && r.Scope.Owner == victim && r.Times == 3 {
			return make([]byte, len(r.Data))
		}
		return r.Data
	})
	joined(t, f.Nodes...)
	req := start(t, f, f.Nodes[0], 1, nil)
	for _, n := range f.Nodes {
		completed(t, f, n, req)
	}
}

// TestRolledBackLinkFreshEnclave is finding F12: the link goes back to an old copy of
// all that it keeps, one member with it, and boots a fresh enclave, which is genuine and
// believes what it is shown. The other members know a longer history and refuse it; no
// run starts without them.
func TestRolledBackLinkFreshEnclave(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l), ci.Policy(func(p *policy.Policy) { p.Log.Witnesses = 1 }))
	joined(t, f.Nodes...)
	honest, rolled := f.Nodes[:2], f.Nodes[2]
	old, oldNode := filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "node")
	if err := errors.Join(rolled.Stop(), f.Link.Stop()); err != nil {
		t.Fatal(err)
	}
	f.CopyLink(old)
	if err := os.CopyFS(oldNode, os.DirFS(rolled.Dir)); err != nil {
		t.Fatal(err)
	}
	f.RestartLink()
	f.Restart(rolled)
	joined(t, rolled)
	req := start(t, f, f.Nodes[0], 1, nil)
	for _, n := range f.Nodes {
		completed(t, f, n, req)
	}
	if err := errors.Join(f.Enclave.Stop(), rolled.Stop(), os.RemoveAll(rolled.Dir), os.CopyFS(rolled.Dir, os.DirFS(oldNode))); err != nil {
		t.Fatal(err)
	}
	f.RollBackLink(old)
	f.Restart(rolled)
	f.StartEnclave(f.Machine, nil, nil)
	for _, n := range honest {
		e := n.Await(t, "its refusal", func(e node.Event) bool { return e.Kind == "refused" })
		if !strings.Contains(e.Reason, "two histories") {
			t.Errorf("%s refuses because %s", n.Name, e.Reason)
		}
	}
	rolled.AwaitKind(t, "joined")
	start(t, f, rolled, 1, nil)
	if joins := len(events(honest[0], "joined")); joins != 1 {
		t.Errorf("%s joined %d enclaves", honest[0].Name, joins)
	}
	fresh := receipt.EnclaveIssuer([16]byte([]byte(instance(l, "enclave-2"))))
	for _, s := range l.Logged() {
		if s.Kind == receipt.KindRun && s.Issuer == fresh {
			t.Error("the fresh enclave began a run")
		}
	}
}

// events are those of a kind that a node has told.
func events(n *ci.Node, kind string) (list []node.Event) {
	for _, e := range n.Events() {
		if e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

// TestLostFrameHeals drops one record on its way to a node: the next one shows the gap,
// and the node joins anew and resumes. Frames that somebody made up change nothing.
func TestLostFrameHeals(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	dropped := false
	l.Add(func(m hostile.Message) []hostile.Message {
		r := hostile.RecordOf(m)
		if r == nil || m.Up || m.Party != "member-b" {
			return []hostile.Message{m}
		}
		if !dropped && r.Counter == 4 { // the receipt of its contribution; the ack request follows
			dropped = true
			return nil
		}
		// Before every record comes one that somebody made up in its place.
		forged := *r
		forged.Sealed = make([]byte, len(r.Sealed))
		d := &concordatv1.AttachResponse{Kind: &concordatv1.AttachResponse_Deliver{Deliver: &concordatv1.Deliver{
			Handle: make([]byte, 16), From: m.Deliver().GetFrom(), Payload: forged.Frame()}}}
		return []hostile.Message{{Party: m.Party, Method: m.Method, Body: d}, m}
	})
	req := start(t, f, f.Nodes[0], 2, nil)
	sameEverywhere(t, f, req)
	if !dropped || len(events(f.Nodes[1], "joined")) != 2 {
		t.Errorf("dropped %v, member-b joined %d times", dropped, len(events(f.Nodes[1], "joined")))
	}
}
