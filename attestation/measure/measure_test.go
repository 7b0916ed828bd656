package measure

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
)

// rows returns the fields of a vector file's lines.
func rows(t *testing.T, name string, fields int) (out [][]string) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != fields {
			t.Fatalf("%s: %q has %d fields, want %d", name, line, len(f), fields)
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		t.Fatalf("%s: no vectors", name)
	}
	return out
}

func bootOf(what string) *Boot {
	b := &Boot{Kernel: cose.Sum(kernelFile), Initrd: NoInitrd}
	switch what {
	case "none":
		return nil
	case "all":
		b.CommandLine = commandLine
		fallthrough
	case "initrd":
		b.Initrd = cose.Sum(initrdFile)
	}
	return b
}

// TestSNPVectors compares with what the reference implementation measured.
func TestSNPVectors(t *testing.T) {
	t.Parallel()
	for _, f := range rows(t, "snp.txt", 7) {
		s := SNP{Firmware: images[f[0]].build(), Boot: bootOf(f[5]), VMM: VMM(f[1])}
		s.VCPUs, _ = strconv.Atoi(f[2])
		s.Features, _ = strconv.ParseUint(f[4], 0, 64)
		if f[3] != "-" {
			sig, err := VCPUType(f[3])
			if err != nil {
				t.Fatal(err)
			}
			s.Signature = sig
		}
		m, err := s.Measure()
		if err != nil {
			t.Errorf("%s: %v", f[:6], err)
			continue
		}
		if m.Digest.String() != f[6] {
			t.Errorf("%s: got %s, want %s", f[:6], m.Digest, f[6])
		}
		if last := m.Parts[len(m.Parts)-1]; last.After != m.Digest {
			t.Errorf("%s: parts end with %s", f[:6], last.After)
		}
	}
}

func TestTDXVectors(t *testing.T) {
	t.Parallel()
	for _, f := range rows(t, "tdx.txt", 3) {
		m, err := (&TDX{images[f[0]].build(), Order(f[1])}).Measure()
		if err != nil {
			t.Fatal(err)
		}
		if m.Digest.String() != f[2] {
			t.Errorf("%s: got %s, want %s", f[:2], m.Digest, f[2])
		}
	}
}

// TestInputsCount: every input moves the measurement, and only what it should.
func TestInputsCount(t *testing.T) {
	t.Parallel()
	base := guest()
	want := measured(t, &base)
	for name, change := range map[string]func(*SNP){
		"firmware":  func(s *SNP) { s.Firmware = bytes.Clone(s.Firmware); s.Firmware[100] ^= 1 },
		"kernel":    func(s *SNP) { b := *s.Boot; b.Kernel[0] ^= 1; s.Boot = &b },
		"initrd":    func(s *SNP) { b := *s.Boot; b.Initrd[31] ^= 1; s.Boot = &b },
		"cmdline":   func(s *SNP) { b := *s.Boot; b.CommandLine += " "; s.Boot = &b },
		"vcpus":     func(s *SNP) { s.VCPUs++ },
		"signature": func(s *SNP) { s.Signature ^= 1 << 20 },
		"features":  func(s *SNP) { s.Features |= 1 << 5 },
	} {
		s := guest()
		change(&s)
		if measured(t, &s) == want {
			t.Errorf("%s does not count", name)
		}
	}
}

func guest() SNP {
	return SNP{Firmware: images["amdsev"].build(), Boot: bootOf("all"), VCPUs: 4, Signature: Signature(23, 1, 2), Features: FeaturesSNP, VMM: QEMU}
}

func measured(t *testing.T, s *SNP) Digest {
	t.Helper()
	m, err := s.Measure()
	if err != nil {
		t.Fatal(err)
	}
	return m.Digest
}

func TestSNPRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*SNP)
		want  string
	}{
		"no vCPU":            {func(s *SNP) { s.VCPUs = 0 }, "0 vCPUs"},
		"many vCPUs":         {func(s *SNP) { s.VCPUs = MaxVCPUs + 1 }, "1025 vCPUs"},
		"no type":            {func(s *SNP) { s.Signature = 0 }, "no vCPU type"},
		"type on EC2":        {func(s *SNP) { s.VMM = EC2 }, "ec2 does not measure it"},
		"no VMM":             {func(s *SNP) { s.VMM = "" }, "unknown VMM"},
		"no kernel":          {func(s *SNP) { s.Boot.Kernel = cose.Digest{} }, "no hash of the kernel"},
		"no initrd hash":     {func(s *SNP) { s.Boot.Initrd = cose.Digest{} }, "no hash of the initrd"},
		"NUL":                {func(s *SNP) { s.Boot.CommandLine = "a\x00b" }, "NUL"},
		"unmeasured kernel":  {func(s *SNP) { s.Firmware = images["plain"].build() }, "nothing measures"},
		"TDX firmware":       {func(s *SNP) { s.Firmware = images["tdvf"].build() }, "no SEV-ES reset block"},
		"empty":              {func(s *SNP) { s.Firmware = nil }, "0 bytes"},
		"odd size":           {func(s *SNP) { s.Firmware = s.Firmware[1:] }, "multiple of 4096"},
		"large":              {func(s *SNP) { s.Firmware = make([]byte, MaxFirmware+pageSize) }, "limit"},
		"no table":           {func(s *SNP) { s.Firmware = make([]byte, pageSize) }, "no OVMF table"},
		"table page too far": {func(s *SNP) { s.Firmware = hashesAt(0xff0).build() }, "runs over its end"},
		"unknown section":    {func(s *SNP) { s.Firmware = section(0x1000, 0x1000, 9).build() }, "unknown type 0x9"},
		"odd section":        {func(s *SNP) { s.Firmware = section(0x1000, 0x800, 1).build() }, "of 2048 bytes"},
		"huge section":       {func(s *SNP) { s.Firmware = section(0, 0xfffff000, 1).build() }, "sec-mem of"},
		"two-page secrets":   {func(s *SNP) { s.Firmware = section(0, 0x2000, 2).build() }, "want one page"},
	} {
		s := guest()
		b := *s.Boot
		s.Boot = &b
		c.spoil(&s)
		if _, err := s.Measure(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	for _, name := range []string{"", "host", "max", "EPYC-v9", "epyc"} {
		if sig, err := VCPUType(name); err == nil || sig != 0 {
			t.Errorf("vCPU type %q: got 0x%x", name, sig)
		}
	}
}

func hashesAt(offset uint32) image {
	i := images["amdsev"]
	i.hashes = 0x810000 | offset
	return i
}

func section(address, size, kind uint32) image {
	i := images["amdsev"]
	i.snp = [][3]uint32{{address, size, kind}}
	return i
}

func TestTDXRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(*tdxSection)
		want  string
	}{
		"type":          {func(s *tdxSection) { s.kind = 5 }, "QEMU does not launch"},
		"attributes":    {func(s *tdxSection) { s.attributes = 4 }, "unknown attributes"},
		"aug, measured": {func(s *tdxSection) { s.attributes = 3 }, "not added at launch"},
		"measured HOB":  {func(s *tdxSection) { s.kind, s.attributes = 2, 1 }, "the machine decides"},
		"address":       {func(s *tdxSection) { s.address++ }, "are no pages"},
		"huge":          {func(s *tdxSection) { s.memory = 1 << 40 }, "are no pages"},
		"image":         {func(s *tdxSection) { s.offset = 0xffffffff }, "of an image of"},
		"memory":        {func(s *tdxSection) { s.memory = 0x1000 }, "bytes of the image in"},
	} {
		i := images["tdvf"]
		i.tdx = append([]tdxSection{}, i.tdx...)
		c.spoil(&i.tdx[0])
		_, err := (&TDX{i.build(), ByPage}).Measure()
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrFirmware) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if _, err := (&TDX{images["tdvf"].build(), ""}).Measure(); err == nil {
		t.Error("no order accepted")
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		real func(*SNP)
		want []Difference
		open bool
	}{
		"same":    {func(s *SNP) {}, nil, false},
		"vcpus":   {func(s *SNP) { s.VCPUs = 96 }, []Difference{{"vcpus", "4", "96"}}, false},
		"no hash": {func(s *SNP) { s.Boot = nil }, []Difference{{"kernel-hashes", "a page of hashes", "none: the VM was started without kernel-hashes=on"}}, false},
		"newline": {func(s *SNP) { s.Boot.CommandLine += "\n" }, []Difference{{"command-line", strconv.Quote(commandLine), strconv.Quote(commandLine + "\n")}}, false},
		"type and vcpus": {func(s *SNP) { s.Signature, s.VCPUs = Signature(25, 1, 1), 2 },
			[]Difference{{"vcpu-type", "EPYC, EPYC-IBPB (signature 0x00800f12)", "EPYC-Milan (signature 0x00a00f11)"}, {"vcpus", "4", "2"}}, false},
		"features": {func(s *SNP) { s.Features = 0x21 }, []Difference{{"features", "0x1", "0x21"}}, false},
		"vmm":      {func(s *SNP) { s.VMM, s.Signature = GCE, 0 }, []Difference{{"vmm", "qemu", "gce"}}, false},
		"kernel":   {func(s *SNP) { s.Boot.Kernel[0]++ }, nil, true},
	} {
		s, other := guest(), guest()
		b := *s.Boot
		other.Boot = &b
		c.real(&other)
		got, ok, err := s.Explain(measured(t, &other))
		if err != nil || ok == c.open || len(got) != len(c.want) {
			t.Errorf("%s: got %v, %v, %v", name, got, ok, err)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: got %v, want %v", name, got[i], c.want[i])
			}
		}
	}
	s := guest()
	img, err := parseSNP(s.Firmware)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok, _ := s.Explain(img.digest()); !ok || d[0].Found != "only the first 1, up to firmware" {
		t.Errorf("hash of the firmware alone: got %v", d)
	}
	tdvf := TDX{images["tdvf"].build(), ByPage}
	other, err := (&TDX{tdvf.Firmware, BySection}).Measure()
	if err != nil {
		t.Fatal(err)
	}
	if d, ok, _ := tdvf.Explain(other.Digest); !ok || d[0] != (Difference{"order", "page", "section"}) {
		t.Errorf("order: got %v", d)
	}
	if d, ok, _ := tdvf.Explain(Digest{1}); ok {
		t.Errorf("another firmware: got %v", d)
	}
}

// FuzzFirmware: whatever image is given, measuring ends, within the limits.
func FuzzFirmware(f *testing.F) {
	for _, i := range images {
		b := i.build()
		f.Add(b[len(b)-pageSize:])
	}
	f.Fuzz(func(t *testing.T, tail []byte) {
		fw := make([]byte, 4*pageSize)
		if len(tail) > pageSize {
			tail = tail[len(tail)-pageSize:]
		}
		copy(fw[len(fw)-len(tail):], tail)
		(&SNP{Firmware: fw, Boot: bootOf("all"), VCPUs: 2, Signature: 1, Features: 1, VMM: QEMU}).Measure()
		(&TDX{fw, ByPage}).Measure()
	})
}
