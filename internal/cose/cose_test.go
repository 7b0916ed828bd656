package cose

import (
	"bytes"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"testing"
)

var header = Header{Type: "application/vnd.concordat.test+cose", Issuer: "member:a", Subject: "federation:x"}

func TestSignVerify(t *testing.T) {
	for _, alg := range []Alg{ES256, EdDSA} {
		t.Run(alg.String(), func(t *testing.T) {
			s, err := GenerateSigner(alg)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := Sign(s, header, []byte("payload"), []byte("aad"))
			if err != nil {
				t.Fatal(err)
			}
			m, err := Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if m.Header != header || m.KeyID != s.Public().ID() || string(m.Payload) != "payload" {
				t.Errorf("parsed %+v", m)
			}
			if err := m.Verify(s.Public(), []byte("aad")); err != nil {
				t.Error(err)
			}
			other, _ := GenerateSigner(alg)
			for name, err := range map[string]error{
				"other aad": m.Verify(s.Public(), []byte("aae")),
				"other key": m.Verify(other.Public(), []byte("aad")),
				"no key":    m.Verify(Key{}, []byte("aad")),
				"detached":  m.VerifyDetached(s.Public(), []byte("payload"), []byte("aad")),
			} {
				if !errors.Is(err, ErrSignature) {
					t.Errorf("%s: %v", name, err)
				}
			}
			// Every byte counts: no change leaves a message that parses and verifies.
			for i := range raw {
				for bit := range 8 {
					bad := bytes.Clone(raw)
					bad[i] ^= 1 << bit
					if m, err := Parse(bad); err == nil && m.Verify(s.Public(), []byte("aad")) == nil {
						t.Fatalf("byte %d, bit %d changed: still verifies", i, bit)
					}
				}
			}
			det, err := SignDetached(s, header, []byte("payload"), nil)
			if err != nil {
				t.Fatal(err)
			}
			d, err := Parse(det)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.VerifyDetached(s.Public(), []byte("payload"), nil); err != nil {
				t.Error(err)
			}
			if err := d.Verify(s.Public(), nil); !errors.Is(err, ErrSignature) {
				t.Errorf("detached message verified without its payload: %v", err)
			}
			p, err := s.MarshalPEM()
			if err != nil {
				t.Fatal(err)
			}
			back, err := ParsePEM(p)
			if err != nil || back.Public() != s.Public() {
				t.Errorf("PEM round trip: %v, %v", back, err)
			}
			k, err := ParseKey(s.Public().Encode())
			if err != nil || k != s.Public() {
				t.Errorf("key round trip: %v", err)
			}
		})
	}
}

func TestHighSRefused(t *testing.T) {
	s, _ := GenerateSigner(ES256)
	sig, err := s.SignRaw([]byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Public().VerifyRaw([]byte("m"), sig); err != nil {
		t.Fatal(err)
	}
	v := new(big.Int).SetBytes(sig[32:])
	v.Sub(elliptic.P256().Params().N, v).FillBytes(sig[32:])
	if err := s.Public().VerifyRaw([]byte("m"), sig); !errors.Is(err, ErrSignature) {
		t.Errorf("high S: %v", err)
	}
}

// TestProfile holds messages that other COSE readers accept and this profile
// refuses.
func TestProfile(t *testing.T) {
	id := strings.Repeat("00", 32)
	sig := "5840" + strings.Repeat("00", 64)
	good := "a4" + "0127" + "045820" + id + "0fa2016161026162" + "1063612f62"
	for name, c := range map[string]struct {
		hex string
		ok  bool
	}{
		"good":               {"d284" + "58" + hexLen(good) + good + "a0" + "4170" + sig, true},
		"untagged":           {"84" + "58" + hexLen(good) + good + "a0" + "4170" + sig, false},
		"unprotected header": {"d284" + "58" + hexLen(good) + good + "a10401" + "4170" + sig, false},
		"empty payload":      {"d284" + "58" + hexLen(good) + good + "a0" + "40" + sig, false},
		"undefined payload":  {"d284" + "58" + hexLen(good) + good + "a0" + "f7" + sig, false},
		"trailing byte":      {"d284" + "58" + hexLen(good) + good + "a0" + "4170" + sig + "00", false},
		"crit":               {"d284" + "58" + hexLen("a50127028104"+good[6:]) + "a50127028104" + good[6:] + "a0" + "4170" + sig, false},
		"ES384":              {"d284" + "58" + hexLen("a4013822"+good[6:]) + "a4013822" + good[6:] + "a0" + "4170" + sig, false},
		"short signature":    {"d284" + "58" + hexLen(good) + good + "a0" + "4170" + "4100", false},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := Parse(b); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func hexLen(s string) string { return hex.EncodeToString([]byte{byte(len(s) / 2)}) }

func TestUnmarshalIsStrict(t *testing.T) {
	type rec struct {
		A uint64 `cbor:"1,keyasint"`
		D Digest `cbor:"2,keyasint"`
	}
	d := strings.Repeat("11", 32)
	for name, c := range map[string]struct {
		hex string
		ok  bool
	}{
		"good":             {"a20105025820" + d, true},
		"digest none":      {"a201050240", true},
		"missing field":    {"a10105", false},
		"unknown field":    {"a3010502400301", false},
		"duplicate":        {"a3010501050240", false},
		"order":            {"a202400105", false},
		"long integer":     {"a20118050240", false},
		"short digest":     {"a2010502581f" + d[2:], false},
		"zero digest":      {"a20105025820" + strings.Repeat("00", 32), false},
		"float":            {"a201f945000240", false},
		"indefinite":       {"bf01050240ff", false},
		"trailing":         {"a20105024000", false},
		"tag":              {"d82aa201050240", false},
		"negative":         {"a201240240", false},
		"nothing":          {"", false},
		"array, not a map": {"820540", false},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(name, err)
		}
		var r rec
		if err := Unmarshal(b, &r); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		} else if err != nil && !errors.Is(err, ErrEncoding) {
			t.Errorf("%s: untyped error %v", name, err)
		}
	}
}

// TestGoldenKey pins the thumbprint of a fixed key: SHA-256 over the canonical
// COSE_Key (RFC 9679 4), computed here from its definition.
func TestGoldenKey(t *testing.T) {
	priv := ed25519.NewKeyFromSeed(make([]byte, 32))
	k, err := NewKey(priv.Public())
	if err != nil {
		t.Fatal(err)
	}
	const want = "a3010120062158203b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
	if got := hex.EncodeToString(k.Encode()); got != want {
		t.Errorf("key %s, want %s", got, want)
	}
	b, _ := hex.DecodeString(want)
	if k.ID() != Sum(b) {
		t.Error("ID is not the thumbprint")
	}
	// Signatures over fixed bytes are deterministic for Ed25519: freeze one message.
	s, _ := NewSigner(priv)
	raw, err := Sign(s, header, []byte("payload"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if got := Sum(raw).String(); got != goldenMessage {
		t.Errorf("message digest %s, want %s\n%x", got, goldenMessage, raw)
	}
}

const goldenMessage = "99ac9bed2b2aa8b54bec44c1f16312b04522af15def3175f7ddff8078639f0d2"

func FuzzParse(f *testing.F) {
	s, _ := NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	raw, _ := Sign(s, header, []byte("payload"), nil)
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err == nil && !bytes.Equal(m.Raw(), b) {
			t.Error("raw bytes differ")
		}
	})
}

func FuzzParseKey(f *testing.F) {
	s, _ := NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	f.Add(s.Public().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseKey(b); err == nil && !bytes.Equal(k.Encode(), b) {
			t.Error("key has two encodings")
		}
	})
}
