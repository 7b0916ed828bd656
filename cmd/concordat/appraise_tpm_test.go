package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation/tpm"
	"github.com/concordat/concordat/verifier"
)

// TestAppraiseAzure judges the evidence of a genuine machine on Azure.
func TestAppraiseAzure(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: the evidence of a genuine machine was not tested")
	}
	raw, err := os.ReadFile(filepath.Join(dir, "tpm", "azure-snp-vtpm-evidence.json"))
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, raw); err != nil {
		t.Fatal(err)
	}
	raw = compact.Bytes()
	at := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	f := &appraiseFlags{platform: "tpm"}
	judge := func(raw, nonce []byte) (*appraised, []string) {
		t.Helper()
		v, err := f.appraiseVTPM(raw, nil, nonce, at)
		if err != nil {
			t.Fatal(err)
		}
		var bad []string
		for _, c := range v.Checks {
			if c.Verdict == verifier.Fail {
				bad = append(bad, c.Name)
			}
		}
		return v, bad
	}
	if v, bad := judge(raw, []byte("challenge")); v.Verdict != verifier.Pass || !v.Authentic {
		t.Fatalf("%s: %v", v.Verdict, bad)
	}
	if v, _ := judge(raw, nil); v.Verdict != verifier.Pass {
		t.Errorf("without a nonce: %s", v.Verdict)
	}
	for _, nonce := range []string{"challengf", "challenge\x00", "challeng"} {
		if v, bad := judge(raw, []byte(nonce)); v.Verdict != verifier.Fail || !slices.Equal(bad, []string{"tpm.nonce"}) {
			t.Errorf("nonce %q: %s, %v", nonce, v.Verdict, bad)
		}
	}
	// One byte of every part: of the runtime data, the report, a PCR, the signature.
	a, err := tpm.ParseAzure(raw)
	if err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func() []byte{
		"tpm.ak-binding": func() []byte {
			return bytes.Replace(raw, decimals(a.HCL.Runtime[600:620]), decimals(append([]byte{a.HCL.Runtime[600] ^ 1}, a.HCL.Runtime[601:620]...)), 1)
		},
		"snp.signature": func() []byte {
			return bytes.Replace(raw, decimals(a.HCL.Hardware[0x90:0xA4]), decimals(append([]byte{a.HCL.Hardware[0x90] ^ 1}, a.HCL.Hardware[0x91:0xA4]...)), 1)
		},
		"tpm.pcr-digest": func() []byte {
			v := a.Evidence.PCRs[4].Value
			return bytes.Replace(raw, decimals(v), decimals(append([]byte{v[0] ^ 1}, v[1:]...)), 1)
		},
		"tpm.signature": func() []byte {
			s := a.Evidence.Signature[6:26]
			return bytes.Replace(raw, decimals(s), decimals(append([]byte{s[0] ^ 1}, s[1:]...)), 1)
		},
	} {
		b := spoil()
		if bytes.Equal(b, raw) {
			t.Fatalf("%s: nothing was changed", want)
		}
		if v, bad := judge(b, []byte("challenge")); v.Verdict != verifier.Fail || !slices.Contains(bad, want) {
			t.Errorf("%s does not object: %s, %v", want, v.Verdict, bad)
		}
	}
}

// decimals writes b as the file does: numbers with commas.
func decimals(b []byte) []byte {
	var out []byte
	for i, x := range b {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, int64(x), 10)
	}
	return out
}

// TestNonceOfTPM holds the challenge as it was given: no zeros are added.
func TestNonceOfTPM(t *testing.T) {
	t.Parallel()
	b, err := parseNonce(hex.EncodeToString([]byte("challenge")), true, appraisables["tpm"])
	if err != nil || string(b) != "challenge" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := parseNonce(hex.EncodeToString(make([]byte, 65)), true, appraisables["tpm"]); err == nil {
		t.Error("a nonce of 65 bytes was taken")
	}
}
