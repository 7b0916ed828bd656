package verifier

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

func verify(t testing.TB, w *world) *Report {
	t.Helper()
	return verifyBytes(t, w.bundle(), w.trust(), time.Time{})
}

func verifyBytes(t testing.TB, b []byte, trust *Trust, at time.Time) *Report {
	t.Helper()
	r, err := VerifyBundle(context.Background(), bytes.NewReader(b), trust, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// expect checks verdict and that a check of the given name (a suffix) has it too.
func expect(t testing.TB, r *Report, want Verdict, name string) {
	t.Helper()
	if r.Verdict != want {
		t.Errorf("verdict %s, want %s\n%s", r.Verdict, want, r.Text())
	}
	if name == "" {
		return
	}
	if want == PassSimulated {
		want = Pass // of a check
	}
	for _, c := range r.Checks {
		if c.Verdict == want && strings.HasSuffix(c.Name, name) {
			return
		}
	}
	t.Errorf("no check %q with %s\n%s", name, want, r.Text())
}

func TestVerifyBundle(t *testing.T) {
	t.Parallel()
	w, _, _ := good(t)
	w.logReceipt(4)
	b := w.bundle()
	var seen []Check
	r, err := VerifyBundle(context.Background(), bytes.NewReader(b), w.trust(), time.Time{}, func(c Check) { seen = append(seen, c) })
	if err != nil {
		t.Fatal(err)
	}
	expect(t, r, PassSimulated, "")
	if !slices.Equal(seen, r.Checks) {
		t.Error("not every check was reported as it was made")
	}
	if r.Bundle != cose.Sum(b) {
		t.Error("digest of the bundle is wrong")
	}
	if len(r.Runs) != 1 || r.Runs[0].Released != 3 || r.Runs[0].Inputs != 6 || r.Runs[0].Outcome != receipt.Completed || len(r.Evidence) != 1 {
		t.Errorf("runs %+v", r.Runs)
	}
	// One byte at a time, slowly: the same report.
	again, err := VerifyBundle(context.Background(), iotest.OneByteReader(bytes.NewReader(b)), w.trust(), time.Time{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	j1, _ := json.Marshal(r)
	j2, _ := json.Marshal(again)
	if r.Text() != again.Text() || !bytes.Equal(j1, j2) {
		t.Error("two reports of one bundle differ")
	}
	w.runs = nil // no run named: all are judged
	expect(t, verify(t, w), PassSimulated, ".end")
}

// damaged are bundles of which something is wrong or missing, and the check that
// must say so.
func TestVerifyBundleDamaged(t *testing.T) {
	t.Parallel()
	statement := func(w *world, i int) *receipt.Unverified {
		u, err := receipt.Parse(w.entries[i])
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	drop := func(role string) func(*world) {
		return func(w *world) {
			for k := range w.blobs {
				if k.role == role {
					delete(w.blobs, k)
				}
			}
		}
	}
	edit := func(role string, f func([][]byte) [][]byte) func(*world) {
		return func(w *world) {
			for k, b := range w.blobs {
				if k.role == role {
					list, err := receipt.ParseList(b)
					if err != nil {
						t.Fatal(err)
					}
					w.blobs[k] = receipt.EncodeList(f(list))
				}
			}
		}
	}
	for name, c := range map[string]struct {
		change  func(*world)
		verdict Verdict
		check   string
	}{
		"no envelope":           {drop(receipt.RoleEvidence), Incomplete, ".statement"},
		"no cohort":             {drop(receipt.RoleCohort), Incomplete, ".cohort"},
		"no credentials":        {drop(receipt.RoleCredential), Incomplete, ".cohort"},
		"no request":            {drop(receipt.RoleRequest), Incomplete, ".request"},
		"no inputs":             {drop(receipt.RoleInputs), Incomplete, ".step[2]"},
		"no acks":               {drop(receipt.RoleAcks), Incomplete, ".step[2]"},
		"one input less":        {edit(receipt.RoleInputs, func(l [][]byte) [][]byte { return l[1:] }), Fail, ".step[2]"},
		"inputs in other order": {edit(receipt.RoleInputs, func(l [][]byte) [][]byte { l[0], l[1] = l[1], l[0]; return l }), Fail, ".step[2]"},
		"one input twice":       {edit(receipt.RoleInputs, func(l [][]byte) [][]byte { l[0] = l[1]; return l }), Fail, ".step[2]"},
		"one ack less":          {edit(receipt.RoleAcks, func(l [][]byte) [][]byte { return l[1:] }), Fail, ".step[2]"},
		"acks in other order":   {edit(receipt.RoleAcks, func(l [][]byte) [][]byte { l[0], l[1] = l[1], l[0]; return l }), Fail, ".step[2]"},
		"an input for an ack":   {func(w *world) { swapInputForAck(t, w) }, Fail, ".step[2]"},
		"no endorsements":       {func(w *world) { clear(w.docs) }, Incomplete, ".statement"},
		"no checkpoints":        {func(w *world) { w.points = nil }, Incomplete, "log.checkpoint"},
		"no entries":            {func(w *world) { w.logItem = func(int, []byte) []byte { return nil } }, Incomplete, "log.replay"},
		"first entry missing":   {func(w *world) { w.logItem = leaveOut(0) }, Incomplete, "log.replay"},
		"last entry missing":    {func(w *world) { w.logItem = leaveOut(len(w.entries) - 1) }, Incomplete, ".end"},
		"step missing":          {func(w *world) { w.logItem = leaveOut(6) }, Fail, ".steps"},
		"release missing":       {func(w *world) { w.logItem = leaveOut(7) }, Fail, ".steps"},
		"entry of another":      {func(w *world) { w.logItem = replace(0, w.entries[1]) }, Fail, "log.replay"},
		"entry not cosigned":    {func(w *world) { w.log([]byte("more")) }, Incomplete, "log.replay"},
		"another run":           {func(w *world) { w.runs = []cose.Digest{{1}} }, Incomplete, ".statement"},
		"evidence for run":      {func(w *world) { w.runs = []cose.Digest{statement(w, 3).Digest()} }, Incomplete, ".statement"},
		"receipt of another log": {func(w *world) {
			w.logReceipt(4)
			w.receipts[cose.Sum(w.entries[5])] = w.receipts[cose.Sum(w.entries[4])]
		}, Fail, "log.receipt"},
		"receipt of no entry": {func(w *world) { w.logReceipt(4); w.receipts[cose.Digest{1}] = w.receipts[cose.Sum(w.entries[4])] }, Incomplete, "log.receipt"},
		"forged step": {func(w *world) {
			e := &testEnclave{w: w, instance: statementInstance(t, w.entries[4]), key: mustSigner(t), chain: receipt.NewChain(receipt.Digest{}), policy: w.policy.Digest()}
			w.log(e.statement(receipt.KindEnd, w.runs[0], &receipt.End{Seq: 3, Step: cose.Digest{1}, Outcome: receipt.Completed}).Raw())
			w.checkpoint("a", "b")
		}, Fail, ".signatures"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, _, _ := good(t)
			c.change(w)
			expect(t, verify(t, w), c.verdict, c.check)
		})
	}
}

func leaveOut(n int) func(int, []byte) []byte {
	return replace(n, nil)
}

func replace(n int, with []byte) func(int, []byte) []byte {
	return func(i int, raw []byte) []byte {
		if i == n {
			return with
		}
		return raw
	}
}

func mustSigner(t testing.TB) *cose.Signer {
	k, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func statementInstance(t testing.TB, raw []byte) attestation.ID {
	u, err := receipt.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	s := &receipt.Statement{Issuer: u.Issuer()}
	id, _ := s.Instance()
	return id
}

// swapInputForAck offers a contribution where an ack belongs.
func swapInputForAck(t testing.TB, w *world) {
	for k := range w.blobs {
		if k.role == receipt.RoleAcks {
			w.blobs[k] = w.blobs[blobKey{receipt.RoleInputs, k.subject}]
		}
	}
}

// TestTamperedBundle flips bits all over a bundle: none of the changes verifies.
func TestTamperedBundle(t *testing.T) {
	t.Parallel()
	w, _, _ := good(t)
	w.logReceipt(4)
	for i := range w.points { // a line that nobody needs may change
		w.points[i].Data = withoutLines(w.points[i].Data, "b.example/witness")
	}
	b, trust := w.bundle(), w.trust()
	step := len(b)/90 + 1
	for i := 0; i < len(b); i += step {
		bad := bytes.Clone(b)
		bad[i] ^= 1 << (i % 8)
		if r := verifyBytes(t, bad, trust, time.Time{}); r.Verdict == Pass || r.Verdict == PassSimulated {
			t.Errorf("byte %d of %d changed: %s", i, len(b), r.Verdict)
		}
	}
	for _, n := range []int{0, 1, 40, len(b) / 2, len(b) - 1} {
		if r := verifyBytes(t, b[:n], trust, time.Time{}); r.Verdict != Fail {
			t.Errorf("cut to %d bytes: %s", n, r.Verdict)
		}
	}
	expect(t, verifyBytes(t, append(bytes.Clone(b), 0), trust, time.Time{}), Fail, "bundle")
}

func TestVerifyBundleTrust(t *testing.T) {
	t.Parallel()
	w, _, _ := good(t)
	b := w.bundle()
	for name, c := range map[string]struct {
		change func(*Trust)
		check  string
	}{
		"real expected":      {func(tr *Trust) { tr.Simulated = false }, "simulated"},
		"another federation": {func(tr *Trust) { tr.Federation = cose.Digest{1} }, "bundle"},
		"another's witness":  {func(tr *Trust) { tr.Member = "b" }, "trust.witness"},
		"member not in it":   {func(tr *Trust) { tr.Member = "z" }, "trust.witness"},
		"witness not in it":  {func(tr *Trust) { tr.Witness = noteKey("z.example/witness", 4) }, "trust.witness"},
	} {
		tr := w.trust()
		c.change(tr)
		t.Run(name, func(t *testing.T) { expect(t, verifyBytes(t, b, tr, time.Time{}), Fail, c.check) })
	}
	for name, tr := range map[string]*Trust{"none": nil, "empty": {}} {
		if _, err := VerifyBundle(context.Background(), bytes.NewReader(b), tr, time.Time{}, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := VerifyBundle(ctx, bytes.NewReader(b), w.trust(), time.Time{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	broken := io.MultiReader(bytes.NewReader(b[:1000]), iotest.ErrReader(io.ErrClosedPipe))
	if _, err := VerifyBundle(context.Background(), broken, w.trust(), time.Time{}, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read error: %v", err)
	}
}

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

// TestBackdatedEvidence: whoever has a vendor's key in 2036 makes evidence that says
// 2026, with a clock of 2026 in the claims. The witness saw it in 2036.
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

// TestLogForked: the log showed the own witness one history and wrote another into
// the bundle.
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
	r = e.begin()
	expect(t, verify(t, w), Fail, ".key-interval")
	w.runs = nil
	rep := verify(t, w)
	expect(t, rep, Incomplete, "runs")
	if rep.Log.Voided != 1 || !strings.Contains(rep.Log.Void[0], "epoch 1, which ended") {
		t.Errorf("void %q", rep.Log.Void)
	}
}

// TestRacingBoot: a second instance for an epoch is void and stops nobody.
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
	r = rival.begin()
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

// TestNonceWindows: an enclave has an evidence statement for every window; a run
// may name any, and a rival's in between changes nothing.
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
	r = e.begin(func(b *receipt.Run) { b.Evidence = cose.Digest{1} })
	w.checkpoint("a", "b")
	expect(t, verify(t, w), Fail, ".named")
}

// TestEvidenceTooOld: what is certainly older than the policy allows fails.
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

// TestSuccessor: an enclave is lost between the acks and the log; its successor
// repeats the step with the same inputs and goes on.
func TestSuccessor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.boot()
	r := first.begin()
	one := r.step(first, receipt.OpensTrain, 1, nil, true)
	r.step(first, receipt.OpensTrain, 2, w.nodes, false)
	second := w.boot()
	r.repeat(second, one, receipt.OpensTrain, 2, w.nodes, true)
	r.step(second, receipt.OpensNone, 2, w.nodes, true)
	r.end(second)
	rep := verify(t, w)
	expect(t, rep, PassSimulated, "")
	if len(rep.Evidence) != 2 || rep.Runs[0].Released != 3 {
		t.Errorf("%d enclaves, %+v", len(rep.Evidence), rep.Runs[0])
	}
}

// TestTwoEnclavesInLog: what two enclaves released for one step has two sets; the
// log shows it.
func TestTwoEnclavesInLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(p *policy.Policy) { p.Release.Dropouts = policy.DropoutsAllow })
	first := w.boot()
	r := first.begin()
	one := r.step(first, receipt.OpensTrain, 1, nil, true)
	r.step(first, receipt.OpensTrain, 2, w.nodes, true)
	second := w.boot()
	r.repeat(second, one, receipt.OpensTrain, 2, w.nodes[:2], true)
	w.checkpoint("a", "b")
	expect(t, verify(t, w), Fail, ".steps")
}

// TestDropouts: who is left out is listed, and inputs and list are the cohort.
func TestDropouts(t *testing.T) {
	t.Parallel()
	allow := func(p *policy.Policy) { p.Release.Dropouts = policy.DropoutsAllow }
	run := func(w *world) {
		e := w.boot()
		r := e.begin()
		r.step(e, receipt.OpensTrain, 1, nil, true)
		r.step(e, receipt.OpensNone, 1, w.nodes[1:], true)
		r.end(e)
	}
	w := newWorld(t, allow)
	run(w)
	rep := verify(t, w)
	expect(t, rep, PassSimulated, "")
	if rep.Runs[0].Excluded != 1 {
		t.Errorf("%+v", rep.Runs[0])
	}
	for k := range w.blobs {
		if k.role == receipt.RoleExcluded {
			delete(w.blobs, k)
		}
	}
	expect(t, verify(t, w), Incomplete, ".step[2]")
	for k := range w.blobs {
		if k.role == receipt.RoleInputs { // name a contributor instead
			w.blobs[blobKey{receipt.RoleExcluded, k.subject}] = receipt.Excluded{{Node: w.nodes[1].key.Public().ID(), Code: receipt.Late}}.Encode()
		}
	}
	expect(t, verify(t, w), Fail, ".step[2]")

	w = newWorld(t) // dropouts: refuse
	run(w)
	expect(t, verify(t, w), Fail, ".steps")
}

// TestSybilNodesCountOnce: ten nodes of one member are one member.
func TestSybilNodesCountOnce(t *testing.T) {
	t.Parallel()
	for claimed, check := range map[uint64]string{10: ".steps", 2: ".step[2]", 1: ".steps"} {
		w := newWorld(t, func(p *policy.Policy) { p.Release.Dropouts = policy.DropoutsAllow })
		for range 9 {
			w.addNode("a")
		}
		e := w.boot()
		r := e.begin()
		r.step(e, receipt.OpensTrain, 1, nil, true)
		sybils := append([]*testNode{w.nodes[0]}, w.nodes[3:]...)
		r.step(e, receipt.OpensNone, 1, sybils, true, func(b *receipt.Step) { b.Members = claimed })
		r.end(e)
		expect(t, verify(t, w), Fail, check)
	}
}

func TestRunAgainstPolicy(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*receipt.Run)
		check  string
	}{
		"app":       {func(b *receipt.Run) { b.App = cose.Digest{8} }, ".policy"},
		"rounds":    {func(b *receipt.Run) { b.Rounds = 99 }, ".policy"},
		"class":     {func(b *receipt.Run) { b.Class = receipt.ClassSelecting }, ".policy"},
		"strategy":  {func(b *receipt.Run) { b.Strategy = "krum" }, ".policy"},
		"exposure":  {func(b *receipt.Run) { b.Exposure = "individual" }, ".policy"},
		"dropouts":  {func(b *receipt.Run) { b.Dropouts = "allow" }, ".steps"},
		"config":    {func(b *receipt.Run) { b.Config = cose.Digest{8} }, ".request"},
		"requester": {func(b *receipt.Run) { b.Requester = b.Cohort }, ""},
		"members":   {func(b *receipt.Run) { b.Members = 2 }, ".steps"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			e := w.boot()
			r := e.begin(c.change)
			r.step(e, receipt.OpensNone, 0, nil, false)
			r.end(e)
			if rep := verify(t, w); c.check != "" {
				expect(t, rep, Fail, c.check)
			} else if rep.Verdict == PassSimulated {
				t.Error("verifies")
			}
		})
	}
}

// TestSplitView: what the nodes said in their acks that they had seen is this log.
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

// TestLongLog: roots over any number of entries, asked for in any order.
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

func TestStatementLeftOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := w.boot()
	e.statement(receipt.KindRefusal, cose.Digest{}, &receipt.Refusal{Subject: cose.Digest{1}, Code: "policy"}) // signed, never logged
	r := e.begin()
	r.step(e, receipt.OpensTrain, 1, nil, true)
	r.step(e, receipt.OpensNone, 1, w.nodes, true)
	r.end(e)
	expect(t, verify(t, w), Incomplete, ".statements")
}

func TestDenials(t *testing.T) {
	t.Parallel()
	deny := func(w *world, by policy.MemberID, d policy.Denial) []byte {
		d.Federation = w.policy.FederationID()
		raw, err := policy.SignDenial(key(string(by)+" policy"), by, d)
		if err != nil {
			t.Fatal(err)
		}
		w.log(raw)
		return raw
	}
	app := func(w *world) policy.Denial {
		return policy.Denial{Kind: policy.DenyApp, Value: w.policy.Apps[0].Digest[:]}
	}
	finish := func(w *world) *Report {
		e := w.boot()
		r := e.begin()
		r.step(e, receipt.OpensTrain, 1, nil, true)
		r.step(e, receipt.OpensNone, 1, w.nodes, true)
		r.end(e)
		return verify(t, w)
	}
	t.Run("before", func(t *testing.T) {
		w := newWorld(t)
		deny(w, "b", app(w))
		expect(t, finish(w), Fail, ".denials")
	})
	t.Run("chip", func(t *testing.T) {
		w := newWorld(t)
		deny(w, "b", policy.Denial{Kind: policy.DenyChip, Value: w.policy.Platforms.SNP.Chips[0]})
		expect(t, finish(w), Fail, ".denials")
	})
	t.Run("measurement", func(t *testing.T) {
		w := newWorld(t)
		deny(w, "b", policy.Denial{Kind: policy.DenyMeasurement, Value: w.policy.Platforms.SNP.Measurements[0]})
		expect(t, finish(w), Fail, ".denials")
	})
	t.Run("node", func(t *testing.T) {
		w := newWorld(t)
		id := w.nodes[2].key.Public().ID()
		deny(w, "c", policy.Denial{Kind: policy.DenyKey, Value: id[:]})
		expect(t, finish(w), Fail, ".denials")
	})
	t.Run("something else", func(t *testing.T) {
		w := newWorld(t)
		deny(w, "b", policy.Denial{Kind: policy.DenyApp, Value: bytes.Repeat([]byte{7}, 32)})
		r := finish(w)
		expect(t, r, PassSimulated, "")
		if len(r.DeniedSince) != 0 {
			t.Errorf("denied since: %q", r.DeniedSince)
		}
	})
	t.Run("since", func(t *testing.T) {
		w, _, _ := good(t)
		deny(w, "b", app(w))
		w.checkpoint("a", "b")
		r := verify(t, w)
		expect(t, r, PassSimulated, "")
		if len(r.DeniedSince) != 1 || !strings.Contains(r.DeniedSince[0], "by b at entry 11") {
			t.Errorf("denied since: %q", r.DeniedSince)
		}
	})
	t.Run("lifted", func(t *testing.T) {
		w := newWorld(t)
		id := cose.Sum(deny(w, "b", app(w)))
		vote := func(m policy.MemberID) {
			raw, err := policy.SignLift(key(string(m)+" policy"), m, w.policy.FederationID(), id)
			if err != nil {
				t.Fatal(err)
			}
			w.log(raw)
		}
		vote("a")
		vote("a") // counts once
		expect(t, finish(w), Fail, ".denials")
		w = newWorld(t)
		id = cose.Sum(deny(w, "b", app(w)))
		vote("a")
		vote("c")
		expect(t, finish(w), PassSimulated, "")
	})
}

// TestPolicyVersions: a version is in force from its N-th approval in the log, and
// an enclave of the version before does not count after that.
func TestPolicyVersions(t *testing.T) {
	t.Parallel()
	next := func(w *world, logged bool) {
		p := *w.policy
		p.Version, p.Federation, p.Previous, p.Name = 2, w.policy.FederationID(), w.policy.Digest(), "second"
		var approvals [][]byte
		for _, m := range []policy.MemberID{"a", "b"} {
			raw, err := policy.Approve(key(string(m)+" policy"), m, &p)
			if err != nil {
				t.Fatal(err)
			}
			approvals = append(approvals, raw)
			if logged {
				w.log(raw)
			}
		}
		if err := w.chain.Adopt(p.Encode(), approvals); err != nil {
			t.Fatal(err)
		}
	}
	run := func(e *testEnclave) {
		r := e.begin()
		r.step(e, receipt.OpensTrain, 1, nil, true)
		r.step(e, receipt.OpensNone, 1, e.w.nodes, true)
		r.end(e)
	}
	w := newWorld(t)
	next(w, true)
	run(w.boot())
	expect(t, verify(t, w), PassSimulated, "policy.logged")

	w = newWorld(t)
	next(w, false)
	run(w.boot())
	expect(t, verify(t, w), Incomplete, "policy.logged")

	w = newWorld(t)
	old := w.chain.Head()
	next(w, true)
	e := w.boot(func(c *attestation.Claims) { c.Policy, c.PolicyVersion = old.Digest(), 1 })
	run(e)
	expect(t, verify(t, w), Fail, ".statement")
}

func TestParseTrust(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.trust()
	got, err := ParseTrust(good.Encode())
	if err != nil || got.Fingerprint() != good.Fingerprint() || got.Witness != good.Witness || !got.Simulated {
		t.Fatalf("round trip: %+v, %v", got, err)
	}
	text := string(good.Encode())
	for name, bad := range map[string]string{
		"empty":         "",
		"unknown field": strings.Replace(text, `"tsa"`, `"also"`, 1),
		"no simulated":  strings.Replace(text, `"simulated": true,`, "", 1),
		"log key":       strings.Replace(text, good.Witness, noteKey("a.example/witness", 1), 1),
		"two objects":   text + text,
		"no member":     strings.Replace(text, `"member": "a"`, `"member": ""`, 1),
		"too long":      text + strings.Repeat(" ", MaxTrust),
	} {
		if _, err := ParseTrust([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzVerifyBundle(f *testing.F) {
	w, _, _ := good(f)
	b, trust := w.bundle(), w.trust()
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, in []byte) {
		r := verifyBytes(t, in, trust, time.Time{})
		if r.Verdict == PassSimulated && (len(r.Runs) == 0 || r.Runs[0].Run != w.runs[0]) {
			t.Errorf("another run verifies: %+v", r.Runs)
		}
		if r.Verdict == Pass || r.Text() == "" {
			t.Errorf("simulated bundle gives %s", r.Verdict)
		}
	})
}

var update = flag.Bool("update", false, "write the golden bundle and its report anew")

// TestGoldenBundle: a bundle that was written once verifies for ever, with the same
// report.
func TestGoldenBundle(t *testing.T) {
	file := func(name string, make func() []byte) []byte {
		path := filepath.Join("testdata", "bundle", name)
		if *update {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, make(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var w *world
	b := file("bundle.cbor", func() []byte { w, _, _ = good(t); w.logReceipt(4); return w.bundle() })
	trust, err := ParseTrust(file("trust.json", func() []byte { return w.trust().Encode() }))
	if err != nil {
		t.Fatal(err)
	}
	r := verifyBytes(t, b, trust, time.Time{})
	expect(t, r, PassSimulated, "")
	if want := file("report.txt", func() []byte { return []byte(r.Text()) }); r.Text() != string(want) {
		t.Errorf("report changed:\n%s", r.Text())
	}
}
