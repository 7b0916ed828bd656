// Package transfer moves sealed chunks between a link and those who dial it: what is
// missing is asked for first and sent alone, streams resume after any break, and
// memory is bounded on both sides. It sees ciphertext and chunk ids, nothing else.
package transfer
