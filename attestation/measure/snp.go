package measure

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/concordat/concordat/internal/cose"
)

// MaxVCPUs bounds the virtual processors of a VM.
const MaxVCPUs = 1024

// FeaturesSNP is SEV_FEATURES with SNP alone, which QEMU sets.
const FeaturesSNP = 1

// SNP is what an AMD SEV-SNP guest is launched from.
type SNP struct {
	Firmware  []byte // the whole image, as it is mapped below 4 GiB; not changed
	Boot      *Boot  // nil: no kernel hashes, the firmware boots from a disk
	VCPUs     int
	Signature uint32 // CPUID signature of the vCPU type, for [QEMU] alone; [VCPUType]
	Features  uint64 // SEV_FEATURES; [FeaturesSNP] unless the host sets more
	VMM       VMM
}

// The kinds of page in PAGE_INFO (AMD 56860, table "PAGE_TYPE").
const (
	pageNormal     = 1
	pageVMSA       = 2
	pageZero       = 3
	pageUnmeasured = 4
	pageSecrets    = 5
	pageCPUID      = 6
)

// vmsaAddress is where the firmware measures every VMSA: -1 as a page address of
// 52 bits.
const vmsaAddress = 0xfffffffff000

// ladder is the running launch digest.
type ladder struct{ digest Digest }

// page adds one page: digest = SHA-384(PAGE_INFO), AMD 56860, table "PAGE_INFO".
func (l *ladder) page(kind uint8, address uint64, content Digest) {
	var info [0x70]byte
	copy(info[:], l.digest[:])
	copy(info[48:], content[:])
	binary.LittleEndian.PutUint16(info[96:], uint16(len(info)))
	info[98] = kind
	binary.LittleEndian.PutUint64(info[104:], address)
	l.digest = sha512.Sum384(info[:])
}

// bytes adds whole pages with content.
func (l *ladder) bytes(address uint64, b []byte) {
	for i := 0; i < len(b); i += pageSize {
		l.page(pageNormal, address+uint64(i), sha512.Sum384(b[i:i+pageSize]))
	}
}

// without adds n pages without content.
func (l *ladder) without(kind uint8, address, n uint64) {
	for i := range n {
		l.page(kind, address+i*pageSize, Digest{})
	}
}

func (s *SNP) check() error {
	switch {
	case s.VCPUs < 1 || s.VCPUs > MaxVCPUs:
		return fmt.Errorf("%d vCPUs, want 1 to %d", s.VCPUs, MaxVCPUs)
	case s.VMM != QEMU && s.VMM != EC2 && s.VMM != GCE:
		return fmt.Errorf("unknown VMM %.20q, want %q, %q or %q", s.VMM, QEMU, EC2, GCE)
	case s.VMM == QEMU && s.Signature == 0:
		return errors.New("no vCPU type: QEMU measures its signature")
	case s.VMM != QEMU && s.Signature != 0:
		return fmt.Errorf("a vCPU type is given, and %s does not measure it", s.VMM)
	case s.Boot != nil && s.Boot.Kernel.IsZero():
		return errors.New("no hash of the kernel")
	case s.Boot != nil && s.Boot.Initrd.IsZero():
		return errors.New("no hash of the initrd; where there is none, it is that of no bytes")
	case s.Boot != nil && strings.ContainsRune(s.Boot.CommandLine, 0):
		return errors.New("command line with a NUL")
	}
	return nil
}

// Measure returns the MEASUREMENT that a report will show. An error about the
// firmware wraps [ErrFirmware].
func (s *SNP) Measure() (*Measurement, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("snp: %w", err)
	}
	img, err := parseSNP(s.Firmware)
	if err != nil {
		return nil, fmt.Errorf("snp: %w", err)
	}
	m := new(Measurement)
	var l ladder
	add := func(name string, address, pages uint64, content string) {
		m.Parts = append(m.Parts, Part{name, address, pages, content, l.digest})
	}
	l.digest = img.digest()
	add("firmware", img.address(), uint64(len(s.Firmware)/pageSize), cose.Sum(s.Firmware).String())
	if err := img.metadata(&l, s.Boot, s.VMM, add); err != nil {
		return nil, fmt.Errorf("snp: %w", err)
	}
	for i := range s.VCPUs {
		p := img.vmsa(i, s)
		l.page(pageVMSA, vmsaAddress, sha512.Sum384(p))
		add(fmt.Sprintf("vcpu[%d]", i), vmsaAddress, 1, cose.Sum(p).String())
	}
	m.Digest = l.digest
	return m, nil
}

func (i *snpImage) vmsa(cpu int, s *SNP) []byte {
	eip := uint32(bspEIP)
	if cpu > 0 {
		eip = i.reset
	}
	return vmsa(eip, s.Signature, s.Features, s.VMM)
}
