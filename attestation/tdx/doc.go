// Package tdx holds the byte layouts of Intel TDX attestation: quotes of version
// 4 and 5 with TDX 1.0 and 1.5 bodies, the SGX extension of PCK certificates, and
// the collateral that Intel publishes about a platform's TCB. Everything is read
// and written, because verifiers read what simulators write.
//
// Start with [Parse] for a quote and [ParseCollateral] for its collateral.
//
// The package checks form, never truth: it verifies no signature, no chain and no
// date. Package verifier does.
//
// Sources: Intel, "Intel TDX DCAP Quoting Library API", appendix A (quotes);
// Intel SDM volume 3D, REPORTBODY (the QE report); Intel, "SGX PCK Certificate
// and Certificate Revocation List Profile Specification" 1.5, section 1.3.5
// (the SGX extension); Intel, "PCS API v4" (TCB info v3, QE identity v2).
package tdx
