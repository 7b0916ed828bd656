package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha512"
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/verifier/internal/check"
)

// FuzzAppraise feeds reports and certificates that nobody made.
func FuzzAppraise(f *testing.F) {
	m := make1(f, sim.Config{})
	p := make1(f, masking)
	for _, x := range []*made{m, p} {
		vek := x.ends.ByType(attestation.TypeAMDVCEK, nil)
		if vek == nil {
			vek = x.ends.ByType(attestation.TypeAMDVLEK, nil)
		}
		f.Add(x.raw, vek[0], x.ends.ByType(attestation.TypeAMDChain, nil)[0], x.ends.ByType(attestation.TypeAMDCRL, nil)[0])
	}
	f.Add(m.raw, []byte("x"), []byte("x"), []byte("x"))
	f.Fuzz(func(t *testing.T, raw, vek, chain, crl []byte) {
		ends := new(attestation.Endorsements)
		for typ, b := range map[string][]byte{attestation.TypeAMDVCEK: vek, attestation.TypeAMDVLEK: vek, attestation.TypeAMDChain: chain, attestation.TypeAMDCRL: crl} {
			if _, err := ends.Add(attestation.Endorsement{Type: typ, Data: b}); err != nil {
				return
			}
		}
		r := check.NewRecorder("snp")
		Appraise(raw, ends, nil, m.pol, m.want, r)
		if len(r.Checks()) == 0 {
			t.Error("no check recorded")
		}
		for _, c := range r.Problems() {
			if c.Advice == "" {
				t.Errorf("%s objects without advice", c.Name)
			}
		}
		if r.IsAuthentic() && !bytes.Equal(raw, m.raw) && !bytes.Equal(raw, p.raw) {
			t.Error("forged report is authentic")
		}
	})
}

// BenchmarkAppraise judges a sound report. The ratio is of the time to that of
// the signature checks that it contains, in the same run.
func BenchmarkAppraise(b *testing.B) {
	m := make1(b, sim.Config{})
	rep, err := snp.Parse(m.raw)
	if err != nil {
		b.Fatal(err)
	}
	s, err := findSigner(certsOf(m.ends, nil, snp.VCEK), m.raw, rep)
	if err != nil {
		b.Fatal(err)
	}
	if err := s.findChain(m.ends.ByType(attestation.TypeAMDChain, nil), snp.VCEK, snp.Genoa, &m.want); err != nil {
		b.Fatal(err)
	}
	list, err := parseList(m.ends.ByType(attestation.TypeAMDCRL, nil)[0], s.ark)
	if err != nil {
		b.Fatal(err)
	}
	h := sha512.Sum384(snp.SignedPart(m.raw))
	sigR, sigS := new(big.Int).SetBytes(rep.R[:]), new(big.Int).SetBytes(rep.S[:])
	report := func() bool { return ecdsa.Verify(s.cert.PublicKey.(*ecdsa.PublicKey), h[:], sigR, sigS) }
	chain := func() bool {
		for _, link := range [][2]*x509.Certificate{{s.ark, s.ark}, {s.ask, s.ark}, {s.cert, s.ask}} {
			if link[0].CheckSignatureFrom(link[1]) != nil {
				return false
			}
		}
		return list.CheckSignatureFrom(s.ark) == nil
	}
	for _, c := range []struct {
		name   string
		before func()
		raw    []func() bool
	}{
		{"cold", check.Forget, []func() bool{chain, report}},
		{"cached", func() {}, []func() bool{report}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var whole, raw time.Duration
			for b.Loop() {
				for _, f := range c.raw {
					start := time.Now()
					if !f() {
						b.Fatal("bad signature")
					}
					raw += time.Since(start)
				}
				c.before()
				start := time.Now()
				if r := m.appraise(); check.Summary(r.Checks()) != check.Pass {
					b.Fatal(r.Problems())
				}
				whole += time.Since(start)
			}
			b.ReportMetric(float64(whole.Microseconds())/float64(b.N), "µs/appraisal")
			b.ReportMetric(float64(whole)/float64(raw), "×signatures")
		})
	}
}

// BenchmarkAppraiseReal is a genuine Milan report, without a revocation list.
func BenchmarkAppraiseReal(b *testing.B) {
	raw := vector(b, "test-report.bin")
	ends := set(b, attestation.Endorsement{Type: attestation.TypeAMDVCEK, Data: vector(b, "test-vcek.der")})
	for name, before := range map[string]func(){"cold": check.Forget, "cached": func() {}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				before()
				r := check.NewRecorder("snp")
				Appraise(raw, ends, nil, nil, check.Expect{At: at2026, AllowMissingCollateral: true}, r)
				if !r.IsAuthentic() {
					b.Fatal(r.Problems())
				}
			}
		})
	}
}
