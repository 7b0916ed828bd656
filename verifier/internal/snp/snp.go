// Package snp decides about AMD SEV-SNP attestation reports: is this the report
// of a genuine chip, and is the guest one that the policy accepts. Start with
// [Appraise].
//
// The certificate chain VCEK → ASK → ARK ends in a root that is compiled in by
// the digest of its key (Milan, Genoa, Turin), or in the root
// of a simulator. Every line of the appraisal checklist is one named check.
//
// Three rules go beyond the fields of the policy, because nothing in it could
// allow the contrary: provisional firmware (COMMITTED below CURRENT) and CXL
// memory are refused, and the launch TCB must reach the minimum too: a guest
// that was started under older firmware does not become trustworthy by an
// update below it.
//
// A report that a VLEK signed names no chip, and mitigation vectors (report
// version 5) have no place in the policy yet: both are checked for authenticity,
// and are unsupported where a policy has to accept them.
package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
)

// Appraise records every check of one report; package check says how. raw is
// the report of 1184 bytes alone, without a certificate table.
func Appraise(raw []byte, ends *attestation.Endorsements, refs []attestation.Digest, p *policy.Policy, want check.Expect, r *check.Recorder) {
	rep, err := snp.Parse(raw)
	switch {
	case errors.Is(err, snp.ErrVersion):
		r.Unsupported("version", err.Error(), "this verifier knows report versions 2, 3 and 5")
		return
	case err != nil:
		r.Fail("format", "an SEV-SNP attestation report", err.Error(), "")
		return
	}
	r.Pass("format", "")
	var ref *policy.SNP
	if p != nil {
		ref = p.Platforms.SNP
		if ref == nil {
			r.Fail("platform", "a platform of the policy", "AMD SEV-SNP", "the policy does not accept this platform")
			return
		}
	}
	checkVersion(rep, ref, r)
	s, product, ok := authenticate(raw, rep, ends, refs, p, &want, r)
	if !ok {
		return
	}
	checkTCB(rep, product, s, ref, r)
	checkGuest(rep, ref, &want, r)
	checkPlatform(rep, product, ref, r)
	checkReportData(rep, &want, r)
}

func checkVersion(rep *snp.Report, ref *policy.SNP, r *check.Recorder) {
	got := fmt.Sprint(rep.Version)
	if ref == nil {
		r.Pass("version", got)
		return
	}
	r.That(uint64(rep.Version) >= ref.MinVersion, "version", fmt.Sprintf("at least %d", ref.MinVersion), got,
		"update the firmware of the host")
}

// authenticate checks the chain and the signature. It returns false if the
// product line stays unknown; a nil signer means that there is no certificate,
// which it recorded.
func authenticate(raw []byte, rep *snp.Report, ends *attestation.Endorsements, refs []attestation.Digest, p *policy.Policy, want *check.Expect, r *check.Recorder) (*signer, snp.Product, bool) {
	r.That(rep.SignatureAlgorithm == snp.ECDSAP384SHA384, "signature-algorithm",
		"1 (ECDSA P-384 with SHA-384)", fmt.Sprint(uint32(rep.SignatureAlgorithm)), "")
	key := rep.SignerInfo.Key()
	switch {
	case key == snp.VCEK:
		r.Pass("signer", key.String())
	case key == snp.VLEK && p == nil:
		r.Pass("signer", key.String())
	case key == snp.VLEK:
		r.Unsupported("signer", key.String(), "a key of the cloud provider names no chip: run on a host that signs with its VCEK")
	default:
		r.Fail("signer", "VCEK", key.String(), "the report is not signed by the hardware")
		return nil, "", false
	}
	s, err := findSigner(certsOf(ends, refs, key), rep)
	product, known := productOf(rep, s)
	if !known {
		switch {
		case rep.Version >= snp.Version3:
			r.Unsupported("product", rep.CPUID.String(), "this verifier does not know this processor")
		case s != nil:
			r.Unsupported("product", string(s.ext.product), "this verifier does not know this product line")
		default:
			recordNoSigner(key, err, r)
		}
		return nil, "", false
	}
	checkProduct(rep, product, s, p, r)
	if s == nil {
		recordNoSigner(key, err, r)
		return nil, product, true
	}
	r.Pass("certificate", s.cert.Subject.CommonName+" of "+s.cert.NotBefore.UTC().Format("2006-01-02"))

	chains := ends.ByType(attestation.TypeAMDChain, refs)
	if err := s.findChain(chains, key, product, want); err != nil {
		r.Fail("chain", "a chain to the accepted root of "+string(product), err.Error(),
			"a certificate from elsewhere, or a root that this federation does not accept")
		return s, product, true
	}
	r.Pass("chain", s.ark.Subject.CommonName+" "+check.SPKI(s.ark).Short())
	if c := s.outOfDate(want.At); c != nil {
		r.Fail("validity", "every certificate valid at "+stamp(want.At),
			fmt.Sprintf("%s valid from %s to %s", c.Subject.CommonName, stamp(c.NotBefore), stamp(c.NotAfter)),
			"fetch a current certificate, or judge the evidence at the time of its making")
	} else {
		r.Pass("validity", "until "+stamp(s.cert.NotAfter))
	}
	checkRevocation(ends.ByType(attestation.TypeAMDCRL, refs), s, p, want, r)
	checkIdentity(rep, product, s, p == nil, r)
	if r.That(rep.SignatureAlgorithm == snp.ECDSAP384SHA384 && s.checkReport(raw, rep), "signature",
		"the report signed by the certificate's key", signatureText(rep), "the report was changed, or belongs to another certificate") {
		r.Authentic()
	}
	return s, product, true
}

func recordNoSigner(key snp.SigningKey, err error, r *check.Recorder) {
	want := "the certificate of the " + key.String() + " that signed the report"
	if err != nil {
		r.Fail("certificate", want, err.Error(), "")
		return
	}
	r.Missing("certificate", want, "fetch it from AMD's key distribution service, by chip id and reported TCB")
}

// productOf returns the product line: from the report where it says it, else
// from the certificate (version 2).
func productOf(rep *snp.Report, s *signer) (snp.Product, bool) {
	if rep.Version >= snp.Version3 {
		return rep.CPUID.Product()
	}
	if s == nil {
		return "", false
	}
	_, ok := arks[s.ext.product]
	return s.ext.product, ok
}

func checkProduct(rep *snp.Report, product snp.Product, s *signer, p *policy.Policy, r *check.Recorder) {
	if s != nil && s.ext.product != product {
		r.Fail("product", "certificate and processor of one product line",
			fmt.Sprintf("certificate of %.20q, processor %s (%s)", string(s.ext.product), product, rep.CPUID), "")
		return
	}
	if p == nil {
		r.Pass("product", string(product))
		return
	}
	r.That(slices.Contains(p.Platforms.SNP.Products, string(product)), "product",
		fmt.Sprintf("one of %v", p.Platforms.SNP.Products), string(product), "the policy does not accept this generation of processors")
}

// checkIdentity compares what the certificate says with what the report says.
func checkIdentity(rep *snp.Report, product snp.Product, s *signer, lenient bool, r *check.Recorder) {
	if s.ext.hwID != nil {
		got := chipID(rep, product)
		switch masked := rep.ChipID == [64]byte{}; {
		case masked && lenient:
			r.NotChecked("certificate-chip", "the host masks CHIP_ID")
		case masked:
			r.Fail("certificate-chip", short(s.ext.hwID), "masked", "the host must not mask CHIP_ID")
		default:
			r.That(bytes.Equal(s.ext.hwID, got), "certificate-chip", short(s.ext.hwID), short(got), "the certificate is of another chip")
		}
	} else {
		r.That(rep.SignerInfo.Key() == snp.VLEK && s.ext.csp != "", "certificate-chip",
			"a chip id, or a VLEK of a provider", fmt.Sprintf("provider %.80q", s.ext.csp), "")
	}
	tcb, err := rep.ReportedTCB.Decode(product)
	if err != nil {
		r.Fail("certificate-tcb", s.ext.tcb.String(), err.Error(), "")
		return
	}
	r.That(tcb == s.ext.tcb, "certificate-tcb", s.ext.tcb.String(), tcb.String(),
		"fetch the certificate for the TCB that the report names")
}

func signatureText(rep *snp.Report) string { return "r " + short(rep.R[:]) + " s " + short(rep.S[:]) }

func checkReportData(rep *snp.Report, want *check.Expect, r *check.Recorder) {
	if len(want.ReportData) == 0 {
		r.NotChecked("report-data", "no claims were given to compare it with")
		return
	}
	r.That(bytes.Equal(rep.ReportData[:], want.ReportData), "report-data",
		hex.EncodeToString(want.ReportData), hex.EncodeToString(rep.ReportData[:]), "the evidence does not belong to these claims")
}

func verifyP384(k *ecdsa.PublicKey, msg, r, s []byte) bool {
	h := sha512.Sum384(msg)
	return ecdsa.Verify(k, h[:], new(big.Int).SetBytes(r), new(big.Int).SetBytes(s))
}
