// Package verifier decides whether an enclave may be trusted, from its evidence
// alone: no network, no clock, no one's help.
package verifier
