package verifier

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/internal/cose"
)

var updateEAR = flag.Bool("update-ear", false, "write testdata/ear/*.hex")

// results are made by hand, so that their bytes never change.
func results() map[string]*Result {
	pass := &Result{
		authentic: true, fresh: true, at: time.Unix(1780315200, 0), evidence: attestation.Digest{1}, policy: attestation.Digest{2},
		challenge: &EARChallenge{Node: attestation.Digest{3}, Nonce: [32]byte{4}, Index: 1, Count: 2, Path: []attestation.Digest{{5}}},
		checks: []Check{
			{Name: "envelope.items", Verdict: Pass, Got: "1 CPU, 1 GPU and 0 TPM items"},
			{Name: "claims.federation", Verdict: Pass},
			{Name: "snp.signature", Verdict: Pass},
			{Name: "snp.measurement", Verdict: Pass},
			{Name: "snp.debug", Verdict: Pass},
			{Name: "snp.vmpl", Verdict: Pass},
			{Name: "snp.id-key", Verdict: NotChecked},
			{Name: "gpu[0].signature", Verdict: Pass},
			{Name: "gpu.distinct", Verdict: Pass},
		},
	}
	fail := &Result{authentic: true, at: pass.at, evidence: pass.evidence, checks: []Check{
		{Name: "tdx.quote", Verdict: Pass},
		{Name: "tdx.debug", Verdict: Fail, Expected: "no debug", Got: "debug", Advice: "start it without"},
		{Name: "tdx.mrtd", Verdict: Incomplete},
	}}
	simulated := *pass
	simulated.simulated = true
	return map[string]*Result{
		"pass": pass, "fail": fail, "simulated": &simulated,
		"incomplete": {authentic: true, at: pass.at, checks: []Check{{Name: "snp.revocation", Verdict: Incomplete}, {Name: "snp.debug", Verdict: Pass}}},
		"forged":     {at: pass.at, checks: []Check{{Name: "snp.report", Verdict: Pass}, {Name: "snp.smt", Verdict: NotChecked}}},
		"empty":      {at: pass.at},
	}
}

// TestEARGolden pins the bytes: an auditor of another year must get them again.
func TestEARGolden(t *testing.T) {
	for name, r := range results() {
		path := filepath.Join("testdata", "ear", name+".hex")
		if *updateEAR {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(r.EAR())+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(r.EAR()); got != strings.TrimSpace(string(want)) {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestEARTiers(t *testing.T) {
	t.Parallel()
	type claims struct{ identity, configuration, executables, hardware, opaque int }
	const none = -128 // no claim in the vector
	for name, c := range map[string]struct {
		status    Tier
		attesters map[string]Tier
		label     string
		vector    claims
	}{
		"pass":       {TierAffirming, map[string]Tier{"enclave": 2, "snp": 2, "gpu[0]": 2, "gpu": 2}, "snp", claims{none, 2, 3, 2, 2}},
		"simulated":  {TierContraindicated, map[string]Tier{"enclave": 2, "snp": 96, "gpu[0]": 96, "gpu": 2}, "snp", claims{none, 2, 3, 97, 2}},
		"fail":       {TierContraindicated, map[string]Tier{"tdx": 96}, "tdx", claims{none, none, 0, 2, 96}},
		"incomplete": {TierNone, map[string]Tier{"snp": 0}, "snp", claims{none, none, none, 0, 2}},
		"forged":     {TierContraindicated, map[string]Tier{"snp": 96}, "snp", claims{none, none, none, 99, none}},
		"empty":      {TierContraindicated, map[string]Tier{"enclave": 96}, "", claims{}},
	} {
		e, err := ParseEAR(results()[name].EAR())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e.Status != c.status || len(e.Attesters) != len(c.attesters) {
			t.Errorf("%s: status %s of %v", name, e.Status, e.Attesters)
		}
		for label, want := range c.attesters {
			if got := e.Attesters[label].Status; got != want {
				t.Errorf("%s: %s is %s, want %s", name, label, got, want)
			}
		}
		if c.label == "" {
			continue
		}
		v := e.Attesters[c.label].Vector
		got := claims{}
		for _, x := range []struct {
			to   *int
			from *Tier
		}{{&got.identity, v.InstanceIdentity}, {&got.configuration, v.Configuration}, {&got.executables, v.Executables}, {&got.hardware, v.Hardware}, {&got.opaque, v.RuntimeOpaque}} {
			if *x.to = none; x.from != nil {
				*x.to = int(*x.from)
			}
		}
		if got != c.vector {
			t.Errorf("%s: vector %+v, want %+v", name, got, c.vector)
		}
	}
}

// TestEARReproducible: an auditor who has the node's result, the evidence and the
// policy gets its payload again, byte for byte.
func TestEARReproducible(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformTDX, GPUs: 1})
	ev, ends := f.evidence(t)
	r, err := Appraise(ev, ends, f.policy, f.nonce, now)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := r.SignEAR(key("node"), "node/1")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenEAR(signed, key("another node").Public()); !errors.Is(err, cose.ErrSignature) {
		t.Errorf("another node's key: %v", err)
	}
	e, payload, err := OpenEAR(signed, key("node").Public())
	if err != nil {
		t.Fatal(err)
	}
	received, err := attestation.ParseEvidence(ev.Encode())
	if err != nil {
		t.Fatal(err)
	}
	documents, err := attestation.ParseEndorsements(ends.Encode())
	if err != nil {
		t.Fatal(err)
	}
	again, err := Appraise(received, documents, f.policy, e.Concordat.Challenge.Proof(), e.Time())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.EAR(), payload) {
		t.Error("the same appraisal gives other bytes")
	}
	if e.Concordat.Evidence != ev.Digest() || e.Concordat.Policy != f.policy.Digest() || e.Concordat.Verdict != "pass-simulated" {
		t.Errorf("got %+v", e.Concordat)
	}
	// Any other input gives other bytes.
	later, err := Appraise(received, documents, f.policy, e.Concordat.Challenge.Proof(), e.Time().Add(time.Second))
	if err != nil || bytes.Equal(later.EAR(), payload) {
		t.Errorf("another time gives the same bytes: %v", err)
	}
	auditor, err := Appraise(received, documents, f.policy, nil, e.Time())
	if err != nil || bytes.Equal(auditor.EAR(), payload) {
		t.Errorf("no challenge gives the same bytes: %v", err)
	}
}

// TestEARFits: however much was checked, a result can be signed and read.
func TestEARFits(t *testing.T) {
	t.Parallel()
	r := results()["pass"]
	for i := range 4 * maxListed {
		r.checks = append(r.checks, Check{Name: fmt.Sprintf("gpu[%d].certificate-chip", i%31), Verdict: Pass, Got: strings.Repeat("x", 200)})
	}
	raw, err := r.SignEAR(key("node"), "node/1")
	if err != nil {
		t.Fatal(err)
	}
	if e, _, err := OpenEAR(raw, key("node").Public()); err != nil || len(e.Concordat.Checks) != maxListed {
		t.Errorf("%v", err)
	}
}

func TestOpenEARRefuses(t *testing.T) {
	t.Parallel()
	r := results()["pass"]
	k := key("node")
	sign := func(typ, subject string, payload []byte) []byte {
		raw, err := cose.Sign(k, cose.Header{Type: typ, Issuer: "n", Subject: subject}, payload, nil)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	spoilt := func(change func(e *EAR)) []byte {
		e, err := ParseEAR(r.EAR())
		if err != nil {
			t.Fatal(err)
		}
		change(e)
		return sign(typeEAR, r.evidence.String(), cose.Marshal(e))
	}
	for name, raw := range map[string][]byte{
		"type":      sign("application/cwt", r.evidence.String(), r.EAR()),
		"subject":   sign(typeEAR, r.policy.String(), r.EAR()),
		"payload":   sign(typeEAR, r.evidence.String(), r.EAR()[1:]),
		"profile":   spoilt(func(e *EAR) { e.Profile = "tag:ietf.org,2026:rats/ear#03" }),
		"build":     spoilt(func(e *EAR) { e.Verifier.Build = "2" }),
		"verdict":   spoilt(func(e *EAR) { e.Concordat.Verdict = "good" }),
		"attesters": spoilt(func(e *EAR) { e.Attesters = nil }),
		"nonce":     spoilt(func(e *EAR) { e.Nonce = nil }),
		"no COSE":   r.EAR(),
	} {
		if _, _, err := OpenEAR(raw, k.Public()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzParseEAR(f *testing.F) {
	for _, r := range results() {
		f.Add(r.EAR())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := ParseEAR(b); err == nil && !bytes.Equal(cose.Marshal(e), b) {
			t.Error("second encoding of the same result accepted")
		}
	})
}
