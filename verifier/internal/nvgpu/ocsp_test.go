package nvgpu

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/concordat/concordat/verifier/internal/check"
)

type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// certify returns a certificate by ca, or a CA of its own if ca is nil.
func certify(t *testing.T, name string, ca *signer, change func(*x509.Certificate)) *signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, SerialNumber: new(big.Int).SetBytes([]byte("serial of " + name)),
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	if change != nil {
		change(c)
	}
	parent := &signer{c, key}
	if ca != nil {
		parent = ca
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent.cert, &key.PublicKey, parent.key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{parsed, key}
}

// TestResponders: who may answer for a CA, and which answers count.
func TestResponders(t *testing.T) {
	t.Parallel()
	forOCSP := func(c *x509.Certificate) {
		c.IsCA, c.ExtKeyUsage = false, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	}
	ca := certify(t, "ca", nil, nil)
	cert := certify(t, "device", ca, nil)
	good := ocsp.Response{Status: ocsp.Good, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	revoked := ocsp.Response{Status: ocsp.Revoked, ThisUpdate: good.ThisUpdate, NextUpdate: good.NextUpdate, RevokedAt: now.Add(-time.Hour), RevocationReason: ocsp.Superseded}

	for name, c := range map[string]struct {
		by     *signer
		embed  bool
		say    ocsp.Response
		change func(r *ocsp.Response)
		want   string // "good", "nothing", or words of the error
	}{
		"the CA":              {by: ca, say: good, want: "good"},
		"its responder":       {by: certify(t, "responder", ca, forOCSP), embed: true, say: good, want: "good"},
		"another CA":          {by: certify(t, "ca", nil, nil), say: good, want: "nothing"},
		"a foreign responder": {by: certify(t, "responder", certify(t, "ca", nil, nil), forOCSP), embed: true, say: good, want: "nothing"},
		"the device itself":   {by: cert, embed: true, say: good, want: "nothing"},
		"a sibling device":    {by: certify(t, "sibling", ca, nil), embed: true, say: good, want: "nothing"},
		"an old responder": {by: certify(t, "responder", ca, func(c *x509.Certificate) { forOCSP(c); c.NotAfter = now.Add(-time.Minute) }),
			embed: true, say: good, want: "nothing"},
		"a responder of the future": {by: certify(t, "responder", ca, func(c *x509.Certificate) { forOCSP(c); c.NotBefore = now.Add(time.Minute) }),
			embed: true, say: good, want: "nothing"},
		"about another":        {by: ca, say: good, change: func(r *ocsp.Response) { r.SerialNumber = ca.cert.SerialNumber }, want: "nothing"},
		"from the future":      {by: ca, say: good, change: func(r *ocsp.Response) { r.ThisUpdate = now.Add(time.Minute) }, want: "nothing"},
		"revoked":              {by: ca, say: revoked, want: "superseded"},
		"revoked later":        {by: ca, say: revoked, change: func(r *ocsp.Response) { r.RevokedAt = now.Add(time.Minute) }, want: "nothing"},
		"revoked, by a device": {by: certify(t, "sibling", ca, nil), embed: true, say: revoked, want: "nothing"},
		"on hold":              {by: ca, say: revoked, change: func(r *ocsp.Response) { r.RevocationReason = ocsp.CertificateHold }, want: "hold"},
		"unknown":              {by: ca, say: good, change: func(r *ocsp.Response) { r.Status = ocsp.Unknown }, want: "unknown to its issuer"},
	} {
		say := c.say
		say.SerialNumber = cert.cert.SerialNumber
		if c.change != nil {
			c.change(&say)
		}
		if c.embed {
			say.Certificate = c.by.cert
		}
		der, err := ocsp.CreateResponse(ca.cert, c.by.cert, say, c.by.key)
		if err != nil {
			t.Fatal(name, err)
		}
		st := status(cert.cert, ca.cert, [][]byte{der}, &check.Expect{At: now})
		got := "nothing"
		switch {
		case st.err != nil:
			got = st.err.Error()
		case st.hold != nil:
			got = "hold"
		case st.good != nil:
			got = "good"
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		// A simulated appraisal takes no responder without the marks.
		if st := status(cert.cert, ca.cert, [][]byte{der}, &check.Expect{At: now, Simulated: true}); c.embed && (st.good != nil || st.err != nil) {
			t.Errorf("%s: an unmarked responder counts in a simulation", name)
		}
	}
}

// TestEveryByteOfResponses flips a bit of every byte of a response: it says
// nothing any more, or, where the byte is of the frame around what is signed, what
// was signed.
func TestEveryByteOfResponses(t *testing.T) {
	t.Parallel()
	ca := certify(t, "ca", nil, nil)
	cert := certify(t, "device", ca, nil)
	by := certify(t, "responder", ca, func(c *x509.Certificate) {
		c.IsCA, c.ExtKeyUsage = false, []x509.ExtKeyUsage{x509.ExtKeyUsageOCSPSigning}
	})
	der, err := ocsp.CreateResponse(ca.cert, by.cert, ocsp.Response{
		Status: ocsp.Good, SerialNumber: cert.cert.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Hour), Certificate: by.cert,
	}, by.key)
	if err != nil {
		t.Fatal(err)
	}
	want := &check.Expect{At: now}
	good := status(cert.cert, ca.cert, [][]byte{der}, want).good
	if good == nil {
		t.Fatal("the response itself says nothing")
	}
	for i := range der {
		der[i] ^= 1 << (i % 8)
		if st := status(cert.cert, ca.cert, [][]byte{der}, want); st != (certStatus{}) &&
			(st.good == nil || !bytes.Equal(st.good.TBSResponseData, good.TBSResponseData)) {
			t.Errorf("byte %d changed: %+v", i, st)
		}
		der[i] ^= 1 << (i % 8)
	}
}
