package snp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// testReport returns a report with another value in every field.
func testReport(version uint32) *Report {
	r := &Report{
		Version: version, GuestSVN: 1, Policy: NewPolicy(PolicySMT | 0x011F), VMPL: 2,
		SignatureAlgorithm: ECDSAP384SHA384, CurrentTCB: TCBVersion{1, 2, 0, 0, 0, 0, 3, 4},
		PlatformInfo: PlatformECC | PlatformAliasCheck, SignerInfo: NewSignerInfo(VLEK, SignerMaskChipKey),
		ReportedTCB: TCBVersion{5}, CommittedTCB: TCBVersion{6}, LaunchTCB: TCBVersion{7},
		Current: Firmware{8, 9, 10}, Committed: Firmware{11, 12, 13},
	}
	for i, f := range [][]byte{r.FamilyID[:], r.ImageID[:], r.ReportData[:], r.Measurement[:], r.HostData[:], r.IDKeyDigest[:],
		r.AuthorKeyDigest[:], r.ReportID[:], r.ReportIDMA[:], r.ChipID[:], r.R[:], r.S[:]} {
		for j := range f {
			f[j] = byte(16*i + j%16 + 1)
		}
	}
	if version >= Version3 {
		r.CPUID = CPUID{0x19, 0x11, 1}
	}
	if version >= Version5 {
		r.LaunchMitigations, r.CurrentMitigations = 14, 15
	}
	return r
}

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		name    string
		version uint32
	}{{"v2", 2}, {"v3", 3}, {"v5", 5}} {
		raw := testReport(c.version).Marshal()
		file := filepath.Join("testdata", c.name+".hex")
		if *update {
			if err := os.WriteFile(file, []byte(hex.EncodeToString(raw)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(raw) != strings.TrimSpace(string(want)) {
			t.Errorf("%s: layout changed", c.name)
		}
		got, err := Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if *got != *testReport(c.version) {
			t.Errorf("%s: round trip: %+v", c.name, got)
		}
	}
}

// TestEveryByte changes one byte at a time: the parser refuses it or reads
// another report, so no byte of a report is without a meaning.
func TestEveryByte(t *testing.T) {
	for _, version := range []uint32{2, 3, 5} {
		good := testReport(version)
		raw := good.Marshal()
		for i := range raw {
			raw[i] ^= 0x80
			got, err := Parse(raw)
			if err == nil && *got == *good {
				t.Errorf("version %d: byte 0x%x counts for nothing", version, i)
			}
			raw[i] ^= 0x80
		}
	}
}

func TestParseRefuses(t *testing.T) {
	put32, put64 := binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	for name, c := range map[string]struct {
		version uint32
		spoil   func(b []byte) []byte
		want    error
		says    string
	}{
		"empty":              {3, func(b []byte) []byte { return nil }, ErrFormat, "0 bytes"},
		"short":              {3, func(b []byte) []byte { return b[1:] }, ErrFormat, "1183 bytes"},
		"long":               {3, func(b []byte) []byte { return append(b, 0) }, ErrFormat, "1185 bytes"},
		"version 0":          {3, func(b []byte) []byte { put32(b, 0); return b }, ErrVersion, "version 0"},
		"version 4":          {3, func(b []byte) []byte { put32(b, 4); return b }, ErrVersion, "version 4"},
		"version 6":          {5, func(b []byte) []byte { put32(b, 6); return b }, ErrVersion, "version 6"},
		"policy bit 17":      {3, func(b []byte) []byte { put64(b[8:], 0); return b }, ErrFormat, "bit 17"},
		"policy bit 26":      {3, func(b []byte) []byte { put64(b[8:], 1<<26|1<<17); return b }, ErrFormat, "POLICY"},
		"signer bit 5":       {3, func(b []byte) []byte { put32(b[0x48:], 1<<5); return b }, ErrFormat, "SIGNER_INFO"},
		"VMPL 4":             {3, func(b []byte) []byte { put32(b[0x30:], 4); return b }, ErrFormat, "VMPL"},
		"after SIGNER_INFO":  {3, func(b []byte) []byte { b[0x4F] = 1; return b }, ErrFormat, "0x4f"},
		"CPUID in version 2": {2, func(b []byte) []byte { b[0x188] = 0x19; return b }, ErrFormat, "CPUID"},
		"before CHIP_ID":     {3, func(b []byte) []byte { b[0x19F] = 1; return b }, ErrFormat, "CHIP_ID"},
		"mitigations in 3":   {3, func(b []byte) []byte { b[0x1F8] = 1; return b }, ErrFormat, "mitigation"},
		"before SIGNATURE":   {5, func(b []byte) []byte { b[0x208] = 1; return b }, ErrFormat, "SIGNATURE"},
		"upper R":            {5, func(b []byte) []byte { b[0x2E7] = 1; return b }, ErrFormat, "signature R"},
		"after S":            {5, func(b []byte) []byte { b[0x49F] = 1; return b }, ErrFormat, "SIGNATURE"},
	} {
		_, err := Parse(c.spoil(testReport(c.version).Marshal()))
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProduct(t *testing.T) {
	for c, want := range map[CPUID]Product{
		{0x19, 0x01, 1}: Milan, {0x19, 0x0F, 0}: Milan, {0x19, 0x11, 1}: Genoa, {0x19, 0xA0, 2}: Genoa,
		{0x1A, 0x02, 1}: Turin, {0x1A, 0x11, 0}: Turin,
		{0x17, 0x31, 0}: "", {0x19, 0x20, 0}: "", {0x1A, 0x50, 0}: "", {}: "",
	} {
		if got, ok := c.Product(); got != want || ok != (want != "") {
			t.Errorf("%v: %q %v", c, got, ok)
		}
	}
}

func TestTCB(t *testing.T) {
	for p, raw := range map[Product]TCBVersion{
		Milan: {3, 1, 0, 0, 0, 0, 8, 115},
		Genoa: {3, 1, 0, 0, 0, 0, 8, 115},
		Turin: {2, 3, 1, 8, 0, 0, 0, 115},
	} {
		want := TCB{BootLoader: 3, TEE: 1, SNP: 8, Microcode: 115}
		if p == Turin {
			want.FMC = 2
		}
		got, err := raw.Decode(p)
		if err != nil || got != want || got.Encode(p) != raw {
			t.Errorf("%s: %v %v", p, got, err)
		}
		for i := range raw {
			if raw[i] == 0 {
				bad := raw
				bad[i] = 1
				if _, err := bad.Decode(p); err == nil {
					t.Errorf("%s: reserved byte %d accepted", p, i)
				}
			}
		}
	}
	if _, err := (TCBVersion{}).Decode("Venice"); err == nil {
		t.Error("unknown product decoded")
	}
	// Component-wise: a higher microcode does not make up for a lower SNP.
	low := TCB{1, 2, 3, 4, 5}
	if !low.AtLeast(low) {
		t.Error("not at least itself")
	}
	for _, c := range []TCB{{0, 9, 9, 9, 9}, {9, 1, 9, 9, 9}, {9, 9, 2, 9, 9}, {9, 9, 9, 3, 9}, {9, 9, 9, 9, 4}} {
		if c.AtLeast(low) {
			t.Errorf("%v is at least %v", c, low)
		}
	}
}

// TestBelow names what is missing, and nothing else.
func TestBelow(t *testing.T) {
	min := TCB{1, 2, 3, 4, 5}
	for _, c := range []struct {
		got  TCB
		want string
	}{
		{min, ""}, {TCB{9, 9, 9, 9, 9}, ""}, {TCB{9, 9, 9, 3, 9}, "snp 3 below 4"},
		{TCB{}, "fmc 0 below 1, bootloader 0 below 2, tee 0 below 3, snp 0 below 4, microcode 0 below 5"},
	} {
		below := c.got.Below(min)
		if strings.Join(below, ", ") != c.want || (below == nil) != c.got.AtLeast(min) {
			t.Errorf("%v: %v", c.got, below)
		}
	}
	for _, c := range []struct {
		f, min Firmware
		want   bool
	}{
		{Firmware{4, 55, 1}, Firmware{4, 55, 1}, true}, {Firmware{3, 55, 1}, Firmware{4, 55, 1}, false}, {Firmware{0, 56, 1}, Firmware{9, 55, 1}, true},
		{Firmware{9, 9, 1}, Firmware{0, 0, 2}, false},
	} {
		if c.f.AtLeast(c.min) != c.want {
			t.Errorf("%s at least %s: %v", c.f, c.min, !c.want)
		}
	}
}

func TestWords(t *testing.T) {
	all := NewPolicy(PolicyAES256XTS | PolicyCiphertextHide | PolicyNoPageSwap | PolicyRAPLDisabled | PolicySingleSocket)
	for _, w := range PolicyWords() {
		if l := all.Lacks([]string{w}); len(l) != 0 {
			t.Errorf("%s is lacking", w)
		}
		if l := NewPolicy(PolicyDebug | PolicySMT).Lacks([]string{w}); len(l) != 1 {
			t.Errorf("%s is not lacking", w)
		}
	}
	seen := PlatformInfo(0)
	for _, w := range PlatformWords() {
		var has []PlatformInfo
		for bit := PlatformInfo(1); bit != 0; bit <<= 1 {
			if len(bit.Lacks([]string{w})) == 0 {
				has = append(has, bit)
			}
			if (len(bit.AnyOf([]string{w})) == 1) != (len(bit.Lacks([]string{w})) == 0) {
				t.Errorf("%s of %s: forbidden and required do not mean the same bit", w, bit)
			}
		}
		if len(has) != 1 || seen&has[0] != 0 {
			t.Errorf("%s is %v", w, has)
			continue
		}
		seen |= has[0]
	}
	// The bits that policies name are AMD's, but for the alias check.
	if seen != 0x9F {
		t.Errorf("words for %s", seen)
	}
	for _, w := range []string{"", "debug", "alias-check"} {
		if len(NewPolicy(^Policy(0)).Lacks([]string{w})) != 1 || len(PlatformInfo(^uint64(0)).Lacks([]string{w})) != 1 || len(PlatformInfo(0).AnyOf([]string{w})) != 1 {
			t.Errorf("the unknown word %q is satisfied", w)
		}
	}
}

func TestURLs(t *testing.T) {
	tcb := TCB{FMC: 1, BootLoader: 3, SNP: 8, Microcode: 115}
	for got, want := range map[string]string{
		Milan.ChainURL(VCEK):                               "https://kdsintf.amd.com/vcek/v1/Milan/cert_chain",
		Turin.ChainURL(VLEK):                               "https://kdsintf.amd.com/vlek/v1/Turin/cert_chain",
		Genoa.CRLURL(VCEK):                                 "https://kdsintf.amd.com/vcek/v1/Genoa/crl",
		Genoa.CRLURL(VLEK):                                 "https://kdsintf.amd.com/vlek/v1/Genoa/crl",
		Genoa.VCEKURL([]byte{0xAB, 1}, tcb):                "https://kdsintf.amd.com/vcek/v1/Genoa/ab01?blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=115",
		Turin.VCEKURL([]byte{1, 2, 3, 4, 5, 6, 7, 8}, tcb): "https://kdsintf.amd.com/vcek/v1/Turin/0102030405060708?fmcSPL=1&blSPL=3&teeSPL=0&snpSPL=8&ucodeSPL=115",
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestRealReports reads genuine reports and writes them again.
func TestRealReports(t *testing.T) {
	dir := os.Getenv("CONCORDAT_VECTORS")
	if dir == "" {
		t.Skip("CONCORDAT_VECTORS is not set: no genuine reports to read")
	}
	for name, want := range map[string]struct {
		version, vmpl uint32
		key           SigningKey
	}{
		"test-report.bin":      {2, 0, VCEK},
		"test-vlek-report.bin": {3, 1, VLEK},
	} {
		raw, err := os.ReadFile(filepath.Join(dir, "snp", name))
		if err != nil {
			t.Fatal(err)
		}
		r, err := Parse(raw)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r.Version != want.version || r.VMPL != want.vmpl || r.SignerInfo.Key() != want.key {
			t.Errorf("%s: version %d, VMPL %d, key %s", name, r.Version, r.VMPL, r.SignerInfo.Key())
		}
		if !bytes.Equal(r.Marshal(), raw) {
			t.Errorf("%s: does not round-trip", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, v := range []uint32{2, 3, 5} {
		f.Add(testReport(v).Marshal())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) {
				t.Errorf("untyped error %v", err)
			}
			return
		}
		if !bytes.Equal(r.Marshal(), b) {
			t.Error("does not round-trip")
		}
		for _, p := range []Product{Milan, Genoa, Turin} {
			if d, err := r.ReportedTCB.Decode(p); err == nil && d.Encode(p) != r.ReportedTCB {
				t.Error("TCB does not round-trip")
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	raw := testReport(3).Marshal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
