package sim

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/tdx"
)

// tdxMachine needs no AMD keys: its vendor has none.
func tdxMachine(t *testing.T, chip string, faults map[string]string) *Machine {
	t.Helper()
	v := new(Vendor)
	copy(v.seed[:], "a seed of thirty-two bytes......")
	m, err := New(Config{Vendor: v, Platform: PlatformTDX, Chip: chip, Faults: faults}, testTime)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tdxEvidence(t *testing.T, m *Machine) (quote, collateral []byte) {
	t.Helper()
	items, err := m.Collect(context.Background(), [64]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	ends, err := m.Endorsements()
	if err != nil {
		t.Fatal(err)
	}
	docs := ends.ByType(attestation.TypeIntelCollateral, nil)
	if len(docs) != 1 || len(items) != 1 || len(items[0].Endorsements) != 1 {
		t.Fatalf("%d items, %d documents", len(items), len(docs))
	}
	if e, ok := ends.Get(items[0].Endorsements[0]); !ok || string(e.Data) != string(docs[0]) {
		t.Error("the item does not name its collateral")
	}
	return items[0].Raw, docs[0]
}

// TestTDXGolden freezes what follows from a seed and a time: everything, as no
// signature takes fresh randomness.
func TestTDXGolden(t *testing.T) {
	t.Parallel()
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	for version, want := range map[string][2]string{
		"4": {"ded8cdc7ff15be1c8f57c7e424feb3f9d8dbe984da8ca8d6d10c71b4a1254bcc", "0dec8850d7a8f2987aac6e1cf025c6708c7dbc30950b8f2954fb990312e7b243"},
		"5": {"793e37fe130005f16008ce44989f37872beaa09c6dc164e4b7501712b565c398", "0dec8850d7a8f2987aac6e1cf025c6708c7dbc30950b8f2954fb990312e7b243"},
	} {
		q, c := tdxEvidence(t, tdxMachine(t, "chip", map[string]string{"quote-version": version}))
		if got := sum(q); got != want[0] {
			t.Errorf("version %s: quote %s, want %s", version, got, want[0])
		}
		if got := sum(c); got != want[1] {
			t.Errorf("version %s: collateral %s, want %s", version, got, want[1])
		}
	}
}

// TestTDXChips: platforms of one vendor share roots and collateral, and nothing
// of their identity.
func TestTDXChips(t *testing.T) {
	t.Parallel()
	a, b := tdxMachine(t, "a", nil), tdxMachine(t, "b", nil)
	qa, ca := tdxEvidence(t, a)
	qb, cb := tdxEvidence(t, b)
	pa, err := tdx.Parse(qa)
	if err != nil {
		t.Fatal(err)
	}
	pb, err := tdx.Parse(qb)
	if err != nil {
		t.Fatal(err)
	}
	if pa.AttestationKey == pb.AttestationKey || string(pa.Chain) == string(pb.Chain) || pa.UserData == pb.UserData {
		t.Error("two chips share an identity")
	}
	if string(ca) != string(cb) || pa.Body.MRTD != pb.Body.MRTD {
		t.Error("two machines of one image and vendor differ")
	}
	da, err := a.Describe()
	if err != nil {
		t.Fatal(err)
	}
	db, err := b.Describe()
	if err != nil {
		t.Fatal(err)
	}
	if da.Roots[0] != db.Roots[0] || hex.EncodeToString(da.Platforms.TDX.PIIDs[0]) == hex.EncodeToString(db.Platforms.TDX.PIIDs[0]) {
		t.Error("descriptions")
	}
}

// TestTDXMarked: every certificate that a verifier may use is marked, and says
// what it says in Intel's format.
func TestTDXMarked(t *testing.T) {
	t.Parallel()
	raw, col := tdxEvidence(t, tdxMachine(t, "chip", nil))
	q, err := tdx.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tdx.ParseCollateral(col)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, chain := range [][]byte{q.Chain, c.TCBInfo.Chain, c.QEIdentity.Chain, c.PCKCRLChain} {
		for {
			p, rest := pem.Decode(chain)
			if p == nil {
				break
			}
			chain = rest
			cert, err := x509.ParseCertificate(p.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			if !attestation.FullyMarked(cert) {
				t.Errorf("%s is not marked", cert.Subject.CommonName)
			}
			for _, e := range cert.Extensions {
				if !e.Id.Equal(tdx.OIDSGX) {
					continue
				}
				x, err := tdx.ParseSGXExtension(e.Value)
				if err != nil || x.FMSPC != tdxFMSPC || x.PCESVN != tdxPCESVN || x.Components != tdxComponents {
					t.Errorf("SGX extension %+v, %v", x, err)
				}
			}
		}
	}
	if seen != 9 {
		t.Errorf("%d certificates, want 9", seen)
	}
}

// TestTDXIssue: a new issue has new dates and the old keys.
func TestTDXIssue(t *testing.T) {
	t.Parallel()
	m := tdxMachine(t, "chip", nil)
	_, before := tdxEvidence(t, m)
	if err := m.Issue(testTime.Add(48 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	_, after := tdxEvidence(t, m)
	date := func(b []byte) time.Time {
		c, err := tdx.ParseCollateral(b)
		if err != nil {
			t.Fatal(err)
		}
		info, err := tdx.ParseTCBInfo(c.TCBInfo.Doc)
		if err != nil {
			t.Fatal(err)
		}
		return info.IssueDate
	}
	if got := date(after).Sub(date(before)); got != 48*time.Hour {
		t.Errorf("issued %s later", got)
	}
}

func TestTDXFaultValues(t *testing.T) {
	t.Parallel()
	for fault, value := range map[string]string{"quote-version": "3", "measurement": "00", "image": "3"} {
		m := tdxMachine(t, "chip", map[string]string{fault: value})
		if _, err := m.Collect(context.Background(), [64]byte{}); err == nil {
			t.Errorf("%s=%s: accepted", fault, value)
		}
	}
}
