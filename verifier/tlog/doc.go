// Package tlog is everything that a stranger may do with a transparency log:
// read its checkpoints and their cosignatures ([Open]), replay its entries
// against a checkpoint ([Audit]), prove an entry or a prefix from its tiles
// ([InclusionFromTiles], [ConsistencyFromTiles]), witness it ([Witness]) and hold
// its operator to two histories ([ForkProof]).
//
// The formats are those of C2SP: signed-note, tlog-checkpoint, tlog-cosignature
// (v1, Ed25519), tlog-tiles and the rule of tlog-witness. The parsers are strict:
// one spelling of everything, and no checkpoint extensions.
//
// What it does not do: it writes no log and serves nothing over a network, and it
// has no clock; a witness is given one.
package tlog

import (
	"github.com/concordat/concordat/internal/cose"
)

// Digest is a SHA-256 value.
type Digest = cose.Digest
