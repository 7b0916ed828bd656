package sim

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/concordat/concordat/attestation"
)

// gpuCA is a certificate authority of simulated NVIDIA with its OCSP responder.
type gpuCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	responderKey *ecdsa.PrivateKey
	responder    *x509.Certificate
}

// gpuPKI is simulated NVIDIA: the three authorities that all GH100 share.
type gpuPKI struct {
	m                           *Machine
	world                       string // starts the labels of all keys
	root, identity, provisioner gpuCA
}

// gpuDevice is one GPU: its own certificate and the alias of its firmware.
type gpuDevice struct {
	cert     *x509.Certificate // "GH100 A01 GSP BROM"
	leafKey  *ecdsa.PrivateKey // "GH100 A01 GSP FMC LF"
	chainPEM []byte
	refs     []attestation.Digest // the endorsements that were issued for it
}

// Validity of NVIDIA's own device certificates: for ever (RFC 5280 4.1.2.5).
var (
	gpuNotBefore = time.Date(2020, 10, 17, 0, 0, 0, 0, time.UTC)
	gpuNotAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

func (m *Machine) gpuKey(i int, label string) *ecdsa.PrivateKey {
	return m.chipKey(fmt.Sprintf("gpu/%d/%s", i, label), elliptic.P384())
}

func (m *Machine) newGPUPKI() (*gpuPKI, error) {
	p := &gpuPKI{m: m, world: "nvidia/"}
	if m.has("gpu-forged-root") {
		p.world = "forged-nvidia/" // other keys; names and serial numbers stay
	}
	v := m.cfg.Vendor
	for _, c := range []struct {
		ca, parent      *gpuCA
		name, responder string
	}{
		{&p.root, &p.root, "NVIDIA Device Identity CA", "NVIDIA OCSP Responder L1-A 02"},
		{&p.identity, &p.root, "NVIDIA GH100 Identity", "NVIDIA OCSP Responder L2 GH100 Identity"},
		{&p.provisioner, &p.identity, "NVIDIA GH100 Provisioner ICA 1", "NVIDIA OCSP Responder L3 GH100 ICA1 Identity"},
	} {
		c.ca.key = v.Key(p.world+c.name, elliptic.P384())
		var err error
		if c.ca.cert, err = p.issue(c.parent, &x509.Certificate{
			Subject: gpuName(c.name, ""), IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}, &c.ca.key.PublicKey, c.name); err != nil {
			return nil, err
		}
		c.ca.responderKey = v.Key(p.world+c.responder, elliptic.P384())
		if c.ca.responder, err = p.issue(c.ca, &x509.Certificate{
			Subject: gpuName(c.responder, ""), KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
			ExtraExtensions: []pkix.Extension{{Id: oidOCSPNoCheck, Value: []byte{5, 0}}},
		}, &c.ca.responderKey.PublicKey, c.responder); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Extensions of NVIDIA's certificates.
var (
	oidOCSPNoCheck     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5} // RFC 6960 4.2.2.2.1
	oidCompositeDevice = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1}           // TCG DICE: the firmware id of a Hopper leaf
	oidSHA384          = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
)

func gpuName(cn, serial string) pkix.Name {
	return pkix.Name{CommonName: cn, Organization: []string{"NVIDIA Corporation"}, SerialNumber: serial}
}

// issue signs c by ca, marked as simulated; serial is the label of its serial
// number. A root has no certificate yet: it
// signs itself.
func (p *gpuPKI) issue(ca *gpuCA, c *x509.Certificate, pub *ecdsa.PublicKey, serial string) (*x509.Certificate, error) {
	c.BasicConstraintsValid = c.IsCA
	c.SignatureAlgorithm = x509.ECDSAWithSHA384
	c.NotBefore, c.NotAfter = gpuNotBefore, gpuNotAfter
	p.m.cfg.Vendor.markCert(c, "nvidia/"+serial)
	if strings.HasSuffix(c.Subject.CommonName, " BROM") {
		c.Subject.SerialNumber = strings.ToUpper(hex.EncodeToString(c.SerialNumber.Bytes()))
	}
	parent := ca.cert
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(nil, c, parent, pub, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// device returns GPU i of the machine.
func (p *gpuPKI) device(i int) (gpuDevice, error) {
	m := p.m
	who := fmt.Sprintf("chip/%s/gpu/%d", m.cfg.Chip, i)
	if m.has("gpu-stranger") {
		who += "/stranger"
	}
	brom := gpuCA{key: m.cfg.Vendor.Key(p.world+who+"/brom", elliptic.P384())}
	d := gpuDevice{leafKey: m.cfg.Vendor.Key(p.world+who+"/fmc", elliptic.P384())}
	var err error
	if d.cert, err = p.issue(&p.provisioner, &x509.Certificate{
		Subject: gpuName("GH100 A01 GSP BROM", ""), IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, &brom.key.PublicKey, who); err != nil {
		return d, err
	}
	brom.cert = d.cert

	fwid, err := asn1.Marshal(struct {
		Version  int
		DeviceID asn1.RawValue
		FWID     struct {
			Alg    asn1.ObjectIdentifier
			Digest []byte
		}
	}{1, asn1.RawValue{FullBytes: d.cert.RawSubjectPublicKeyInfo}, struct {
		Alg    asn1.ObjectIdentifier
		Digest []byte
	}{oidSHA384, m.gpuFWID()}})
	if err != nil {
		return d, err
	}
	leaf, err := p.issue(&brom, &x509.Certificate{
		Subject: gpuName("GH100 A01 GSP FMC LF", ""), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: oidCompositeDevice, Value: fwid}},
	}, &d.leafKey.PublicKey, who+"/fmc")
	if err != nil {
		return d, err
	}
	for _, c := range []*x509.Certificate{leaf, d.cert, p.provisioner.cert, p.identity.cert, p.root.cert} {
		d.chainPEM = append(d.chainPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return d, nil
}

// responses returns the OCSP responses for d and its two authorities, each by the
// responder of its issuer and good for a day, as NVIDIA's are. Unlike all else
// here they differ at every call: package ocsp signs with fresh randomness and
// states the minute in which it did.
func (p *gpuPKI) responses(d gpuDevice, at time.Time) ([]attestation.Endorsement, error) {
	this := at.UTC().Truncate(time.Second)
	if p.m.has("gpu-stale-ocsp") {
		this = this.Add(-48 * time.Hour)
	}
	var docs []attestation.Endorsement
	for _, c := range []struct {
		cert   *x509.Certificate
		issuer *gpuCA
	}{{d.cert, &p.provisioner}, {p.provisioner.cert, &p.identity}, {p.identity.cert, &p.root}} {
		t := ocsp.Response{
			Status: ocsp.Good, SerialNumber: c.cert.SerialNumber, IssuerHash: crypto.SHA384,
			ThisUpdate: this, NextUpdate: this.Add(24 * time.Hour), Certificate: c.issuer.responder,
		}
		revoked, hold := p.m.has("gpu-revoked"), p.m.has("gpu-hold")
		if c.cert == d.cert && (revoked || hold) {
			t.Status, t.RevokedAt, t.RevocationReason = ocsp.Revoked, this.Add(-time.Hour), ocsp.KeyCompromise
			if hold {
				t.RevocationReason = ocsp.CertificateHold
			}
		}
		der, err := ocsp.CreateResponse(c.issuer.cert, c.issuer.responder, t, c.issuer.responderKey)
		if err != nil {
			return nil, err
		}
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeNVIDIAOCSP, Data: der})
	}
	return docs, nil
}
