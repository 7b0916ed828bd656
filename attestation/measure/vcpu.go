package measure

import (
	"fmt"
	"slices"
	"strings"
)

// model is what CPUID leaf 1 of a QEMU CPU model says.
type model struct {
	name      string
	signature uint32
}

// models are the CPU models of QEMU that SEV-SNP runs with, as builtin_x86_defs
// of QEMU and the table of sev-snp-measure 0.0.13 have them. A version suffix
// changes no signature of these.
var models = []model{
	{"EPYC", Signature(23, 1, 2)},
	{"EPYC-v1", Signature(23, 1, 2)},
	{"EPYC-v2", Signature(23, 1, 2)},
	{"EPYC-IBPB", Signature(23, 1, 2)},
	{"EPYC-v3", Signature(23, 1, 2)},
	{"EPYC-v4", Signature(23, 1, 2)},
	{"EPYC-Rome", Signature(23, 49, 0)},
	{"EPYC-Rome-v1", Signature(23, 49, 0)},
	{"EPYC-Rome-v2", Signature(23, 49, 0)},
	{"EPYC-Rome-v3", Signature(23, 49, 0)},
	{"EPYC-Milan", Signature(25, 1, 1)},
	{"EPYC-Milan-v1", Signature(25, 1, 1)},
	{"EPYC-Milan-v2", Signature(25, 1, 1)},
	{"EPYC-Genoa", Signature(25, 17, 0)},
	{"EPYC-Genoa-v1", Signature(25, 17, 0)},
	{"EPYC-Turin", Signature(26, 0, 0)},
}

// Signature returns EAX of CPUID leaf 1 for a family, model and stepping as
// people write them, extended parts included (AMD 25481, Fn0000_0001_EAX).
func Signature(family, model, stepping uint8) uint32 {
	low, extended := uint32(family), uint32(0)
	if family > 0xf {
		low, extended = 0xf, uint32(family)-0xf
	}
	return extended<<20 | uint32(model>>4)<<16 | low<<8 | uint32(model&0xf)<<4 | uint32(stepping&0xf)
}

// VCPUType returns the signature of a QEMU CPU model, such as "EPYC-v4". There
// is none for "host" and "max": they take the processor's own, which is
// [Signature] of its family, model and stepping.
func VCPUType(name string) (uint32, error) {
	for _, m := range models {
		if m.name == name {
			return m.signature, nil
		}
	}
	return 0, fmt.Errorf("unknown vCPU type %.40q: want one of %s, or give the CPUID signature", name, strings.Join(VCPUTypes(), ", "))
}

// VCPUTypes returns the names that [VCPUType] knows.
func VCPUTypes() []string {
	var out []string
	for _, m := range models {
		out = append(out, m.name)
	}
	return out
}

// named returns a signature with the types that have it.
func named(signature uint32) string {
	var names []string
	for _, m := range models {
		// The unversioned name stands for its versions.
		if m.signature == signature && !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(m.name, n+"-v") }) {
			names = append(names, m.name)
		}
	}
	if len(names) == 0 {
		return fmt.Sprintf("signature 0x%08x", signature)
	}
	return fmt.Sprintf("%s (signature 0x%08x)", strings.Join(names, ", "), signature)
}
