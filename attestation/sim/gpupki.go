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
	"github.com/concordat/concordat/attestation/nvgpu"
)

// gpuCA is a certificate authority of simulated NVIDIA with its OCSP responder.
type gpuCA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	responderKey *ecdsa.PrivateKey
	responder    *x509.Certificate
}

// gpuPKI is simulated NVIDIA: the authorities that all devices of a kind share.
type gpuPKI struct {
	m              *Machine
	world          string // starts the labels of all keys
	root, identity gpuCA
	gpus, switches gpuCA // the provisioners
}

// gpuDevice is one GPU or switch: its own certificate and the alias of its firmware.
type gpuDevice struct {
	cert    *x509.Certificate // "GH100 A01 GSP BROM"
	leafKey *ecdsa.PrivateKey // "GH100 A01 GSP FMC LF"

	provisioner *gpuCA
	chainPEM    []byte
	refs        []attestation.Digest // the endorsements that were issued for it
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
	chip := m.model(0).cn
	for _, c := range []struct {
		ca, parent      *gpuCA
		name, responder string
	}{
		{&p.root, &p.root, "NVIDIA Device Identity CA", "NVIDIA OCSP Responder L1-A 02"},
		{&p.identity, &p.root, "NVIDIA " + chip + " Identity", "NVIDIA OCSP Responder L2 " + chip + " Identity"},
		{&p.gpus, &p.identity, m.model(0).provisioner, "NVIDIA OCSP Responder L3 " + chip + " ICA1 Identity"},
		{&p.switches, &p.identity, switchModel.provisioner, "NVIDIA OCSP Responder L3 LS_10 ICA1 Identity"},
	} {
		if err := p.authority(c.ca, c.parent, p.world, c.name, c.responder); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// authority makes ca, signed by parent, and its OCSP responder.
func (p *gpuPKI) authority(ca, parent *gpuCA, world, name, responder string) error {
	v := p.m.cfg.Vendor
	ca.key = v.Key(world+name, elliptic.P384())
	var err error
	if ca.cert, err = p.issue(parent, &x509.Certificate{
		Subject: gpuName(name, ""), IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, &ca.key.PublicKey, name); err != nil {
		return err
	}
	ca.responderKey = v.Key(world+responder, elliptic.P384())
	ca.responder, err = p.issue(ca, &x509.Certificate{
		Subject: gpuName(responder, ""), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning},
		ExtraExtensions: []pkix.Extension{{Id: oidOCSPNoCheck, Value: []byte{5, 0}}},
	}, &ca.responderKey.PublicKey, responder)
	return err
}

// Extensions of NVIDIA's certificates.
var (
	oidOCSPNoCheck     = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 5} // RFC 6960 4.2.2.2.1
	oidCompositeDevice = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1}           // TCG DICE: the firmware id of a Hopper or switch leaf
	oidTcbInfo         = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 1, 1}        // TCG DICE: that of a Blackwell leaf
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
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = gpuNotBefore, gpuNotAfter
	}
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

// who labels the keys and the serial number of device i.
func (p *gpuPKI) who(i int) string {
	m := p.m
	if i >= m.cfg.GPUs {
		return fmt.Sprintf("chip/%s/switch/%d", m.cfg.Chip, i-m.cfg.GPUs)
	}
	if m.has("gpu-stranger") {
		return fmt.Sprintf("chip/%s/gpu/%d/stranger", m.cfg.Chip, i)
	}
	return fmt.Sprintf("chip/%s/gpu/%d", m.cfg.Chip, i)
}

// serial returns the serial number of device i, its ueid.
func (p *gpuPKI) serial(i int) []byte {
	c := new(x509.Certificate)
	p.m.cfg.Vendor.markCert(c, "nvidia/"+p.who(i))
	return c.SerialNumber.Bytes()
}

// device returns device i of the machine.
func (p *gpuPKI) device(i int) (gpuDevice, error) {
	m, g, provisioner := p.m, p.m.model(i), &p.gpus
	if g == switchModel {
		provisioner = &p.switches
	}
	who, name := p.who(i), g.cn+" A01 "+g.sp
	brom := gpuCA{key: m.cfg.Vendor.Key(p.world+who+"/brom", elliptic.P384())}
	d := gpuDevice{provisioner: provisioner, leafKey: m.cfg.Vendor.Key(p.world+who+"/fmc", elliptic.P384())}
	var err error
	if d.cert, err = p.issue(provisioner, &x509.Certificate{
		Subject: gpuName(name+" BROM", ""), IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, &brom.key.PublicKey, who); err != nil {
		return d, err
	}
	brom.cert = d.cert

	ext, err := firmwareExtension(m, g, d.cert.RawSubjectPublicKeyInfo)
	if err != nil {
		return d, err
	}
	leaf, err := p.issue(&brom, &x509.Certificate{
		Subject: gpuName(name+" FMC LF", ""), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{ext},
	}, &d.leafKey.PublicKey, who+"/fmc")
	if err != nil {
		return d, err
	}
	for _, c := range []*x509.Certificate{leaf, d.cert, provisioner.cert, p.identity.cert, p.root.cert} {
		d.chainPEM = append(d.chainPEM, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return d, nil
}

// fwid is DICE's FWID: a hash algorithm and a digest.
type fwid struct {
	Alg    asn1.ObjectIdentifier
	Digest []byte
}

// firmwareExtension returns the extension by which a leaf names its firmware:
// DiceTcbInfo, with a second id of zeros as real ones have, for Blackwell, else
// the composite device id.
func firmwareExtension(m *Machine, g *gpuModel, deviceKey []byte) (pkix.Extension, error) {
	id := fwid{oidSHA384, m.cfg.Vendor.fwid(g)}
	if g == gpuModels[GPUBlackwell] {
		der, err := asn1.Marshal(struct {
			Vendor string `asn1:"tag:0,utf8"`
			Model  string `asn1:"tag:1,utf8"`
			SVN    int    `asn1:"tag:3"`
			FWIDs  []fwid `asn1:"tag:6"`
		}{"NVIDIA", "GB100 A01 GSP", 1, []fwid{id, {oidSHA384, make([]byte, nvgpu.MeasurementSize)}}})
		return pkix.Extension{Id: oidTcbInfo, Value: der}, err
	}
	der, err := asn1.Marshal(struct {
		Version  int
		DeviceID asn1.RawValue
		FWID     fwid
	}{1, asn1.RawValue{FullBytes: deviceKey}, id})
	return pkix.Extension{Id: oidCompositeDevice, Value: der}, err
}

// issued is a certificate and who answers for it.
type issued struct {
	cert   *x509.Certificate
	issuer *gpuCA
}

// responses returns the OCSP responses for d and its two authorities.
func (p *gpuPKI) responses(d gpuDevice, at time.Time) ([]attestation.Endorsement, error) {
	reason := ocsp.Response{Status: ocsp.Good}
	if p.m.has("gpu-revoked") {
		reason = ocsp.Response{Status: ocsp.Revoked, RevocationReason: ocsp.KeyCompromise}
	}
	if p.m.has("gpu-hold") {
		reason = ocsp.Response{Status: ocsp.Revoked, RevocationReason: ocsp.CertificateHold}
	}
	if p.m.has("gpu-stale-ocsp") {
		at = at.Add(-48 * time.Hour)
	}
	return answer(at, reason, issued{d.cert, d.provisioner}, issued{d.provisioner.cert, &p.identity}, issued{p.identity.cert, &p.root})
}

// answer returns the OCSP responses for certs, each by the responder of its issuer
// and good for a day, as NVIDIA's are; the first says what first does. Unlike all
// else here they differ at every call: package ocsp signs with fresh randomness
// and states the minute in which it did.
func answer(at time.Time, first ocsp.Response, certs ...issued) ([]attestation.Endorsement, error) {
	this := at.UTC().Truncate(time.Second)
	var docs []attestation.Endorsement
	for i, c := range certs {
		t := ocsp.Response{Status: ocsp.Good}
		if i == 0 {
			t = first
		}
		t.SerialNumber, t.IssuerHash, t.Certificate = c.cert.SerialNumber, crypto.SHA384, c.issuer.responder
		t.ThisUpdate, t.NextUpdate, t.RevokedAt = this, this.Add(24*time.Hour), this.Add(-time.Hour)
		der, err := ocsp.CreateResponse(c.issuer.cert, c.issuer.responder, t, c.issuer.responderKey)
		if err != nil {
			return nil, err
		}
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeNVIDIAOCSP, Data: der})
	}
	return docs, nil
}
