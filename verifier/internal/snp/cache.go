package snp

import (
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/verifier/internal/check"
)

// goodPairs remembers what was parsed of chain documents that led to an accepted root, so
// that ten thousand reports of one product line cost one reading of its chain: two kinds
// of key, three product lines, and a few simulated worlds.
var goodPairs = check.NewMemory[pair](32)

// recall returns parsePair(doc), and the document's key in goodPairs.
func recall(doc []byte) (p pair, key [32]byte, err error) {
	key = check.Key(doc)
	p, ok := goodPairs.Get(key)
	if !ok {
		p, err = parsePair(doc)
	}
	return p, key, err
}

// goodSigners remembers certificates of keys that sign reports, once a chain led from
// them to an accepted root: one for each chip of a fleet.
var goodSigners = check.NewMemory[signer](1 << 12)

// recallSigner is parseSigner(der, key).
func recallSigner(der []byte, key snp.SigningKey) (*signer, error) {
	if s, ok := goodSigners.Get(check.Key(der, []byte(key.String()))); ok {
		s.remembered = true
		return &s, nil
	}
	return parseSigner(der, key)
}
