package crosscheck

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/tpm"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

// TestTPMDifferential runs the faults of a quote through go-tpm. It does not see
// what is not in the quote and its PCRs: those faults are package verifier's.
func TestTPMDifferential(t *testing.T) {
	t.Parallel()
	for fault, want := range map[string]verifier.Verdict{
		"":                verifier.Pass,
		"wrong-nonce":     verifier.Fail,
		"tpm-nonce":       verifier.Fail,
		"tpm-magic":       verifier.Fail,
		"tpm-type":        verifier.Fail,
		"tpm-other-key":   verifier.Fail,
		"tpm-two-keys":    verifier.Fail,
		"tpm-hash":        verifier.Fail,
		"tpm-signature":   verifier.Fail,
		"tpm-bank":        verifier.Fail,
		"tpm-selection":   verifier.Fail,
		"tpm-pcr-values":  verifier.Fail,
		"tpm-missing":     verifier.Fail,
		"tpm-unbound":     verifier.Fail, // by the CPU's report data
		"tpm-fewer":       verifier.Pass, // the policy is not go-tpm's
		"tpm-image":       verifier.Pass,
		"tpm-log":         verifier.Pass,
		"tpm-log-missing": verifier.Pass,
	} {
		cfg := sim.Config{Vendor: amdVendor(), Platform: sim.PlatformSNP, VTPM: true}
		if fault != "" {
			cfg.Faults = map[string]string{fault: ""}
		}
		m, err := sim.New(cfg, now)
		if err != nil {
			t.Fatal(err)
		}
		claims := []byte("claims")
		items, err := m.Collect(context.Background(), attestation.ReportData(claims, true))
		if err != nil {
			t.Fatal(err)
		}
		ends, err := m.Endorsements()
		if err != nil {
			t.Fatal(err)
		}
		d, err := m.Describe()
		if err != nil {
			t.Fatal(err)
		}
		p := &policy.Policy{Version: 1, Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms, Evidence: policy.Evidence{MaxCollateralAge: 86400}}
		if o := Evidence(&attestation.Evidence{Claims: claims, Items: items}, ends, p, now); o.Verdict != want {
			t.Errorf("%q: %s says %s: %s", fault, o.Library, o.Verdict, o.Reason)
		}
	}
}

// TestTPMVector asks go-tpm about the quote of a genuine machine on Azure.
func TestTPMVector(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: the quote of a genuine machine was not tested")
	}
	b, err := os.ReadFile(filepath.Join(dir, "tpm", "azure-snp-vtpm-evidence.json"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := tpm.ParseAzure(b)
	if err != nil {
		t.Fatal(err)
	}
	raw := a.Evidence.Encode()
	if o := TPM(raw, []byte("challenge")); o.Verdict != verifier.Pass {
		t.Errorf("%s", o.Reason)
	}
	if o := TPM(raw, []byte("another")); o.Verdict != verifier.Fail {
		t.Error("another challenge passes")
	}
	// Both read the same quotes: flipped bits are refused by one and the other.
	for i := range len(a.Evidence.Quote) * 8 {
		a.Evidence.Quote[i/8] ^= 1 << (i % 8)
		if o := TPM(a.Evidence.Encode(), nil); o.Verdict != verifier.Fail {
			t.Fatalf("bit %d of the quote: %s", i, o.Verdict)
		}
		a.Evidence.Quote[i/8] ^= 1 << (i % 8)
	}
}
