package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".hex")
	if *update {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(b)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(b) != strings.TrimSpace(string(want)) {
		t.Errorf("%s: another encoding", name)
	}
}

func exampleQuote() *Quote {
	return &Quote{
		Signer: bytes.Repeat([]byte{1}, 34), ExtraData: []byte("challenge"), Clock: Clock{Milliseconds: 2, Resets: 3, Restarts: 4, Safe: true},
		Firmware: 5, Selections: []Selection{Select(0, 7, 23)}, Digest: bytes.Repeat([]byte{6}, 32),
	}
}

// rsaKey is a modulus of the right size; nobody knows its factors.
func rsaKey() *rsa.PublicKey {
	n := bytes.Repeat([]byte{0xA5}, 256)
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: rsaExponent}
}

func exampleRuntime(t testing.TB) []byte {
	t.Helper()
	b, err := MarshalRuntime(rsaKey())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func example(t testing.TB) *Evidence {
	t.Helper()
	return &Evidence{
		Runtime: exampleRuntime(t), Quote: exampleQuote().Marshal(), Signature: (&Signature{Scheme: RSASSA, Hash: SHA256, RSA: make([]byte, 256)}).Marshal(),
		PCRs: []PCR{{Index: 0, Value: make([]byte, 32)}, {Index: 7, Value: bytes.Repeat([]byte{7}, 32)}},
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	golden(t, "quote", exampleQuote().Marshal())
	golden(t, "evidence", example(t).Encode())
	golden(t, "hcl", (&HCLReport{Type: HCLSNP, Hardware: bytes.Repeat([]byte{9}, hclHardware), Runtime: exampleRuntime(t)}).Marshal())
	golden(t, "ecdsa-signature", (&Signature{Scheme: ECDSA, Hash: SHA256, R: []byte{1, 2}, S: []byte{3}}).Marshal())
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	e := example(t)
	got, err := Parse(e.Encode())
	if err != nil || !bytes.Equal(got.Encode(), e.Encode()) || len(got.PCRs) != 2 {
		t.Errorf("evidence: %v", err)
	}
	q, err := ParseQuote(e.Quote)
	if err != nil || !bytes.Equal(q.Marshal(), e.Quote) || !slices.Equal(q.Selections[0].PCRs(), []int{0, 7, 23}) {
		t.Errorf("quote: %v", err)
	}
	for _, s := range []*Signature{{Scheme: RSASSA, Hash: SHA256, RSA: make([]byte, 512)}, {Scheme: RSAPSS, Hash: SHA256, RSA: []byte{1}}, {Scheme: ECDSA, Hash: SHA256, R: []byte{1}, S: []byte{2, 3}}} {
		got, err := ParseSignature(s.Marshal())
		if err != nil || !bytes.Equal(got.Marshal(), s.Marshal()) {
			t.Errorf("signature %04x: %v", s.Scheme, err)
		}
	}
	h := &HCLReport{Type: HCLTDX, Hardware: make([]byte, hclHardware), Runtime: []byte("{}")}
	gotH, err := ParseHCL(append(h.Marshal(), make([]byte, 300)...))
	if err != nil || !bytes.Equal(gotH.Marshal(), h.Marshal()) {
		t.Errorf("HCL report: %v", err)
	}
}

// TestTruncation cuts every structure at every length.
func TestTruncation(t *testing.T) {
	t.Parallel()
	e := example(t)
	for name, c := range map[string]struct {
		b     []byte
		parse func([]byte) error
	}{
		"quote":     {e.Quote, func(b []byte) error { _, err := ParseQuote(b); return err }},
		"signature": {e.Signature, func(b []byte) error { _, err := ParseSignature(b); return err }},
		"evidence":  {e.Encode(), func(b []byte) error { _, err := Parse(b); return err }},
		"hcl":       {(&HCLReport{Type: HCLSNP, Runtime: e.Runtime}).Marshal(), func(b []byte) error { _, err := ParseHCL(b); return err }},
		"runtime":   {e.Runtime, func(b []byte) error { _, err := SigningKey(b); return err }},
	} {
		if err := c.parse(c.b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for n := range c.b {
			if c.parse(c.b[:n:n]) == nil {
				t.Errorf("%s cut to %d bytes is accepted", name, n)
			}
		}
		if c.parse(append(bytes.Clone(c.b), 'x')) == nil {
			t.Errorf("%s with a byte more is accepted", name)
		}
	}
}

func TestQuoteFields(t *testing.T) {
	t.Parallel()
	good := exampleQuote()
	spoil := func(f func(q *Quote)) []byte {
		q := *good
		f(&q)
		return q.Marshal()
	}
	set := func(at int, v byte) []byte {
		b := good.Marshal()
		b[at] = v
		return b
	}
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"magic":            {set(0, 0xfe), ErrMagic},
		"type":             {set(5, 0x17), ErrType},
		"long name":        {spoil(func(q *Quote) { q.Signer = make([]byte, maxName+1) }), ErrMalformed},
		"long extra data":  {spoil(func(q *Quote) { q.ExtraData = make([]byte, maxExtra+1) }), ErrMalformed},
		"safe":             {set(6+2+34+2+9+16, 2), ErrMalformed},
		"long digest":      {spoil(func(q *Quote) { q.Digest = make([]byte, maxDigest+1) }), ErrMalformed},
		"wide selection":   {spoil(func(q *Quote) { q.Selections = []Selection{{Hash: SHA256, Bitmap: make([]byte, maxBitmap+1)}} }), ErrMalformed},
		"many selections":  {spoil(func(q *Quote) { q.Selections = make([]Selection, maxSelections+1) }), ErrMalformed},
		"count of the sky": {set(6+2+34+2+9+17+8, 0xff), ErrMalformed},
		"large":            {make([]byte, maxQuote+1), ErrMalformed},
	} {
		if _, err := ParseQuote(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestEvidenceLimits(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(e *Evidence){
		"runtime":   func(e *Evidence) { e.Runtime = make([]byte, MaxRuntime+1) },
		"whole":     func(e *Evidence) { e.Quote = make([]byte, 1<<20) },
		"index":     func(e *Evidence) { e.PCRs[1].Index = 24 },
		"order":     func(e *Evidence) { slices.Reverse(e.PCRs) },
		"twice":     func(e *Evidence) { e.PCRs[1].Index = 0 },
		"value":     func(e *Evidence) { e.PCRs[1].Value = make([]byte, 31) },
		"many PCRs": func(e *Evidence) { e.PCRs = slices.Repeat(e.PCRs, 13) },
	} {
		e := example(t)
		f(e)
		if _, err := Parse(e.Encode()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHCLFields(t *testing.T) {
	t.Parallel()
	good := (&HCLReport{Type: HCLSNP, Runtime: []byte("{}")}).Marshal()
	for name, at := range map[string]int{"magic": 0, "size": hclData, "type": hclData + 8, "hash": hclData + 12, "runtime size": hclData + 16} {
		b := bytes.Clone(good)
		b[at] ^= 0x55
		if _, err := ParseHCL(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseHCL(append(bytes.Clone(good), 0, 0, 1)); !errors.Is(err, ErrMalformed) {
		t.Errorf("bytes behind: %v", err)
	}
}

func TestSigningKey(t *testing.T) {
	t.Parallel()
	good := string(exampleRuntime(t))
	if k, err := SigningKey([]byte(good)); err != nil || !k.(*rsa.PublicKey).Equal(rsaKey()) {
		t.Fatalf("%v, %v", k, err)
	}
	seed := sha256.Sum256([]byte("key"))
	ec, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		t.Fatal(err)
	}
	ecRuntime, err := MarshalRuntime(ec.Public())
	if err != nil {
		t.Fatal(err)
	}
	if k, err := SigningKey(ecRuntime); err != nil || !k.(*ecdsa.PublicKey).Equal(ec.Public()) {
		t.Fatalf("%v, %v", k, err)
	}
	for name, s := range map[string]string{
		"no JSON":        "x",
		"two documents":  good + good,
		"no keys":        `{"keys":[]}`,
		"another key":    strings.Replace(good, "HCLAkPub", "HCLEkPub", 1),
		"key twice":      strings.Replace(good, `"keys":[`, `"keys":[{"kid":"HCLAkPub"},`, 1),
		"name twice":     strings.Replace(good, `"keys":`, `"Keys":[],"keys":`, 1),
		"for encryption": strings.Replace(good, `"sign"`, `"encrypt"`, 1),
		"for both":       strings.Replace(good, `"sign"`, `"sign","encrypt"`, 1),
		"symmetric":      strings.Replace(good, `"RSA"`, `"oct"`, 1),
		"exponent":       strings.Replace(good, `"AQAB"`, `"Aw"`, 1),
		"even modulus":   strings.Replace(good, `pQ"`, `pA"`, 1),
		"short modulus":  strings.Replace(good, "paWlpaWlpaWl", "", 1),
		"no base64":      strings.Replace(good, "paWl", "pa l", 1),
		"deep":           `{"a":` + strings.Repeat("[", 9) + strings.Repeat("]", 9) + `,` + good[1:],
		"curve":          strings.Replace(string(ecRuntime), "P-256", "P-384", 1),
		"off the curve":  strings.Replace(string(ecRuntime), `"x":"`, `"x":"A`, 1),
		"large":          strings.Repeat(" ", MaxRuntime) + good,
	} {
		if s == good || s == string(ecRuntime) {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := SigningKey([]byte(s)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestVector parses the evidence of a genuine machine on Azure.
func TestVector(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: the evidence of a genuine machine was not tested")
	}
	b, err := os.ReadFile(filepath.Join(dir, "tpm", "azure-snp-vtpm-evidence.json"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAzure(b)
	if err != nil {
		t.Fatal(err)
	}
	q, err := ParseQuote(a.Evidence.Quote)
	if err != nil || string(q.ExtraData) != "challenge" || !bytes.Equal(q.Marshal(), a.Evidence.Quote) {
		t.Errorf("quote: %+v, %v", q, err)
	}
	if len(a.Evidence.PCRs) != NumPCRs || a.VCEK == nil || a.HCL.Type != HCLSNP {
		t.Error("parts are missing")
	}
	if got := Binding(a.HCL.Runtime); !bytes.Equal(got[:], a.HCL.Hardware[0x50:0x90]) {
		t.Error("the report does not hold the hash of the runtime data")
	}
	if k, err := SigningKey(a.HCL.Runtime); err != nil || k.(*rsa.PublicKey).N.BitLen() != 2048 {
		t.Errorf("key: %v", err)
	}
	if e, err := Parse(a.Evidence.Encode()); err != nil || !bytes.Equal(e.Encode(), a.Evidence.Encode()) {
		t.Errorf("item: %v", err)
	}
}

func TestParseAzure(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]string{
		"empty":        "",
		"no object":    "[]",
		"no report":    `{"quote":{"message":[],"signature":[],"pcrs":[]},"vcek":""}`,
		"unknown":      `{"quote":{},"report":[],"more":1}`,
		"twice":        `{"report":[],"report":[]}`,
		"no byte":      `{"report":[256]}`,
		"as text":      `{"report":"SENMQQ=="}`,
		"large":        strings.Repeat(" ", maxAzure+1),
		"two of a kin": `{} {}`,
	} {
		if _, err := ParseAzure([]byte(s)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBinding(t *testing.T) {
	t.Parallel()
	sum := sha256.Sum256([]byte("runtime"))
	if b := Binding([]byte("runtime")); !bytes.Equal(b[:32], sum[:]) || !bytes.Equal(b[32:], make([]byte, 32)) {
		t.Errorf("%x", b)
	}
	rd := [64]byte{1}
	if ExtraData(rd) != sha256.Sum256(rd[:]) {
		t.Error("extra data is another hash")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(example(f).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Parse(b); err == nil && !bytes.Equal(e.Encode(), b) {
			t.Error("second encoding of the same evidence")
		}
	})
}

func FuzzParseQuote(f *testing.F) {
	f.Add(exampleQuote().Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := ParseQuote(b); err == nil && !bytes.Equal(q.Marshal(), b) {
			t.Error("second encoding of the same quote")
		}
	})
}

func FuzzParseSignature(f *testing.F) {
	f.Add((&Signature{Scheme: ECDSA, Hash: SHA256, R: []byte{1}, S: []byte{2}}).Marshal())
	f.Add((&Signature{Scheme: RSAPSS, Hash: SHA256, RSA: []byte{1}}).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseSignature(b); err == nil && !bytes.Equal(s.Marshal(), b) {
			t.Error("second encoding of the same signature")
		}
	})
}

func FuzzParseHCL(f *testing.F) {
	f.Add((&HCLReport{Type: HCLSNP, Runtime: []byte("{}")}).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHCL(b)
		if err != nil {
			return
		}
		if again, err := ParseHCL(h.Marshal()); err != nil || !bytes.Equal(again.Runtime, h.Runtime) || !bytes.Equal(again.Hardware, h.Hardware) {
			t.Errorf("no round trip: %v", err)
		}
	})
}

func FuzzSigningKey(f *testing.F) {
	f.Add(exampleRuntime(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := SigningKey(b); err == nil {
			if _, err := MarshalRuntime(k); err != nil {
				t.Errorf("a key that cannot be written: %v", err)
			}
		}
	})
}

func FuzzParseAzure(f *testing.F) {
	f.Add([]byte(`{"quote":{"message":[1],"signature":[2],"pcrs":[[3]]},"report":[4],"vcek":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := ParseAzure(b); err == nil && (a.HCL == nil || a.Evidence == nil) {
			t.Error("parts are missing")
		}
	})
}
