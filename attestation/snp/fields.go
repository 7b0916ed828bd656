package snp

import "fmt"

// Policy is the guest policy that the launch was bound to (56860, "Guest
// Policy"). The low 16 bits are the minimum firmware ABI.
type Policy uint64

// The bits of a guest policy.
const (
	PolicySMT            Policy = 1 << 16 // SMT may be on
	policyReserved1      Policy = 1 << 17
	PolicyMigrateMA      Policy = 1 << 18 // a migration agent may take the guest's keys
	PolicyDebug          Policy = 1 << 19 // the host may decrypt the guest
	PolicySingleSocket   Policy = 1 << 20
	PolicyCXL            Policy = 1 << 21 // CXL devices may hold guest memory
	PolicyAES256XTS      Policy = 1 << 22
	PolicyRAPLDisabled   Policy = 1 << 23
	PolicyCiphertextHide Policy = 1 << 24
	PolicyNoPageSwap     Policy = 1 << 25
	policyKnown          Policy = 1<<26 - 1
)

// NewPolicy returns the guest policy with the given bits and the one that every
// policy has set.
func NewPolicy(bits Policy) Policy { return bits | policyReserved1 }

// Has reports whether bit is set.
func (p Policy) Has(bit Policy) bool { return p&bit != 0 }

// String returns hex.
func (p Policy) String() string { return fmt.Sprintf("0x%x", uint64(p)) }

// PlatformInfo describes the host (56860, PLATFORM_INFO).
type PlatformInfo uint64

// The bits of PLATFORM_INFO that matter to a verifier. Unknown bits are allowed:
// firmware adds them without a new report version.
const (
	PlatformSMT        PlatformInfo = 1 << 0
	PlatformTSME       PlatformInfo = 1 << 1
	PlatformECC        PlatformInfo = 1 << 2
	PlatformAliasCheck PlatformInfo = 1 << 5 // ALIAS_CHECK_COMPLETE: against BadRAM, AMD-SB-3015
)

// Has reports whether bit is set.
func (p PlatformInfo) Has(bit PlatformInfo) bool { return p&bit != 0 }

// String returns hex.
func (p PlatformInfo) String() string { return fmt.Sprintf("0x%x", uint64(p)) }

// SignerInfo says how the report was signed (56860, offset 48h).
type SignerInfo uint32

const (
	signerMaskChip SignerInfo = 1 << 1
	signerKnown    SignerInfo = 1<<5 - 1
	signerKeyShift            = 2
	signerKeyMask             = 7
)

// SigningKey is the kind of key that signed a report.
type SigningKey uint8

// The kinds of signing key.
const (
	VCEK     SigningKey = 0 // of the chip
	VLEK     SigningKey = 1 // of the cloud provider
	Unsigned SigningKey = 7
)

// String names the key as AMD does.
func (k SigningKey) String() string {
	switch k {
	case VCEK:
		return "VCEK"
	case VLEK:
		return "VLEK"
	case Unsigned:
		return "none"
	}
	return fmt.Sprintf("reserved key %d", uint8(k))
}

// NewSignerInfo returns the field for a report signed by k.
func NewSignerInfo(k SigningKey, maskChip bool) SignerInfo {
	s := SignerInfo(k) << signerKeyShift
	if maskChip {
		s |= signerMaskChip
	}
	return s
}

// Key returns the kind of key.
func (s SignerInfo) Key() SigningKey { return SigningKey(s >> signerKeyShift & signerKeyMask) }

// MaskChip reports whether the host hides CHIP_ID.
func (s SignerInfo) MaskChip() bool { return s&signerMaskChip != 0 }
