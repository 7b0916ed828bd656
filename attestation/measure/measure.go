// Package measure calculates what the hardware will say that a confidential VM
// was launched from, before any is launched: the MEASUREMENT of an AMD SEV-SNP
// guest and the MRTD of an Intel TDX one.
//
// Start with [SNP.Measure] or [TDX.Measure]: firmware and shape of the VM go in,
// a [Measurement] comes out, part by part. Where a machine reports another value,
// Explain tries what people get wrong and says which of it gives that value.
//
// It follows QEMU with KVM; [VMM] names what else is known. It does not read IGVM
// files, does not measure for SVSM, and does not calculate TDX RTMRs, which
// depend on memory size, ACPI tables and boot loader. Nothing here judges
// evidence. The package is pure: no files, no clock.
package measure

import (
	"encoding/hex"
	"fmt"
)

const pageSize = 4096

// Digest is a SHA-384 value: MEASUREMENT or MRTD.
type Digest [48]byte

// String returns lower-case hex, as a policy takes it.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns [Digest.String].
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// ParseDigest decodes 96 hex digits.
func ParseDigest(s string) (d Digest, err error) {
	if len(s) != 2*len(d) {
		return d, fmt.Errorf("measurement of %d characters, want %d hex digits", len(s), 2*len(d))
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("measurement: %w", err)
	}
	return d, nil
}

// Measurement is an expected launch measurement and how it comes about.
type Measurement struct {
	Digest Digest `json:"digest"`
	Parts  []Part `json:"parts"` // in the order in which they are measured
}

// Part is a run of pages of one kind.
type Part struct {
	Name    string `json:"name"`    // such as "firmware", "kernel-hashes", "vcpu[0]"
	Address uint64 `json:"address"` // guest physical, of the first page
	Pages   uint64 `json:"pages"`   // of 4 KiB
	// Content is the SHA-256 of the bytes in hex, or in words why there are none:
	// "zero", "unmeasured", "secrets", "cpuid", "address only".
	Content string `json:"content"`
	// After is the measurement of a launch that ended here: two machines that
	// differ in one part agree in all before it.
	After Digest `json:"after"`
}

// Difference is one thing that, had it been so, gives another measurement.
type Difference struct {
	Part  string `json:"part"`  // such as "vcpus", "kernel-hashes"
	Given string `json:"given"` // what was measured
	Found string `json:"found"` // what gives the other value
}

// String returns the difference in words.
func (d Difference) String() string {
	return fmt.Sprintf("%s: given %s, found %s", d.Part, d.Given, d.Found)
}

// ended explains a value that is the measurement of fewer parts.
func (m *Measurement) ended(got Digest) []Difference {
	for i, p := range m.Parts[:len(m.Parts)-1] {
		if p.After == got {
			return []Difference{{"parts", fmt.Sprintf("%d", len(m.Parts)), fmt.Sprintf("only the first %d, up to %s", i+1, p.Name)}}
		}
	}
	return nil
}
