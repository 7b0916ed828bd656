// Package tamper changes encoded values one field at a time, so that a test can
// say of a signed format "whatever is changed in it, it is refused" without a list
// of its fields: a field that is added later is covered on the day it is added.
//
// Start with [Each]. It knows deterministic CBOR (RFC 8949 4.2) and nothing of what
// the values mean; it is for tests, not for input from outside.
package tamper
