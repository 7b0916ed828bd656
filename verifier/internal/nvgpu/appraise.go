// Package nvgpu judges the attestation reports of NVIDIA GPUs and NVLink switches:
// signature, certificate chain to NVIDIA's root, revocation by stapled OCSP
// responses, measurements by sets that a policy pins or by NVIDIA's signed
// reference manifests, and what the policy says about versions, modes and devices.
// Start with [NewSet] for the GPUs of a machine, or [Appraise] for one report.
//
// It cannot see whether confidential mode is on; only the driver inside the
// measured guest knows.
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

// Appraise judges one report by itself, as [Set.Appraise] does.
func Appraise(raw []byte, ends *attestation.Endorsements, refs []attestation.Digest, p *policy.Policy, want check.Expect, r *check.Recorder) {
	NewSet(ends, p).Appraise(raw, refs, want, r)
}

// device is one report with what vouches for it, while it is judged.
type device struct {
	report *nvgpu.Report
	chain  []*x509.Certificate
	chip   chip // set by checkArchitecture
	refs   []attestation.Digest
	want   check.Expect
	r      *check.Recorder
}

// ueid is the serial number of the device's certificate.
func (d *device) ueid() []byte { return d.chain[own].SerialNumber.Bytes() }

// Appraise judges one report. want.ReportData is the nonce of 32 bytes that the
// device had to answer; the rest of want must be the same for every report of the
// set. The report's chain is found among the endorsements as the one whose leaf
// signed the report, those that refs names first.
func (s *Set) Appraise(raw []byte, refs []attestation.Digest, want check.Expect, r *check.Recorder) {
	d := s.authenticate(raw, refs, want, r)
	if d == nil {
		s.members = append(s.members, nil)
		return
	}
	if r.IsAuthentic() {
		s.members = append(s.members, d)
	} else {
		s.members = append(s.members, nil)
	}
	checkFirmware(d.chain, d.report, r)
	s.checkRevocation(d)
	s.checkReference(d)
}

// authenticate finds out who signed, and returns nil if nobody did.
func (s *Set) authenticate(raw []byte, refs []attestation.Digest, want check.Expect, r *check.Recorder) *device {
	if s.p != nil && s.p.Platforms.GPU == nil {
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

	docs := s.ends.ByType(attestation.TypeNVIDIAChain, refs)
	if len(docs) == 0 {
		r.Missing("chain", "the GPU's certificate chain", "add the chain that NVML's GetConfComputeGpuCertificate returns")
		return nil
	}
	chain, key, err := findChain(docs, raw)
	if err != nil {
		r.Fail("signature", "a signature by the leaf of a given chain", err.Error(), "the report was changed, or its chain was not given")
		return nil
	}
	r.Pass("signature", fmt.Sprintf("by %q", chain[leaf].Subject.CommonName))
	if err := s.verifyChain(chain, deviceRoots, &want); err != nil {
		r.Fail("chain", "a chain to an accepted root", err.Error(), "only devices whose chain reaches NVIDIA's Device Identity CA are genuine")
	} else {
		goodChains.Put(key, chain)
		r.Pass("chain", fmt.Sprintf("to %q", chain[root].Subject.CommonName))
		r.Authentic()
	}
	return &device{report: report, chain: chain, refs: refs, want: want, r: r}
}

// goodChains remembers chains that led to an accepted root: one a device and boot.
var goodChains = check.NewMemory[[]*x509.Certificate](1 << 10)

// findChain returns the first chain whose leaf signed raw, a report that parses, with the
// chain's key in goodChains. The error is that of the first document.
func findChain(docs [][]byte, raw []byte) ([]*x509.Certificate, [32]byte, error) {
	const most = 32 // chains to try, one P-384 verification each; a machine has at most 16 GPUs
	cut := len(raw) - nvgpu.SignatureSize
	digest := sha512.Sum384(raw[:cut])
	rInt, sInt := new(big.Int).SetBytes(raw[cut:cut+48]), new(big.Int).SetBytes(raw[cut+48:])
	var first error
	for _, d := range docs[:min(len(docs), most)] {
		var err error
		key := check.Key(d)
		chain, ok := goodChains.Get(key)
		if !ok {
			chain, err = parseChain(d)
		}
		if err == nil {
			if ecdsa.Verify(chain[leaf].PublicKey.(*ecdsa.PublicKey), digest[:], rInt, sInt) {
				return chain, key, nil
			}
			err = fmt.Errorf("the leaf %q did not sign this report", chain[leaf].Subject.CommonName)
		}
		if first == nil {
			first = err
		}
	}
	return nil, [32]byte{}, first
}

func checkNonce(report *nvgpu.Report, want []byte, r *check.Recorder) {
	if len(want) == 0 {
		r.NotChecked("nonce", "no nonce was given: the report may be a recording")
		return
	}
	r.That(bytes.Equal(want, report.RequestNonce[:]), "nonce", hex.EncodeToString(want), hex.EncodeToString(report.RequestNonce[:]),
		"the report answers another challenge: it is old, of another index, or of another enclave")
}
