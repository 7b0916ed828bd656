package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/verifier/internal/check"
)

// like returns a certificate with the names, times and extensions of c, for the
// key pub, in the name of issuer and signed by key.
func like(t testing.TB, c, issuer *x509.Certificate, pub any, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	n := &x509.Certificate{
		SerialNumber: c.SerialNumber, Subject: c.Subject, RawSubject: c.RawSubject, NotBefore: c.NotBefore, NotAfter: c.NotAfter, IsCA: c.IsCA,
		BasicConstraintsValid: c.BasicConstraintsValid, KeyUsage: c.KeyUsage, SignatureAlgorithm: x509.SHA384WithRSAPSS,
		CRLDistributionPoints: c.CRLDistributionPoints,
	}
	for _, e := range c.Extensions {
		if e.Id[0] == 1 { // AMD's and the mark; the others come from the fields
			n.ExtraExtensions = append(n.ExtraExtensions, e)
		}
	}
	named := &x509.Certificate{Subject: issuer.Subject, RawSubject: issuer.RawSubject} // without its key, which is not ours
	der, err := x509.CreateCertificate(rand.Reader, n, named, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func newRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestForgedRoots builds AMD's own chains anew, name by name, under another key,
// and signs an otherwise perfect report: no product line falls for it, whether
// the forgery comes alone or beside the real chain.
func TestForgedRoots(t *testing.T) {
	t.Parallel()
	forger := newRSA(t)
	for _, c := range []struct {
		cfg sim.Config
		key snp.SigningKey
	}{{milan, snp.VCEK}, {plain, snp.VCEK}, {turin, snp.VCEK}, {sim.Config{Product: "Milan", SNP: aws}, snp.VLEK}, {masking, snp.VLEK},
		{sim.Config{Product: "Turin", SNP: aws}, snp.VLEK}} {
		m := make1(t, c.cfg)
		rep, err := snp.Parse(m.raw)
		if err != nil {
			t.Fatal(err)
		}
		s, err := findSigner(certsOf(m.ends, nil, c.key), m.raw, rep)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range amdPairs() {
			if p.ask.Subject.CommonName != caName(c.key, s.ext.product) {
				continue
			}
			ark := like(t, p.ark, p.ark, forger.Public(), forger)
			ask := like(t, p.ask, ark, forger.Public(), forger)
			leaf := *s.cert                  // what is remembered is shared
			leaf.SerialNumber = new(big.Int) // as AMD's, without the simulator's mark
			forged := &signer{cert: like(t, &leaf, ask, s.cert.PublicKey, forger), ext: s.ext}
			if !forged.signed(m.raw, rep) {
				t.Fatal("the forgery is not perfect")
			}
			var chain bytes.Buffer
			for _, x := range []*x509.Certificate{ask, ark} {
				if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: x.Raw}); err != nil {
					t.Fatal(err)
				}
			}
			if err := forged.findChain([][]byte{chain.Bytes()}, c.key, s.ext.product, &check.Expect{At: now}); err == nil {
				t.Errorf("%s of %s: forged chain accepted", c.key, s.ext.product)
			}
			// AMD's root over the forged CA, and AMD's CA over the forged leaf.
			for _, mixed := range []pair{{ask, p.ark}, {p.ask, ark}, p} {
				if err := checkPath(forged.cert, mixed, s.ext.product, &check.Expect{At: now}); err == nil {
					t.Errorf("%s of %s: mixed chain accepted", c.key, s.ext.product)
				}
			}
		}
	}
}

// TestRootIsSelfSigned offers the accepted root key under a certificate that the
// vendor did not make.
func TestRootIsSelfSigned(t *testing.T) {
	t.Parallel()
	m := make1(t, sim.Config{})
	p, err := parsePair(m.ends.ByType(attestation.TypeAMDChain, nil)[0])
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := parseSigner(m.ends.ByType(attestation.TypeAMDVCEK, nil)[0], snp.VCEK)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPath(leaf.cert, p, snp.Genoa, &m.want); err != nil {
		t.Fatal(err)
	}
	raw := bytes.Clone(p.ark.Raw)
	raw[len(raw)-1] ^= 1 // the last byte of the signature
	bad, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPath(leaf.cert, pair{p.ask, bad}, snp.Genoa, &m.want); err == nil {
		t.Error("a root with a broken signature is accepted")
	}
}

// TestCourier puts certificates that somebody made for the same chip and TCB
// beside the real one: the one whose key signed the report is found.
func TestCourier(t *testing.T) {
	t.Parallel()
	m := make1(t, sim.Config{})
	m.refs = nil
	real, err := parseSigner(m.ends.ByType(attestation.TypeAMDVCEK, nil)[0], snp.VCEK)
	if err != nil {
		t.Fatal(err)
	}
	forger := newRSA(t)
	for range maxSigners - 1 {
		k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := like(t, real.cert, real.cert, k.Public(), forger)
		if _, err := m.ends.Add(attestation.Endorsement{Type: attestation.TypeAMDVCEK, Data: c.Raw}); err != nil {
			t.Fatal(err)
		}
	}
	expectProblems(t, m.appraise(), nil)
}

// TestExtensions reads certificates whose extensions are not as AMD writes them.
func TestExtensions(t *testing.T) {
	t.Parallel()
	m := make1(t, sim.Config{})
	c, err := x509.ParseCertificate(m.ends.ByType(attestation.TypeAMDVCEK, nil)[0])
	if err != nil {
		t.Fatal(err)
	}
	arc := func(n ...int) asn1.ObjectIdentifier { return append(bytesOID(), n...) }
	edit := func(id asn1.ObjectIdentifier, f func(e *pkix.Extension)) *x509.Certificate {
		d := *c
		d.Extensions = nil
		for _, e := range c.Extensions {
			if e.Id.Equal(id) {
				f(&e)
			}
			d.Extensions = append(d.Extensions, e)
		}
		return &d
	}
	add := func(e pkix.Extension) *x509.Certificate {
		d := *c
		d.Extensions = append(append([]pkix.Extension(nil), c.Extensions...), e)
		return &d
	}
	value := func(b ...byte) func(e *pkix.Extension) { return func(e *pkix.Extension) { e.Value = b } }
	if v, err := parseVEK(c, snp.VCEK); err != nil || v.product != snp.Genoa || v.csp != "" {
		t.Fatalf("%+v, %v", v, err)
	}
	if v, err := parseVEK(edit(arc(4), func(e *pkix.Extension) { e.Value = append([]byte{4, 64}, e.Value...) }), snp.VCEK); err != nil || len(v.hwID) != 64 {
		t.Errorf("chip id with a DER header: %v", err)
	}
	for _, design := range []string{"Bergamo-A1", "Siena"} {
		v, err := parseVEK(edit(arc(2), value(append([]byte{asn1.TagIA5String, byte(len(design))}, design...)...)), snp.VCEK)
		if err != nil || v.product != snp.Genoa {
			t.Errorf("%s is of the line %s, %v", design, v.product, err)
		}
	}
	for name, bad := range map[string]*x509.Certificate{
		"short chip id":      edit(arc(4), func(e *pkix.Extension) { e.Value = e.Value[1:] }),
		"no chip id":         edit(arc(4), func(e *pkix.Extension) { e.Id = asn1.ObjectIdentifier{2, 5, 29, 99} }),
		"provider in a VCEK": add(pkix.Extension{Id: arc(5), Value: []byte{asn1.TagIA5String, 1, 'x'}}),
		"fmc off Turin":      add(pkix.Extension{Id: arc(3, 9), Value: []byte{2, 1, 0}}),
		"unknown":            add(pkix.Extension{Id: arc(6), Value: []byte{2, 1, 0}}),
		"twice":              add(pkix.Extension{Id: arc(1), Value: []byte{2, 1, 0}}),
		"critical":           add(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2}, Critical: true}),
		"SVN above a byte":   edit(arc(3, 8), value(2, 2, 1, 0)),
		"negative SVN":       edit(arc(3, 8), value(2, 1, 0xFF)),
		"SVN with a tail":    edit(arc(3, 8), value(2, 1, 1, 0)),
		"reserved SVN":       edit(arc(3, 5), value(2, 1, 1)),
		"no version":         edit(arc(1), value()),
	} {
		if v, err := parseVEK(bad, snp.VCEK); err == nil {
			t.Errorf("%s: accepted as %+v", name, v)
		}
	}
	if _, err := parseVEK(c, snp.VLEK); err == nil {
		t.Error("the certificate of a VCEK is read as of a VLEK")
	}
}

func bytesOID() asn1.ObjectIdentifier { return append(asn1.ObjectIdentifier(nil), kdsArc...) }

// TestPairMemory demands that a chain is remembered once it led to an accepted
// root, and only then.
func TestPairMemory(t *testing.T) {
	t.Parallel()
	good, bad := make1(t, sim.Config{Product: "Milan"}), make1(t, with(milan, "forged-root", ""))
	for _, m := range []*made{good, bad} {
		m.appraise()
		doc := m.ends.ByType(attestation.TypeAMDChain, nil)[0]
		_, kept := goodPairs.Get(check.Key(doc))
		if kept != (m == good) {
			t.Errorf("kept %v", kept)
		}
	}
	expectProblems(t, good.appraise(), nil)
	expectProblems(t, bad.appraise(), fails("chain"))
	if _, _, err := recall([]byte("x")); err == nil {
		t.Error("nothing parses as a chain")
	}
}
