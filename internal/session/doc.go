// Package session is the join of docs/protocol.md, exactly: how a node that has
// appraised an enclave and the enclave agree on keys through a link that neither
// trusts, and the sealed records that follow. It does no input or output and
// starts no goroutine: bytes in, bytes out, as crypto/tls would be without net.
//
// A node starts with [NewChallenge], sends its Hello, reads the [Offer], has the
// evidence appraised by package verifier, and only then, with the
// [verifier.Passed] that nothing else can make, calls [Challenge.Join]. What
// [Joining.Finish] returns is a [Session] whose first record is the confirmation.
//
// An enclave keeps one [Window] per nonce window: it collects hellos, binds their
// Merkle root and a fresh KEM key into one piece of evidence, and answers each
// join once. The KEM key dies with the window.
//
// What records carry is a [Message]. There is no negotiation: another suite, or
// another field, is another prefix.
package session

import (
	"errors"
	"fmt"
)

// prefix is P of docs/protocol.md: it stands before every label of this version.
const prefix = "concordat/join/1/"

// Largest frames that are parsed, in bytes.
const (
	MaxHello  = 1 << 10
	MaxOffer  = 1 << 20
	MaxJoin   = 16 << 10
	MaxAccept = 64 << 10
	MaxRecord = 1<<20 + 32<<10
)

// Every refusal wraps one of these.
var (
	// ErrFrame: the bytes are not the frame that was expected.
	ErrFrame = errors.New("session: malformed frame")
	// ErrBinding: the frame is well-formed but belongs to another hello, window,
	// federation, identity or key.
	ErrBinding = errors.New("session: not bound to this join")
	// ErrOtherWindow: the join answers no offer of this window; another may know it.
	ErrOtherWindow = fmt.Errorf("%w: join answers no offer of this window", ErrBinding)
	// ErrExpired: the window or the node's timer ran out.
	ErrExpired = errors.New("session: expired")
	// ErrUsed: this leaf of the window has joined already, with other bytes.
	ErrUsed = errors.New("session: nonce already used")
	// ErrReplay: a record whose counter was opened before. It is dropped, not an
	// attack on its own: the link delivers at least once.
	ErrReplay = errors.New("session: record repeated")
	// ErrOrder: a record is missing before this one.
	ErrOrder = errors.New("session: record out of order")
)
