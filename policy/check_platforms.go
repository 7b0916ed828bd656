package policy

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/concordat/concordat/attestation/snp"
)

// Sizes of reference values in bytes.
const (
	measurementSize = 48 // SHA-384: SNP MEASUREMENT, TDX MRTD, RTMR and MRSIGNERSEAM
	chipIDSize      = 64 // SNP CHIP_ID
	turinIDSize     = 8  // the part of CHIP_ID that Turin fills
	pcrSize         = 32 // SHA-256: PCR of a TPM
	piidSize        = 16 // platform instance id of a PCK certificate
	maxDeviceSize   = 20 // a certificate's serial number (RFC 5280 4.1.2.2)
)

func (c *checker) platforms(p *Platforms) {
	if p.SNP == nil && p.TDX == nil {
		c.add("platforms", "missing: want snp, tdx or both")
	}
	if p.SNP != nil {
		c.snp("platforms.snp", p.SNP)
	}
	if p.TDX != nil {
		c.tdx("platforms.tdx", p.TDX)
	}
	if p.GPU != nil {
		c.gpu("platforms.gpu", p.GPU)
	}
	if p.TPM != nil {
		c.tpm("platforms.tpm", p.TPM)
	}
}

func (c *checker) snp(at string, s *SNP) {
	c.known(at+".products", s.Products, "Genoa", "Milan", "Turin")
	c.reference(at+".measurements", s.Measurements, measurementSize)
	if len(s.MinTCB) != len(s.Products) {
		c.add(at+".min_tcb", "has %d entries for %d products", len(s.MinTCB), len(s.Products))
	}
	for i, t := range s.MinTCB {
		field := fmt.Sprintf("%s.min_tcb[%d]", at, i)
		if i < len(s.Products) && t.Product != s.Products[i] {
			c.add(field+".product", "is %q where products has %q", t.Product, s.Products[i])
		}
		if t.FMC != 0 && t.Product != "Turin" {
			c.add(field+".fmc", "is %d, but only Turin has this component", t.FMC)
		}
	}
	sizes := []int{chipIDSize}
	if slices.Contains(s.Products, "Turin") {
		sizes = []int{turinIDSize, chipIDSize}
	}
	c.allowed(at+".chips", s.Chips, s.AnyChip, sizes...)
	if s.MinGuestSVN > math.MaxUint32 { // GUEST_SVN is a u32
		c.add(at+".min_guest_svn", "is %d, which no report can reach", s.MinGuestSVN)
	}
	if s.MinVersion < 2 || s.MinVersion > math.MaxUint32 {
		c.add(at+".min_version", "is %d, want at least 2", s.MinVersion)
	}
	sorted(c, at+".providers", s.Providers, cmp.Compare[string])
	for i, name := range s.Providers {
		c.text(fmt.Sprintf("%s.providers[%d]", at, i), name)
	}
	if len(s.Denied) > 0 {
		c.reference(at+".denied_chips", s.Denied, sizes...)
	}
	for i, chip := range s.Denied {
		if slices.ContainsFunc(s.Chips, func(h Hex) bool { return bytes.Equal(h, chip) }) {
			c.add(fmt.Sprintf("%s.denied_chips[%d]", at, i), "is in chips too")
		}
	}
	c.words(at+".guest_policy", s.GuestPolicy, snp.PolicyWords())
	c.words(at+".platform_required", s.PlatformRequired, snp.PlatformWords())
	c.words(at+".platform_forbidden", s.PlatformForbidden, snp.PlatformWords())
	for i, w := range s.PlatformForbidden {
		if slices.Contains(s.PlatformRequired, w) {
			c.add(fmt.Sprintf("%s.platform_forbidden[%d]", at, i), "is required too")
		}
	}
	if s.Mitigations != 0 && s.MinVersion < snp.Version5 {
		c.add(at+".min_version", "is %d, but mitigations are in reports of version 5", s.MinVersion)
	}
	if len(s.IDKeys) > 0 {
		c.reference(at+".id_keys", s.IDKeys, measurementSize)
	}
	if len(s.AuthorKeys) > 0 {
		c.reference(at+".author_keys", s.AuthorKeys, measurementSize)
	}
}

// words demands a sorted list of known words; it may be empty.
func (c *checker) words(field string, list, known []string) {
	if len(list) > 0 {
		c.known(field, list, known...)
	}
}

// tdxStatuses are the TCB statuses that a policy may accept, in Intel's
// spelling; "Revoked" is never among them.
var tdxStatuses = []string{"ConfigurationAndSWHardeningNeeded", "ConfigurationNeeded", "OutOfDate", "OutOfDateConfigurationNeeded",
	"SWHardeningNeeded", "TDRelaunchAdvised", "TDRelaunchAdvisedConfigurationNeeded", "UpToDate"}

func (c *checker) tdx(at string, t *TDX) {
	c.reference(at+".mrtd", t.MRTD, measurementSize)
	sorted(c, at+".rtmrs", t.RTMRs, func(a, b RTMRs) int {
		return cmp.Or(bytes.Compare(a.RTMR0, b.RTMR0), bytes.Compare(a.RTMR1, b.RTMR1), bytes.Compare(a.RTMR2, b.RTMR2))
	})
	for i, r := range t.RTMRs {
		field := fmt.Sprintf("%s.rtmrs[%d]", at, i)
		c.sized(field+".rtmr0", r.RTMR0, measurementSize)
		c.sized(field+".rtmr1", r.RTMR1, measurementSize)
		c.sized(field+".rtmr2", r.RTMR2, measurementSize)
	}
	c.known(at+".statuses", t.Statuses, tdxStatuses...)
	c.positive(at+".min_evaluation", t.MinEvaluation)
	c.allowed(at+".platform_instances", t.PIIDs, t.AnyPlatform, piidSize)
	if t.XFAMMask&3 != 3 { // x87 and SSE are always enabled (TDX module, XFAM_FIXED1)
		c.add(at+".xfam_mask", "is %#x, which no guest can meet: bits 0 and 1 are always set", t.XFAMMask)
	}
	c.sized(at+".mr_signer_seam", t.MRSignerSEAM, measurementSize)
	if t.AllowMigration {
		c.add(at+".allow_migration", "is true, but a guest that can migrate is always refused")
	}
	c.events(at+".events", t.Events, 3, measurementSize)
}

// maxPCR is the last PCR that only a restart resets (TCG PC Client Platform TPM
// Profile, table "PCR attributes").
const maxPCR = 15

func (c *checker) tpm(at string, t *TPM) {
	if len(t.PCRs) == 0 && len(t.Events) == 0 {
		c.add(at, "names neither pcrs nor events: nothing would pin what runs above the paravisor")
	}
	sorted(c, at+".pcrs", t.PCRs, func(a, b PCR) int { return cmp.Compare(a.Index, b.Index) })
	for i, p := range t.PCRs {
		field := fmt.Sprintf("%s.pcrs[%d]", at, i)
		if p.Index > maxPCR {
			c.add(field+".index", "is %d, want 0 to %d: the others can be reset", p.Index, maxPCR)
		}
		c.reference(field+".values", p.Values, pcrSize)
	}
	c.events(at+".events", t.Events, maxPCR, pcrSize)
}

func (c *checker) events(at string, list []Event, last uint64, size int) {
	sorted(c, at, list, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.Register, b.Register), bytes.Compare(a.Digest, b.Digest))
	})
	for i, e := range list {
		field := fmt.Sprintf("%s[%d]", at, i)
		if e.Register > last {
			c.add(field+".register", "is %d, want 0 to %d", e.Register, last)
		}
		c.sized(field+".digest", e.Digest, size)
		c.text(field+".name", e.Name)
	}
}

func (c *checker) gpu(at string, g *GPU) {
	c.known(at+".architectures", g.Architectures, "blackwell", "hopper")
	c.positive(at+".min_count", g.MinCount)
	c.dotted(at+".min_driver", g.MinDriver, 10)
	c.dotted(at+".min_vbios", g.MinVBIOS, 16)
	if len(g.Measurements) == 0 && !g.RIM {
		c.add(at+".measurements", "missing: want at least one accepted set, or rim")
	}
	sorted(c, at+".measurements", g.Measurements, func(a, b GPUMeasured) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	for i, m := range g.Measurements {
		field := fmt.Sprintf("%s.measurements[%d]", at, i)
		c.text(field+".name", m.Name)
		if m.Digest.IsZero() {
			c.add(field+".digest", "missing")
		}
	}
	sizes := make([]int, maxDeviceSize)
	for i := range sizes {
		sizes[i] = i + 1
	}
	c.allowed(at+".devices", g.Devices, g.AnyDevice, sizes...)
	if len(g.Denied) > 0 {
		c.reference(at+".denied", g.Denied, sizes...)
	}
	if len(g.Modes) > 0 {
		c.known(at+".modes", g.Modes, "mpt", "ppcie", "spt", "unstated")
	}
	if g.AllowRIMHold && !g.RIM {
		c.add(at+".allow_rim_hold", "is true, but no manifest is read without rim")
	}
	if slices.Contains(g.Modes, "ppcie") && g.MinSwitches == 0 {
		c.add(at+".min_switches", "is 0, but in mode ppcie the switches see everything: want evidence of them")
	}
	switch {
	case g.MinSwitches > 0:
		c.dotted(at+".min_switch_vbios", g.MinSwitchVBIOS, 16)
	case g.MinSwitchVBIOS != "":
		c.add(at+".min_switch_vbios", "is set, but no switch is accepted: set min_switches")
	}
}

// allowed demands a list or the word that stands for everything, not both and
// not neither (protocol F15).
func (c *checker) allowed(field string, list []Hex, all bool, sizes ...int) {
	if all && len(list) != 0 {
		c.add(field, "lists %d values and accepts any", len(list))
	}
	if all {
		return
	}
	c.reference(field, list, sizes...)
}

// reference demands a sorted, not empty list of values of one of the sizes.
func (c *checker) reference(field string, list []Hex, sizes ...int) {
	if len(list) == 0 {
		c.add(field, "missing: want at least one value")
	}
	sorted(c, field, list, func(a, b Hex) int { return bytes.Compare(a, b) })
	for i, h := range list {
		c.sized(fmt.Sprintf("%s[%d]", field, i), h, sizes...)
	}
}

func (c *checker) sized(field string, h Hex, sizes ...int) {
	switch {
	case len(h) == 0:
		c.add(field, "missing")
	case slices.Contains(sizes, len(h)):
	case len(sizes) > 2:
		c.add(field, "has %d bytes, want %d to %d", len(h), sizes[0], sizes[len(sizes)-1])
	case len(sizes) == 2:
		c.add(field, "has %d bytes, want %d or %d", len(h), sizes[0], sizes[1])
	default:
		c.add(field, "has %d bytes, want %d", len(h), sizes[0])
	}
}

// dotted demands a version of one to eight numbers in the base, with dots
// between.
func (c *checker) dotted(field, s string, base int) {
	if s == "" {
		c.add(field, "missing")
		return
	}
	parts := strings.Split(s, ".")
	bad := len(parts) > 8
	for _, x := range parts {
		if n, err := strconv.ParseUint(x, base, 32); err != nil || n > math.MaxInt32 {
			bad = true
		}
	}
	if bad {
		c.add(field, "is %.60q, want numbers in base %d with dots between", s, base)
	}
}
