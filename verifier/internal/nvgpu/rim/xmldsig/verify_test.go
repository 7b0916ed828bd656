package xmldsig

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// signer makes a key and a certificate, once.
var signer = sync.OnceValues(func() (*ecdsa.PrivateKey, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Unix(1e10, 0)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return key, der
})

// sample is a document and its canonical form, written by hand after Canonical
// XML 1.1: attributes in order, namespaces declared once, empty elements open.
const (
	sampleHead      = `<a xmlns="urn:d" xmlns:p="urn:p" z="1" p:b="2" c='3'>` + "\n" + `<p:x xmlns:p="urn:p" xmlns="urn:e"/><y xmlns:q="urn:q" q:k="v">text</y>`
	sampleTail      = `</a>`
	sampleCanonical = `<a xmlns="urn:d" xmlns:p="urn:p" c="3" z="1" p:b="2">` + "\n" + `<p:x xmlns="urn:e"></p:x><y xmlns:q="urn:q" q:k="v">text</y></a>`
	infoSpaces      = ` xmlns="urn:d" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:p="urn:p"`
)

// signedInfo is written in canonical form and so is its own.
func signedInfo(spaces string, digest []byte) string {
	alg := func(name, a string) string { return fmt.Sprintf(`<ds:%s Algorithm="%s"></ds:%s>`, name, a, name) }
	return `<ds:SignedInfo` + spaces + `>` + alg("CanonicalizationMethod", algC14N) + alg("SignatureMethod", algECDSA) +
		`<ds:Reference URI=""><ds:Transforms>` + alg("Transform", algEnveloped) + alg("Transform", algC14N) + `</ds:Transforms>` +
		alg("DigestMethod", algSHA384) + `<ds:DigestValue>` + base64.StdEncoding.EncodeToString(digest) + `</ds:DigestValue></ds:Reference></ds:SignedInfo>`
}

// sign returns the Signature element over a document of that canonical form;
// change edits its SignedInfo before it is signed.
func sign(t testing.TB, canonical string, change func(string) string) string {
	t.Helper()
	key, cert := signer()
	sum := sha512.Sum384([]byte(canonical))
	info := sha512.Sum384([]byte(change(signedInfo(infoSpaces, sum[:]))))
	der, err := key.Sign(nil, info[:], crypto.SHA384)
	if err != nil {
		t.Fatal(err)
	}
	var s struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, signatureSize)
	s.R.FillBytes(raw[:48])
	s.S.FillBytes(raw[48:])
	return `<ds:Signature xmlns:ds="` + spaceDSig + `">` + change(signedInfo("", sum[:])) +
		`<ds:SignatureValue>` + base64.StdEncoding.EncodeToString(raw) + `</ds:SignatureValue><ds:KeyInfo><ds:X509Data><ds:X509Certificate>` +
		base64.StdEncoding.EncodeToString(cert) + `</ds:X509Certificate></ds:X509Data></ds:KeyInfo></ds:Signature>`
}

func same(s string) string { return s }

func TestVerify(t *testing.T) {
	t.Parallel()
	doc := sampleHead + sign(t, sampleCanonical, same) + sampleTail
	for _, head := range []string{"", `<?xml version="1.0" encoding="UTF-8"?>` + "\n"} {
		s, err := Verify([]byte(head + doc))
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Chain) != 1 || s.Root.Local != "a" || s.Root.Space != "urn:d" || len(s.Root.Children) != 2 {
			t.Errorf("%+v", s.Root)
		}
		if v, ok := s.Root.Attr("urn:p", "b"); !ok || v != "2" {
			t.Errorf("attribute %q, %v", v, ok)
		}
		if x := s.Root.Children[0]; x.Space != "urn:p" || x.Local != "x" {
			t.Errorf("%+v", x)
		}
		if y := s.Root.Children[1]; y.Space != "urn:d" || y.Text != "text" {
			t.Errorf("%+v", y)
		}
		if got := string(s.Root.appendCanonical(nil, nil, true)); got != sampleCanonical {
			t.Errorf("what was read is not what was signed:\n%s", got)
		}
	}
}

// TestAttacks: every known way to make a reader see what was not signed.
func TestAttacks(t *testing.T) {
	t.Parallel()
	sig := sign(t, sampleCanonical, same)
	good := sampleHead + sig + sampleTail
	for name, c := range map[string]struct {
		doc  string
		want error
		say  string
	}{
		"payload moved into a wrapper":     {`<evil xmlns="urn:d">` + good + `</evil>`, ErrSignature, "not a child of the root"},
		"signed part beside a forged one":  {`<a xmlns="urn:d"><y>forged</y>` + good + sig + `</a>`, ErrSignature, "2 Signature elements"},
		"signed document inside signature": {strings.Replace(`<a xmlns="urn:d"><y>forged</y>`+sig+`</a>`, `</ds:KeyInfo>`, `</ds:KeyInfo><ds:Object>`+sampleHead+sampleTail+`</ds:Object>`, 1), ErrSignature, "4 elements in Signature"},
		"a second signature":               {sampleHead + sig + sig + sampleTail, ErrSignature, "2 Signature elements"},
		"a signature of another namespace": {sampleHead + `<Signature/>` + sig + sampleTail, ErrSignature, "2 Signature elements"},
		"no signature":                     {sampleHead + sampleTail, ErrSignature, "0 Signature elements"},
		"signature deeper":                 {sampleHead + `<y>` + sig + `</y>` + sampleTail, ErrSignature, "not a child of the root"},
		"signature as the root":            {sig, ErrSignature, "not a child of the root"},
		"an element added":                 {sampleHead + `<y/>` + sig + sampleTail, ErrSignature, "digest"},
		"an element with a duplicate Id":   {sampleHead + `<y Id="1"/><y Id="1"/>` + sig + sampleTail, ErrSignature, "digest"},
		"an attribute changed":             {strings.Replace(good, `z="1"`, `z="2"`, 1), ErrSignature, "digest"},
		"white space changed":              {strings.Replace(good, "\n", "\n\n", 1), ErrSignature, "digest"},
		"a prefix bound to another name":   {strings.Replace(good, `xmlns:q="urn:q"`, `xmlns:q="urn:r"`, 1), ErrSignature, "digest"},
		"a prefix re-declared":             {strings.Replace(good, `<y xmlns:q`, `<y xmlns:p="urn:r" xmlns:q`, 1), ErrSignature, "digest"},
		"the default re-declared":          {strings.Replace(good, `<y xmlns:q`, `<y xmlns="urn:r" xmlns:q`, 1), ErrSignature, "digest"},
		"namespaces of the signature":      {strings.Replace(good, `<ds:Signature `, `<ds:Signature xmlns="urn:r" `, 1), ErrSignature, "not by the key"},
		"a document type":                  {`<!DOCTYPE a [<!ENTITY e "x">]>` + good, ErrFormat, "document type"},
		"an entity":                        {strings.Replace(good, "text", "te&lt;xt", 1), ErrFormat, "entity"},
		"a character reference":            {strings.Replace(good, "text", "te&#120;t", 1), ErrFormat, "entity"},
		"a comment in text":                {strings.Replace(good, "text", "te<!-- -->xt", 1), ErrFormat, "comment"},
		"a comment in the digest":          {strings.Replace(good, "</ds:DigestValue>", "<!-- --></ds:DigestValue>", 1), ErrFormat, "comment"},
		"CDATA":                            {strings.Replace(good, "text", "<![CDATA[text]]>", 1), ErrFormat, "CDATA"},
		"a processing instruction":         {strings.Replace(good, "text", "<?x?>text", 1), ErrFormat, "processing instruction"},
		"XML 1.1":                          {`<?xml version="1.1"?>` + good, ErrFormat, "processing instruction"},
		"another encoding":                 {`<?xml version="1.0" encoding="UTF-7"?>` + good, ErrFormat, "processing instruction"},
		"a second root":                    {good + `<a/>`, ErrFormat, "second root"},
		"text behind the root":             {good + `x`, ErrFormat, "outside"},
		"a carriage return":                {strings.Replace(good, "text", "text\r", 1), ErrFormat, "0x0d"},
		"not ASCII":                        {strings.Replace(good, "text", "t\u00e9xt", 1), ErrFormat, "printable"},
		"xml:base":                         {strings.Replace(good, `z="1"`, `z="1" xml:base="urn:x"`, 1), ErrFormat, "not declared"},
		"an attribute twice":               {strings.Replace(good, `z="1"`, `z="1" z="1"`, 1), ErrFormat, "twice"},
		"an attribute under two prefixes":  {strings.Replace(good, `z="1"`, `xmlns:o="urn:p" o:b="2"`, 1), ErrFormat, "twice"},
		"an undeclared prefix":             {strings.Replace(good, `<y `, `<y n:k="1" `, 1), ErrFormat, "not declared"},
		"an empty namespace":               {strings.Replace(good, `<y `, `<y xmlns="" `, 1), ErrFormat, "namespace"},
		"a relative namespace":             {strings.Replace(good, `<y `, `<y xmlns:o="o" `, 1), ErrFormat, "namespace"},
		"a line end in an attribute":       {strings.Replace(good, `z="1"`, "z=\"1\n\"", 1), ErrFormat, "line end"},
		"a tag that does not end":          {strings.TrimSuffix(good, "</a>"), ErrFormat, "does not end"},
		"an end tag of another prefix":     {strings.Replace(good, "</y>", "</p:y>", 1), ErrFormat, "end tag"},
		"deep":                             {strings.Repeat("<a>", 13) + strings.Repeat("</a>", 13), ErrFormat, "levels"},
		"many":                             {"<a>" + strings.Repeat("<b/>", 1024) + "</a>", ErrFormat, "1024"},
		"many attributes":                  {"<a" + strings.Repeat(` x="1"`, 81) + "/>", ErrFormat, "attributes"},
		"large":                            {"<a>" + strings.Repeat(" ", MaxDocument) + "</a>", ErrFormat, "limit"},
		"nothing":                          {"", ErrFormat, "does not end"},
		"a raw value of another size":      {strings.Replace(good, "<ds:SignatureValue>", "<ds:SignatureValue>AAAA", 1), ErrSignature, "want 96"},
		"not base64":                       {strings.Replace(good, "<ds:SignatureValue>", "<ds:SignatureValue>*", 1), ErrSignature, "SignatureValue"},
		"text between":                     {strings.Replace(good, "<ds:KeyInfo>", "x<ds:KeyInfo>", 1), ErrSignature, "text in Signature"},
		"no certificate":                   {good[:strings.Index(good, "<ds:X509Certificate>")] + `</ds:X509Data></ds:KeyInfo></ds:Signature></a>`, ErrSignature, "0 certificates"},
	} {
		s, err := Verify([]byte(c.doc))
		if s != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v, want %v that says %q", name, err, c.want, c.say)
		}
	}
}

// TestSignedInfo: a SignedInfo that is well signed and asks for something else is
// refused all the same.
func TestSignedInfo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, new string }{
		"a reference to an Id":      {`URI=""`, `URI="#x"`},
		"no URI":                    {` URI=""`, ``},
		"another canonical form":    {algC14N, "http://www.w3.org/2001/10/xml-exc-c14n#"},
		"with comments":             {algC14N, algC14N + "#WithComments"},
		"SHA-1":                     {algSHA384, "http://www.w3.org/2000/09/xmldsig#sha1"},
		"HMAC":                      {algECDSA, "http://www.w3.org/2000/09/xmldsig#hmac-sha1"},
		"XSLT":                      {algEnveloped, "http://www.w3.org/TR/1999/REC-xslt-19991116"},
		"a Reference with Id":       {`URI=""`, `Id="x" URI=""`},
		"a transform's parameters":  {algEnveloped + `">`, algEnveloped + `"><ds:XPath></ds:XPath>`},
		"a second reference":        {`</ds:Reference>`, `</ds:Reference><ds:Reference URI=""></ds:Reference>`},
		"one transform":             {`<ds:Transform Algorithm="` + algEnveloped + `"></ds:Transform>`, ``},
		"HMACOutputLength":          {algECDSA + `">`, algECDSA + `"><ds:HMACOutputLength>0</ds:HMACOutputLength>`},
		"a digest of another place": {`</ds:DigestValue>`, `</ds:DigestValue><ds:DigestValue></ds:DigestValue>`},
	} {
		change := func(s string) string { return strings.ReplaceAll(s, c.old, c.new) }
		s, err := Verify([]byte(sampleHead + sign(t, sampleCanonical, change) + sampleTail))
		if s != nil || !errors.Is(err, ErrSignature) || strings.Contains(err.Error(), "not by the key") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEveryByte flips every bit of every byte: refused, or the same document with
// the same signer.
func TestEveryByte(t *testing.T) {
	t.Parallel()
	doc := []byte(sampleHead + sign(t, sampleCanonical, same) + sampleTail)
	for i := range doc {
		for bit := range 8 {
			doc[i] ^= 1 << bit
			if s, err := Verify(doc); err == nil && string(s.Root.appendCanonical(nil, nil, true)) != sampleCanonical {
				t.Errorf("bit %d of byte %d changed and read as something else", bit, i)
			} else if err == nil && i < len(sampleHead) {
				t.Errorf("bit %d of byte %d changed and accepted", bit, i)
			}
			doc[i] ^= 1 << bit
		}
	}
}

// TestReal verifies NVIDIA's own manifest, and it with one digit changed.
func TestReal(t *testing.T) {
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: NVIDIA's manifest is not verified")
	}
	doc, err := os.ReadFile(filepath.Join(dir, "nvidia", "1010_0200_882_96005E0001_PROD.swidtag"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := Verify(doc)
	if err != nil || len(s.Chain) != 4 || s.Chain[3].Subject.CommonName != "NVIDIA CoRIM signing Root CA" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := Verify([]byte(strings.Replace(string(doc), "c3f65ef7", "c3f65ef8", 1))); !errors.Is(err, ErrSignature) {
		t.Errorf("changed: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	sig := sign(f, sampleCanonical, same)
	f.Add([]byte(sampleHead + sig + sampleTail))
	f.Add([]byte(sampleHead + sampleTail))
	f.Add([]byte(`<?xml version="1.0"?><a xmlns:b="urn:b"><b:c d='e'/></a>`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		if e, err := parse(doc); err == nil {
			// The canonical form is of the subset, and its own canonical form.
			once := e.appendCanonical(nil, nil, true)
			again, err := parse(once)
			if err != nil || string(again.appendCanonical(nil, nil, true)) != string(once) {
				t.Errorf("canonical form %q: %v", once, err)
			}
		} else if !errors.Is(err, ErrFormat) {
			t.Errorf("untyped error %v", err)
		}
		if _, err := Verify(doc); err != nil && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrSignature) {
			t.Errorf("untyped error %v", err)
		}
	})
}
