package sim

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
)

var updateSNP = flag.Bool("update-snp", false, "write the golden SNP report")

// sharedVendor is one simulated world for all tests of SNP machines.
var sharedVendor = sync.OnceValue(func() *Vendor {
	v, err := NewVendor()
	if err != nil {
		panic(err)
	}
	return v
})

var testTime = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// TestReportGolden freezes the report of a fixed seed: keys, identity and
// signature follow from the seed alone.
func TestReportGolden(t *testing.T) {
	t.Parallel()
	v := new(Vendor)
	copy(v.seed[:], "a seed of thirty-two bytes......")
	m := &Machine{cfg: Config{Vendor: v, Platform: PlatformSNP, Chip: "chip"}}
	if err := m.defaults(); err != nil {
		t.Fatal(err)
	}
	it, err := m.collectSNP([64]byte{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", "snp-report.hex")
	if *updateSNP {
		if err := os.WriteFile(file, []byte(hex.EncodeToString(it.Raw)+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(it.Raw) != strings.TrimSpace(string(want)) {
		t.Error("another report for the same seed")
	}
}

func TestConfigFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "machine.json")
	for _, product := range []string{"Milan", "Turin"} {
		m, err := New(Config{
			Vendor: sharedVendor(), Platform: PlatformSNP, Product: product, Chip: "x", GPUs: 1, Faults: map[string]string{"vmpl": "2"},
		}, testTime)
		if err != nil {
			t.Fatal(err)
		}
		if err := WriteConfig(name, m.Config()); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("private keys in a file of mode %v, %v", st.Mode(), err)
		}
		c, err := ReadConfig(name)
		if err != nil {
			t.Fatal(err)
		}
		again, err := New(c, testTime)
		if err != nil {
			t.Fatal(err)
		}
		d1, err1 := m.Describe()
		d2, err2 := again.Describe()
		if err1 != nil || err2 != nil || !reflect.DeepEqual(d1, d2) {
			t.Errorf("%s: another machine after reading its file: %v %v", product, err1, err2)
		}
		a, err1 := m.Collect(context.Background(), [64]byte{7})
		b, err2 := again.Collect(context.Background(), [64]byte{7})
		if err1 != nil || err2 != nil || !bytes.Equal(a[0].Raw, b[0].Raw) {
			t.Errorf("%s: another report after reading its file: %v %v", product, err1, err2)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	t.Parallel()
	v := sharedVendor()
	for name, c := range map[string]Config{
		"no vendor":          {Platform: PlatformSNP},
		"no platform":        {Vendor: v},
		"unknown product":    {Vendor: v, Platform: PlatformSNP, Product: "Rome"},
		"report version 4":   {Vendor: v, Platform: PlatformSNP, SNP: SNPOptions{Report: 4}},
		"mitigations in v3":  {Vendor: v, Platform: PlatformSNP, SNP: SNPOptions{Mitigation: 1}},
		"short measurement":  {Vendor: v, Platform: PlatformSNP, Measurement: make(Hex, 32)},
		"short host data":    {Vendor: v, Platform: PlatformSNP, HostData: make(Hex, 31)},
		"many GPUs":          {Vendor: v, Platform: PlatformSNP, GPUs: 17},
		"unknown fault":      {Vendor: v, Platform: PlatformSNP, Faults: map[string]string{"debg": ""}},
		"fault of a GPU":     {Vendor: v, Platform: PlatformSNP, Faults: map[string]string{"gpu-revoked": ""}},
		"fault of the other": {Vendor: v, Platform: PlatformTDX, Faults: map[string]string{"vmpl": ""}},
	} {
		if _, err := New(c, testTime); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, f := range []map[string]string{
		{"vmpl": "x"}, {"measurement": "00"}, {"report-version": ""}, {"platform-info": "zz"}, {"mitigations": "1"}, {"guest-policy": "-1"},
	} {
		m, err := New(Config{Vendor: v, Platform: PlatformSNP, Faults: f}, testTime)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Collect(context.Background(), [64]byte{}); err == nil {
			t.Errorf("%v: accepted", f)
		}
	}
}

// TestChips compares machines: one chip has one identity, two have two.
func TestChips(t *testing.T) {
	t.Parallel()
	id := func(chip, product string) string {
		m, err := New(Config{Vendor: sharedVendor(), Platform: PlatformSNP, Product: product, Chip: chip}, testTime)
		if err != nil {
			t.Fatal(err)
		}
		d, err := m.Describe()
		if err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(d.Platforms.SNP.Chips[0])
	}
	first, again := id("a", "Genoa"), id("a", "Genoa")
	if first != again || first == id("b", "Genoa") {
		t.Error("chip ids do not follow the chip")
	}
	if len(id("a", "Turin")) != 16 {
		t.Error("Turin's chip id is not 8 bytes")
	}
}

// TestMarked demands the marks in every certificate, and a list of the endorsements
// in the item.
func TestMarked(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Vendor: sharedVendor(), Platform: PlatformSNP, Product: "Turin"}, testTime)
	if err != nil {
		t.Fatal(err)
	}
	ends, err := m.Endorsements()
	if err != nil {
		t.Fatal(err)
	}
	certs := 0
	for _, der := range ends.ByType(attestation.TypeAMDVCEK, nil) {
		c, err := x509.ParseCertificate(der)
		if err != nil || !attestation.FullyMarked(c) {
			t.Errorf("chip certificate: %v", err)
		}
		certs++
	}
	items, err := m.Collect(context.Background(), [64]byte{})
	if err != nil {
		t.Fatal(err)
	}
	if len(items[0].Endorsements) != ends.Len() || certs != 1 {
		t.Errorf("item names %d of %d documents", len(items[0].Endorsements), ends.Len())
	}
	for _, d := range items[0].Endorsements {
		if _, ok := ends.Get(d); !ok {
			t.Errorf("item names %s, which the vendors do not publish", d.Short())
		}
	}
	if r, err := snp.Parse(items[0].Raw); err != nil || r.CPUID != snpCPUs["Turin"].cpuid || r.CPUID.Family != 0x1A {
		t.Errorf("report: %v", err)
	}
}

// TestConcurrent collects while the vendors issue anew.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	m, err := New(Config{Vendor: sharedVendor(), Platform: PlatformSNP, GPUs: 1}, testTime)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := m.Collect(context.Background(), [64]byte{}); err != nil {
				t.Error(err)
			}
			if _, err := m.CollectGPU(context.Background(), make([][32]byte, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		if err := m.Issue(testTime.Add(time.Hour)); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := m.Collect(ctx, [64]byte{}); err == nil {
		t.Error("collected after cancellation")
	}
}

// TestFaultLists demands that every fault has one name.
func TestFaultLists(t *testing.T) {
	t.Parallel()
	for name, list := range map[string][]string{"snp": snpFaults, "tdx": tdxFaults, "gpu": gpuFaults, "switch": switchFaults, "manifest": manifestFaults} {
		s := slices.Clone(list)
		slices.Sort(s)
		if len(slices.Compact(s)) != len(list) {
			t.Errorf("%s: a fault is listed twice", name)
		}
	}
}
