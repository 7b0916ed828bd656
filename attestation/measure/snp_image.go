package measure

import (
	"encoding/binary"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// snpImage is a firmware image for SEV-SNP.
type snpImage struct {
	raw      []byte
	sections []snpSection
	reset    uint32 // where a processor other than the first starts
	hashes   uint32 // address of the table of kernel hashes; 0: none
}

// snpSection is a run of pages that the VMM prepares (edk2,
// OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm).
type snpSection struct{ address, size, kind uint32 }

// The kinds of section.
const (
	sectionSecMem  = 1
	sectionSecrets = 2
	sectionCPUID   = 3
	sectionSVSMCAA = 4 // calling area of an SVSM; zero where there is none
	sectionHashes  = 0x10
)

var sectionNames = map[uint32]string{
	sectionSecMem: "sec-mem", sectionSecrets: "secrets", sectionCPUID: "cpuid", sectionSVSMCAA: "svsm-caa", sectionHashes: "kernel-hashes",
}

const (
	maxSections     = 64
	maxSectionPages = 1 << 16 // 256 MiB in all; OVMF has less than one
	snpHeader       = 16      // "ASEV", u32 size, u32 version, u32 count
	snpEntry        = 12
)

func parseSNP(fw []byte) (*snpImage, error) {
	t, err := parseTable(fw)
	if err != nil {
		return nil, err
	}
	i := &snpImage{raw: fw}
	if i.reset, err = t.u32(guidResetBlock, "SEV-ES reset block"); err != nil {
		return nil, err
	}
	if _, ok := t[guidHashTable]; ok {
		if i.hashes, err = t.u32(guidHashTable, "table of kernel hashes"); err != nil {
			return nil, err
		}
	}
	b, err := t.metadata(fw, guidSEVMetadata, "SEV metadata", "ASEV")
	if err != nil {
		return nil, err
	}
	le32 := binary.LittleEndian.Uint32
	size, version, count := le32(b[4:]), le32(b[8:]), le32(b[12:])
	if version != 1 {
		return nil, fmt.Errorf("%w: SEV metadata of version %d, want 1", ErrFirmware, version)
	}
	if count == 0 || count > maxSections || uint64(size) != snpHeader+uint64(count)*snpEntry || uint64(size) > uint64(len(b)) {
		return nil, fmt.Errorf("%w: SEV metadata of %d bytes with %d sections", ErrFirmware, size, count)
	}
	pages := uint64(0)
	for n := range int(count) {
		e := b[snpHeader+n*snpEntry:]
		s := snpSection{le32(e), le32(e[4:]), le32(e[8:])}
		if sectionNames[s.kind] == "" {
			return nil, fmt.Errorf("%w: SEV section of unknown type 0x%x", ErrFirmware, s.kind)
		}
		if pages += uint64(s.size) / pageSize; s.size%pageSize != 0 || s.address%pageSize != 0 || s.size == 0 || pages > maxSectionPages {
			return nil, fmt.Errorf("%w: SEV section %s of %d bytes at 0x%x", ErrFirmware, sectionNames[s.kind], s.size, s.address)
		}
		if single := s.kind == sectionSecrets || s.kind == sectionCPUID || s.kind == sectionHashes; single && s.size != pageSize {
			return nil, fmt.Errorf("%w: SEV section %s of %d bytes, want one page", ErrFirmware, sectionNames[s.kind], s.size)
		}
		i.sections = append(i.sections, s)
	}
	return i, nil
}

// address is where the image starts: it ends at 4 GiB.
func (i *snpImage) address() uint64 { return 1<<32 - uint64(len(i.raw)) }

// digest is the launch digest after the firmware alone.
func (i *snpImage) digest() Digest {
	var l ladder
	l.bytes(i.address(), i.raw)
	return l.digest
}

// metadata adds the sections, in the order of the table; EC2 adds the CPUID page
// last.
func (i *snpImage) metadata(l *ladder, boot *Boot, v VMM, add func(name string, address, pages uint64, content string)) error {
	hashed := false
	section := func(s snpSection) error {
		content, kind := "zero", uint8(pageZero)
		switch s.kind {
		case sectionSecMem:
			if v == GCE {
				content, kind = "unmeasured", pageUnmeasured
			}
		case sectionSecrets:
			content, kind = "secrets", pageSecrets
		case sectionCPUID:
			content, kind = "cpuid", pageCPUID
		case sectionHashes:
			if boot != nil {
				p, err := boot.page(i.hashes % pageSize)
				if err != nil {
					return err
				}
				hashed = true
				l.bytes(uint64(s.address), p)
				add(sectionNames[s.kind], uint64(s.address), 1, cose.Sum(p).String())
				return nil
			}
		}
		l.without(kind, uint64(s.address), uint64(s.size)/pageSize)
		add(sectionNames[s.kind], uint64(s.address), uint64(s.size)/pageSize, content)
		return nil
	}
	for _, last := range []bool{false, true} {
		for _, s := range i.sections {
			if late := v == EC2 && s.kind == sectionCPUID; late == last {
				if err := section(s); err != nil {
					return err
				}
			}
		}
	}
	switch {
	case boot == nil || hashed && i.hashes != 0:
		return nil
	case i.hashes == 0:
		return fmt.Errorf("%w: it has no table of kernel hashes: it would boot a kernel that nothing measures (build OvmfPkg/AmdSev)", ErrFirmware)
	}
	return fmt.Errorf("%w: it has no section for kernel hashes: it would boot a kernel that nothing measures (build OvmfPkg/AmdSev)", ErrFirmware)
}
