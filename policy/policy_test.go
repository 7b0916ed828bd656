package policy

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares got, as hex, with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name+".hex")
	text := hex.EncodeToString(got) + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != text {
		t.Errorf("%s differs: %d bytes, want %d", name, len(text)/2, len(want)/2)
	}
}

// signer returns the key that the words always give.
func signer(words ...string) *cose.Signer {
	seed := sha256.Sum256([]byte(strings.Join(words, " ")))
	s, err := cose.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	return s
}

func policyKey(m MemberID) *cose.Signer { return signer(string(m), "policy") }
func issuerKey(m MemberID) *cose.Signer { return signer(string(m), "issuer") }

func verifierKey(name string, typ byte, s *cose.Signer) string {
	data := append([]byte{typ}, s.Public().Public().(ed25519.PublicKey)...)
	h := sha256.Sum256(slices.Concat([]byte(name), []byte{'\n'}, data))
	return fmt.Sprintf("%s+%x+%s", name, h[:4], base64.StdEncoding.EncodeToString(data))
}

func fill(n int, b byte) Hex { return bytes.Repeat([]byte{b}, n) }

var memberIDs = []MemberID{"bank-c", "hospital-a", "lab-b"}

// example returns a real federation's genesis version that sets everything.
func example() *Policy {
	p := &Policy{
		Schema:    Schema,
		Version:   1,
		Name:      "Example consortium",
		Approvals: 2,
		Platforms: Platforms{
			SNP: &SNP{
				Products:     []string{"Genoa", "Turin"},
				Measurements: []Hex{fill(48, 1), fill(48, 2)},
				MinTCB:       []ProdTCB{{Product: "Genoa", BootLoader: 9, SNP: 23, Microcode: 72}, {Product: "Turin", FMC: 1, BootLoader: 1, TEE: 1, SNP: 4, Microcode: 80}},
				Chips:        []Hex{fill(64, 3), fill(8, 4)},
				MinVersion:   5,
				HostData:     true,

				Providers:         []string{"CN=cc-us-east-2.amazonaws.com"},
				Denied:            []Hex{fill(64, 18), fill(8, 19)},
				AllowProvisional:  true,
				GuestPolicy:       []string{"ciphertext-hiding", "page-swap-disabled"},
				PlatformRequired:  []string{"ciphertext-hiding", "ecc"},
				PlatformForbidden: []string{"tio"},
				Mitigations:       3,
				IDKeys:            []Hex{fill(48, 20)},
				AuthorKeys:        []Hex{fill(48, 21)},
			},
			TDX: &TDX{
				MRTD:          []Hex{fill(48, 5)},
				RTMRs:         []RTMRs{{fill(48, 6), fill(48, 7), fill(48, 8)}},
				Statuses:      []string{"SWHardeningNeeded", "UpToDate"},
				MinEvaluation: 17,
				PIIDs:         []Hex{fill(16, 9)},
				XFAMMask:      0x602e7,
				MRConfigID:    true,
				MRSignerSEAM:  make(Hex, 48),
				Events:        []Event{{Register: 3, Digest: fill(48, 11), Required: true, Name: "app started"}, {Register: 3, Digest: fill(48, 12), Name: "clock set"}},
			},
			TPM: &TPM{
				PCRs:   []PCR{{Index: 4, Values: []Hex{fill(32, 13), fill(32, 14)}}, {Index: 11, Values: []Hex{fill(32, 15)}}},
				Events: []Event{{Register: 7, Digest: fill(32, 16), Required: true, Name: "secure boot on"}},
			},
			GPU: &GPU{
				Architectures: []string{"blackwell", "hopper"},
				MinCount:      1,
				MinDriver:     "570.124.06",
				MinVBIOS:      "96.00.9F.00.01",
				Measurements:  []GPUMeasured{{Name: "570.124.06 with 96.00.9F.00.01", Digest: cose.Sum([]byte("gpu"))}},
				Devices:       []Hex{fill(17, 10)},
			},
		},
		Evidence: Evidence{MaxAge: 600, MaxCollateralAge: 30 * 86400, MaxEpochAge: 7 * 86400, MaxRoundsPerEpoch: 1000},
		Log: Log{
			Origin:              "log.example/consortium",
			Key:                 verifierKey("log.example/consortium", vkeyLog, signer("log")),
			Witnesses:           2,
			MaxUnpublishedSteps: 1,
			DenialLag:           3600,
		},
		Apps: []App{
			{Digest: Digest{1}, Name: "tumour", Exposure: ExposureAggregate, Strategies: []string{"fedadam", "fedavg"}, MaxRounds: 100},
			{Digest: Digest{2}, Name: "robust", Exposure: ExposureIndividual, Configs: []Digest{{7}, {8}}, Strategies: []string{StrategyCustom, "fedmedian"}, MaxRounds: 5},
		},
		Release: Release{
			MinContributors: 3, Collusion: 1, MaxWeightShare: 600,
			Cohort: CohortFixed, Dropouts: DropoutsRefuse, Downlink: DownlinkShared,
			MaxMetricBytes: 4096, StepDeadline: 3600, AckDeadline: 60,
		},
		Nodes: NodeRules{MessageTypes: []string{"evaluate", "train"}, MetricKeys: []string{"accuracy", "loss"}, CredentialAge: 90 * 86400},
	}
	for _, id := range memberIDs {
		p.Members = append(p.Members, Member{
			ID:         id,
			PolicyKeys: []cose.Key{policyKey(id).Public()},
			IssuerKey:  issuerKey(id).Public(),
			WitnessKey: verifierKey(string(id)+"/witness", vkeyWitness, signer(string(id), "witness")),
		})
	}
	return p
}

// successor returns the version that follows p and differs by edit.
func successor(p *Policy, edit func(*Policy)) *Policy {
	q := clone(p)
	q.Version, q.Federation, q.Previous = p.Version+1, p.FederationID(), p.Digest()
	edit(q)
	return q
}

// clone copies p by its encoding.
func clone(p *Policy) *Policy {
	q := new(Policy)
	if err := cose.Unmarshal(p.Encode(), q); err != nil {
		panic(err)
	}
	return q
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	p := example()
	q, err := Decode(p.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(q.Encode(), p.Encode()) || q.Digest() != p.Digest() || q.FederationID() != p.Digest() {
		t.Error("decoding changed the policy")
	}
	if next := successor(p, func(*Policy) {}); next.FederationID() != p.Digest() || next.Check() != nil {
		t.Errorf("successor: federation %s, %v", next.FederationID(), next.Check())
	}
	golden(t, "policy", p.Encode())
}

// TestAddressed: the form of a policy that lets a ServerApp tell nodes different things.
func TestAddressed(t *testing.T) {
	t.Parallel()
	p := example()
	p.Apps[1].Addressed = true
	back, err := Decode(p.Encode())
	if err != nil || !back.Apps[1].Addressed || back.Apps[0].Addressed {
		t.Fatalf("round trip: %+v, %v", back, err)
	}
	golden(t, "policy-addressed", p.Encode())
	// What is not set has one form: none.
	raw := bytes.Clone(p.Encode())
	at := bytes.LastIndex(raw, []byte{0x07, 0xf5}) // 7: true
	raw[at+1] = 0xf4
	if _, err := Decode(raw); at < 0 || err == nil {
		t.Error("addressed: false was taken, where it is to be left out")
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	good := example().Encode()
	if _, err := Decode(make([]byte, MaxSize+1)); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("oversized: %v", err)
	}
	if _, err := Decode(append(bytes.Clone(good), 0)); err == nil {
		t.Error("trailing byte accepted")
	}
	if _, err := Decode((&Policy{}).Encode()); err == nil {
		t.Error("zero policy accepted")
	}
	// A policy from the future has a field that this program does not know.
	var m map[uint64]cose.Raw
	if err := cose.Unmarshal(good, &m); err != nil {
		t.Fatal(err)
	}
	m[99] = cose.Raw{0x01}
	if _, err := Decode(cose.Marshal(m)); err == nil {
		t.Error("unknown field accepted")
	}
	for k := range m {
		if k == 99 {
			continue
		}
		less := make(map[uint64]cose.Raw)
		for j, v := range m {
			if j != k && j != 99 {
				less[j] = v
			}
		}
		if _, err := Decode(cose.Marshal(less)); err == nil {
			t.Errorf("policy without field %d accepted", k)
		}
	}
}

// TestDigestCoversEveryByte flips every byte of the encoding: what still decodes
// has another digest, or it would be approved by the old signatures.
func TestDigestCoversEveryByte(t *testing.T) {
	t.Parallel()
	p := example()
	raw := p.Encode()
	for i := range raw {
		bad := bytes.Clone(raw)
		bad[i] ^= 1
		if q, err := Decode(bad); err == nil && q.Digest() == p.Digest() {
			t.Fatalf("byte %d is not covered", i)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(example().Encode())
	f.Add((&Policy{}).Encode())
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Decode(b)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Encode(), b) {
			t.Error("policy has two encodings")
		}
		p.Warnings()
		if d := Diff(p, example()); len(d) == 0 && p.Digest() != example().Digest() {
			t.Error("no difference between two policies")
		}
	})
}
