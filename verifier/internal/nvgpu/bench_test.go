package nvgpu

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/verifier/internal/check"
)

func FuzzAppraise(f *testing.F) {
	f.Add(make([]byte, 200), []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte{0x30, 0})
	m := simulate(f)
	f.Add(m.items[0].Raw, m.ends.ByType(attestation.TypeNVIDIAChain, nil)[0], m.ends.ByType(attestation.TypeNVIDIAOCSP, nil)[0])
	f.Fuzz(func(t *testing.T, raw, chain, response []byte) {
		if len(chain) == 0 || len(response) == 0 {
			return
		}
		ends, err := attestation.NewEndorsements(
			attestation.Endorsement{Type: attestation.TypeNVIDIAChain, Data: chain},
			attestation.Endorsement{Type: attestation.TypeNVIDIAOCSP, Data: response})
		if err != nil {
			return
		}
		r := check.NewRecorder("gpu")
		Appraise(raw, ends, nil, nil, check.Expect{At: now}, r)
		if r.IsAuthentic() {
			t.Error("a simulated or invented GPU is genuine")
		}
	})
}

func BenchmarkAppraise(b *testing.B) {
	b.Run("one P-384 verification", func(b *testing.B) {
		key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		digest := make([]byte, 48)
		r, s, err := ecdsa.Sign(rand.Reader, key, digest)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if !ecdsa.Verify(&key.PublicKey, digest, r, s) {
				b.Fatal("not verified")
			}
		}
	})
	b.Run("real", func(b *testing.B) {
		raw, ends := realH100(b)
		for b.Loop() {
			Appraise(raw, ends, nil, nil, check.Expect{At: now, AllowMissingCollateral: true}, check.NewRecorder("gpu"))
		}
	})
	b.Run("simulated, OCSP", func(b *testing.B) {
		m := simulate(b)
		it := m.items[0]
		for b.Loop() {
			Appraise(it.Raw, m.ends, it.Endorsements, &m.pol, m.want, check.NewRecorder("gpu"))
		}
	})
	b.Run("eight GPUs, four switches, OCSP, manifests", func(b *testing.B) {
		m := simulateOf(b, sim.Config{GPUs: 8, Switches: 4, Manifests: true})
		for b.Loop() {
			m.appraise()
		}
	})
	b.Run("parse", func(b *testing.B) {
		m := simulate(b)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := nvgpu.Parse(m.items[0].Raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}
