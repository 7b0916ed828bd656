package tdx

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/verifier/internal/check"
)

// intelRoots is SHA-256 of the SubjectPublicKeyInfo of "Intel SGX Root CA",
// serial 22650cd65a9d3489f383b49552bf501b392706ac, valid 2018 to 2049: the
// certificate at
// https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.pem,
// which every PCK chain ends in.
var intelRoots = []attestation.Digest{{
	0xa0, 0xaf, 0x03, 0x12, 0x89, 0xf5, 0xd5, 0xd4, 0x13, 0x2f, 0x91, 0x86, 0x06, 0x8a, 0x7f, 0xc1,
	0x36, 0x28, 0x63, 0x3b, 0xa2, 0x35, 0x77, 0x74, 0x72, 0xe2, 0x9b, 0x6b, 0x6c, 0x67, 0xa4, 0x9e,
}}

// Roots returns the compiled-in roots of real appraisals, by the SHA-256 of their
// SubjectPublicKeyInfo.
func Roots() []attestation.Digest { return slices.Clone(intelRoots) }

// The names in Intel's certificates (PCK Certificate Profile 1.3.2 to 1.3.4).
// They accept nothing by themselves: they keep a certificate that the root
// issued for one purpose from being used for another.
const (
	nameRoot   = "Intel SGX Root CA"
	nameCA     = "Intel SGX PCK Platform CA" // the Processor CA issues for machines without TDX
	namePCK    = "Intel SGX PCK Certificate"
	nameSigner = "Intel SGX TCB Signing"
)

// chain is the PCK certificate with its issuers. All are nil if it could not be
// read.
type chain struct{ leaf, ca, root *x509.Certificate }

func (j *judge) chain() bool {
	const name, expected = "pck-chain", "PCK certificate, Platform CA, accepted root"
	certs, err := j.parsed.pem(j.quote.Chain, 3)
	if err != nil {
		j.r.Fail(name, expected, err.Error(), "the quote must carry its PCK chain (certification data type 5): configure the platform's PCCS so that the quoting enclave finds it")
		j.skip("no PCK chain", "pck-validity", "sgx-extension")
		return false
	}
	j.pck = chain{certs[0], certs[1], certs[2]}
	ok := true
	if err := j.trusted(named{j.pck.root, nameRoot}, named{j.pck.ca, nameCA}, named{j.pck.leaf, namePCK}); err != nil {
		advice := "the quote was not made by a machine whose keys Intel certified"
		if j.want.Simulated {
			advice = "the quote was not made by a machine of the simulated vendor that the policy names"
		}
		j.r.Fail(name, expected, err.Error(), advice)
		ok = false
	} else {
		j.r.Pass(name, fmt.Sprintf("%s, root %s", namePCK, check.SPKI(j.pck.root).Short()))
	}
	bad := lifetime(j.want.At, certs...)
	j.r.That(bad == "", "pck-validity", "valid at "+stamp(j.want.At), or(bad, "valid until "+day(j.pck.leaf.NotAfter)), "the platform must be provisioned with a new PCK certificate")
	for _, e := range j.pck.leaf.Extensions {
		if !e.Id.Equal(tdx.OIDSGX) {
			continue
		}
		if j.sgx, err = tdx.ParseSGXExtension(e.Value); err != nil {
			j.r.Fail("sgx-extension", "FMSPC, PCEID and TCB of the platform", err.Error(), "the PCK certificate is not in Intel's format")
			return false
		}
		j.r.Pass("sgx-extension", fmt.Sprintf("FMSPC %x, PCEID %x, PCESVN %d", j.sgx.FMSPC, j.sgx.PCEID, j.sgx.PCESVN))
		return ok
	}
	j.r.Fail("sgx-extension", "FMSPC, PCEID and TCB of the platform", "no extension "+tdx.OIDSGX.String(), "the leaf is not a PCK certificate")
	return false
}

// named is a certificate and the common name that it must have.
type named struct {
	*x509.Certificate
	name string
}

// trusted checks a chain from the root down: an accepted root that signs itself,
// every other one issued by the one before, all with P-256 keys, all or none
// marked as simulated.
func (j *judge) trusted(certs ...named) error {
	parent := certs[0].Certificate
	if !j.want.Accepts(parent, intelRoots) {
		return fmt.Errorf("%.80q with key %s is not an accepted root", parent.Subject.CommonName, check.SPKI(parent).Short())
	}
	for i, c := range certs {
		if c.Subject.CommonName != c.name {
			return fmt.Errorf("certificate %.80q, want %q", c.Subject.CommonName, c.name)
		}
		if err := check.CheckMark(c.Certificate, j.want.Simulated); err != nil {
			return err
		}
		if err := issued(c.Certificate, parent); err != nil {
			return fmt.Errorf("certificate %q: %w", c.name, err)
		}
		if leaf := i == len(certs)-1; c.IsCA == leaf {
			return fmt.Errorf("certificate %q: CA is %t", c.name, c.IsCA)
		}
		parent = c.Certificate
	}
	return nil
}

// issued reports whether parent signed c. Path lengths need no look: the chains
// here have fixed shapes.
func issued(c, parent *x509.Certificate) error {
	if !bytes.Equal(c.RawIssuer, parent.RawSubject) {
		return fmt.Errorf("issued by %.80q, not by %.80q", c.Issuer.CommonName, parent.Subject.CommonName)
	}
	if k, ok := c.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return errors.New("key is not on P-256")
	}
	if len(c.UnhandledCriticalExtensions) != 0 {
		return fmt.Errorf("unknown critical extension %v", c.UnhandledCriticalExtensions[0])
	}
	if err := check.Signed(c.Raw, parent, func() error { return c.CheckSignatureFrom(parent) }); err != nil {
		return fmt.Errorf("not signed by %q: %w", parent.Subject.CommonName, err)
	}
	return nil
}

// certificates are those that were parsed, by their DER: a quote and its collateral name
// some of them two or three times.
type certificates map[string]*x509.Certificate

// pem reads exactly n certificates. Quoting enclaves put a NUL after the last.
func (all certificates) pem(b []byte, n int) ([]*x509.Certificate, error) {
	b = bytes.TrimSuffix(b, []byte{0})
	var out []*x509.Certificate
	for len(bytes.TrimSpace(b)) > 0 {
		p, rest := pem.Decode(b)
		if p == nil || p.Type != "CERTIFICATE" {
			return nil, errors.New("not a chain of PEM certificates")
		}
		if len(out) == n {
			return nil, fmt.Errorf("more than %d certificates", n)
		}
		c := all[string(p.Bytes)]
		if c == nil {
			var err error
			if c, err = x509.ParseCertificate(p.Bytes); err != nil {
				return nil, fmt.Errorf("certificate %d: %w", len(out), err)
			}
			all[string(p.Bytes)] = c
		}
		out, b = append(out, c), rest
	}
	if len(out) != n {
		return nil, fmt.Errorf("%d certificates, want %d", len(out), n)
	}
	return out, nil
}

// signatures checks what leads from the PCK key to the TD's report.
func (j *judge) signatures() bool {
	q := j.quote
	ok := true
	if j.pck.leaf == nil {
		j.skip("no PCK certificate", "qe-report-signature")
		ok = false
	} else {
		ok = j.r.That(verify(j.pck.leaf.PublicKey, q.QEReport.Marshal(), q.QESignature), "qe-report-signature", "the PCK key's signature over the QE report", "",
			"the quoting enclave's report was altered, or made on another machine")
	}
	sum := sha256.Sum256(append(q.AttestationKey[:len(q.AttestationKey):len(q.AttestationKey)], q.AuthData...))
	want := [64]byte(append(sum[:], make([]byte, 32)...))
	ok = j.r.That(q.QEReport.ReportData == want, "qe-report-data", fmt.Sprintf("%x", sum), fmt.Sprintf("%x", q.QEReport.ReportData[:32]),
		"the quoting enclave does not vouch for the key that signed the quote") && ok
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, q.AttestationKey[:]...))
	if err != nil {
		j.r.Fail("td-signature", "a signature under the attestation key", "the attestation key is not a point on P-256", "the quote was altered")
		return false
	}
	return j.r.That(verify(key, q.Signed(), q.Signature), "td-signature", "the attestation key's signature over header and TD report", "", "the quote was altered after it was signed") && ok
}

// verify checks a raw r‖s signature by an ECDSA P-256 key over SHA-256(msg).
func verify(key any, msg []byte, sig [64]byte) bool {
	k, ok := key.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return false
	}
	sum := sha256.Sum256(msg)
	return ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
