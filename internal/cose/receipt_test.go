package cose

import (
	"bufio"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"testing"

	gocose "github.com/veraison/go-cose"
)

// foreignReceipt makes a receipt with go-cose, as somebody else's log would.
func foreignReceipt(t testing.TB, alg gocose.Algorithm, k crypto.Signer, root []byte, change func(*gocose.Sign1Message)) []byte {
	t.Helper()
	m := gocose.NewSign1Message()
	m.Headers.Protected = gocose.ProtectedHeader{int64(1): alg, int64(395): int64(1), int64(4): []byte("kid")}
	proof := Marshal([]any{uint64(2), uint64(0), [][]byte{make([]byte, 32)}})
	m.Headers.Unprotected = gocose.UnprotectedHeader{int64(396): map[any]any{int64(-1): []any{proof}}}
	if change != nil {
		change(m)
	}
	m.Payload = root
	s, err := gocose.NewSigner(alg, k)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Sign(rand.Reader, nil, s); err != nil {
		t.Fatal(err)
	}
	m.Payload = nil
	raw, err := m.MarshalCBOR()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func ecKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestForeignReceipts(t *testing.T) {
	root := Sum([]byte("root"))
	p256, p384, p521 := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384()), ecKey(t, elliptic.P521())
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{"P-256": p256, "P-384": p384, "P-521": p521, "Ed25519": ed, "RSA": rsaKey}
	for _, c := range []struct {
		alg gocose.Algorithm
		key string
	}{
		{gocose.AlgorithmES256, "P-256"}, {gocose.AlgorithmES384, "P-384"}, {gocose.AlgorithmES512, "P-521"}, {gocose.AlgorithmEdDSA, "Ed25519"},
		{gocose.AlgorithmPS256, "RSA"}, {gocose.AlgorithmPS384, "RSA"}, {gocose.AlgorithmPS512, "RSA"},
		// go-cose signs these too, and they are not what the algorithm names.
		{gocose.AlgorithmES512, "P-256"}, {gocose.AlgorithmES256, "P-384"}, {gocose.AlgorithmES384, "P-521"},
	} {
		good := map[gocose.Algorithm]string{-7: "P-256", -35: "P-384", -36: "P-521", -8: "Ed25519", -37: "RSA", -38: "RSA", -39: "RSA"}[c.alg] == c.key
		raw := foreignReceipt(t, c.alg, keys[c.key], root[:], nil)
		r, err := ParseReceipt(raw)
		if err != nil {
			t.Fatalf("%v: %v", c.alg, err)
		}
		if err := r.VerifyForeign(keys[c.key].Public(), root); (err == nil) != good {
			t.Errorf("%v with %s: %v", c.alg, c.key, err)
		}
		other := Sum([]byte("other"))
		if err := r.VerifyForeign(keys[c.key].Public(), other); !errors.Is(err, ErrSignature) {
			t.Errorf("%v: another root: %v", c.alg, err)
		}
		for name, k := range keys {
			if name != c.key {
				if err := r.VerifyForeign(k.Public(), root); !errors.Is(err, ErrSignature) {
					t.Errorf("%v by %s verifies with %s", c.alg, c.key, name)
				}
			}
		}
	}
}

// TestForeignHighS: (r, n-s) verifies too, and is no fault of a foreign log.
func TestForeignHighS(t *testing.T) {
	root, k := Sum([]byte("root")), ecKey(t, elliptic.P256())
	raw := foreignReceipt(t, gocose.AlgorithmES256, k, root[:], nil)
	s := raw[len(raw)-32:]
	v := new(big.Int).SetBytes(s)
	v.Sub(elliptic.P256().Params().N, v).FillBytes(s)
	r, err := ParseReceipt(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.VerifyForeign(k.Public(), root); err != nil {
		t.Errorf("the other S: %v", err)
	}
}

func TestForeignHeaders(t *testing.T) {
	root, k := Sum([]byte("root")), ecKey(t, elliptic.P256())
	proof := Marshal([]any{uint64(2), uint64(0), [][]byte{make([]byte, 32)}})
	for name, c := range map[string]struct {
		change func(*gocose.Sign1Message)
		ok     bool
	}{
		"plain":           {nil, true},
		"crit of a known": {func(m *gocose.Sign1Message) { m.Headers.Protected[int64(2)] = []any{int64(395)} }, true},
		"crit of an unknown": {func(m *gocose.Sign1Message) {
			m.Headers.Protected[int64(2)] = []any{int64(999)}
			m.Headers.Protected[int64(999)] = int64(1)
		}, false},
		"crit of a name": {func(m *gocose.Sign1Message) {
			m.Headers.Protected[int64(2)] = []any{"x"}
			m.Headers.Protected["x"] = int64(1)
		}, false},
		"another structure": {func(m *gocose.Sign1Message) { m.Headers.Protected[int64(395)] = int64(2) }, false},
		"no structure":      {func(m *gocose.Sign1Message) { delete(m.Headers.Protected, int64(395)) }, false},
		"structure outside": {func(m *gocose.Sign1Message) {
			delete(m.Headers.Protected, int64(395))
			m.Headers.Unprotected[int64(395)] = int64(1)
		}, false},
		"no proofs":    {func(m *gocose.Sign1Message) { delete(m.Headers.Unprotected, int64(396)) }, false},
		"empty proofs": {func(m *gocose.Sign1Message) { m.Headers.Unprotected[int64(396)] = map[any]any{int64(-1): []any{}} }, false},
		"proof not a string": {func(m *gocose.Sign1Message) {
			m.Headers.Unprotected[int64(396)] = map[any]any{int64(-1): []any{[]any{uint64(1), uint64(0), []any{}}}}
		}, false},
		"unknown proofs": {func(m *gocose.Sign1Message) { m.Headers.Unprotected[int64(396)] = map[any]any{int64(-3): []any{proof}} }, false},
		"two kinds of proof": {func(m *gocose.Sign1Message) {
			m.Headers.Unprotected[int64(396)] = map[any]any{int64(-1): []any{proof}, int64(-2): []any{proof}}
		}, false},
		"two proofs": {func(m *gocose.Sign1Message) {
			m.Headers.Unprotected[int64(396)] = map[any]any{int64(-1): []any{proof, proof}}
		}, true},
		"short path element": {func(m *gocose.Sign1Message) {
			m.Headers.Unprotected[int64(396)] = map[any]any{int64(-1): []any{Marshal([]any{uint64(2), uint64(0), [][]byte{{1}}})}}
		}, false},
		"other unprotected": {func(m *gocose.Sign1Message) { m.Headers.Unprotected[int64(33)] = []byte{1} }, true},
		"claims and type": {func(m *gocose.Sign1Message) {
			m.Headers.Protected[int64(15)] = map[any]any{int64(1): "iss", int64(2): "sub", int64(6): int64(1)}
			m.Headers.Protected[int64(16)] = ReceiptType
		}, true},
		"type by number":       {func(m *gocose.Sign1Message) { m.Headers.Protected[int64(16)] = uint64(278) }, true},
		"origin not protected": {func(m *gocose.Sign1Message) { m.Headers.Unprotected[int64(-70001)] = []any{"x", uint64(1)} }, false},
	} {
		raw := foreignReceipt(t, gocose.AlgorithmES256, k, root[:], c.change)
		r, err := ParseReceipt(raw)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if err := r.VerifyForeign(k.Public(), root); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	raw := foreignReceipt(t, gocose.AlgorithmES256, k, root[:], nil)
	for name, bad := range map[string][]byte{
		"untagged": raw[1:], "trailing": append(bytes.Clone(raw), 0), "cut": raw[:len(raw)-1], "empty": nil, "too long": append(bytes.Clone(raw), make([]byte, MaxReceipt)...),
	} {
		if _, err := ParseReceipt(bad); err == nil {
			t.Errorf("%s: parses", name)
		}
	}
}

func TestParsePublicKey(t *testing.T) {
	p256, p384, p521 := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P384()), ecKey(t, elliptic.P521())
	edPub, _, _ := ed25519.GenerateKey(rand.Reader)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	type equal interface{ Equal(crypto.PublicKey) bool }
	check := func(name string, b []byte, want crypto.PublicKey, alg int64) {
		t.Helper()
		got, a, err := ParsePublicKey(b)
		if err != nil || !want.(equal).Equal(got) || a != alg {
			t.Errorf("%s: %v, alg %d, %v", name, got, a, err)
		}
	}
	for _, pub := range []crypto.PublicKey{p256.Public(), p384.Public(), p521.Public(), edPub, rsaKey.Public()} {
		der, err := x509.MarshalPKIXPublicKey(pub)
		if err != nil {
			t.Fatal(err)
		}
		block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
		check("PEM", block, pub, 0)
		if _, _, err := ParsePublicKey(append(block, block...)); err == nil {
			t.Error("two PEM blocks: accepted")
		}
	}
	for crv, k := range map[int64]*ecdsa.PrivateKey{1: p256, 2: p384, 3: p521} {
		b, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		x, y := b[1:1+len(b)/2], b[1+len(b)/2:]
		key := map[int64]any{1: 2, -1: crv, -2: x, -3: y, 2: []byte("kid")}
		check("COSE_Key", Marshal(key), k.Public(), 0)
		key[3] = -7
		check("COSE_Key with alg", Marshal(key), k.Public(), -7)
		key[-3] = y[len(y)-1]&1 == 1
		check("compressed", Marshal(key), k.Public(), -7)
		key[-3] = y[1:]
		if _, _, err := ParsePublicKey(Marshal(key)); err == nil {
			t.Error("short coordinate: accepted")
		}
		bad := bytes.Clone(y)
		bad[0] ^= 1
		key[-3] = bad
		if _, _, err := ParsePublicKey(Marshal(key)); err == nil {
			t.Error("point off the curve: accepted")
		}
	}
	check("OKP", Marshal(map[int64]any{1: 1, -1: 6, -2: []byte(edPub)}), edPub, 0)
	check("RSA", Marshal(map[int64]any{1: 3, -1: rsaKey.N.Bytes(), -2: []byte{1, 0, 1}}), rsaKey.Public(), 0)
	own, _ := GenerateSigner(ES256)
	check("our own", own.Public().Encode(), own.Public().Public(), 0)
	for name, bad := range map[string][]byte{
		"empty": nil, "text": []byte("key"), "private": mustPEM(t, own), "no curve": Marshal(map[int64]any{1: 2}),
		"curve 9": Marshal(map[int64]any{1: 2, -1: 9, -2: []byte{1}, -3: []byte{1}}), "too long": make([]byte, maxKeyFile+1),
	} {
		if _, _, err := ParsePublicKey(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func mustPEM(t testing.TB, s *Signer) []byte {
	b, err := s.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWeakRSA: small and even moduli do not verify, and do not panic.
func TestWeakRSA(t *testing.T) {
	for _, n := range []*big.Int{big.NewInt(0), big.NewInt(15), new(big.Int).Lsh(big.NewInt(1), 2048), new(big.Int).Lsh(big.NewInt(1), 9000)} {
		for _, e := range []int{0, 1, 2, 3, 65537} {
			if err := verifyForeign(-37, &rsa.PublicKey{N: n, E: e}, []byte("m"), make([]byte, 256)); !errors.Is(err, ErrSignature) {
				t.Errorf("modulus of %d bits, exponent %d: %v", n.BitLen(), e, err)
			}
		}
	}
}

func TestReadItem(t *testing.T) {
	items := [][]byte{
		Marshal([]any{uint64(1), "x", []byte("data"), map[int64]any{1: true}, nil}), Marshal(uint64(1 << 40)), Marshal([]byte{}), Marshal(make([]byte, 200<<10)), Marshal(int64(-5)),
	}
	r := bufio.NewReader(bytes.NewReader(bytes.Join(items, nil)))
	for i, want := range items {
		got, err := ReadItem(r, 1<<20)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("item %d: %v", i, err)
		}
	}
	if _, err := ReadItem(r, 1<<20); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for name, b := range map[string][]byte{
		"cut": items[0][:5], "cut string": items[3][:1000], "indefinite": {0x9f, 0xff}, "tag": {0xc0, 0x00}, "float": {0xf9, 0, 0}, "reserved": {0x1c},
		"large string": {0x5a, 0xff, 0xff, 0xff, 0xff}, "large array": {0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "large map": {0xba, 0, 0xff, 0xff, 0xff},
		"deep": bytes.Repeat([]byte{0x81}, 100), "break": {0xff}, "undefined": {0xf7},
	} {
		if _, err := ReadItem(bufio.NewReader(bytes.NewReader(b)), 1<<20); err == nil || err == io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseReceipt(f *testing.F) {
	root, k := Sum([]byte("root")), ecKey(f, elliptic.P256())
	f.Add(foreignReceipt(f, gocose.AlgorithmES256, k, root[:], nil))
	s, _ := NewSigner(ed25519.NewKeyFromSeed(make([]byte, 32)))
	own, _ := SignReceipt(s, header, "origin", 2, 0, []Digest{{1}}, root)
	f.Add(own)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReceipt(b)
		if err != nil {
			return
		}
		_ = r.VerifyForeign(k.Public(), root)
		// The proof is checked by what leads to root; the header is under the signature.
		if r.IsOwn(b) == nil && r.VerifyOwn(s.Public(), root) == nil && (r.Header != header || r.Origin != "origin" || r.Size != 2) {
			t.Errorf("another header verifies: %+v", r)
		}
	})
}

func FuzzParsePublicKey(f *testing.F) {
	k, _ := GenerateSigner(ES256)
	f.Add(k.Public().Encode())
	f.Add(Marshal(map[int64]any{1: 3, -1: make([]byte, 256), -2: []byte{3}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if pub, _, err := ParsePublicKey(b); err == nil {
			for alg := range foreignAlgs {
				_ = verifyForeign(alg, pub, []byte("m"), make([]byte, 64))
			}
		}
	})
}

func FuzzReadItem(f *testing.F) {
	f.Add(Marshal([]any{uint64(1), "x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		var all []byte
		for {
			item, err := ReadItem(r, 1<<10)
			if err != nil {
				break
			}
			all = append(all, item...)
		}
		if !bytes.HasPrefix(b, all) {
			t.Error("items are not the bytes that were read")
		}
	})
}
