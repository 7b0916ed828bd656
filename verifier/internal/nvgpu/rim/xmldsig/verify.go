package xmldsig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// The algorithms (XML Signature 1.1, 6; RFC 6931 2.1.3 and 2.3.6; RFC 9231).
const (
	spaceDSig    = "http://www.w3.org/2000/09/xmldsig#"
	algC14N      = "http://www.w3.org/2006/12/xml-c14n11"
	algEnveloped = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
	algSHA384    = "http://www.w3.org/2001/04/xmldsig-more#sha384"
	algECDSA     = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
)

const (
	signatureSize   = 96 // r‖s, 48 bytes each (RFC 6931 2.3.6)
	maxCertificates = 8
)

// ErrSignature is wrapped by every error about a signature: missing, of another
// form, or not over this document.
var ErrSignature = errors.New("xmldsig: no valid signature")

// Signed is a document whose signature is good under its first certificate.
// Nothing says yet that this certificate may sign.
type Signed struct {
	// Root is the document without its Signature element, parsed from the bytes
	// that were hashed.
	Root *Element
	// Chain are the certificates in the order of KeyInfo: the signer's first. The
	// signature does not cover them.
	Chain []*x509.Certificate
}

// Verify checks the signature in doc by the key of the first certificate that
// the document brings. Errors wrap [ErrFormat] or [ErrSignature].
func Verify(doc []byte) (*Signed, error) {
	root, err := parse(doc)
	if err != nil {
		return nil, err
	}
	sig, err := theSignature(root)
	if err != nil {
		return nil, err
	}
	s, err := readSignature(sig)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	signed := root.appendCanonical(make([]byte, 0, len(doc)), sig, true)
	if sum := sha512.Sum384(signed); string(sum[:]) != string(s.digest) {
		return nil, fmt.Errorf("%w: the document's digest is %x, the signature is over %x", ErrSignature, sum, s.digest)
	}
	sum := sha512.Sum384(s.info.appendCanonical(nil, nil, true))
	key, ok := s.chain[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, fmt.Errorf("%w: the signer's key is not on P-384", ErrSignature)
	}
	r, t := new(big.Int).SetBytes(s.value[:signatureSize/2]), new(big.Int).SetBytes(s.value[signatureSize/2:])
	if !ecdsa.Verify(key, sum[:], r, t) {
		return nil, fmt.Errorf("%w: not by the key of %.80q", ErrSignature, s.chain[0].Subject.CommonName)
	}
	out := &Signed{Chain: s.chain}
	if out.Root, err = parse(signed); err != nil {
		return nil, err
	}
	return out, nil
}

// theSignature returns the one element named Signature, of any namespace: a child
// of the root, with no other anywhere, in it or outside of it.
func theSignature(root *Element) (*Element, error) {
	var found []*Element
	var walk func(*Element)
	walk = func(e *Element) {
		if e.Local == "Signature" {
			found = append(found, e)
		}
		for _, c := range e.Children {
			walk(c)
		}
	}
	walk(root)
	switch {
	case len(found) != 1:
		return nil, fmt.Errorf("%w: %d Signature elements, want 1", ErrSignature, len(found))
	case found[0].parent != root || found[0].Space != spaceDSig:
		return nil, fmt.Errorf("%w: the Signature element is not a child of the root, in the namespace %s", ErrSignature, spaceDSig)
	}
	return found[0], nil
}

type signature struct {
	info          *Element
	digest, value []byte
	chain         []*x509.Certificate
}

// readSignature reads the only form that is accepted: every element, attribute
// and algorithm is fixed, so that nothing unsigned steers what is verified.
func readSignature(sig *Element) (*signature, error) {
	top, err := shape(sig, nil, "SignedInfo", "SignatureValue", "KeyInfo")
	if err != nil {
		return nil, err
	}
	s := &signature{info: top[0]}
	info, err := shape(top[0], nil, "CanonicalizationMethod", "SignatureMethod", "Reference")
	if err != nil {
		return nil, err
	}
	ref, err := shape(info[2], []Attr{{Local: "URI", Value: ""}}, "Transforms", "DigestMethod", "DigestValue")
	if err != nil {
		return nil, err
	}
	transforms, err := shape(ref[0], nil, "Transform", "Transform")
	if err != nil {
		return nil, err
	}
	for _, want := range []struct {
		e   *Element
		alg string
	}{{info[0], algC14N}, {info[1], algECDSA}, {transforms[0], algEnveloped}, {transforms[1], algC14N}, {ref[1], algSHA384}} {
		if _, err := shape(want.e, []Attr{{Local: "Algorithm", Value: want.alg}}); err != nil {
			return nil, err
		}
	}
	if s.digest, err = value(ref[2], sha512.Size384); err != nil {
		return nil, err
	}
	if s.value, err = value(top[1], signatureSize); err != nil {
		return nil, err
	}
	keyInfo, err := shape(top[2], nil, "X509Data")
	if err != nil {
		return nil, err
	}
	s.chain, err = certificates(keyInfo[0])
	return s, err
}

// shape demands that e has exactly these attributes and these children, in this
// order and with nothing but white space between them, and returns the children.
func shape(e *Element, attrs []Attr, children ...string) ([]*Element, error) {
	if strings.Trim(e.Text, " \n") != "" {
		return nil, fmt.Errorf("text in %s", e.Local)
	}
	if len(e.Attrs) != len(attrs) {
		return nil, fmt.Errorf("%d attributes in %s, want %d", len(e.Attrs), e.Local, len(attrs))
	}
	for i, a := range attrs {
		if got := e.Attrs[i]; got.Space != a.Space || got.Local != a.Local || got.Value != a.Value {
			return nil, fmt.Errorf("%s is %.40q %.80q, want %q %q", e.Local, got.Local, got.Value, a.Local, a.Value)
		}
	}
	if len(e.Children) != len(children) {
		return nil, fmt.Errorf("%d elements in %s, want %q", len(e.Children), e.Local, children)
	}
	for i, c := range e.Children {
		if c.Space != spaceDSig || c.Local != children[i] {
			return nil, fmt.Errorf("%.40q in %s, want %q", c.Local, e.Local, children[i])
		}
	}
	return e.Children, nil
}

// value decodes the base64 text of e, n bytes.
func value(e *Element, n int) ([]byte, error) {
	b, err := decode(e)
	if err == nil && len(b) != n {
		err = fmt.Errorf("%s of %d bytes, want %d", e.Local, len(b), n)
	}
	return b, err
}

func decode(e *Element) ([]byte, error) {
	if len(e.Attrs)+len(e.Children) > 0 {
		return nil, fmt.Errorf("attributes or elements in %s", e.Local)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(strings.NewReplacer("\n", "", " ", "").Replace(e.Text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Local, err)
	}
	return b, nil
}

func certificates(data *Element) ([]*x509.Certificate, error) {
	n := len(data.Children)
	if n == 0 || n > maxCertificates {
		return nil, fmt.Errorf("%d certificates, want 1 to %d", n, maxCertificates)
	}
	names := make([]string, n)
	for i := range names {
		names[i] = "X509Certificate"
	}
	list, err := shape(data, nil, names...)
	if err != nil {
		return nil, err
	}
	chain := make([]*x509.Certificate, n)
	for i, e := range list {
		der, err := decode(e)
		if err != nil {
			return nil, err
		}
		if chain[i], err = x509.ParseCertificate(der); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", i+1, err)
		}
	}
	return chain, nil
}
