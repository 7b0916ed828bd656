// Package snp decides about AMD SEV-SNP attestation reports: is this the report
// of a genuine chip, and is the guest one that the policy accepts. Start with
// [Appraise].
//
// The certificate chain VCEK → ASK → ARK, or VLEK → ASVK → ARK, ends in a root
// that is compiled in by the digest of its key (Milan, Genoa, Turin), or in the
// root of a simulator. Every line of the appraisal checklist is one named check;
// docs/attestation-snp.md says what each is for.
//
// Some rules are not for a policy to lift: no debugging, no migration, VMPL 0,
// and the launch and committed TCB must reach the minimum too. A guest that was
// started under older firmware does not become trustworthy by an update below
// it, and firmware that the host can go back to counts as running.
package snp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
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
		r.Unsupported("version", err.Error(), "this verifier knows report versions 2, 3 and 5: update it, if the firmware is newer")
		return
	case err != nil:
		r.Fail("format", "an SEV-SNP attestation report", err.Error(), "the report was cut, changed, or is something else: collect it anew")
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
	product, ok := authenticate(raw, rep, ends, refs, p, &want, r)
	if !ok {
		return
	}
	checkTCB(rep, product, ref, r)
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
// product line stays unknown.
func authenticate(raw []byte, rep *snp.Report, ends *attestation.Endorsements, refs []attestation.Digest, p *policy.Policy, want *check.Expect, r *check.Recorder) (snp.Product, bool) {
	r.That(rep.SignatureAlgorithm == snp.ECDSAP384SHA384, "signature-algorithm",
		"1 (ECDSA P-384 with SHA-384)", fmt.Sprint(uint32(rep.SignatureAlgorithm)), "no other algorithm is defined: collect the report anew")
	if !checkSigner(rep, p, r) {
		return "", false
	}
	key := rep.SignerInfo.Key()
	s, err := findSigner(certsOf(ends, refs, key), raw, rep)
	product, known := productOf(rep, s)
	if !known {
		switch {
		case rep.Version >= snp.Version3:
			r.Unsupported("product", rep.CPUID.String(), "this verifier does not know this processor: update it")
		case s != nil:
			r.Unsupported("product", string(s.ext.product), "this verifier does not know this product line: update it")
		default:
			recordNoSigner(key, "", rep, err, r)
		}
		return "", false
	}
	checkProduct(rep, product, s, p, r)
	if s == nil {
		recordNoSigner(key, product, rep, err, r)
		return product, true
	}
	r.Pass("certificate", s.cert.Subject.CommonName+" of "+s.cert.NotBefore.UTC().Format("2006-01-02"))
	if err := s.ext.checkStructure(); err != nil {
		r.Unsupported("certificate-version", err.Error(), "this verifier knows structures 0 and 1, and 1 alone of Turin: update it")
	} else {
		r.Pass("certificate-version", fmt.Sprint(s.ext.version))
	}
	if err := s.findChain(ends.ByType(attestation.TypeAMDChain, refs), key, product, want); err != nil {
		r.Fail("chain", "a chain to the accepted root of "+string(product), err.Error(),
			"a certificate from elsewhere, or a root that this federation does not accept: AMD's own are at "+product.ChainURL(key))
		return product, true
	}
	r.Pass("chain", s.ark.Subject.CommonName+" "+check.SPKI(s.ark).Short())
	checkValidity(s, key, want, r)
	checkRevocation(ends.ByType(attestation.TypeAMDCRL, refs), s, key, product, p, want, r)
	checkProvider(s, key, p, r)
	checkIdentity(rep, product, s, p == nil, r)
	if r.That(rep.SignatureAlgorithm == snp.ECDSAP384SHA384 && s.signed(raw, rep), "signature",
		"the report signed by the certificate's key", "r "+short(rep.R[:])+" s "+short(rep.S[:]),
		"the report was changed, or belongs to another certificate: fetch the one for its chip and TCB") {
		r.Authentic()
	}
	return product, true
}

// checkSigner checks which kind of key signed. It returns false for one that has
// no certificate.
func checkSigner(rep *snp.Report, p *policy.Policy, r *check.Recorder) bool {
	const name = "signer"
	key := rep.SignerInfo.Key()
	switch {
	case key == snp.Unsigned || rep.SignerInfo.Has(snp.SignerMaskChipKey):
		r.Fail(name, "VCEK or VLEK", "none", "the firmware signed nothing: have the host give its key to reports (MASK_CHIP_KEY off)")
		return false
	case key != snp.VCEK && key != snp.VLEK:
		r.Unsupported(name, key.String(), "this verifier does not know this kind of key: update it")
		return false
	case key == snp.VLEK && p != nil && len(p.Platforms.SNP.Providers) == 0:
		r.Fail(name, "VCEK", key.String(),
			"the policy accepts keys of chips alone: run on a host that signs with its VCEK, or have the members add the provider to providers")
	default:
		r.Pass(name, key.String())
	}
	return true
}

// checkProvider records whose VLEK signed; a VCEK has no provider.
func checkProvider(s *signer, key snp.SigningKey, p *policy.Policy, r *check.Recorder) {
	const name = "provider"
	got := fmt.Sprintf("%.80q", s.ext.csp)
	switch {
	case key != snp.VLEK:
		r.NotChecked(name, "the key is of a chip")
	case p == nil:
		r.NotChecked(name, "any provider is accepted; the certificate says "+got)
	default:
		r.That(slices.Contains(p.Platforms.SNP.Providers, s.ext.csp), name, fmt.Sprintf("one of %q", p.Platforms.SNP.Providers), got,
			"the policy does not accept this provider, or this region of it")
	}
}

func recordNoSigner(key snp.SigningKey, product snp.Product, rep *snp.Report, err error, r *check.Recorder) {
	want := "the certificate of the " + key.String() + " that signed the report"
	if err != nil {
		r.Fail("certificate", want, err.Error(), "what was given as the certificate is none: fetch it anew")
		return
	}
	advice := "fetch it from AMD's key distribution service, by chip id and reported TCB"
	if key == snp.VLEK {
		advice = "the provider gives it to its guests, beside the report: collect both"
	} else if tcb, err := rep.ReportedTCB.Decode(product); err == nil && !masked(rep) {
		advice = "fetch it from " + product.VCEKURL(chipID(rep, product), tcb)
	}
	r.Missing("certificate", want, advice)
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
			fmt.Sprintf("certificate of %.20q, processor %s (%s)", string(s.ext.product), product, rep.CPUID), "the certificate is of another machine: fetch this one's")
		return
	}
	if p == nil {
		r.Pass("product", string(product))
		return
	}
	r.That(slices.Contains(p.Platforms.SNP.Products, string(product)), "product",
		fmt.Sprintf("one of %v", p.Platforms.SNP.Products), string(product), "the policy does not accept this generation of processors")
}

func checkValidity(s *signer, key snp.SigningKey, want *check.Expect, r *check.Recorder) {
	c := s.outOfDate(want.At)
	if c == nil {
		r.Pass("validity", "until "+stamp(s.cert.NotAfter))
		return
	}
	advice := "fetch a current certificate, or judge the evidence at the time of its making"
	if key == snp.VLEK {
		advice = "the provider must load a current VLEK (they last a year), or judge the evidence at the time of its making"
	}
	r.Fail("validity", "every certificate valid at "+stamp(want.At),
		fmt.Sprintf("%s valid from %s to %s", c.Subject.CommonName, stamp(c.NotBefore), stamp(c.NotAfter)), advice)
}

// checkIdentity compares what the certificate says with what the report says.
func checkIdentity(rep *snp.Report, product snp.Product, s *signer, lenient bool, r *check.Recorder) {
	const name = "certificate-chip"
	switch got := chipID(rep, product); {
	case s.ext.hwID == nil:
		r.NotChecked(name, "a VLEK names no chip")
	case masked(rep) && lenient:
		r.NotChecked(name, "the host masks CHIP_ID; the certificate is of "+short(s.ext.hwID))
	case masked(rep):
		r.Fail(name, short(s.ext.hwID), "masked", "have the host show its CHIP_ID (MASK_CHIP_ID off)")
	default:
		r.That(bytes.Equal(s.ext.hwID, got), name, short(s.ext.hwID), short(got), "the certificate is of another chip: fetch this one's")
	}
	tcb, err := rep.ReportedTCB.Decode(product)
	if err != nil {
		r.Fail("certificate-tcb", s.ext.tcb.String(), err.Error(), "the report is of another product line than its certificate")
		return
	}
	r.That(tcb == s.ext.tcb, "certificate-tcb", s.ext.tcb.String(), tcb.String(),
		"fetch the certificate for the TCB that the report names")
}

func checkReportData(rep *snp.Report, want *check.Expect, r *check.Recorder) {
	if len(want.ReportData) == 0 {
		r.NotChecked("report-data", "no claims were given to compare it with")
		return
	}
	r.That(bytes.Equal(rep.ReportData[:], want.ReportData), "report-data",
		hex.EncodeToString(want.ReportData), hex.EncodeToString(rep.ReportData[:]),
		"the evidence does not belong to these claims: collect it anew for this nonce; if that does not help, somebody answers for another enclave")
}
