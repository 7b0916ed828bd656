package sim

import (
	"crypto"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
)

// manifestFaults are what can be wrong with the reference manifests of a machine
// whose vendor publishes some.
var manifestFaults = []string{
	"rim-doctype",        // the manifests start with a document type
	"rim-expired",        // their signer's certificate ended the day before
	"rim-forged-root",    // the signer has NVIDIA's names under another root key
	"rim-hold",           // OCSP: the signer's certificate is on hold
	"rim-missing-driver", // no manifest of the driver
	"rim-missing-vbios",  // no manifest of the VBIOS
	"rim-no-ocsp",        // no OCSP responses about the signer
	"rim-other-chip",     // they are about another chip
	"rim-other-version",  // they are about other versions
	"rim-overlap",        // one measurement is in both
	"rim-revoked",        // OCSP: the signer's certificate is revoked
	"rim-tampered",       // a value was changed after signing
	"rim-two-signatures", // the signature is there twice
	"rim-wrapped",        // the signed manifest stands inside another
}

// rimPKI is the chain that signs manifests.
type rimPKI struct {
	root, product, batch gpuCA
	signer               gpuCA
}

// manifestRoot returns the root of the chain that signs manifests.
func (p *gpuPKI) manifestRoot() (*gpuCA, error) {
	world := "nvidia-rim/"
	if p.m.has("rim-forged-root") {
		world = "forged-nvidia-rim/"
	}
	root := new(gpuCA)
	return root, p.authority(root, root, world, "NVIDIA CoRIM signing Root CA", "NVIDIA OCSP Responder CoRIM L1")
}

// signers returns the chain that signs manifests, valid around at.
func (p *gpuPKI) signers(at time.Time) (*rimPKI, error) {
	root, err := p.manifestRoot()
	if err != nil {
		return nil, err
	}
	s, chip := &rimPKI{root: *root}, p.m.model(0).cn
	if err := p.authority(&s.product, &s.root, "nvidia-rim/", "NVIDIA Reference Value "+chip+" CA", "NVIDIA OCSP Responder CoRIM L2"); err != nil {
		return nil, err
	}
	if err := p.authority(&s.batch, &s.product, "nvidia-rim/", "NVIDIA Reference Value L3 "+chip+" 001", "NVIDIA OCSP Responder CoRIM L3"); err != nil {
		return nil, err
	}
	const name = "HCC RIM L4 Signer"
	from := at.AddDate(-1, 0, 0)
	if p.m.has("rim-expired") {
		from = at.AddDate(-2, 0, -1)
	}
	s.signer.key = p.m.cfg.Vendor.Key("nvidia-rim/"+name, s.root.key.Curve)
	s.signer.cert, err = p.issue(&s.batch, &x509.Certificate{
		Subject: gpuName(name, ""), KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: from, NotAfter: from.AddDate(2, 0, 0),
	}, &s.signer.key.PublicKey, name)
	return s, err
}

// manifests returns what the vendor's RIM service has for the machine's devices,
// and the OCSP responses about who signed it.
func (m *Machine) manifests(p *gpuPKI, at time.Time) ([]attestation.Endorsement, error) {
	s, err := p.signers(at)
	if err != nil {
		return nil, err
	}
	g := m.model(0)
	var docs []attestation.Endorsement
	for _, f := range []struct {
		fault   string
		model   *gpuModel
		version string
		index   func(i int) bool
		want    bool
	}{
		{"rim-missing-driver", g, g.driver, func(i int) bool { return i%2 == 0 }, true},
		{"rim-missing-vbios", g, g.vbios, func(i int) bool { return i%2 == 1 || i == 4 && m.has("rim-overlap") }, true},
		{"", switchModel, switchModel.vbios, func(int) bool { return true }, m.cfg.Switches > 0},
	} {
		if !f.want || f.fault != "" && m.has(f.fault) {
			continue
		}
		doc, err := m.manifest(s, f.model, f.version, f.index)
		if err != nil {
			return nil, err
		}
		docs = append(docs, attestation.Endorsement{Type: attestation.TypeNVIDIARIM, Data: doc})
	}
	if m.has("rim-no-ocsp") {
		return docs, nil
	}
	first := ocsp.Response{Status: ocsp.Good}
	if m.has("rim-revoked") {
		first = ocsp.Response{Status: ocsp.Revoked, RevocationReason: ocsp.Superseded}
	}
	if m.has("rim-hold") {
		first = ocsp.Response{Status: ocsp.Revoked, RevocationReason: ocsp.CertificateHold}
	}
	responses, err := answer(at, first, issued{s.signer.cert, &s.batch}, issued{s.batch.cert, &s.product}, issued{s.product.cert, &s.root})
	return append(docs, responses...), err
}

// The namespaces of a manifest, and where a SignedInfo stands in them.
const (
	rimSpaces    = ` xmlns="http://standards.iso.org/iso/19770/-2/2015/schema.xsd"%s xmlns:ns0="http://standards.iso.org/iso/19770/-2/2015/schema.xsd" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384"`
	rimDSig      = ` xmlns:ds="http://www.w3.org/2000/09/xmldsig#"`
	rimMetaSpace = ` xmlns:ns1="https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"`
	rimHashSpace = ` xmlns:SHA384="http://www.w3.org/2001/04/xmlenc#sha384"`
)

// xmlWriter writes a manifest as NVIDIA does or, with canonical set, in Canonical
// XML 1.1: attributes sorted, no empty-element tags. Whoever calls it gives
// declarations in their canonical order.
type xmlWriter struct{ canonical bool }

// element returns an element; attrs are `name="value"`.
func (w xmlWriter) element(name, spaces, body string, attrs ...string) string {
	if w.canonical {
		slices.SortFunc(attrs, func(a, b string) int { // those without a namespace first
			if x, y := prefixed(a), prefixed(b); x != y {
				return map[bool]int{true: 1, false: -1}[x]
			}
			return strings.Compare(a, b)
		})
	}
	start := "<" + name + spaces
	for _, a := range attrs {
		start += " " + a
	}
	if body == "" && !w.canonical {
		return start + "/>"
	}
	return start + ">" + body + "</" + name + ">"
}

func prefixed(attr string) bool {
	name, _, _ := strings.Cut(attr, "=")
	return strings.Contains(name, ":")
}

// tag returns a manifest; signature is put behind its payload.
func (m *Machine) tag(w xmlWriter, g *gpuModel, version string, has func(int) bool, signature string) string {
	product := g.chip
	if m.has("rim-other-chip") {
		product = "GA100"
	}
	var resources string
	for n := 1; n <= g.blocks; n++ {
		i, values := n-1, []string{fmt.Sprintf("%096x", 0)}
		active := "False"
		if n <= g.measured && has(i) {
			active = "True"
			good := m.cfg.Vendor.measurement(g, n)
			values[0] = hex.EncodeToString(good[:])
			if n%5 == 0 { // a second value, of firmware that this device does not run
				values = []string{strings.Repeat("5a", len(good)), values[0]}
			}
		}
		attrs := []string{`type="Measurement"`, fmt.Sprintf(`index="%d"`, i), fmt.Sprintf(`active="%s"`, active), fmt.Sprintf(`alternatives="%d"`, len(values))}
		for k, v := range values {
			attrs = append(attrs, fmt.Sprintf(`ns2:Hash%d="%s"`, k, v))
		}
		attrs = append(attrs, fmt.Sprintf(`name="Measurement_%d"`, i), `size="48"`)
		resources += "\n        " + w.element("ns0:Resource", "", "", attrs...)
	}
	body := "\n    " + w.element("ns0:Entity", "", "", `name="NVIDIA Corporation"`, `role="softwareCreator tagCreator"`) +
		"\n    " + w.element("ns0:Meta", rimMetaSpace, "", `colloquialVersion="`+version+`"`, `edition="`+g.edition+`"`, `product="`+product+`"`, `revision="r1"`,
		`PayloadType="direct"`, `ns1:BindingSpec="RIMIM"`, `ns1:BindingSpecVersion="1.01"`, `ns1:PlatformModel="`+g.chip+`"`) +
		"\n    " + w.element("ns0:Payload", rimHashSpace, resources+"\n    ") + "\n"
	return w.element("SoftwareIdentity", fmt.Sprintf(rimSpaces, ""), body+signature,
		`corpus="false"`, `name="`+g.chip+`"`, `patch="false"`, `supplemental="false"`, `tagId="simulated"`, `version="1.0"`, `tagVersion="0"`)
}

// manifest returns a signed manifest with the measurements that has chooses.
func (m *Machine) manifest(s *rimPKI, g *gpuModel, version string, has func(int) bool) ([]byte, error) {
	if m.has("rim-other-version") {
		version = "1" + version
	}
	sum := sha512.Sum384([]byte(m.tag(xmlWriter{canonical: true}, g, version, has, "")))
	info := sha512.Sum384([]byte(signedInfo(xmlWriter{canonical: true}, fmt.Sprintf(rimSpaces, rimDSig), sum[:])))
	der, err := s.signer.key.Sign(nil, info[:], crypto.SHA384)
	if err != nil {
		return nil, err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	raw := make([]byte, nvgpu.SignatureSize)
	sig.R.FillBytes(raw[:48])
	sig.S.FillBytes(raw[48:])

	w := xmlWriter{}
	var certs string
	for _, c := range []*x509.Certificate{s.signer.cert, s.batch.cert, s.product.cert, s.root.cert} {
		certs += w.element("ds:X509Certificate", "", base64.StdEncoding.EncodeToString(c.Raw)+"\n")
	}
	signature := w.element("ds:Signature", rimDSig, signedInfo(w, "", sum[:])+
		w.element("ds:SignatureValue", "", base64.StdEncoding.EncodeToString(raw))+
		w.element("ds:KeyInfo", "", w.element("ds:X509Data", "", certs)))
	return m.spoil(m.tag(w, g, version, has, signature), signature), nil
}

// signedInfo returns what is signed: the digest of the manifest, and how it was
// made.
func signedInfo(w xmlWriter, spaces string, digest []byte) string {
	alg := func(name, a string) string { return w.element(name, "", "", `Algorithm="`+a+`"`) }
	const c14n = "http://www.w3.org/2006/12/xml-c14n11"
	return w.element("ds:SignedInfo", spaces, alg("ds:CanonicalizationMethod", c14n)+
		alg("ds:SignatureMethod", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384")+
		w.element("ds:Reference", "", w.element("ds:Transforms", "",
			alg("ds:Transform", "http://www.w3.org/2000/09/xmldsig#enveloped-signature")+alg("ds:Transform", c14n))+
			alg("ds:DigestMethod", "http://www.w3.org/2001/04/xmldsig-more#sha384")+
			w.element("ds:DigestValue", "", base64.StdEncoding.EncodeToString(digest)), `URI=""`))
}

// spoil makes of a good manifest what its faults ask for.
func (m *Machine) spoil(doc, signature string) []byte {
	switch {
	case m.has("rim-doctype"):
		doc = "<!DOCTYPE SoftwareIdentity>" + doc
	case m.has("rim-tampered"):
		doc = strings.Replace(doc, `active="False"`, `active="True"`, 1)
	case m.has("rim-two-signatures"):
		doc = strings.Replace(doc, signature, signature+signature, 1)
	case m.has("rim-wrapped"):
		outer := strings.Replace(strings.Replace(doc, signature, "", 1), strings.Repeat("0", 96), strings.Repeat("1", 96), 1)
		doc = strings.Replace(outer, "</SoftwareIdentity>", doc+"</SoftwareIdentity>", 1)
	}
	return []byte(doc)
}
