// Package attestation holds the formats of the attester's side: what an enclave
// says about itself ([Claims]), how the hardware vouches for it ([Evidence],
// bound by [ReportData]), how many nodes share one piece of evidence
// ([NonceTree]), and the vendors' documents that travel with it
// ([Endorsements]).
//
// An enclave starts with [Claims.Encode] and [ReportData]; a verifier starts
// with package verifier and reads this package only for the types. Nothing here
// judges evidence: parsing says that bytes have the right shape, never that
// they are true.
//
// Every encoding is deterministic CBOR (RFC 8949 4.2) and every parser refuses
// all but the one encoding of a value. All sizes are bounded before anything is
// decoded. The package is pure: no clock, no network, no files.
package attestation

import (
	"encoding/hex"

	"github.com/concordat/concordat/internal/cose"
)

// Digest is a SHA-256 value; the zero value is "none".
type Digest = cose.Digest

// Kind names the format of one evidence item.
type Kind string

// The kinds of evidence.
const (
	KindSNP Kind = "amd-sev-snp" // AMD SEV-SNP attestation report, 1184 bytes
	KindTDX Kind = "intel-tdx"   // Intel TDX quote, version 4 or 5
	KindTPM Kind = "tpm2"        // TPM 2.0 quote
	KindGPU Kind = "nvidia-gpu"  // NVIDIA SPDM attestation report
)

// IsCPU reports whether k vouches for the virtual machine itself. An envelope
// holds exactly one such item.
func (k Kind) IsCPU() bool { return k == KindSNP || k == KindTDX }

// ID is a random identifier, such as that of an enclave instance.
type ID [16]byte

// String returns lower-case hex.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id was never set.
func (id ID) IsZero() bool { return id == ID{} }
