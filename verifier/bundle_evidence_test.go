package verifier

import (
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

func TestBundleWithoutOwnCosignatureIncomplete(t *testing.T) {
	t.Parallel()
	w, _, _ := good(t)
	w.log([]byte("later"))
	w.checkpoint("b", "c") // all but the officer's own
	expect(t, verify(t, w), Incomplete, "log.own-witness")

	// Nor does the sender's choice of older checkpoints help.
	w, _, _ = good(t)
	for i := range w.points {
		w.points[i].Data = withoutLines(w.points[i].Data, "a.example/witness")
	}
	r := verify(t, w)
	expect(t, r, Incomplete, "log.own-witness")
	if strings.Contains(r.ValidAsOf, "2026") {
		t.Errorf("claims to be valid as of %s", r.ValidAsOf)
	}
	// Fewer witnesses than the policy wants do not make a checkpoint count.
	w = newWorld(t, func(p *policy.Policy) { p.Log.Witnesses = 3 })
	w.boot()
	expect(t, verify(t, w), Incomplete, "log.checkpoint")
}

func withoutLines(note []byte, name string) []byte {
	var out []string
	for _, l := range strings.SplitAfter(string(note), "\n") {
		if !strings.Contains(l, "— "+name+" ") {
			out = append(out, l)
		}
	}
	return []byte(strings.Join(out, ""))
}

func TestBackdatedEvidence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.clock = now.AddDate(10, 0, 0)
	w.log([]byte("ten years later"))
	w.checkpoint("a", "b")
	e := w.boot(func(c *attestation.Claims) { c.IssuedAt = uint64(now.Unix()) })
	r := e.begin()
	r.step(e, receipt.OpensNone, 1, nil, false)
	r.end(e)
	expect(t, verify(t, w), Fail, ".statement")
	// --at narrows; it never widens.
	b := w.bundle()
	for _, at := range []time.Time{now, now.AddDate(5, 0, 0)} {
		expect(t, verifyBytes(t, b, w.trust(), at), Incomplete, ".statement")
	}
	expect(t, verifyBytes(t, b, w.trust(), now.AddDate(20, 0, 0)), Fail, ".statement")

	// Without an earlier checkpoint nothing bounds the time from below.
	w.points = w.points[2:]
	expect(t, verifyBytes(t, w.bundle(), w.trust(), now), Incomplete, ".statement")

	// An honest bundle may be judged at any moment of its bracket, and later.
	w, _, _ = good(t)
	b = w.bundle()
	for _, at := range []time.Time{w.clock, now.AddDate(10, 0, 0)} {
		expect(t, verifyBytes(t, b, w.trust(), at), PassSimulated, "")
	}
}

func TestClocksRunBackwards(t *testing.T) {
	t.Parallel()
	w, _, _ := good(t)
	w.clock = now.Add(-time.Hour)
	w.log([]byte("later"))
	w.checkpoint("a", "b")
	expect(t, verify(t, w), Fail, "log.time")
}

func TestLogForked(t *testing.T) {
	t.Parallel()
	w, _, _ := good(t)
	w.entries[1], w.entries[0] = w.entries[0], w.entries[1]
	expect(t, verify(t, w), Fail, "log.replay")
}

func TestKeyOutsideLogInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.boot()
	r := e.begin()
	r.step(e, receipt.OpensTrain, 1, nil, true)
	w.boot() // epoch 2 begins
	r.step(e, receipt.OpensNone, 1, w.nodes, true)
	r.end(e)
	expect(t, verify(t, w), Fail, ".key-interval")

	// A later run of the zombie is void, and says so.
	w = newWorld(t)
	e = w.boot()
	w.boot()
	e.begin()
	expect(t, verify(t, w), Fail, ".key-interval")
	w.runs = nil
	rep := verify(t, w)
	expect(t, rep, Incomplete, "runs")
	if rep.Log.Voided != 1 || !strings.Contains(rep.Log.Void[0], "epoch 1, which ended") {
		t.Errorf("void %q", rep.Log.Void)
	}
}

func TestRacingBoot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.boot()
	start := e.claims.Checkpoint
	w.epoch = 0
	rival := w.boot(func(c *attestation.Claims) { c.Checkpoint = start })
	w.log(rival.statement(receipt.KindRefusal, cose.Digest{}, &receipt.Refusal{Subject: cose.Digest{1}, Code: "policy"}).Raw())
	r := e.begin()
	r.step(e, receipt.OpensTrain, 1, nil, true)
	r.step(e, receipt.OpensNone, 1, w.nodes, true)
	r.end(e)
	rep := verify(t, w)
	expect(t, rep, PassSimulated, "")
	if rep.Log.Voided != 2 {
		t.Errorf("void %q", rep.Log.Void)
	}
	// The rival's own run does not count.
	rival.begin()
	w.runs = w.runs[1:]
	w.checkpoint("a", "b")
	expect(t, verify(t, w), Fail, ".statement")
}

func TestEpochFollowsLog(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*attestation.Claims){
		"epoch skipped":   func(c *attestation.Claims) { c.Epoch = 7 },
		"another log":     func(c *attestation.Claims) { c.Checkpoint.Root = attestation.Digest{1} },
		"log of later":    func(c *attestation.Claims) { c.Checkpoint.Size += 5 },
		"another policy":  func(c *attestation.Claims) { c.Policy = attestation.Digest{1} },
		"of another":      func(c *attestation.Claims) { c.Federation = attestation.Digest{1} },
		"other instance":  func(c *attestation.Claims) { c.Instance = attestation.ID{99} },
		"not a simulator": func(c *attestation.Claims) { c.Simulated = false },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			e := w.boot(change)
			e.begin()
			w.checkpoint("a", "b")
			if r := verify(t, w); r.Verdict == PassSimulated || len(r.Log.Void) != 2 {
				t.Errorf("%s, void %q", r.Verdict, r.Log.Void)
			}
		})
	}
}

func TestNonceWindows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.boot()
	e.claims.KEMPub[0] = 9
	second := e.logEvidence()
	w.checkpoint("a")
	r := e.begin(func(b *receipt.Run) { b.Evidence = second })
	r.step(e, receipt.OpensTrain, 1, nil, true)
	r.step(e, receipt.OpensNone, 1, w.nodes, true)
	r.end(e)
	expect(t, verify(t, w), PassSimulated, "")

	w, e, _ = good(t)
	e.begin(func(b *receipt.Run) { b.Evidence = cose.Digest{1} })
	w.checkpoint("a", "b")
	expect(t, verify(t, w), Fail, ".named")
}

func TestEvidenceTooOld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.boot()
	w.clock = w.clock.Add(11 * time.Minute) // max_age is 10
	w.log([]byte("later"))
	w.checkpoint("a", "b")
	r := e.begin()
	r.step(e, receipt.OpensNone, 1, nil, false)
	r.end(e)
	expect(t, verify(t, w), Fail, ".fresh")
}

func TestSplitView(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change  func(*receipt.Checkpoint)
		verdict Verdict
		check   string
	}{
		"this log":     {func(*receipt.Checkpoint) {}, PassSimulated, ""},
		"another":      {func(c *receipt.Checkpoint) { c.Root = cose.Digest{1} }, Fail, ".step[2]"},
		"a longer one": {func(c *receipt.Checkpoint) { c.Size = 99 }, Incomplete, ".step[2]"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			e := w.boot()
			w.seen = receipt.Checkpoint{Size: uint64(len(w.entries)), Root: w.root(len(w.entries))}
			c.change(&w.seen)
			r := e.begin()
			r.step(e, receipt.OpensTrain, 1, nil, true)
			r.step(e, receipt.OpensNone, 1, w.nodes, true)
			r.end(e)
			expect(t, verify(t, w), c.verdict, c.check)
		})
	}
}

func TestLongLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 600 {
		w.log([]byte{byte(i), byte(i >> 8)})
		if i == 250 || i == 300 || i == 511 {
			w.checkpoint("a")
		}
	}
	e := w.boot()
	r := e.begin()
	r.step(e, receipt.OpensTrain, 1, nil, true)
	r.step(e, receipt.OpensNone, 1, w.nodes, true)
	r.end(e)
	w.logReceipt(len(w.entries) - 1)
	rep := verify(t, w)
	expect(t, rep, PassSimulated, "log.replay")
	if rep.Log.Voided != 600 || len(rep.Log.Void) != maxVoid {
		t.Errorf("%d void, %d named", rep.Log.Voided, len(rep.Log.Void))
	}
}
