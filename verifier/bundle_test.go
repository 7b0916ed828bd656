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

// TestBackdatedEvidence: whoever has a vendor's key in 2036 makes evidence that says
// 2026, with a clock of 2026 in the claims. The witness saw it in 2036.
// TestLogForked: the log showed the own witness one history and wrote another into
// the bundle.
// TestRacingBoot: a second instance for an epoch is void and stops nobody.
// TestNonceWindows: an enclave has an evidence statement for every window; a run
// may name any, and a rival's in between changes nothing.
// TestEvidenceTooOld: what is certainly older than the policy allows fails.
// TestSuccessor: an enclave is lost between the acks and the log; its successor
// repeats the step with the same inputs and goes on.
// TestTwoEnclavesInLog: what two enclaves released for one step has two sets; the
// log shows it.
// TestDropouts: who is left out is listed, and inputs and list are the cohort.
// TestSybilNodesCountOnce: ten nodes of one member are one member.
// TestSplitView: what the nodes said in their acks that they had seen is this log.
// TestLongLog: roots over any number of entries, asked for in any order.
// TestPolicyVersions: a version is in force from its N-th approval in the log, and
// an enclave of the version before does not count after that.
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
