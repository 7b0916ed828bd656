package measure

import (
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"
)

// Explain says what, had it been so, gives got instead of the measurement of s:
// another number or type of processors, other features, another VMM, no kernel
// hashes, no initrd, a command line with other white space at its end, alone or
// together. It returns the explanation with the fewest differences, none if got
// is the measurement of s, and false if it found none: then files differ.
func (s *SNP) Explain(got Digest) ([]Difference, bool, error) {
	m, err := s.Measure()
	if err != nil {
		return nil, false, err
	}
	if m.Digest == got {
		return nil, true, nil
	}
	img, err := parseSNP(s.Firmware)
	if err != nil {
		return nil, false, fmt.Errorf("snp: %w", err)
	}
	var best []Difference
	firmware := img.digest()
	for _, boot := range s.bootsTried() {
		for _, shape := range s.shapesTried() {
			l := ladder{firmware}
			if img.metadata(&l, boot.boot, shape.VMM, func(string, uint64, uint64, string) {}) != nil {
				continue // this firmware cannot boot so
			}
			n, ok := vcpusFor(img, &shape, l, got)
			if !ok {
				continue
			}
			shape.VCPUs = n
			if d := s.differences(&shape, boot.difference); best == nil || len(d) < len(best) {
				best = d
			}
		}
	}
	if best == nil {
		best = m.ended(got) // such as the hash of the firmware alone
	}
	return best, best != nil, nil
}

// vcpusFor returns the number of processors with which shape gives got.
func vcpusFor(img *snpImage, shape *SNP, l ladder, got Digest) (int, bool) {
	first, other := Digest(sha512.Sum384(img.vmsa(0, shape))), Digest(sha512.Sum384(img.vmsa(1, shape)))
	for n := range MaxVCPUs {
		page := other
		if n == 0 {
			page = first
		}
		l.page(pageVMSA, vmsaAddress, page)
		if l.digest == got {
			return n + 1, true
		}
	}
	return 0, false
}

type bootTried struct {
	boot       *Boot
	difference *Difference
}

// bootsTried are the given boot and what is easily had instead of it.
func (s *SNP) bootsTried() []bootTried {
	out := []bootTried{{s.Boot, nil}}
	if s.Boot == nil {
		return out
	}
	out = append(out, bootTried{nil, &Difference{"kernel-hashes", "a page of hashes", "none: the VM was started without kernel-hashes=on"}})
	if s.Boot.Initrd != NoInitrd {
		b := *s.Boot
		b.Initrd = NoInitrd
		out = append(out, bootTried{&b, &Difference{"initrd", s.Boot.Initrd.String(), "none"}})
	}
	trimmed := strings.TrimSpace(s.Boot.CommandLine)
	for _, line := range []string{"", trimmed, trimmed + " ", trimmed + "\n", " " + trimmed} {
		if line == s.Boot.CommandLine {
			continue
		}
		b := *s.Boot
		b.CommandLine = line
		out = append(out, bootTried{&b, &Difference{"command-line", fmt.Sprintf("%q", s.Boot.CommandLine), fmt.Sprintf("%q", line)}})
	}
	return out
}

// shapesTried are all shapes but for the number of processors, the given first.
func (s *SNP) shapesTried() []SNP {
	features := []uint64{s.Features, FeaturesSNP, 0x21, 0} // 0x21: SNP and debug swap, an older KVM's default
	var signatures []uint32
	if s.VMM == QEMU {
		signatures = append(signatures, s.Signature)
	}
	for _, m := range models {
		signatures = append(signatures, m.signature)
	}
	slices.Sort(signatures)
	signatures = slices.Compact(signatures)
	var out []SNP
	for _, f := range features {
		for _, v := range []VMM{QEMU, EC2, GCE} {
			t := *s
			t.VMM, t.Features, t.Signature = v, f, 0
			if v != QEMU {
				out = append(out, t)
				continue
			}
			for _, sig := range signatures {
				t.Signature = sig
				out = append(out, t)
			}
		}
	}
	return out
}

// differences says in which ways t is not s.
func (s *SNP) differences(t *SNP, boot *Difference) (out []Difference) {
	if boot != nil {
		out = append(out, *boot)
	}
	if t.VMM != s.VMM {
		out = append(out, Difference{"vmm", string(s.VMM), string(t.VMM)})
	}
	if t.VMM == s.VMM && t.Signature != s.Signature {
		out = append(out, Difference{"vcpu-type", named(s.Signature), named(t.Signature)})
	}
	if t.VCPUs != s.VCPUs {
		out = append(out, Difference{"vcpus", fmt.Sprint(s.VCPUs), fmt.Sprint(t.VCPUs)})
	}
	if t.Features != s.Features {
		out = append(out, Difference{"features", fmt.Sprintf("0x%x", s.Features), fmt.Sprintf("0x%x", t.Features)})
	}
	return out
}
