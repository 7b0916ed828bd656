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
	PolicySingleSocket   Policy = 1 << 20 // only on one socket
	PolicyCXL            Policy = 1 << 21 // CXL devices may hold guest memory
	PolicyAES256XTS      Policy = 1 << 22 // only on hosts that encrypt memory with AES-256-XTS
	PolicyRAPLDisabled   Policy = 1 << 23 // only on hosts without energy counters
	PolicyCiphertextHide Policy = 1 << 24 // only on hosts that hide ciphertext
	PolicyNoPageSwap     Policy = 1 << 25 // the host may not move or swap the guest's pages
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

// The bits of PLATFORM_INFO. Unknown bits are allowed: firmware adds them without
// a new report version.
const (
	PlatformSMT            PlatformInfo = 1 << 0 // SMT is on
	PlatformTSME           PlatformInfo = 1 << 1 // all memory is encrypted, beside the guests' own encryption
	PlatformECC            PlatformInfo = 1 << 2 // memory has error correction
	PlatformRAPLDisabled   PlatformInfo = 1 << 3 // energy counters are off
	PlatformCiphertextHide PlatformInfo = 1 << 4 // the host cannot read guests' ciphertext
	PlatformAliasCheck     PlatformInfo = 1 << 5 // ALIAS_CHECK_COMPLETE: against BadRAM, AMD-SB-3015
	PlatformTIO            PlatformInfo = 1 << 7 // SEV-TIO: devices may be given to guests
)

// Has reports whether bit is set.
func (p PlatformInfo) Has(bit PlatformInfo) bool { return p&bit != 0 }

// String returns hex.
func (p PlatformInfo) String() string { return fmt.Sprintf("0x%x", uint64(p)) }

// SignerInfo says how the report was signed (56860, SIGNER_INFO).
type SignerInfo uint32

// The flags of SIGNER_INFO. With SignerMaskChipKey the firmware signs nothing:
// the signature is zero (56860, 3.6). Whether CHIP_ID is hidden is another
// setting of the host, which shows in CHIP_ID alone.
const (
	SignerAuthorKey   SignerInfo = 1 << 0 // AUTHOR_KEY_DIGEST is there
	SignerMaskChipKey SignerInfo = 1 << 1
	signerKnown       SignerInfo = 1<<5 - 1
	signerKeyShift               = 2
	signerKeyMask                = 7
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

// NewSignerInfo returns the field for a report signed by k, with flags.
func NewSignerInfo(k SigningKey, flags SignerInfo) SignerInfo {
	return SignerInfo(k)<<signerKeyShift | flags
}

// Key returns the kind of key.
func (s SignerInfo) Key() SigningKey { return SigningKey(s >> signerKeyShift & signerKeyMask) }

// Has reports whether flag is set.
func (s SignerInfo) Has(flag SignerInfo) bool { return s&flag != 0 }
