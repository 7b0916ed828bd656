package verifier

import (
	"slices"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/tpm"
)

// TestVTPM appraises envelopes of machines with a paravisor.
func TestVTPM(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]sim.Config{
		"snp":         {Platform: sim.PlatformSNP, VTPM: true},
		"snp and GPU": {Platform: sim.PlatformSNP, VTPM: true, GPUs: 1},
		"tdx":         {Platform: sim.PlatformTDX, VTPM: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newFederation(t, cfg).appraise(t)
			if r.Verdict() != PassSimulated || !r.Authentic() {
				t.Fatalf("%s, authentic %v: %v", r.Verdict(), r.Authentic(), problems(r))
			}
			if _, err := r.Passed(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestVTPMFaults breaks the vTPM in every way that the simulator knows, and
// says which check must object in which words.
func TestVTPMFaults(t *testing.T) {
	t.Parallel()
	for fault, c := range map[string]struct {
		want      []string
		authentic bool
	}{
		"tpm-missing":       {[]string{"envelope.tpm", "snp.report-data"}, true},
		"tpm-nonce":         {[]string{"tpm.nonce"}, true},
		"wrong-nonce":       {[]string{"tpm.nonce"}, true},
		"tpm-magic":         {[]string{"tpm.magic"}, false},
		"tpm-type":          {[]string{"tpm.type"}, false},
		"tpm-unbound":       {[]string{"snp.report-data", "tpm.ak-binding"}, false},
		"tpm-other-key":     {[]string{"tpm.signature"}, false},
		"tpm-two-keys":      {[]string{"tpm.key"}, false},
		"tpm-hash":          {[]string{"tpm.signature-algorithm"}, false},
		"tpm-signature":     {[]string{"tpm.signature"}, false},
		"tpm-bank":          {[]string{"tpm.pcr-selection"}, true},
		"tpm-selection":     {[]string{"tpm.pcr-selection"}, true},
		"tpm-fewer":         {[]string{"tpm.pcr-selection"}, true},
		"tpm-pcr-values":    {[]string{"tpm.pcr-digest"}, true},
		"tpm-image":         {[]string{"tpm.pcr[11]"}, true},
		"tpm-secure-boot":   {[]string{"tpm.pcr[7]"}, true},
		"tpm-event":         {[]string{"tpm.events"}, true},
		"tpm-event-missing": {[]string{"tpm.events"}, true},
		"tpm-log":           {[]string{"tpm.event-log"}, true},
		"tpm-log-cut":       {[]string{"tpm.event-log"}, true},
		"tpm-log-missing":   {[]string{"tpm.event-log"}, true},
		"bad-signature":     {[]string{"snp.signature", "tpm.ak-binding"}, false}, // of the CPU's report
		"debug":             {[]string{"snp.debug"}, true},
		"measurement":       {[]string{"snp.measurement"}, true}, // of the paravisor
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			f := newFederation(t, sim.Config{Platform: sim.PlatformSNP, VTPM: true, Faults: map[string]string{fault: ""}})
			r := f.appraise(t)
			if got := problems(r); !slices.Equal(got, c.want) || r.Authentic() != c.authentic {
				t.Errorf("objections %v, authentic %v", got, r.Authentic())
			}
			if _, err := r.Passed(); err == nil {
				t.Error("passes")
			}
		})
	}
}

// TestVTPMForms exchanges the two forms of evidence, with and without a
// paravisor: neither is taken for the other.
func TestVTPMForms(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformSNP, VTPM: true})
	e, ends := f.evidence(t)
	with := *f.policy
	without := with
	without.Platforms.TPM = nil
	judge := func(e *attestation.Evidence, want ...string) {
		t.Helper()
		r, err := Appraise(e, ends, f.policy, f.nonce, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !slices.Contains(problems(r), w) {
				t.Errorf("%s does not object, only %v", w, problems(r))
			}
		}
		if v := r.Verdict(); v == Pass || v == PassSimulated {
			t.Errorf("%s", v)
		}
	}
	// Under a policy that knows no vTPM, the paravisor's report is nobody's.
	f.policy = &without
	judge(e, "envelope.tpm", "snp.report-data")
	judge(&attestation.Evidence{Claims: e.Claims, Items: e.Items[:1]}, "snp.report-data")
	f.policy = &with
	// The vTPM twice, in front, or behind another's CPU.
	judge(&attestation.Evidence{Claims: e.Claims, Items: []attestation.Item{e.Items[0], e.Items[1], e.Items[1]}}, "envelope.tpm")
	judge(&attestation.Evidence{Claims: e.Claims, Items: []attestation.Item{e.Items[1], e.Items[0]}}, "envelope.items")
	other := newFederation(t, sim.Config{Platform: sim.PlatformSNP, VTPM: true})
	oe, _ := other.evidence(t)
	judge(&attestation.Evidence{Claims: e.Claims, Items: []attestation.Item{oe.Items[0], e.Items[1]}}, "snp.report-data", "tpm.ak-binding")
	judge(&attestation.Evidence{Claims: e.Claims, Items: []attestation.Item{e.Items[0], oe.Items[1]}}, "snp.report-data", "tpm.ak-binding", "tpm.nonce")
	// A guest that takes the CPU's report itself, over the claims, and quotes by a
	// TPM of its own.
	plain := newFederation(t, sim.Config{Platform: sim.PlatformSNP})
	plain.claims = f.claims
	pe, pends := plain.evidence(t)
	for _, d := range pends.All() {
		if _, err := ends.Add(d); err != nil {
			t.Fatal(err)
		}
	}
	judge(&attestation.Evidence{Claims: e.Claims, Items: []attestation.Item{pe.Items[0], oe.Items[1]}}, "tpm.ak-binding", "tpm.nonce")
	judge(pe, "envelope.tpm")
	// An item that is none.
	e.Items[1].Raw = []byte("x")
	judge(e, "tpm.format")
}

// TestVTPMBits flips every 61st bit of the vTPM's item: none leaves a pass.
func TestVTPMBits(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformSNP, VTPM: true})
	e, ends := f.evidence(t)
	raw := e.Items[1].Raw
	for i := 0; i < len(raw)*8; i += 61 {
		b := slices.Clone(raw)
		b[i/8] ^= 1 << (i % 8)
		e.Items[1].Raw = b
		r, err := Appraise(e, ends, f.policy, f.nonce, now)
		if err != nil || r.Verdict() == PassSimulated {
			t.Fatalf("bit %d: %v %v", i, r.Verdict(), err)
		}
	}
}

func TestAppraiseVTPM(t *testing.T) {
	t.Parallel()
	f := newFederation(t, sim.Config{Platform: sim.PlatformSNP, VTPM: true})
	e, ends := f.evidence(t)
	challenge := tpm.ExtraData(attestation.ReportData(e.Claims, true))
	r, err := AppraiseVTPM(e.Items[0], e.Items[1], ends, f.policy, challenge[:], now)
	if err != nil || r.Verdict() != PassSimulated || !r.Authentic() {
		t.Fatalf("%v, %v", problems(r), err)
	}
	if _, err := r.Passed(); err == nil {
		t.Error("a quote without claims became a pass")
	}
	r, err = AppraiseVTPM(e.Items[0], e.Items[1], ends, f.policy, []byte("other"), now)
	if err != nil || !slices.Equal(problems(r), []string{"tpm.nonce"}) {
		t.Errorf("another challenge: %v, %v", problems(r), err)
	}
	r, err = AppraiseVTPM(e.Items[1], e.Items[1], ends, f.policy, nil, now)
	if err != nil || r.Verdict() != Fail || r.Authentic() {
		t.Errorf("a vTPM that vouches for itself: %v, %v", r.Verdict(), err)
	}
	r, err = AppraiseItem(attestation.KindTPM, e.Items[1].Raw, ends, f.policy, challenge[:], now)
	if err != nil || !slices.Contains(problems(r), "tpm.ak-binding") || r.Authentic() {
		t.Errorf("a quote alone: %v, %v", problems(r), err)
	}
}
