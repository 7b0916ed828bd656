package measure

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/concordat/concordat/internal/cose"
)

// Order is the order in which a host's KVM adds the pages of a section and
// extends the measurement with their content. It changes MRTD.
type Order string

// The orders.
const (
	// ByPage extends each page right after adding it: KVM of Linux 6.16 and
	// later, Google Compute Engine.
	ByPage Order = "page"
	// BySection adds all pages of a section, then extends it: KVM patch sets for
	// TDX from before it was in Linux.
	BySection Order = "section"
)

// TDX is what an Intel TDX guest is launched from. Of the shape of the VM
// nothing enters MRTD; kernel and command line are in RTMR1 and RTMR2.
type TDX struct {
	Firmware []byte // the whole image, with TDVF metadata; not changed
	Order    Order
}

// tdxSection is a row of the TDVF descriptor (Intel 344991, TDX Virtual Firmware
// Design Guide, table "TDVF_SECTION").
type tdxSection struct {
	offset, size uint32 // in the image
	address      uint64 // in memory
	memory       uint64 // bytes, the rest is zero
	kind         uint32
	attributes   uint32
}

const (
	tdvfHeader  = 16 // "TDVF", u32 length, u32 version, u32 count
	tdvfSection = 32

	attributeExtend = 1 << 0 // MR.EXTEND: the content is measured
	attributeAug    = 1 << 1 // PAGE.AUG: the guest accepts the pages itself

	maxTDXPages = 1 << 18 // 1 GiB of sections in all; OVMF has 16 MiB
)

// The kinds of section that QEMU launches (hw/i386/tdvf.h); index is TYPE.
var tdxNames = [...]string{"bfv", "cfv", "td-hob", "temp-mem"}

func parseTDX(fw []byte) ([]tdxSection, error) {
	t, err := parseTable(fw)
	if err != nil {
		return nil, err
	}
	b, err := t.metadata(fw, guidTDXMetadata, "TDX metadata", "TDVF")
	if err != nil {
		return nil, err
	}
	le32, le64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	length, version, count := le32(b[4:]), le32(b[8:]), le32(b[12:])
	if version != 1 {
		return nil, fmt.Errorf("%w: TDVF descriptor of version %d, want 1", ErrFirmware, version)
	}
	if count == 0 || count > maxSections || uint64(length) != tdvfHeader+uint64(count)*tdvfSection || uint64(length) > uint64(len(b)) {
		return nil, fmt.Errorf("%w: TDVF descriptor of %d bytes with %d sections", ErrFirmware, length, count)
	}
	var out []tdxSection
	pages := uint64(0)
	for n := range int(count) {
		e := b[tdvfHeader+n*tdvfSection:]
		s := tdxSection{le32(e), le32(e[4:]), le64(e[8:]), le64(e[16:]), le32(e[24:]), le32(e[28:])}
		if int64(s.kind) >= int64(len(tdxNames)) {
			return nil, fmt.Errorf("%w: TDVF section of type %d, which QEMU does not launch", ErrFirmware, s.kind)
		}
		if err := s.check(len(fw)); err != nil {
			return nil, fmt.Errorf("%w: TDVF section %s: %w", ErrFirmware, tdxNames[s.kind], err)
		}
		if pages += s.memory / pageSize; pages > maxTDXPages {
			return nil, fmt.Errorf("%w: TDVF sections of more than %d pages", ErrFirmware, maxTDXPages)
		}
		out = append(out, s)
	}
	return out, nil
}

func (s *tdxSection) check(image int) error {
	switch {
	case s.address%pageSize != 0 || s.memory%pageSize != 0 || s.memory == 0 || s.memory > maxTDXPages*pageSize || s.address > 1<<52:
		return fmt.Errorf("%d bytes at 0x%x are no pages", s.memory, s.address)
	case uint64(s.offset)+uint64(s.size) > uint64(image):
		return fmt.Errorf("%d bytes at 0x%x of an image of %d", s.size, s.offset, image)
	case uint64(s.size) > s.memory:
		return fmt.Errorf("%d bytes of the image in %d of memory", s.size, s.memory)
	case s.attributes&^(attributeExtend|attributeAug) != 0:
		return fmt.Errorf("unknown attributes 0x%x", s.attributes)
	case s.attributes == attributeExtend|attributeAug:
		return fmt.Errorf("measured, and not added at launch")
	case s.attributes&attributeExtend != 0 && s.kind >= 2:
		// QEMU fills these with what depends on the machine.
		return fmt.Errorf("measured, with content that the machine decides")
	}
	return nil
}

// mrtd is the running measurement (Intel 348549, TDX Module Base Specification,
// "MRTD: Build-Time Measurement Register").
type mrtd struct{ hash.Hash }

// record adds the 128 bytes for one operation on an address.
func (m mrtd) record(operation string, address uint64) {
	var b [128]byte
	copy(b[:], operation)
	binary.LittleEndian.PutUint64(b[16:], address)
	m.Write(b[:])
}

func (m mrtd) add(address uint64) { m.record("MEM.PAGE.ADD", address) }

// extend adds a page's content, 256 bytes at a time.
func (m mrtd) extend(address uint64, page []byte) {
	for i := 0; i < len(page); i += 256 {
		m.record("MR.EXTEND", address+uint64(i))
		m.Write(page[i : i+256])
	}
}

// Measure returns the MRTD that a quote will show. An error about the firmware
// wraps [ErrFirmware].
func (t *TDX) Measure() (*Measurement, error) {
	if t.Order != ByPage && t.Order != BySection {
		return nil, fmt.Errorf("tdx: unknown order %.20q, want %q or %q", t.Order, ByPage, BySection)
	}
	sections, err := parseTDX(t.Firmware)
	if err != nil {
		return nil, fmt.Errorf("tdx: %w", err)
	}
	m, out := mrtd{sha512.New384()}, new(Measurement)
	for _, s := range sections {
		if s.attributes&attributeAug != 0 {
			continue
		}
		content := "address only"
		memory := make([]byte, 0)
		if s.attributes&attributeExtend != 0 {
			memory = make([]byte, s.memory)
			copy(memory, t.Firmware[s.offset:s.offset+s.size])
			content = cose.Sum(memory).String()
		}
		m.section(&s, memory, t.Order)
		out.Digest = Digest(m.Sum(nil))
		out.Parts = append(out.Parts, Part{tdxNames[s.kind], s.address, s.memory / pageSize, content, out.Digest})
	}
	if len(out.Parts) == 0 {
		return nil, fmt.Errorf("tdx: %w: its TDVF descriptor adds no page at launch", ErrFirmware)
	}
	return out, nil
}

// section adds a section whose memory is empty if it is not extended.
func (m mrtd) section(s *tdxSection, memory []byte, o Order) {
	for i := uint64(0); i < s.memory; i += pageSize {
		m.add(s.address + i)
		if o == ByPage && len(memory) > 0 {
			m.extend(s.address+i, memory[i:i+pageSize])
		}
	}
	if o == BySection {
		m.extend(s.address, memory)
	}
}

// Explain says what, had it been so, gives got instead of the measurement of t:
// the other order, or only some sections. It returns none if got is the
// measurement of t, and false if it found none: then the firmware differs.
func (t *TDX) Explain(got Digest) ([]Difference, bool, error) {
	m, err := t.Measure()
	if err != nil {
		return nil, false, err
	}
	if m.Digest == got {
		return nil, true, nil
	}
	other := TDX{t.Firmware, ByPage}
	if t.Order == ByPage {
		other.Order = BySection
	}
	o, err := other.Measure()
	if err != nil {
		return nil, false, err
	}
	if o.Digest == got {
		return []Difference{{"order", string(t.Order), string(other.Order)}}, true, nil
	}
	d := m.ended(got)
	return d, d != nil, nil
}
