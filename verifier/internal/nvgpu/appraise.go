// Package nvgpu judges the attestation report of an NVIDIA GPU: its signature,
// the certificate chain to NVIDIA's root, revocation by stapled OCSP responses,
// and what the policy says about versions, measurements and devices. Start with
// [Appraise], once a GPU, and then call [AppraiseSet] once for all of them.
//
// It reads no reference integrity manifests: measurements are judged by the sets
// that a policy pins. And it cannot see whether confidential mode is on; only the
// driver inside the measured guest knows.
package nvgpu

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// Appraise judges one report. want.ReportData is the nonce of 32 bytes that the
// GPU had to answer. The report's chain is found among ends as the one whose leaf
// signed the report, those that refs names first.
//
// It returns the device's ueid, the serial number of its certificate, if report
// and chain are authentic, and nil if not; [AppraiseSet] wants it.
func Appraise(raw []byte, ends *attestation.Endorsements, refs []attestation.Digest, p *policy.Policy, want check.Expect, r *check.Recorder) []byte {
	if p != nil && p.Platforms.GPU == nil {
		r.Fail("policy", "no GPU evidence", "a GPU report", "the policy accepts no GPU: start the enclave without one, or change the policy")
		return nil
	}
	report, err := nvgpu.Parse(raw)
	if err != nil {
		r.Fail("report", "an SPDM 1.1 attestation report", err.Error(), "")
		return nil
	}
	r.Pass("report", fmt.Sprintf("%d measurements", len(report.Blocks)))
	checkNonce(report, want.ReportData, r)

	docs := ends.ByType(attestation.TypeNVIDIAChain, refs)
	if len(docs) == 0 {
		r.Missing("chain", "the GPU's certificate chain", "add the chain that NVML's GetConfComputeGpuCertificate returns")
		return nil
	}
	chain, err := findChain(docs, raw)
	if err != nil {
		r.Fail("signature", "a signature by the leaf of a given chain", err.Error(), "the report was changed, or its chain was not given")
		return nil
	}
	r.Pass("signature", fmt.Sprintf("by %q", chain[leaf].Subject.CommonName))

	var ueid []byte
	if err := verifyChain(chain, &want); err != nil {
		r.Fail("chain", "a chain to an accepted root", err.Error(), "only GPUs whose chain reaches NVIDIA's Device Identity CA are genuine")
	} else {
		r.Pass("chain", fmt.Sprintf("to %q", chain[root].Subject.CommonName))
		r.Authentic()
		ueid = chain[device].SerialNumber.Bytes()
	}
	checkFirmware(chain, report, r)
	checkRevocation(chain, ends.ByType(attestation.TypeNVIDIAOCSP, refs), p, &want, r)
	checkReference(chain, report, p, r)
	return ueid
}

// findChain returns the first chain whose leaf signed raw, a report that parses.
// The error is that of the first document.
func findChain(docs [][]byte, raw []byte) ([]*x509.Certificate, error) {
	const most = 32 // chains to try, one P-384 verification each; a machine has at most 16 GPUs
	cut := len(raw) - nvgpu.SignatureSize
	digest := sha512.Sum384(raw[:cut])
	rInt, sInt := new(big.Int).SetBytes(raw[cut:cut+48]), new(big.Int).SetBytes(raw[cut+48:])
	var first error
	for _, d := range docs[:min(len(docs), most)] {
		chain, err := parseChain(d)
		if err == nil {
			if ecdsa.Verify(chain[leaf].PublicKey.(*ecdsa.PublicKey), digest[:], rInt, sInt) {
				return chain, nil
			}
			err = fmt.Errorf("the leaf %q did not sign this report", chain[leaf].Subject.CommonName)
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func checkNonce(report *nvgpu.Report, want []byte, r *check.Recorder) {
	if len(want) == 0 {
		r.NotChecked("nonce", "no nonce was given: the report may be a recording")
		return
	}
	r.That(bytes.Equal(want, report.RequestNonce[:]), "nonce", hex.EncodeToString(want), hex.EncodeToString(report.RequestNonce[:]),
		"the report answers another challenge: it is old, of another index, or of another enclave")
}
