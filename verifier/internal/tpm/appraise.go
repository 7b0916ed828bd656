// Package tpm judges quotes of vTPMs: is the key that signed one that CPU
// evidence vouches for, are the PCR values those of the quote, and are they, or
// the events behind them, what the policy names. [Appraise] is the only door;
// package check says how its answers read.
//
// There is no chain to a TPM maker here, on purpose: a vTPM is software of the
// paravisor, and what makes it trustworthy is that the CPU measured the paravisor
// and that the paravisor names the key in report data. Endorsement key
// certificates, credential activation and names of keys play no part.
package tpm

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/eventlog"
	"github.com/concordat/concordat/attestation/tpm"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	"github.com/concordat/concordat/verifier/internal/events"
)

// CPU is what the CPU item beside a quote says.
type CPU struct {
	ReportData []byte // 64 bytes; nil if the item does not parse
	Authentic  bool   // a vendor's signature under an accepted root covers it
}

// judge is one appraisal.
type judge struct {
	r      *check.Recorder
	policy *policy.Policy
	tpm    *policy.TPM // nil: any
	ev     *tpm.Evidence
	quote  *tpm.Quote
	sig    *tpm.Signature
	key    crypto.PublicKey
}

// Appraise judges the item raw and records every check in r. want.ReportData is
// what the quote's extraData must be, byte for byte; a nil cpu stands for a quote
// that came alone. It does not keep or change its arguments.
func Appraise(raw []byte, ends *attestation.Endorsements, refs []attestation.Digest, p *policy.Policy, want check.Expect, cpu *CPU, r *check.Recorder) {
	j := &judge{r: r, policy: p}
	if p != nil {
		j.tpm = p.Platforms.TPM
		if j.tpm == nil {
			r.Fail("platform", "a platform of the policy", "TPM 2.0", "the policy has no reference values for vTPMs: use another machine, or adopt a policy that accepts them")
			return
		}
	}
	if !j.parse(raw) {
		return
	}
	bound := j.bound(cpu)
	if j.signature() && bound {
		r.Authentic()
	}
	j.nonce(want.ReportData)
	if !j.selection() {
		for _, n := range []string{"pcr-digest", "pcrs", "event-log"} {
			r.NotChecked(n, "the quote does not say which PCRs it covers")
		}
		return
	}
	if !j.digest() {
		for _, n := range []string{"pcrs", "event-log"} {
			r.NotChecked(n, "the PCR values are not those of the quote")
		}
		return
	}
	j.pinned()
	j.events(ends.ByType(attestation.TypeEventLog, refs))
}

// parse splits the item. What a TPM did not make, or is no quote, has a check of
// its own.
func (j *judge) parse(raw []byte) bool {
	const want = "a vTPM's quote with its signature, PCRs and runtime data"
	ev, err := tpm.Parse(raw)
	if err != nil {
		j.r.Fail("format", want, err.Error(), "a TPM2_Quote alone is not enough: the item holds what binds its key, too")
		return false
	}
	if j.sig, err = tpm.ParseSignature(ev.Signature); err != nil {
		j.r.Fail("format", want, err.Error(), "")
		return false
	}
	j.quote, err = tpm.ParseQuote(ev.Quote)
	switch {
	case errors.Is(err, tpm.ErrMagic):
		j.r.Fail("magic", "a structure that a TPM made", err.Error(), "the key signed bytes that software chose: it says nothing about the machine")
		return false
	case errors.Is(err, tpm.ErrType):
		j.r.Fail("type", "a quote", err.Error(), "another attestation of the TPM, such as of a key or the time")
		return false
	case err != nil:
		j.r.Fail("format", want, err.Error(), "")
		return false
	}
	j.ev = ev
	j.r.Pass("format", "")
	j.r.Pass("magic", "made by a TPM")
	j.r.Pass("type", "quote")
	return true
}

// bound checks that genuine CPU evidence names the signing key.
func (j *judge) bound(cpu *CPU) bool {
	const name = "ak-binding"
	want := tpm.Binding(j.ev.Runtime)
	expected := fmt.Sprintf("CPU evidence over the runtime data that name the key: report data %x", want)
	switch {
	case cpu == nil:
		return j.r.That(false, name, expected, "a quote alone", "a TPM quote alone proves nothing, as anybody can run a TPM: give the CPU's report beside it")
	case cpu.ReportData == nil:
		return j.r.That(false, name, expected, "CPU evidence that does not parse", "")
	case !cpu.Authentic:
		return j.r.That(false, name, expected, "CPU evidence that is not shown to be genuine", "see the checks of the CPU evidence")
	}
	return j.r.That(bytes.Equal(want[:], cpu.ReportData), name, expected, hex.EncodeToString(cpu.ReportData), "the CPU vouches for another TPM, or for none")
}

func (j *judge) nonce(want []byte) {
	if len(want) == 0 {
		j.r.NotChecked("nonce", fmt.Sprintf("no challenge was given to compare it with: the quote may be a recording; it holds %x", j.quote.ExtraData))
		return
	}
	j.r.That(bytes.Equal(want, j.quote.ExtraData), "nonce", hex.EncodeToString(want), hex.EncodeToString(j.quote.ExtraData), "the quote was made for another challenge or other claims: ask for a fresh one")
}

// events replays the logs and holds them against the policy.
func (j *judge) events(docs [][]byte) {
	regs := events.Registers{Name: "PCR", Alg: eventlog.SHA256, Index: func(n uint64) uint32 { return uint32(n) }, Values: map[uint64][]byte{}}
	for _, p := range j.ev.PCRs {
		regs.Values[p.Index] = p.Value
	}
	var rules []policy.Event
	if j.tpm != nil {
		rules = j.tpm.Events
	}
	events.Appraise(docs, regs, j.policy, rules, j.r)
}
