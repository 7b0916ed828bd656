// Package tpm holds the formats of a vTPM's evidence: the quote (TPMS_ATTEST)
// with its signature and the PCR values it stands for, the paravisor's runtime
// data that names the signing key, and [Evidence], which carries them in one
// item. Start with [Parse]; an attester starts with [Evidence.Encode].
//
// Parsing says that bytes have the right shape, never that they are true: a TPM
// quote alone proves nothing, as anybody can run a TPM. Package verifier binds
// the key to CPU evidence and judges the rest. Event logs are in package eventlog.
//
// Sources: TCG TPM 2.0 Library, Part 2 (structures; integers are big-endian),
// and, for Azure, Microsoft's "Guest attestation design" with its HCL report.
package tpm

import (
	"crypto/sha256"
	"errors"
)

// Limits, checked before anything is decoded.
const (
	MaxRuntime   = 16 << 10 // bytes of runtime data
	maxQuote     = 1 << 10  // bytes of a TPMS_ATTEST: TPM2B_ATTEST holds no more in practice
	maxSignature = 1 << 10  // bytes of a TPMT_SIGNATURE: RSA-4096 has 518
)

// ErrMalformed is wrapped by errors about bytes of another shape.
var ErrMalformed = errors.New("malformed TPM evidence")

// ExtraData returns what a quote holds as its extraData for CPU report data of
// ours: its SHA-256, because a TPM takes no more bytes there than its largest
// hash has, and that may be 32 (TPM2B_DATA, Part 2, 10.4.3).
func ExtraData(reportData [64]byte) [32]byte { return sha256.Sum256(reportData[:]) }

// Binding returns the report data of CPU evidence that vouches for runtime: its
// SHA-256, then 32 zeros. Zeros end no report data of ours: SHA-512 fills it.
func Binding(runtime []byte) (out [64]byte) {
	h := sha256.Sum256(runtime)
	copy(out[:], h[:])
	return out
}
