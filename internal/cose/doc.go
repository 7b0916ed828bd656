// Package cose is the one place for CBOR and COSE: the deterministic encoding
// (RFC 8949 4.2), the strict COSE_Sign1 profile (RFC 9052) that every statement
// of this project obeys, key identifiers (RFC 9679) and size limits. Nothing
// else imports go-cose or fxamacker/cbor.
//
// # Profile
//
// A message is tag 18, its unprotected map is empty, its protected map has
// exactly alg (1), kid (4), CWT claims (15) with iss and sub, and typ (16). The
// algorithm is ES256 (-7) on P-256 with low S, or EdDSA (-8) on Ed25519. There is
// no critical header that this profile knows, so a message that carries crit is
// refused. External additional data is the federation's identifier: a signature
// made for one federation verifies in no other.
//
// Every byte string has one encoding: whatever does not re-encode to itself is
// refused, and with it unknown, missing, duplicate and extra fields.
package cose
