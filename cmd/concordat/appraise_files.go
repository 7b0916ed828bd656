package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/verifier"
)

// endorsementFiles are the vendor documents that the command line names. A file
// that cannot be read is a usage error; one that does not hold what it should is a
// failed check, so that nothing that was given is left out silently.
type endorsementFiles struct {
	set    *attestation.Endorsements
	checks []verifier.Check
	bad    bool
	certs  []*x509.Certificate // that came with the evidence
}

func (e *endorsementFiles) read(f *appraiseFlags) error {
	e.set = new(attestation.Endorsements)
	certs := e.certs
	for _, name := range f.certs {
		b, err := readFile(name, attestation.MaxEndorsement)
		if err != nil {
			return usage(err)
		}
		more, err := parseCertificates(b)
		if err != nil {
			e.refuse("cert", "certificates in PEM or DER", name, err)
		}
		certs = append(certs, more...)
	}
	certs = distinctCertificates(certs)
	switch f.platform {
	case "snp", "tpm":
		e.amd(certs)
	case "nvidia":
		e.nvidia(certs)
	default:
		e.unused(certs, "such evidence carries its own certificates")
	}
	for _, name := range f.crls {
		b, err := readFile(name, attestation.MaxEndorsement)
		if err != nil {
			return usage(err)
		}
		der, err := parseList(b)
		if err != nil {
			e.refuse("crl", "a revocation list in PEM or DER", name, err)
			continue
		}
		e.add("crl", name, attestation.TypeAMDCRL, der)
	}
	// The verifier parses these itself.
	for _, name := range f.sets {
		if err := addSet(e.set, name); err != nil {
			return usage(err)
		}
	}
	for _, name := range f.ocsp {
		b, err := readFile(name, attestation.MaxEndorsement)
		if err != nil {
			return usage(err)
		}
		e.add("ocsp", name, attestation.TypeNVIDIAOCSP, b)
	}
	for _, name := range f.logs {
		b, err := readFile(name, attestation.MaxEventLog)
		if err != nil {
			return usage(err)
		}
		e.add("event-log", name, attestation.TypeEventLog, b)
	}
	if f.collateral != "" {
		b, err := readFile(f.collateral, attestation.MaxEndorsement)
		if err != nil {
			return usage(err)
		}
		e.add("collateral", f.collateral, attestation.TypeIntelCollateral, b)
	}
	return nil
}

func (e *endorsementFiles) refuse(check, want, name string, err error) {
	e.bad = true
	e.checks = append(e.checks, verifier.Check{Name: "input." + check, Verdict: verifier.Fail, Expected: want, Got: fmt.Sprintf("%s: %v", name, err)})
}

func (e *endorsementFiles) add(check, name, typ string, data []byte) {
	if _, err := e.set.Add(attestation.Endorsement{Type: typ, Data: data}); err != nil {
		e.refuse(check, "a document within the limits", name, err)
	}
}

func (e *endorsementFiles) unused(certs []*x509.Certificate, why string) {
	for _, c := range certs {
		e.checks = append(e.checks, verifier.Check{Name: "input.cert", Verdict: verifier.NotChecked, Got: certificateName(c), Advice: "not used: " + why})
	}
}

// amd sorts certificates by the names that AMD gives them (57230, chapter 3):
// SEV-VCEK and SEV-VLEK are of the signing keys; above them stand an ASK or ASVK
// and its ARK, which belong together.
func (e *endorsementFiles) amd(certs []*x509.Certificate) {
	used := map[*x509.Certificate]bool{}
	for _, c := range certs {
		switch c.Subject.CommonName {
		case "SEV-VCEK":
			e.add("cert", certificateName(c), attestation.TypeAMDVCEK, c.Raw)
			used[c] = true
		case "SEV-VLEK":
			e.add("cert", certificateName(c), attestation.TypeAMDVLEK, c.Raw)
			used[c] = true
		}
	}
	for _, ask := range certs {
		if used[ask] || selfIssued(ask) {
			continue
		}
		for _, ark := range certs {
			if selfIssued(ark) && bytes.Equal(ask.RawIssuer, ark.RawSubject) {
				e.add("cert", certificateName(ask), attestation.TypeAMDChain, certificatesPEM(ask, ark))
				used[ask], used[ark] = true, true
			}
		}
	}
	for _, c := range certs {
		if !used[c] {
			e.unused([]*x509.Certificate{c}, "neither VCEK nor VLEK, nor an ASK with its ARK")
		}
	}
}

// nvidia makes a chain, leaf first, of every certificate that issued no other.
func (e *endorsementFiles) nvidia(certs []*x509.Certificate) {
	issues := func(above, below *x509.Certificate) bool {
		return above != below && bytes.Equal(above.RawSubject, below.RawIssuer)
	}
	used := map[*x509.Certificate]bool{}
	for _, leaf := range certs {
		if selfIssued(leaf) || slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return issues(leaf, c) }) {
			continue
		}
		chain := []*x509.Certificate{leaf}
		for last := leaf; !selfIssued(last) && len(chain) <= len(certs); {
			i := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return issues(c, last) })
			if i < 0 {
				break
			}
			last = certs[i]
			chain = append(chain, last)
		}
		for _, c := range chain {
			used[c] = true
		}
		e.add("cert", certificateName(leaf), attestation.TypeNVIDIAChain, certificatesPEM(chain...))
	}
	for _, c := range certs {
		if !used[c] {
			e.unused([]*x509.Certificate{c}, "above no other certificate")
		}
	}
}

// selfIssued reports whether c names itself as its issuer, as roots do.
func selfIssued(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, c.RawIssuer) }

func certificateName(c *x509.Certificate) string { return fmt.Sprintf("%.100q", c.Subject.CommonName) }

func certificatesPEM(certs ...*x509.Certificate) (out []byte) {
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// distinctCertificates drops repeated certificates.
func distinctCertificates(certs []*x509.Certificate) (out []*x509.Certificate) {
	for _, c := range certs {
		if !slices.ContainsFunc(out, c.Equal) {
			out = append(out, c)
		}
	}
	return out
}

// maxCertificates bounds the certificates of one file.
const maxCertificates = 32

// parseCertificates reads PEM or DER, one or several. Text around PEM blocks is
// skipped.
func parseCertificates(b []byte) ([]*x509.Certificate, error) {
	if !bytes.Contains(b, []byte("-----BEGIN")) {
		if len(b) == 0 {
			return nil, errors.New("no certificate")
		}
		certs, err := x509.ParseCertificates(b)
		if err == nil && len(certs) > maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		return certs, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %.40q", block.Type)
		}
		if len(certs) == maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 || strings.Contains(string(b), "-----BEGIN") {
		return nil, errors.New("a PEM block does not decode")
	}
	return certs, nil
}

// parseList returns the DER of one revocation list.
func parseList(b []byte) ([]byte, error) {
	if block, _ := pem.Decode(b); block != nil {
		if block.Type != "X509 CRL" {
			return nil, fmt.Errorf("PEM block %.40q", block.Type)
		}
		b = block.Bytes
	}
	if _, err := x509.ParseRevocationList(b); err != nil {
		return nil, err
	}
	return b, nil
}
