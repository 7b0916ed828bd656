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
	amdLeaf  = 5 * year
	crlAge   = time.Hour
	crlValid = 30 * 24 * time.Hour
)

// issueAMD returns the chip's certificate, the chain above it and the root's
// revocation list, as AMD's key distribution service would at the time at.
func (m *Machine) issueAMD(at time.Time) ([]attestation.Endorsement, error) {
	v, product := m.cfg.Vendor, m.cfg.Product
	arkKey, askKey := v.ark, v.ask
	if m.has("forged-root") {
		arkKey, askKey = v.ask, v.ark
	}
	ark, err := m.certify(at, "ARK-"+product, true, nil, arkKey.Public(), arkKey)
	if err != nil {
		return nil, err
	}
	ask, err := m.certify(at, "SEV-"+product, true, ark, askKey.Public(), arkKey)
	if err != nil {
		return nil, err
	}
	vcek, err := m.certify(at, "SEV-VCEK", false, ask, m.vcek().Public(), askKey)
	if err != nil {
		return nil, err
	}
	var chain bytes.Buffer
	for _, c := range []*x509.Certificate{ask, ark} {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return nil, err
		}
	}
	docs := []attestation.Endorsement{{Type: attestation.TypeAMDChain, Data: chain.Bytes()}}
	if !m.has("missing-certificate") {
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeAMDVCEK, Data: vcek.Raw})
	}
	if !m.has("missing-crl") {
		crl, err := m.revoke(at, ark, ask, vcek, arkKey)
		if err != nil {
			return nil, err
		}
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeAMDCRL, Data: crl})
	}
	return docs, nil
}

// certify issues one certificate; a nil parent makes it a root.
func (m *Machine) certify(at time.Time, cn string, ca bool, parent *x509.Certificate, pub crypto.PublicKey, key *rsa.PrivateKey) (*x509.Certificate, error) {
	t := &x509.Certificate{
		Subject:            amdName(cn),
		NotBefore:          at.Add(-amdAge),
		NotAfter:           at.Add(amdLeaf),
		SignatureAlgorithm: x509.SHA384WithRSAPSS,
	}
	label := "amd/" + m.cfg.Product + "/" + cn
	if ca {
		t.IsCA, t.BasicConstraintsValid = true, true
		t.KeyUsage = x509.KeyUsageCertSign
		t.NotAfter = at.Add(amdCA)
		t.CRLDistributionPoints = []string{"https://kdsintf.amd.com/vcek/v1/" + m.cfg.Product + "/crl"}
		if parent == nil {
			t.KeyUsage |= x509.KeyUsageCRLSign
		}
	} else {
		label += "/" + m.cfg.Chip
		var err error
		if t.ExtraExtensions, err = m.kdsExtensions(); err != nil {
			return nil, err
		}
		if m.has("expired") {
			t.NotAfter = at.Add(-year)
		}
	}
	m.cfg.Vendor.markCert(t, label)
	if m.has("unmarked") {
		t.SerialNumber = big.NewInt(1)
		if ca {
			t.ExtraExtensions = nil
		}
	}
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", cn, err)
	}
	return x509.ParseCertificate(der)
}

// kdsExtensions returns the extensions of a chip's certificate (57230, tables 9
// to 13), in AMD's order. None is critical.
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
	turin := m.product() == snp.Turin
	name := m.cfg.Product + "-B1"
	if turin {
		name = m.cfg.Product
	}
	product, err := asn1.MarshalWithParams(name, "ia5")
	if err != nil {
		return nil, err
	}
	exts := []pkix.Extension{kds(integer(1), 1), kds(product, 2)}
	if turin {
		exts = append(exts, kds(integer(t.FMC), 3, 9))
	}
	exts = append(exts, kds(integer(t.BootLoader), 3, 1), kds(integer(t.TEE), 3, 2), kds(integer(t.SNP), 3, 3))
	if !turin {
		exts = append(exts, kds(integer(0), 3, 4))
	}
	return append(exts, kds(integer(0), 3, 5), kds(integer(0), 3, 6), kds(integer(0), 3, 7),
		kds(integer(t.Microcode), 3, 8), kds(chip, 4)), nil // AMD writes the chip id without a DER header
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

// revoke returns the root's revocation list.
func (m *Machine) revoke(at time.Time, ark, ask, vcek *x509.Certificate, key *rsa.PrivateKey) ([]byte, error) {
	l := &x509.RevocationList{
		Number:             new(big.Int).SetUint64(uint64(at.Unix())), // rises with every issue
		ThisUpdate:         at.Add(-crlAge),
		NextUpdate:         at.Add(crlValid),
		SignatureAlgorithm: x509.SHA384WithRSAPSS,
	}
	if m.has("expired-crl") {
		l.ThisUpdate, l.NextUpdate = at.Add(-2*crlValid), at.Add(-crlValid)
	}
	if v, ok := m.fault("revoked"); ok {
		serial := vcek.SerialNumber
		if v == "ask" {
			serial = ask.SerialNumber
		}
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: at.Add(-2 * crlAge)}}
	}
	return x509.CreateRevocationList(rand.Reader, l, ark, key)
}

// spki returns the digest by which policies name a root key.
func spki(pub crypto.PublicKey) (attestation.Digest, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return attestation.Digest{}, err
	}
	return sha256.Sum256(der), nil
}
