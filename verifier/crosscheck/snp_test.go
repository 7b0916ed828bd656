package crosscheck

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/kds"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/sim"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/internal/check"
	own "github.com/concordat/concordat/verifier/internal/snp"
)

var amdVendor = sync.OnceValue(func() *sim.Vendor {
	v, err := sim.NewVendor()
	if err != nil {
		panic(err)
	}
	return v
})

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// bothSNP judges a simulated machine's report with our verifier and theirs.
func bothSNP(t *testing.T, cfg sim.Config) (check.Verdict, Outcome) {
	t.Helper()
	cfg.Vendor, cfg.Platform = amdVendor(), sim.PlatformSNP
	m, err := sim.New(cfg, now)
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Describe()
	if err != nil {
		t.Fatal(err)
	}
	p := &policy.Policy{Version: 1, Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms, Evidence: policy.Evidence{MaxCollateralAge: 86400}}
	rd := attestation.ReportData([]byte("claims"), true)
	items, err := m.Collect(context.Background(), rd)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := m.Endorsements()
	if err != nil {
		t.Fatal(err)
	}
	r := check.NewRecorder("snp")
	own.Appraise(items[0].Raw, ends, items[0].Endorsements, p,
		check.Expect{ReportData: rd[:], Federation: p.FederationID(), At: now, Simulated: true, Roots: d.Roots}, r)
	return check.Summary(r.Checks()), SNP(items[0].Raw, ends, items[0].Endorsements, p, rd[:], now)
}

// TestSNPDifferential runs every fault through both verifiers. A pass of ours
// needs theirs; what only ours refuses is named.
func TestSNPDifferential(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		product, fault, value string
		ours, theirs          verifier.Verdict
		reason                string // part of theirs
	}{
		{"Bergamo", "", "", verifier.Pass, verifier.Unsupported, "does not know this processor"},
		{"Siena", "", "", verifier.Pass, verifier.Unsupported, "does not know this processor"},
		{"Milan", "", "", verifier.Pass, verifier.Pass, ""},
		{"Genoa", "", "", verifier.Pass, verifier.Pass, ""},
		{"Turin", "", "", verifier.Pass, verifier.Unsupported, "fmcSPL"},
		{"Genoa", "debug", "", verifier.Fail, verifier.Fail, "debug"},
		{"Genoa", "migration", "", verifier.Fail, verifier.Fail, "migration"},
		{"Genoa", "smt", "", verifier.Fail, verifier.Fail, "SMT"},
		{"Genoa", "cxl", "", verifier.Fail, verifier.Fail, "CXL"},
		{"Genoa", "vmpl", "", verifier.Fail, verifier.Fail, "VMPL"},
		{"Genoa", "measurement", "", verifier.Fail, verifier.Fail, "MEASUREMENT"},
		{"Genoa", "stale-tcb", "", verifier.Fail, verifier.Fail, "TCB"},
		{"Genoa", "stale-launch-tcb", "", verifier.Fail, verifier.Fail, "LAUNCH_TCB"},
		{"Genoa", "provisional-firmware", "", verifier.Fail, verifier.Fail, "COMMITTED_TCB"},
		{"Genoa", "tcb-order", "", verifier.Fail, verifier.Fail, "CURRENT_TCB"},
		{"Genoa", "certificate-tcb", "", verifier.Fail, verifier.Fail, "V[CL]EK"},
		{"Genoa", "expired", "", verifier.Fail, verifier.Fail, "expired"},
		{"Genoa", "forged-root", "", verifier.Fail, verifier.Fail, "trusted roots"},
		{"Genoa", "bad-signature", "", verifier.Fail, verifier.Fail, "signature"},
		{"Genoa", "alias", "", verifier.Fail, verifier.Fail, "alias"},
		{"Genoa", "wrong-nonce", "", verifier.Fail, verifier.Fail, "REPORT_DATA"},
		{"Genoa", "unsigned", "", verifier.Fail, verifier.Fail, ""},
		{"Genoa", "missing-certificate", "", verifier.Incomplete, verifier.Fail, "no certificate"},
		{"Genoa", "report-version", "4", verifier.Unsupported, verifier.Fail, "version 4"},
		{"Genoa", "masked-chip", "", verifier.Fail, verifier.Fail, "CHIP_ID"},
		{"Genoa", "certificate-chip", "", verifier.Fail, verifier.Fail, "HWID"},
		// What the library does not look at.
		{"Genoa", "revoked", "", verifier.Fail, verifier.Pass, ""}, // revocation lists that it did not fetch itself
		{"Genoa", "expired-crl", "", verifier.Fail, verifier.Pass, ""},
		{"Genoa", "missing-crl", "", verifier.Incomplete, verifier.Pass, ""},
		{"Genoa", "unmarked", "", verifier.Fail, verifier.Pass, ""}, // our marks of a simulation
		{"Genoa", "report-version", "2", verifier.Fail, verifier.Pass, ""},
		{"Genoa", "report-version", "5", verifier.Pass, verifier.Pass, ""},
		{"Genoa", "future-crl", "", verifier.Fail, verifier.Pass, ""},
		{"Genoa", "partial-crl", "", verifier.Incomplete, verifier.Pass, ""},
		{"Genoa", "forged-crl", "", verifier.Incomplete, verifier.Pass, ""},
		{"Genoa", "certificate-version", "", verifier.Unsupported, verifier.Pass, ""},
		// What both refuse, and what neither can say.
		{"Genoa", "provisional-build", "", verifier.Fail, verifier.Fail, "build number"},
		{"Genoa", "stale-committed-tcb", "", verifier.Fail, verifier.Fail, "COMMITTED_TCB"},
		{"Genoa", "committed-order", "", verifier.Fail, verifier.Fail, "COMMITTED_TCB"},
		{"Genoa", "guest-svn", "", verifier.Fail, verifier.Fail, "GUEST_SVN"},
		{"Genoa", "not-yet-valid", "", verifier.Fail, verifier.Fail, "not yet valid"},
		{"Genoa", "reserved-byte", "", verifier.Fail, verifier.Fail, ""},
		{"Genoa", "signature-algorithm", "", verifier.Fail, verifier.Fail, ""},
		{"Genoa", "mask-chip-key", "", verifier.Fail, verifier.Fail, ""},
		{"Genoa", "platform-info", "100000024", verifier.Pass, verifier.Unsupported, "PLATFORM_INFO"},
	} {
		t.Run(c.product+" "+c.fault+c.value, func(t *testing.T) {
			cfg := sim.Config{Product: c.product}
			if c.fault != "" {
				cfg.Faults = map[string]string{c.fault: c.value}
			}
			ours, theirs := bothSNP(t, cfg)
			if ours != c.ours {
				t.Errorf("ours says %s, want %s", ours, c.ours)
			}
			if theirs.Verdict != c.theirs || !strings.Contains(theirs.Reason, c.reason) {
				t.Errorf("theirs says %s: %s", theirs.Verdict, theirs.Reason)
			}
		})
	}
}

// TestSNPOptions compares machines that differ from the plain one, sound and with
// a fault each.
func TestSNPOptions(t *testing.T) {
	t.Parallel()
	vlek := sim.SNPOptions{Provider: "CN=example", MaskChip: true}
	block := sim.SNPOptions{IDBlock: true}
	v5 := sim.SNPOptions{Report: 5, Mitigation: 5}
	for _, c := range []struct {
		product, fault, value string
		opts                  sim.SNPOptions
		ours, theirs          verifier.Verdict
		reason                string
	}{
		{"Milan", "", "", vlek, verifier.Pass, verifier.Pass, ""},
		{"Genoa", "", "", vlek, verifier.Pass, verifier.Pass, ""},
		{"Turin", "", "", vlek, verifier.Pass, verifier.Unsupported, "fmcSPL"},
		{"Genoa", "forged-root", "", vlek, verifier.Fail, verifier.Fail, "trusted roots"},
		{"Genoa", "expired", "", vlek, verifier.Fail, verifier.Fail, "expired"},
		{"Genoa", "certificate-tcb", "", vlek, verifier.Fail, verifier.Fail, "V[CL]EK"},
		{"Genoa", "provider", "CN=other", vlek, verifier.Fail, verifier.Pass, ""}, // it does not look at the CSP id
		{"Genoa", "revoked", "ca", vlek, verifier.Fail, verifier.Pass, ""},        // nor at lists, the ASVK's serial included
		{"Genoa", "", "", block, verifier.Pass, verifier.Pass, ""},
		{"Genoa", "id-key", "", block, verifier.Fail, verifier.Pass, ""}, // a trusted author is enough for it
		{"Genoa", "author-key", "", block, verifier.Fail, verifier.Fail, "author key"},
		{"Genoa", "no-author", "", block, verifier.Fail, verifier.Fail, "author key"},
		{"Genoa", "", "", v5, verifier.Pass, verifier.Pass, ""},
		{"Genoa", "mitigations", "5,4", v5, verifier.Fail, verifier.Fail, "current mitigation"},
		{"Genoa", "mitigations", "4,5", v5, verifier.Fail, verifier.Fail, "launch mitigation"},
	} {
		t.Run(c.product+" "+c.fault+c.value, func(t *testing.T) {
			cfg := sim.Config{Product: c.product, SNP: c.opts}
			if c.fault != "" {
				cfg.Faults = map[string]string{c.fault: c.value}
			}
			ours, theirs := bothSNP(t, cfg)
			if ours != c.ours {
				t.Errorf("ours says %s, want %s", ours, c.ours)
			}
			if theirs.Verdict != c.theirs || !strings.Contains(theirs.Reason, c.reason) {
				t.Errorf("theirs says %s: %s", theirs.Verdict, theirs.Reason)
			}
		})
	}
}

// TestSNPReal judges genuine reports with both.
func TestSNPReal(t *testing.T) {
	t.Parallel()
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: no genuine evidence to judge")
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, "snp", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		report, cert, typ string
		at                string
		ours, theirs      verifier.Verdict
		reason            string
	}{
		{"test-report.bin", "test-vcek.der", attestation.TypeAMDVCEK, "2026-11-23", verifier.Pass, verifier.Pass, ""},
		{"test-report.bin", "test-vcek.der", attestation.TypeAMDVCEK, "2020-01-01", verifier.Fail, verifier.Fail, "not yet valid"},
		{"test-report.bin", "test-vcek-invalid-new.der", attestation.TypeAMDVCEK, "2026-11-23", verifier.Fail, verifier.Fail, "trusted roots"},
		{"test-vlek-report.bin", "test-vlek.der", attestation.TypeAMDVLEK, "2025-06-01", verifier.Fail, verifier.Fail, "VMPL"},
		{"test-vlek-report.bin", "test-vlek.der", attestation.TypeAMDVLEK, "2026-11-23", verifier.Fail, verifier.Fail, "expired"},
	} {
		t.Run(c.cert+" "+c.at, func(t *testing.T) {
			at, err := time.Parse(time.DateOnly, c.at)
			if err != nil {
				t.Fatal(err)
			}
			ends, err := attestation.NewEndorsements(attestation.Endorsement{Type: c.typ, Data: read(c.cert)})
			if err != nil {
				t.Fatal(err)
			}
			raw := read(c.report)
			ours, err := verifier.AppraiseItem(attestation.KindSNP, raw, ends, nil, nil, at)
			if err != nil {
				t.Fatal(err)
			}
			theirs := SNP(raw, ends, nil, nil, nil, at)
			if ours.Verdict() != c.ours || theirs.Verdict != c.theirs || !strings.Contains(theirs.Reason, c.reason) {
				t.Errorf("ours says %s, theirs %s: %s", ours.Verdict(), theirs.Verdict, theirs.Reason)
			}
			if err := theirs.Agrees(ours); err != nil {
				t.Error(err)
			}
			if no := refused("lib", os.ErrInvalid).Agrees(ours); (no != nil) != (c.ours == verifier.Pass) {
				t.Errorf("a refusal of theirs: %v", no)
			}
			// Flipped bits: nothing that they refuse passes ours.
			for i := 0; i < snp.Size; i += 97 {
				bad := bytes.Clone(raw)
				bad[i] ^= 1
				ours, err := verifier.AppraiseItem(attestation.KindSNP, bad, ends, nil, nil, at)
				if err != nil {
					t.Fatal(err)
				}
				if err := SNP(bad, ends, nil, nil, nil, at).Agrees(ours); err != nil {
					t.Errorf("byte 0x%x: %v", i, err)
				}
			}
		})
	}
}

// TestVCEKURL compares the address of a certificate at AMD with the library's.
func TestVCEKURL(t *testing.T) {
	t.Parallel()
	chip, tcb := bytes.Repeat([]byte{0xA5}, 64), snp.TCB{BootLoader: 3, TEE: 1, SNP: 8, Microcode: 115}
	v, err := kds.ComposeTCBParts(kds.TCBParts{BlSpl: 3, TeeSpl: 1, SnpSpl: 8, UcodeSpl: 115})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := snp.Milan.VCEKURL(chip, tcb), kds.VCEKCertURL("Milan", chip, v); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestOutcome(t *testing.T) {
	t.Parallel()
	if c := gap("lib", "why").Check(); c.Verdict != verifier.NotChecked || !strings.Contains(c.Advice, "why") {
		t.Errorf("gap: %+v", c)
	}
	if c := refused("lib", os.ErrInvalid).Check(); c.Verdict != verifier.Fail || c.Got != os.ErrInvalid.Error() {
		t.Errorf("refusal: %+v", c)
	}
	if c := passed("lib").Check(); c.Verdict != verifier.Pass {
		t.Errorf("pass: %+v", c)
	}
	if c := (Outcome{}).Check(); c.Verdict != verifier.Fail {
		t.Errorf("zero: %+v", c)
	}
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	for _, platform := range []string{sim.PlatformSNP, sim.PlatformTDX} {
		m, err := sim.New(sim.Config{Vendor: amdVendor(), Platform: platform}, now)
		if err != nil {
			t.Fatal(err)
		}
		d, err := m.Describe()
		if err != nil {
			t.Fatal(err)
		}
		p := &policy.Policy{Version: 1, Simulated: true, SimulatedRoots: d.Roots, Platforms: d.Platforms, Evidence: policy.Evidence{MaxCollateralAge: 30 * 86400}}
		claims := []byte("claims")
		items, err := m.Collect(context.Background(), attestation.ReportData(claims, true))
		if err != nil {
			t.Fatal(err)
		}
		ends, err := m.Endorsements()
		if err != nil {
			t.Fatal(err)
		}
		e := &attestation.Evidence{Claims: claims, Items: items}
		if o := Evidence(e, ends, p, now); o.Verdict != verifier.Pass {
			t.Errorf("%s: %s: %s", platform, o.Verdict, o.Reason)
		}
		e.Claims = []byte("other")
		if o := Evidence(e, ends, p, now); o.Verdict != verifier.Fail {
			t.Errorf("%s with other claims: %s", platform, o.Verdict)
		}
		if o := Evidence(&attestation.Evidence{}, ends, p, now); o.Verdict != verifier.Fail {
			t.Errorf("no items: %s", o.Verdict)
		}
	}
}
