package attestation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

var update = flag.Bool("update", false, "write golden files")

// golden compares b with a file of hex lines.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".hex")
	if *update {
		var s strings.Builder
		for h := hex.EncodeToString(b); h != ""; {
			n := min(96, len(h))
			s.WriteString(h[:n] + "\n")
			h = h[n:]
		}
		if err := os.WriteFile(file, []byte(s.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w, err := hex.DecodeString(strings.ReplaceAll(string(want), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, w) {
		t.Errorf("%s: format changed\n got %x\nwant %x", name, b, w)
	}
}

func fill(b byte) (d Digest) {
	for i := range d {
		d[i] = b
	}
	return d
}

// testClaims returns valid claims that depend on nothing.
func testClaims(t testing.TB) *Claims {
	t.Helper()
	d := make([]byte, 32)
	d[31] = 7
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := cose.NewKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return &Claims{
		Federation: fill(1), Policy: fill(2), PolicyVersion: 3, Denials: fill(4), Instance: ID{5},
		Role: RoleAggregator, Epoch: 7, SignPub: pub, KEMPub: bytes.Repeat([]byte{9}, KEMKeySize),
		Image: fill(10), Config: fill(11), GPU: fill(12), NonceRoot: fill(13), NonceCount: 14,
		Checkpoint: Checkpoint{Size: 15, Root: fill(15)}, Simulated: true, IssuedAt: 1_760_000_000,
	}
}

func testEvidence(t testing.TB) *Evidence {
	return &Evidence{
		Claims: testClaims(t).Encode(),
		Items: []Item{
			{Kind: KindSNP, Raw: []byte("report"), Endorsements: []Digest{fill(1), fill(2)}},
			{Kind: KindGPU, Raw: []byte("gpu")},
		},
	}
}

func testEndorsements(t testing.TB) *Endorsements {
	t.Helper()
	s, err := NewEndorsements(
		Endorsement{Type: TypeAMDVCEK, Data: []byte("a")},
		Endorsement{Type: TypeAMDCRL, Data: []byte("b")},
		Endorsement{Type: TypeAMDCRL, Data: []byte("c")},
	)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGolden freezes every format of this package.
func TestGolden(t *testing.T) {
	c := testClaims(t)
	golden(t, "claims", c.Encode())
	real, sim := ReportData(c.Encode(), false), ReportData(c.Encode(), true)
	golden(t, "report-data", real[:])
	golden(t, "report-data-simulated", sim[:])
	golden(t, "evidence", testEvidence(t).Encode())
	golden(t, "endorsements", testEndorsements(t).Encode())
	n0, n1 := GPUNonce(c, 0), GPUNonce(c, 1)
	golden(t, "gpu-nonces", append(n0[:], n1[:]...))
	d := GPUDigest(testEvidence(t).Items)
	golden(t, "gpu-digest", d[:])
	tree := testTree(t, 5)
	root := tree.Root()
	golden(t, "nonce-root", root[:])
	var path []byte
	for _, d := range tree.Proof(2).Path {
		path = append(path, d[:]...)
	}
	golden(t, "nonce-path", path)
}

func TestEndorsementRoundTrip(t *testing.T) {
	e := Endorsement{Type: TypeAMDCRL, Data: []byte("list")}
	raw := e.Encode()
	got, err := ParseEndorsement(raw)
	if err != nil || got.Type != e.Type || string(got.Data) != "list" || cose.Sum(raw) != e.Digest() {
		t.Errorf("round trip: %+v, %v", got, err)
	}
	for name, bad := range map[string][]byte{
		"type":     Endorsement{Type: "other", Data: []byte("x")}.Encode(),
		"empty":    Endorsement{Type: TypeAMDCRL}.Encode(),
		"trailing": append(raw, 0),
		"large":    Endorsement{Type: TypeAMDCRL, Data: make([]byte, MaxEndorsement+1)}.Encode(),
	} {
		if _, err := ParseEndorsement(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
