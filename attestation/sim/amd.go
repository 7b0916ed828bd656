package sim

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
)

// amdName is a subject as AMD writes it (57230, chapter 3).
func amdName(cn string) pkix.Name {
	return pkix.Name{
		OrganizationalUnit: []string{"Engineering"}, Country: []string{"US"}, Locality: []string{"Santa Clara"},
		Province: []string{"CA"}, Organization: []string{"Advanced Micro Devices"}, CommonName: cn,
	}
}

// Validity of AMD's certificates, around the time of issue.
const (
	year     = 365 * 24 * time.Hour
	amdAge   = 2 * year
	amdCA    = 23 * year
	vcekLife = 5 * year // of seven, of which two are over
	vlekAge  = year / 2 // of one
	crlAge   = time.Hour
	crlValid = 30 * 24 * time.Hour
)

// amdChain is what AMD's key distribution service has for one machine: the
// certificates of the signing key, of the CA above it and of the root, and the
// keys of the two above.
type amdChain struct {
	root, ca, leaf *x509.Certificate
	rootKey, caKey *rsa.PrivateKey
}

// issueAMD returns the certificate of the machine's signing key, the chain above
// it and the root's revocation list, as AMD would serve them at the time at.
func (m *Machine) issueAMD(at time.Time) ([]attestation.Endorsement, error) {
	c, err := m.amdChain(at)
	if err != nil {
		return nil, err
	}
	var chain bytes.Buffer
	for _, x := range []*x509.Certificate{c.ca, c.root} {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: x.Raw}); err != nil {
			return nil, err
		}
	}
	docs := []attestation.Endorsement{{Type: attestation.TypeAMDChain, Data: chain.Bytes()}}
	if !m.has("missing-certificate") {
		typ := attestation.TypeAMDVCEK
		if m.signingKey() == snp.VLEK {
			typ = attestation.TypeAMDVLEK
		}
		docs = append(docs, attestation.Endorsement{Type: typ, Data: c.leaf.Raw})
	}
	if !m.has("missing-crl") {
		crl, err := m.revocationList(at, c)
		if err != nil {
			return nil, err
		}
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeAMDCRL, Data: crl})
	}
	return docs, nil
}

func (m *Machine) amdChain(at time.Time) (*amdChain, error) {
	v, line := m.cfg.Vendor, string(m.product())
	c := &amdChain{rootKey: v.amdKey(keyARK), caKey: v.amdKey(keyASK)}
	ca, leaf, endpoint := "SEV-"+line, "SEV-VCEK", "vcek"
	if m.signingKey() == snp.VLEK {
		c.caKey = v.amdKey(keyASVK)
		ca, leaf, endpoint = "SEV-VLEK-"+line, "SEV-VLEK", "vlek"
	}
	if m.has("forged-root") {
		c.rootKey, c.caKey = c.caKey, c.rootKey
	}
	var err error
	if c.root, err = m.certify(m.amdCA(at, "ARK-"+line, "vcek"), nil, c.rootKey.Public(), c.rootKey); err != nil {
		return nil, err
	}
	if c.ca, err = m.certify(m.amdCA(at, ca, endpoint), c.root, c.caKey.Public(), c.rootKey); err != nil {
		return nil, err
	}
	t, err := m.amdLeaf(at, leaf)
	if err != nil {
		return nil, err
	}
	c.leaf, err = m.certify(t, c.ca, m.chipSigner().Public(), c.caKey)
	return c, err
}

// amdCA is the template of a CA; the root names the list of VCEKs as AMD's do.
func (m *Machine) amdCA(at time.Time, cn, endpoint string) *x509.Certificate {
	t := &x509.Certificate{
		Subject: amdName(cn), NotBefore: at.Add(-amdAge), NotAfter: at.Add(amdCA),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		CRLDistributionPoints: []string{"https://kdsintf.amd.com/" + endpoint + "/v1/" + string(m.product()) + "/crl"},
	}
	if cn == "ARK-"+string(m.product()) {
		t.KeyUsage |= x509.KeyUsageCRLSign
	}
	m.cfg.Vendor.markCert(t, "amd/"+string(m.product())+"/"+cn)
	if m.has("unmarked") {
		t.SerialNumber, t.ExtraExtensions = big.NewInt(1), nil
	}
	return t
}

// amdLeaf is the template of the certificate of a VCEK or VLEK.
func (m *Machine) amdLeaf(at time.Time, cn string) (*x509.Certificate, error) {
	t := &x509.Certificate{Subject: amdName(cn), NotBefore: at.Add(-amdAge), NotAfter: at.Add(vcekLife)}
	if m.signingKey() == snp.VLEK {
		t.NotBefore, t.NotAfter = at.Add(-vlekAge), at.Add(vlekAge)
	}
	if m.has("expired") {
		t.NotAfter = at.Add(-24 * time.Hour)
	}
	if m.has("not-yet-valid") {
		t.NotBefore = at.Add(24 * time.Hour)
	}
	var err error
	if t.ExtraExtensions, err = m.kdsExtensions(); err != nil {
		return nil, err
	}
	m.cfg.Vendor.markCert(t, "amd/"+string(m.product())+"/"+cn+"/"+m.cfg.Chip)
	if m.has("unmarked") {
		t.SerialNumber = big.NewInt(1)
	}
	return t, nil
}

// certify issues a certificate; a nil parent makes it a root.
func (m *Machine) certify(t, parent *x509.Certificate, pub crypto.PublicKey, key *rsa.PrivateKey) (*x509.Certificate, error) {
	t.SignatureAlgorithm = x509.SHA384WithRSAPSS
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", t.Subject.CommonName, err)
	}
	return x509.ParseCertificate(der)
}

// kdsExtensions returns the extensions of the certificate of a VCEK or VLEK
// (57230, tables 9 to 13), in AMD's order. None is critical.
func (m *Machine) kdsExtensions() ([]pkix.Extension, error) {
	t, chip := m.snpTCB(), m.chipID()
	if m.has("stale-tcb") {
		t.SNP--
	}
	if m.has("certificate-tcb") {
		t.Microcode++
	}
	if m.has("certificate-chip") {
		chip[0] ^= 1
	}
	turin, vlek := m.product() == snp.Turin, m.signingKey() == snp.VLEK
	name, version := string(m.product()), uint8(0)
	if turin {
		version = 1
	} else if !vlek {
		name += "-B1"
	}
	if v, ok := m.fault("certificate-product"); ok {
		name = v
	}
	if m.has("certificate-version") {
		version = 2
	}
	product, err := asn1.MarshalWithParams(name, "ia5")
	if err != nil {
		return nil, err
	}
	exts := []pkix.Extension{kds(integer(version), 1), kds(product, 2)}
	if turin {
		exts = append(exts, kds(integer(t.FMC), 3, 9))
	}
	exts = append(exts, kds(integer(t.BootLoader), 3, 1), kds(integer(t.TEE), 3, 2))
	if !turin {
		exts = append(exts, kds(integer(0), 3, 4))
	}
	exts = append(exts, kds(integer(0), 3, 5), kds(integer(0), 3, 6), kds(integer(0), 3, 7),
		kds(integer(t.SNP), 3, 3), kds(integer(t.Microcode), 3, 8))
	if !vlek || m.has("certificate-kind") {
		exts = append(exts, kds(chip, 4)) // AMD writes the chip id without a DER header
	}
	if vlek {
		csp, err := asn1.MarshalWithParams(m.provider(), "ia5")
		if err != nil {
			return nil, err
		}
		exts = append(exts, kds(csp, 5))
	}
	return exts, nil
}

func kds(value []byte, arc ...int) pkix.Extension {
	return pkix.Extension{Id: append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, arc...), Value: value}
}

// integer is the DER encoding of a small INTEGER.
func integer(n uint8) []byte {
	if n < 0x80 {
		return []byte{asn1.TagInteger, 1, n}
	}
	return []byte{asn1.TagInteger, 2, 0, n}
}

// revocationList returns the root's list.
func (m *Machine) revocationList(at time.Time, c *amdChain) ([]byte, error) {
	l := &x509.RevocationList{
		Number:             new(big.Int).SetUint64(uint64(at.Unix())), // rises with every issue
		ThisUpdate:         at.Add(-crlAge),
		NextUpdate:         at.Add(crlValid),
		SignatureAlgorithm: x509.SHA384WithRSAPSS,
	}
	if m.has("expired-crl") {
		l.ThisUpdate, l.NextUpdate = at.Add(-2*crlValid), at.Add(-crlValid)
	}
	if m.has("future-crl") {
		l.ThisUpdate = at.Add(crlAge)
	}
	if m.has("partial-crl") { // an IssuingDistributionPoint, as of a list for CAs alone
		l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 3, 0x82, 1, 0xFF}}}
	}
	if v, ok := m.fault("revoked"); ok {
		serial := c.leaf.SerialNumber
		if v == "ca" {
			serial = c.ca.SerialNumber
		}
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: at.Add(-2 * crlAge)}}
	}
	if m.has("forged-crl") {
		// The root's name and extensions over another key.
		forged, err := m.certify(m.amdCA(at, c.root.Subject.CommonName, "vcek"), nil, c.caKey.Public(), c.caKey)
		if err != nil {
			return nil, err
		}
		return x509.CreateRevocationList(rand.Reader, l, forged, c.caKey)
	}
	return x509.CreateRevocationList(rand.Reader, l, c.root, c.rootKey)
}

// spki returns the digest by which policies name a root key.
func spki(pub crypto.PublicKey) (attestation.Digest, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return attestation.Digest{}, err
	}
	return sha256.Sum256(der), nil
}
