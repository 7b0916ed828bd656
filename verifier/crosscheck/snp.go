package crosscheck

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/internal/check"
	own "github.com/concordat/concordat/verifier/internal/snp"
)

const libSEV = "go-sev-guest v0.15.0"

// SNP asks go-sev-guest about an SEV-SNP report of 1184 bytes. The arguments are
// those of verifier.AppraiseItem, and refs of the item, which may be nil.
//
// Known gaps of v0.15.0: Turin (its certificates' fmcSPL and TCB layout), models
// of Genoa's family that it does not know (Siena, Bergamo), and bits of
// PLATFORM_INFO to come. It reads no revocation lists here, as it could only
// fetch them, it does not look at the provider of a VLEK, and it has no list of
// denied chips.
func SNP(raw []byte, ends *attestation.Endorsements, refs []attestation.Digest, p *policy.Policy, reportData []byte, at time.Time) Outcome {
	quiet()
	rep, err := snp.Parse(raw)
	if err != nil {
		return refused(libSEV, err)
	}
	want := check.Expect{At: at}
	if p != nil {
		want.Simulated = p.Simulated
		if p.Simulated {
			want.Roots = p.SimulatedRoots
		}
	}
	vek, product, cas := own.Certificates(raw, rep, ends, refs, want)
	switch {
	case product == snp.Turin:
		return gap(libSEV, "Turin: it knows neither the fmcSPL extension nor the TCB layout")
	case product == snp.Genoa && rep.Version >= snp.Version3 && rep.CPUID.Model >= 0x20:
		return gap(libSEV, "it does not know this processor: "+rep.CPUID.String())
	case p != nil && rep.PlatformInfo&^knownPlatform != 0:
		return gap(libSEV, "it does not know a bit of PLATFORM_INFO "+rep.PlatformInfo.String())
	case vek == nil:
		return refused(libSEV, errors.New("no certificate of the signing key"))
	}
	theirs, err := abi.ReportToProto(raw)
	if err != nil {
		return refused(libSEV, err)
	}
	att := &spb.Attestation{Report: theirs, CertificateChain: &spb.CertificateChain{}}
	if rep.SignerInfo.Key() == snp.VLEK {
		att.CertificateChain.VlekCert = vek.Raw
	} else {
		att.CertificateChain.VcekCert = vek.Raw
	}
	err = verify.SnpAttestationContext(context.Background(), att, &verify.Options{
		DisableCertFetching: true,
		Now:                 at,
		// Never nil or empty: the library would fall back to roots of its own.
		TrustedRoots: map[string][]*trust.AMDRootCerts{string(product): amdRoots(product, rep.SignerInfo.Key(), cas)},
	})
	if err != nil {
		return refused(libSEV, err)
	}
	if err := validate.SnpAttestation(att, snpOptions(rep, product, p, reportData)); err != nil {
		return refused(libSEV, err)
	}
	return passed(libSEV)
}

// knownPlatform are the bits of PLATFORM_INFO that the library reads.
const knownPlatform = snp.PlatformSMT | snp.PlatformTSME | snp.PlatformECC | snp.PlatformRAPLDisabled |
	snp.PlatformCiphertextHide | snp.PlatformAliasCheck | snp.PlatformTIO

func amdRoots(product snp.Product, key snp.SigningKey, cas []own.CA) []*trust.AMDRootCerts {
	var roots []*trust.AMDRootCerts
	for _, ca := range cas {
		r := trust.AMDRootCertsProduct(string(product))
		r.ProductCerts = &trust.ProductCerts{Ark: ca.Root}
		if key == snp.VLEK {
			r.ProductCerts.Asvk = ca.Signing
		} else {
			r.ProductCerts.Ask = ca.Signing
		}
		roots = append(roots, r)
	}
	return roots
}

// snpOptions writes the policy, or the built-in one, in the library's terms. It
// takes single values where a policy has sets: the report's own if it is in the
// set, else one that is, so that the library refuses.
func snpOptions(rep *snp.Report, product snp.Product, p *policy.Policy, reportData []byte) *validate.Options {
	vmpl := 0
	if p == nil || p.Platforms.SNP == nil {
		o := &validate.Options{
			GuestPolicy: abi.SnpPolicy{SMT: true, CXLAllowed: true}, VMPL: &vmpl,
			PermitProvisionalFirmware: true,
		}
		if len(reportData) > 0 {
			o.ReportData = reportData
		}
		return o
	}
	ref := p.Platforms.SNP
	o := &validate.Options{
		GuestPolicy: abi.SnpPolicy{
			SMT: ref.AllowSMT, CXLAllowed: ref.AllowCXL, SingleSocket: slices.Contains(ref.GuestPolicy, "single-socket"),
			MemAES256XTS: slices.Contains(ref.GuestPolicy, "aes-256-xts"), RAPLDis: slices.Contains(ref.GuestPolicy, "rapl-disabled"),
			CipherTextHidingDRAM: slices.Contains(ref.GuestPolicy, "ciphertext-hiding"), PageSwapDisable: slices.Contains(ref.GuestPolicy, "page-swap-disabled"),
		},
		VMPL:            &vmpl,
		Measurement:     oneOf(ref.Measurements, rep.Measurement[:]),
		MinimumGuestSvn: uint32(ref.MinGuestSVN),
		PlatformInfo:    platformInfo(ref),

		PermitProvisionalFirmware:      ref.AllowProvisional,
		MinimumLaunchMitigationVector:  ref.Mitigations,
		MinimumCurrentMitigationVector: ref.Mitigations,

		// The library wants one of the keys where ours wants both.
		RequireIDBlock:         len(ref.IDKeys)+len(ref.AuthorKeys) > 0,
		RequireAuthorKey:       len(ref.AuthorKeys) > 0,
		TrustedIDKeyHashes:     digests(ref.IDKeys),
		TrustedAuthorKeyHashes: digests(ref.AuthorKeys),
	}
	if len(reportData) > 0 {
		o.ReportData = reportData
	}
	if !ref.AnyChip {
		o.ChipID = oneOf(ref.Chips, rep.ChipID[:])
	}
	if fed := p.FederationID(); ref.HostData || rep.HostData != [32]byte{} {
		o.HostData = fed[:]
	}
	for _, m := range ref.MinTCB {
		if m.Product == string(product) {
			min := kds.TCBParts{BlSpl: m.BootLoader, TeeSpl: m.TEE, SnpSpl: m.SNP, UcodeSpl: m.Microcode}
			o.MinimumTCB, o.MinimumLaunchTCB = min, min
		}
	}
	return o
}

// platformInfo says what the library may find: its flags are a maximum of the
// first kind and a minimum of the second.
func platformInfo(ref *policy.SNP) *abi.SnpPlatformInfo {
	may := func(word string) bool { return !slices.Contains(ref.PlatformForbidden, word) }
	must := func(word string) bool { return slices.Contains(ref.PlatformRequired, word) }
	return &abi.SnpPlatformInfo{
		SMTEnabled: may("smt"), TSMEEnabled: may("tsme"), TIOEnabled: may("tio"),
		ECCEnabled: must("ecc"), RAPLDisabled: must("rapl-disabled"), CiphertextHidingDRAMEnabled: must("ciphertext-hiding"),
		AliasCheckComplete: !ref.AllowUncheckedAlias,
	}
}

func digests(set []policy.Hex) [][]byte {
	var out [][]byte
	for _, h := range set {
		out = append(out, h)
	}
	return out
}

// oneOf returns v if it is in set, else a member of the set.
func oneOf(set []policy.Hex, v []byte) []byte {
	for _, h := range set {
		if bytes.Equal(h, v) {
			return v
		}
	}
	if len(set) == 0 {
		// Not nil, which the library reads as "unchecked": nothing equals it.
		return bytes.Repeat([]byte{0xFF}, len(v))
	}
	return set[0]
}
