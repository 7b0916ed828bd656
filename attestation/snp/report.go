// Package snp is the byte layout of AMD SEV-SNP attestation reports: [Parse] and
// [Report.Marshal]. It reads and writes; whether a report is genuine and
// acceptable is for package verifier.
//
// The layout is ATTESTATION_REPORT of AMD publication 56860 (SEV Secure Nested
// Paging Firmware ABI), table "ATTESTATION_REPORT Structure", versions 2, 3 and
// 5. All integers are little-endian.
package snp

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Size is the length of every report in bytes.
const Size = 0x4A0

// signedSize is the length of the prefix that the signature covers.
const signedSize = 0x2A0

// Versions of the report that [Parse] understands.
const (
	Version2 = 2
	Version3 = 3 // adds CPUID family, model and stepping
	Version5 = 5 // adds mitigation vectors
)

// ErrVersion is wrapped by [Parse] for a report of a version that it does not
// know: it may be genuine.
var ErrVersion = errors.New("unknown report version")

// ErrFormat is wrapped by [Parse] for bytes that are no report.
var ErrFormat = errors.New("malformed report")

// Algorithm is SIGNATURE_ALGO.
type Algorithm uint32

// ECDSAP384SHA384 is the only algorithm that is defined.
const ECDSAP384SHA384 Algorithm = 1

// Report is one parsed report. Byte fields are as in the report; R and S are
// big-endian, which the report is not.
type Report struct {
	Version            uint32
	GuestSVN           uint32
	Policy             Policy
	FamilyID           [16]byte
	ImageID            [16]byte
	VMPL               uint32
	SignatureAlgorithm Algorithm
	CurrentTCB         TCBVersion
	PlatformInfo       PlatformInfo
	SignerInfo         SignerInfo
	ReportData         [64]byte
	Measurement        [48]byte
	HostData           [32]byte
	IDKeyDigest        [48]byte
	AuthorKeyDigest    [48]byte
	ReportID           [32]byte
	ReportIDMA         [32]byte
	ReportedTCB        TCBVersion
	CPUID              CPUID // version 3 and later
	ChipID             [64]byte
	CommittedTCB       TCBVersion
	Current            Firmware
	Committed          Firmware
	LaunchTCB          TCBVersion
	LaunchMitigations  uint64 // version 5
	CurrentMitigations uint64 // version 5
	R, S               [48]byte
}

// CPUID is the family, model and stepping of the chip.
type CPUID struct{ Family, Model, Stepping uint8 }

// Firmware is a version of the SNP firmware.
type Firmware struct{ Build, Minor, Major uint8 }

// AtLeast reports whether f is min or newer.
func (f Firmware) AtLeast(min Firmware) bool {
	return cmp.Or(cmp.Compare(f.Major, min.Major), cmp.Compare(f.Minor, min.Minor), cmp.Compare(f.Build, min.Build)) >= 0
}

// String returns major.minor.build.
func (f Firmware) String() string { return fmt.Sprintf("%d.%d.%d", f.Major, f.Minor, f.Build) }

// SignedPart returns the bytes of a raw report that its signature covers. raw
// must have passed [Parse].
func SignedPart(raw []byte) []byte { return raw[:signedSize] }

// span is a range of bytes that must be zero in versions below until.
type span struct {
	from, to int
	until    uint32
	name     string
}

func (v span) check(raw []byte) error {
	for i, b := range raw[v.from:v.to] {
		if b != 0 {
			return fmt.Errorf("snp: %w: %s is not zero at 0x%x", ErrFormat, v.name, v.from+i)
		}
	}
	return nil
}

const always = math.MaxUint32

var reserved = [...]span{
	{0x04C, 0x050, always, "reserved field after SIGNER_INFO"},
	{0x188, 0x18B, Version3, "CPUID before version 3"},
	{0x18B, 0x1A0, always, "reserved field before CHIP_ID"},
	{0x1EB, 0x1EC, always, "reserved field after CURRENT_MAJOR"},
	{0x1EF, 0x1F0, always, "reserved field after COMMITTED_MAJOR"},
	{0x1F8, 0x208, Version5, "mitigation vectors before version 5"},
	{0x208, 0x2A0, always, "reserved field before SIGNATURE"},
	{0x2D0, 0x2E8, always, "upper part of signature R"},
	{0x318, 0x330, always, "upper part of signature S"},
	{0x330, 0x4A0, always, "reserved part of SIGNATURE"},
}

// Parse reads a report of exactly [Size] bytes. It demands that every reserved
// byte and bit is zero, so that [Report.Marshal] gives raw again. Errors wrap
// [ErrVersion] or [ErrFormat]. The result does not alias raw.
func Parse(raw []byte) (*Report, error) {
	if len(raw) != Size {
		return nil, fmt.Errorf("snp: %w: %d bytes, want %d", ErrFormat, len(raw), Size)
	}
	le32, le64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	r := &Report{Version: le32(raw)}
	switch r.Version {
	case Version2, Version3, Version5:
	default:
		return nil, fmt.Errorf("snp: %w %d", ErrVersion, r.Version)
	}
	for _, z := range reserved {
		if r.Version < z.until {
			if err := z.check(raw); err != nil {
				return nil, err
			}
		}
	}
	r.GuestSVN = le32(raw[0x004:])
	r.Policy = Policy(le64(raw[0x008:]))
	copy(r.FamilyID[:], raw[0x010:])
	copy(r.ImageID[:], raw[0x020:])
	r.VMPL = le32(raw[0x030:])
	r.SignatureAlgorithm = Algorithm(le32(raw[0x034:]))
	r.CurrentTCB = TCBVersion(raw[0x038:0x040])
	r.PlatformInfo = PlatformInfo(le64(raw[0x040:]))
	r.SignerInfo = SignerInfo(le32(raw[0x048:]))
	copy(r.ReportData[:], raw[0x050:])
	copy(r.Measurement[:], raw[0x090:])
	copy(r.HostData[:], raw[0x0C0:])
	copy(r.IDKeyDigest[:], raw[0x0E0:])
	copy(r.AuthorKeyDigest[:], raw[0x110:])
	copy(r.ReportID[:], raw[0x140:])
	copy(r.ReportIDMA[:], raw[0x160:])
	r.ReportedTCB = TCBVersion(raw[0x180:0x188])
	r.CPUID = CPUID{raw[0x188], raw[0x189], raw[0x18A]}
	copy(r.ChipID[:], raw[0x1A0:])
	r.CommittedTCB = TCBVersion(raw[0x1E0:0x1E8])
	r.Current = Firmware{raw[0x1E8], raw[0x1E9], raw[0x1EA]}
	r.Committed = Firmware{raw[0x1EC], raw[0x1ED], raw[0x1EE]}
	r.LaunchTCB = TCBVersion(raw[0x1F0:0x1F8])
	r.LaunchMitigations = le64(raw[0x1F8:])
	r.CurrentMitigations = le64(raw[0x200:])
	r.R, r.S = reversed(raw[0x2A0:]), reversed(raw[0x2E8:])
	if err := r.checkBits(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *Report) checkBits() error {
	switch {
	case r.Policy&policyReserved1 == 0:
		return fmt.Errorf("snp: %w: POLICY 0x%x: reserved bit 17 is not one", ErrFormat, uint64(r.Policy))
	case r.Policy&^policyKnown != 0:
		return fmt.Errorf("snp: %w: POLICY 0x%x: reserved bits are not zero", ErrFormat, uint64(r.Policy))
	case r.SignerInfo&^signerKnown != 0:
		return fmt.Errorf("snp: %w: SIGNER_INFO 0x%x: reserved bits are not zero", ErrFormat, uint32(r.SignerInfo))
	case r.VMPL > 3:
		return fmt.Errorf("snp: %w: VMPL %d, want 0 to 3", ErrFormat, r.VMPL)
	}
	return nil
}

// Marshal returns the bytes of r. It does not check r: a simulator writes
// malformed reports on purpose.
func (r *Report) Marshal() []byte {
	raw := make([]byte, Size)
	put32, put64 := binary.LittleEndian.PutUint32, binary.LittleEndian.PutUint64
	put32(raw, r.Version)
	put32(raw[0x004:], r.GuestSVN)
	put64(raw[0x008:], uint64(r.Policy))
	copy(raw[0x010:], r.FamilyID[:])
	copy(raw[0x020:], r.ImageID[:])
	put32(raw[0x030:], r.VMPL)
	put32(raw[0x034:], uint32(r.SignatureAlgorithm))
	copy(raw[0x038:], r.CurrentTCB[:])
	put64(raw[0x040:], uint64(r.PlatformInfo))
	put32(raw[0x048:], uint32(r.SignerInfo))
	copy(raw[0x050:], r.ReportData[:])
	copy(raw[0x090:], r.Measurement[:])
	copy(raw[0x0C0:], r.HostData[:])
	copy(raw[0x0E0:], r.IDKeyDigest[:])
	copy(raw[0x110:], r.AuthorKeyDigest[:])
	copy(raw[0x140:], r.ReportID[:])
	copy(raw[0x160:], r.ReportIDMA[:])
	copy(raw[0x180:], r.ReportedTCB[:])
	copy(raw[0x188:], []byte{r.CPUID.Family, r.CPUID.Model, r.CPUID.Stepping})
	copy(raw[0x1A0:], r.ChipID[:])
	copy(raw[0x1E0:], r.CommittedTCB[:])
	copy(raw[0x1E8:], []byte{r.Current.Build, r.Current.Minor, r.Current.Major})
	copy(raw[0x1EC:], []byte{r.Committed.Build, r.Committed.Minor, r.Committed.Major})
	copy(raw[0x1F0:], r.LaunchTCB[:])
	put64(raw[0x1F8:], r.LaunchMitigations)
	put64(raw[0x200:], r.CurrentMitigations)
	sr, ss := reversed(r.R[:]), reversed(r.S[:])
	copy(raw[0x2A0:], sr[:])
	copy(raw[0x2E8:], ss[:])
	return raw
}

// reversed returns the first 48 bytes of b in the other byte order.
func reversed(b []byte) (out [48]byte) {
	copy(out[:], b)
	slices.Reverse(out[:])
	return out
}
