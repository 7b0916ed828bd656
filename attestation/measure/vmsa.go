package measure

import "encoding/binary"

// VMM is the virtual machine monitor, which chooses the state that virtual
// processors start in and the order of some pages.
type VMM string

// The VMMs. QEMU is the one that this package follows; the others have the values
// that sev-snp-measure 0.0.13 has for them.
const (
	QEMU VMM = "qemu"
	EC2  VMM = "ec2" // Amazon EC2
	GCE  VMM = "gce" // Google Compute Engine
)

// bspEIP is where the first processor starts: the reset vector.
const bspEIP = 0xfffffff0

// registers are the values in which VMMs differ.
type registers struct {
	csFirst, cs, ss, tr uint16 // attributes; csFirst of the first processor
	pat                 uint64
	rdx                 uint64
	mxcsr               uint32
	fcw                 uint16
}

func (v VMM) registers(signature uint32) registers {
	const pat = 0x0007040600070406 // at reset (AMD 24593, PAT MSR)
	switch v {
	case EC2:
		return registers{0x9a, 0x9b, 0x92, 0x83, pat, 0x600, 0, 0}
	case GCE:
		return registers{0x9b, 0x9b, 0x93, 0x8b, 0x00070106, 0x600, 0, 0}
	}
	return registers{0x9b, 0x9b, 0x93, 0x8b, pat, uint64(signature), 0x1f80, 0x37f}
}

// vmsa returns the page that holds the state of a virtual processor at its
// start (AMD 24593, table B-4, "VMSA Layout").
func vmsa(eip uint32, signature uint32, features uint64, v VMM) []byte {
	r := v.registers(signature)
	cs := r.cs
	if eip == bspEIP {
		cs = r.csFirst
	}
	p := make([]byte, pageSize)
	put16, put32, put64 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	segment := func(at int, selector, attributes uint16, base uint32) {
		put16(p[at:], selector)
		put16(p[at+2:], attributes)
		put32(p[at+4:], 0xffff) // limit
		put64(p[at+8:], uint64(base))
	}
	segment(0x00, 0, 0x93, 0)                 // ES
	segment(0x10, 0xf000, cs, eip&0xffff0000) // CS
	segment(0x20, 0, r.ss, 0)                 // SS
	segment(0x30, 0, 0x93, 0)                 // DS
	segment(0x40, 0, 0x93, 0)                 // FS
	segment(0x50, 0, 0x93, 0)                 // GS
	segment(0x60, 0, 0, 0)                    // GDTR
	segment(0x70, 0, 0x82, 0)                 // LDTR
	segment(0x80, 0, 0, 0)                    // IDTR
	segment(0x90, 0, r.tr, 0)                 // TR
	put64(p[0x0d0:], 0x1000)                  // EFER: SVME, which KVM sets
	put64(p[0x148:], 0x40)                    // CR4: MCE, which KVM sets
	put64(p[0x158:], 0x10)                    // CR0: ET
	put64(p[0x160:], 0x400)                   // DR7
	put64(p[0x168:], 0xffff0ff0)              // DR6
	put64(p[0x170:], 0x2)                     // RFLAGS
	put64(p[0x178:], uint64(eip&0xffff))      // RIP
	put64(p[0x268:], r.pat)                   // G_PAT
	put64(p[0x310:], r.rdx)                   // RDX
	put64(p[0x3b0:], features)                // SEV_FEATURES
	put64(p[0x3e8:], 1)                       // XCR0: x87
	put32(p[0x408:], r.mxcsr)                 // MXCSR
	put16(p[0x410:], r.fcw)                   // x87 FCW
	return p
}
