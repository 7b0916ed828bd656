package snp

import "fmt"

// Product is an AMD product line, as in the names of its root key and of the
// endpoints of AMD's key distribution service.
type Product string

// The product lines with SEV-SNP that this package knows.
const (
	Milan Product = "Milan"
	Genoa Product = "Genoa" // and Bergamo and Siena (models A0h to AFh), which share its root
	Turin Product = "Turin"
)

// Product returns the product line of a chip (AMD 57230, "Determining the
// Product Name"), and false for a chip that this package does not know: its TCB
// layout may be another.
func (c CPUID) Product() (Product, bool) {
	switch {
	case c.Family == 0x19 && c.Model <= 0x0F:
		return Milan, true
	case c.Family == 0x19 && (c.Model >= 0x10 && c.Model <= 0x1F || c.Model >= 0xA0 && c.Model <= 0xAF):
		return Genoa, true
	case c.Family == 0x1A && c.Model <= 0x11:
		return Turin, true
	}
	return "", false
}

// String returns "family 0x19 model 0x11 stepping 1".
func (c CPUID) String() string {
	return fmt.Sprintf("family 0x%02x model 0x%02x stepping %d", c.Family, c.Model, c.Stepping)
}

// ChipIDSize returns the length of the chip id of a product line; the rest of
// the 64 bytes of CHIP_ID is zero.
func (p Product) ChipIDSize() int {
	if p == Turin {
		return 8
	}
	return 64
}

// TCBVersion is a TCB_VERSION as its 8 bytes lie in the report. What they mean
// depends on the product line: see [TCBVersion.Decode].
type TCBVersion [8]byte

// TCB holds the security versions of a platform. It is compared component by
// component, never as one number.
type TCB struct {
	FMC        uint8 // Turin only
	BootLoader uint8
	TEE        uint8
	SNP        uint8
	Microcode  uint8
}

// Decode reads v in the layout of p (56860, TCB_VERSION). It fails if a reserved
// byte is not zero or p is unknown.
func (v TCBVersion) Decode(p Product) (TCB, error) {
	var t TCB
	var zero []byte
	switch p {
	case Milan, Genoa:
		t = TCB{BootLoader: v[0], TEE: v[1], SNP: v[6], Microcode: v[7]}
		zero = v[2:6]
	case Turin:
		t = TCB{FMC: v[0], BootLoader: v[1], TEE: v[2], SNP: v[3], Microcode: v[7]}
		zero = v[4:7]
	default:
		return TCB{}, fmt.Errorf("snp: TCB layout of product %.20q is unknown", string(p))
	}
	for _, b := range zero {
		if b != 0 {
			return TCB{}, fmt.Errorf("snp: TCB version %x: reserved byte is not zero", v[:])
		}
	}
	return t, nil
}

// Encode writes t in the layout of p, for a simulator. FMC is lost but on Turin.
func (t TCB) Encode(p Product) TCBVersion {
	if p == Turin {
		return TCBVersion{t.FMC, t.BootLoader, t.TEE, t.SNP, 0, 0, 0, t.Microcode}
	}
	return TCBVersion{t.BootLoader, t.TEE, 0, 0, 0, 0, t.SNP, t.Microcode}
}

// AtLeast reports whether every component of t is at least that of min.
func (t TCB) AtLeast(min TCB) bool {
	return t.FMC >= min.FMC && t.BootLoader >= min.BootLoader && t.TEE >= min.TEE &&
		t.SNP >= min.SNP && t.Microcode >= min.Microcode
}

// Below lists the components of t that are below min, such as "snp 22 below 23";
// it is empty exactly if t is [TCB.AtLeast] min.
func (t TCB) Below(min TCB) []string {
	var out []string
	for _, c := range []struct {
		name      string
		got, want uint8
	}{
		{"fmc", t.FMC, min.FMC}, {"bootloader", t.BootLoader, min.BootLoader}, {"tee", t.TEE, min.TEE},
		{"snp", t.SNP, min.SNP}, {"microcode", t.Microcode, min.Microcode},
	} {
		if c.got < c.want {
			out = append(out, fmt.Sprintf("%s %d below %d", c.name, c.got, c.want))
		}
	}
	return out
}

// String returns "bootloader 10 tee 0 snp 23 microcode 84", with fmc first where
// it is not zero.
func (t TCB) String() string {
	s := fmt.Sprintf("bootloader %d tee %d snp %d microcode %d", t.BootLoader, t.TEE, t.SNP, t.Microcode)
	if t.FMC != 0 {
		s = fmt.Sprintf("fmc %d %s", t.FMC, s)
	}
	return s
}
