package attestation

import (
	"bytes"
	"crypto/sha512"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

func TestClaimsRoundTrip(t *testing.T) {
	c := testClaims(t)
	c.Denials, c.GPU = Digest{}, Digest{} // the two that may be none
	c.Checkpoint = Checkpoint{}           // an empty log
	for _, c := range []*Claims{testClaims(t), c} {
		got, err := ParseClaims(c.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Encode(), c.Encode()) {
			t.Errorf("got %+v", got)
		}
	}
}

func TestClaimsSchema(t *testing.T) {
	ed, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Claims){
		"federation":        func(c *Claims) { c.Federation = Digest{} },
		"policy":            func(c *Claims) { c.Policy = Digest{} },
		"policy version":    func(c *Claims) { c.PolicyVersion = 0 },
		"instance":          func(c *Claims) { c.Instance = ID{} },
		"role":              func(c *Claims) { c.Role = "node" },
		"epoch":             func(c *Claims) { c.Epoch = 0 },
		"no key":            func(c *Claims) { c.SignPub = cose.Key{} },
		"Ed25519 key":       func(c *Claims) { c.SignPub = ed.Public() },
		"short KEM key":     func(c *Claims) { c.KEMPub = c.KEMPub[1:] },
		"long KEM key":      func(c *Claims) { c.KEMPub = append(c.KEMPub, 0) },
		"image":             func(c *Claims) { c.Image = Digest{} },
		"config":            func(c *Claims) { c.Config = Digest{} },
		"nonce root":        func(c *Claims) { c.NonceRoot = Digest{} },
		"nonce count":       func(c *Claims) { c.NonceCount = 0 },
		"size without root": func(c *Claims) { c.Checkpoint.Root = Digest{} },
		"root without size": func(c *Claims) { c.Checkpoint.Size = 0 },
		"too large":         func(c *Claims) { c.KEMPub = make([]byte, MaxClaims) },
	} {
		c := testClaims(t)
		spoil(c)
		if _, err := ParseClaims(c.Encode()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// No field may be left out or added.
	var fields map[int]cose.Raw
	if err := cose.Unmarshal(testClaims(t).Encode(), &fields); err != nil {
		t.Fatal(err)
	}
	if len(fields) != 17 {
		t.Fatalf("%d fields, want the 17 of the protocol", len(fields))
	}
	for k, v := range fields {
		delete(fields, k)
		if _, err := ParseClaims(cose.Marshal(fields)); err == nil {
			t.Errorf("claims without field %d accepted", k)
		}
		fields[k] = v
	}
	fields[18] = cose.Marshal("more")
	if _, err := ParseClaims(cose.Marshal(fields)); err == nil {
		t.Error("claims with a field 18 accepted")
	}
}

func TestReportData(t *testing.T) {
	claims := testClaims(t).Encode()
	want := sha512.Sum512(append([]byte("concordat/evidence/1\x00"), claims...))
	if ReportData(claims, false) != want {
		t.Error("not the hash of the protocol")
	}
	if ReportData(claims, true) == want {
		t.Error("simulated evidence hashes the bytes of real evidence")
	}
}

func TestGPUNonce(t *testing.T) {
	c := testClaims(t)
	base := GPUNonce(c, 0)
	if base == GPUNonce(c, 1) {
		t.Error("index does not count")
	}
	// The GPU's own digest and the nonce window come later: they must not matter.
	free := *c
	free.GPU, free.NonceRoot, free.NonceCount, free.KEMPub, free.IssuedAt = Digest{}, fill(99), 1, nil, 1
	if GPUNonce(&free, 0) != base {
		t.Error("nonce depends on what is not known yet")
	}
	for name, spoil := range map[string]func(*Claims){
		"federation": func(c *Claims) { c.Federation = fill(99) },
		"policy":     func(c *Claims) { c.Policy = fill(99) },
		"instance":   func(c *Claims) { c.Instance = ID{99} },
		"epoch":      func(c *Claims) { c.Epoch++ },
		"checkpoint": func(c *Claims) { c.Checkpoint.Root = fill(99) },
		"key":        func(c *Claims) { s, _ := cose.GenerateSigner(cose.ES256); c.SignPub = s.Public() },
	} {
		c := *c
		spoil(&c)
		if GPUNonce(&c, 0) == base {
			t.Errorf("%s does not count", name)
		}
	}
}

func FuzzParseClaims(f *testing.F) {
	f.Add(testClaims(f).Encode())
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseClaims(b)
		if err == nil && !bytes.Equal(c.Encode(), b) {
			t.Error("second encoding of the same claims accepted")
		}
	})
}
