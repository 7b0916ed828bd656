package sim

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/concordat/concordat/attestation/tdx"
)

// Validity of Intel's certificates and documents, around the time of issue.
const (
	intelAge    = 365 * 24 * time.Hour
	intelCA     = 15 * intelAge
	intelLeaf   = 7 * intelAge
	intelDocAge = time.Hour           // time since the documents were issued
	intelDoc    = 30 * 24 * time.Hour // time until the next ones
)

// intelPKI is what Intel certified. Intel's names are fixed (PCK Certificate
// Profile 1.3).
type intelPKI struct {
	rootKey, caKey, signerKey *ecdsa.PrivateKey
	root, ca, pck, signer     *x509.Certificate
	docRoot                   *x509.Certificate // the root above signer
}

func (m *Machine) issueIntel(at time.Time) (*intelPKI, error) {
	v := m.cfg.Vendor
	p := &intelPKI{rootKey: m.intelRoot(), caKey: v.Key("intel/ca", elliptic.P256()), signerKey: v.Key("intel/signer", elliptic.P256())}
	docKey, forged := p.rootKey, v.Key("intel/forged-root", elliptic.P256())
	if m.has("forged-root") {
		p.rootKey, docKey = forged, forged
	}
	if m.has("forged-collateral") {
		docKey = forged
	}
	caName := "Intel SGX PCK Platform CA"
	if m.has("processor-ca") {
		caName = "Intel SGX PCK Processor CA"
	}
	sgx := m.sgxExtension()
	pckUntil, signerUntil := at.Add(intelLeaf), at.Add(intelLeaf)
	if m.has("expired") {
		pckUntil = at.Add(-time.Hour)
	}
	if m.has("expired-signer") {
		signerUntil = at.Add(-time.Hour)
	}
	// by is the issuer's key, or a forger's.
	by := func(fault string, key *ecdsa.PrivateKey) *ecdsa.PrivateKey {
		if m.has(fault) {
			return forged
		}
		return key
	}
	pckKey := m.chipKey("tdx/pck", elliptic.P256())
	for _, c := range []struct {
		to, parent **x509.Certificate
		name       string
		key, by    *ecdsa.PrivateKey
		until      time.Time
		pathLen    int // -1: no CA
		ext        []pkix.Extension
	}{
		{&p.root, nil, "Intel SGX Root CA", p.rootKey, p.rootKey, at.Add(2 * intelCA), 1, nil},
		{&p.ca, &p.root, caName, p.caKey, by("forged-ca", p.rootKey), at.Add(intelCA), 0, nil},
		{&p.pck, &p.ca, "Intel SGX PCK Certificate", pckKey, by("forged-pck", p.caKey), pckUntil, -1, []pkix.Extension{{Id: tdx.OIDSGX, Value: sgx.Marshal()}}},
		{&p.docRoot, nil, "Intel SGX Root CA", docKey, docKey, at.Add(2 * intelCA), 1, nil},
		{&p.signer, &p.docRoot, "Intel SGX TCB Signing", p.signerKey, by("forged-signer", docKey), signerUntil, -1, nil},
	} {
		t := intelTemplate(c.name, at, c.until, c.pathLen)
		t.ExtraExtensions = c.ext
		label := "intel/" + c.name
		if c.pathLen < 0 && c.ext != nil {
			label += "/" + m.cfg.Chip
		}
		v.markCert(t, label)
		if m.has("unmarked") {
			t.SerialNumber, t.ExtraExtensions = big.NewInt(1), c.ext
		}
		point, err := c.key.PublicKey.Bytes()
		if err != nil {
			return nil, err
		}
		id := sha256.Sum256(point)
		t.SubjectKeyId = id[:20]
		parent := t
		if c.parent != nil {
			parent = *c.parent
		}
		// A forger signs in the parent's name; Go wants the key to be the parent's.
		issuer := *parent
		issuer.PublicKey = c.by.Public()
		// A nil random source: the signature follows from the key alone.
		der, err := x509.CreateCertificate(nil, t, &issuer, c.key.Public(), c.by)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		if *c.to, err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return p, nil
}

func intelTemplate(name string, at, until time.Time, pathLen int) *x509.Certificate {
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{"Intel Corporation"}, Locality: []string{"Santa Clara"},
			Province: []string{"CA"}, Country: []string{"US"}},
		NotBefore:             at.Add(-intelAge),
		NotAfter:              until,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		// Never fetched: readers want the extension.
		CRLDistributionPoints: []string{"https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"},
	}
	if pathLen >= 0 {
		t.IsCA, t.MaxPathLen, t.MaxPathLenZero = true, pathLen, pathLen == 0
		t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	return t
}

func (m *Machine) sgxExtension() *tdx.SGXExtension {
	x := &tdx.SGXExtension{Components: tdxComponents, CPUSVN: tdxComponents, PCESVN: tdxPCESVN, FMSPC: tdxFMSPC, Type: 1, CachedKeys: true}
	copy(x.PPID[:], m.chipBytes("tdx/ppid", 16))
	copy(x.InstanceID[:], m.piid())
	if v, ok := m.fault("stale-tcb"); ok && (v == "" || v == "platform") {
		x.PCESVN = 5
	}
	if v, ok := m.fault("unknown-tcb"); ok && (v == "" || v == "platform") {
		x.PCESVN = 0
	}
	return x
}

// quoteChain is the chain as a quoting enclave puts it into a quote: with a NUL.
func (p *intelPKI) quoteChain() []byte { return append(chainPEM(p.pck, p.ca, p.root), 0) }

func chainPEM(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// revocation returns the lists of the root and of the Platform CA.
func (m *Machine) revocation(at time.Time, p *intelPKI) (root, pck []byte, err error) {
	list := func(issuer *x509.Certificate, key *ecdsa.PrivateKey, valid time.Duration, revoked ...*x509.Certificate) ([]byte, error) {
		l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: at.Add(-intelDocAge), NextUpdate: at.Add(valid), SignatureAlgorithm: x509.ECDSAWithSHA256}
		if m.has("expired-crl") {
			l.ThisUpdate, l.NextUpdate = at.Add(-2*valid), at.Add(-time.Hour)
		}
		for _, c := range revoked {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: at.Add(-2 * intelDocAge), ReasonCode: 1})
		}
		return x509.CreateRevocationList(nil, l, issuer, key)
	}
	var byRoot, byCA []*x509.Certificate
	switch v, ok := m.fault("revoked"); {
	case !ok:
	case v == "ca":
		byRoot = append(byRoot, p.ca)
	case v == "signer":
		byRoot = append(byRoot, p.signer)
	default:
		byCA = append(byCA, p.pck)
	}
	if root, err = list(p.root, p.rootKey, intelAge, byRoot...); err != nil {
		return nil, nil, fmt.Errorf("root CRL: %w", err)
	}
	if pck, err = list(p.ca, p.caKey, intelDoc, byCA...); err != nil {
		return nil, nil, fmt.Errorf("PCK CRL: %w", err)
	}
	return root, pck, nil
}

// signRaw signs SHA-256(msg) and returns r‖s, each 32 bytes big-endian.
func signRaw(key *ecdsa.PrivateKey, msg []byte) (out [64]byte, err error) {
	sum := sha256.Sum256(msg)
	der, err := key.Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return out, err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return out, err
	}
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}
