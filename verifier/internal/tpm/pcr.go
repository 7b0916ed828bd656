package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/concordat/concordat/attestation/tpm"
	"github.com/concordat/concordat/policy"
)

// selection checks that the quote covers exactly the PCRs that the item shows,
// of the SHA-256 bank, and every one that the policy speaks of.
func (j *judge) selection() bool {
	const name = "pcr-selection"
	if len(j.quote.Selections) != 1 || j.quote.Selections[0].Hash != tpm.SHA256 {
		return j.r.That(false, name, "one selection, of the SHA-256 bank", describe(j.quote.Selections), "quote the SHA-256 bank alone")
	}
	quoted := j.quote.Selections[0].PCRs()
	var shown []int
	for _, p := range j.ev.PCRs {
		shown = append(shown, int(p.Index))
	}
	if len(shown) == 0 || !slices.Equal(quoted, shown) {
		return j.r.That(false, name, fmt.Sprintf("the PCRs that the evidence shows: %v", shown), fmt.Sprintf("%v", quoted), "the quote covers other registers than the evidence claims")
	}
	var lacks []int
	for _, n := range j.needed() {
		if !slices.Contains(quoted, n) {
			lacks = append(lacks, n)
		}
	}
	return j.r.That(len(lacks) == 0, name, fmt.Sprintf("every PCR that the policy speaks of: %v", j.needed()), fmt.Sprintf("%v", quoted), fmt.Sprintf("the quote leaves out PCR %v", lacks))
}

// needed returns the PCRs that the policy speaks of, rising.
func (j *judge) needed() []int {
	if j.tpm == nil {
		return nil
	}
	var out []int
	for _, p := range j.tpm.PCRs {
		out = append(out, int(p.Index))
	}
	for _, e := range j.tpm.Events {
		out = append(out, int(e.Register))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func describe(l []tpm.Selection) string {
	s := fmt.Sprintf("%d selections", len(l))
	for _, x := range l {
		s += fmt.Sprintf(", bank %04x", x.Hash)
	}
	return s
}

// digest checks that the shown values are the quoted ones. The digest is made
// with the hash of the signature scheme, which is SHA-256: "signature-algorithm"
// refuses every other.
func (j *judge) digest() bool {
	h := sha256.New()
	for _, p := range j.ev.PCRs {
		h.Write(p.Value)
	}
	sum := h.Sum(nil)
	return j.r.That(bytes.Equal(sum, j.quote.Digest), "pcr-digest", hex.EncodeToString(j.quote.Digest), hex.EncodeToString(sum), "the PCR values beside the quote are not those that the TPM signed")
}

// pinned compares the PCRs with the policy.
func (j *judge) pinned() {
	if j.tpm == nil {
		j.r.NotChecked("pcrs", "no policy names PCR values: what runs above the paravisor is not known")
		return
	}
	for _, want := range j.tpm.PCRs {
		var got []byte
		for _, p := range j.ev.PCRs {
			if p.Index == want.Index {
				got = p.Value
			}
		}
		ok := slices.ContainsFunc(want.Values, func(v policy.Hex) bool { return bytes.Equal(v, got) })
		j.r.That(ok, fmt.Sprintf("pcr[%d]", want.Index), oneOf(want.Values), hex.EncodeToString(got), meaning(want.Index))
	}
}

func oneOf(set []policy.Hex) string {
	if len(set) == 1 {
		return set[0].String()
	}
	return fmt.Sprintf("one of %d values of the policy", len(set))
}

// meaning says what a PCR that differs tells (TCG PC Client Platform Firmware
// Profile, 3.3.4; from 8 on, systemd's and GRUB's use).
func meaning(n uint64) string {
	switch {
	case n <= 1:
		return "other firmware or firmware settings than the members approved"
	case n <= 3:
		return "other drivers or their settings, loaded by the firmware"
	case n == 4:
		return "another boot loader or kernel image than the members approved"
	case n == 5:
		return "another partition table or boot configuration"
	case n == 7:
		return "other Secure Boot settings or keys"
	case n >= 8:
		return "another kernel, command line or initial file system than the members approved"
	}
	return "a value that the members did not approve"
}
