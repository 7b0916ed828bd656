package tlog

import (
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// ForkProof is two checkpoints that one log signed for one size, with different
// roots: proof, to anybody who has the log's key, that its operator showed
// different histories.
type ForkProof struct{ A, B []byte } // notes

const forkDomain = "concordat/fork/1"

type forkFile struct {
	_      struct{} `cbor:",toarray"`
	Domain string
	A, B   []byte
}

// Encode returns the canonical bytes.
func (p ForkProof) Encode() []byte { return cose.Marshal(forkFile{Domain: forkDomain, A: p.A, B: p.B}) }

// ParseForkProof decodes what [ForkProof.Encode] returns. It checks nothing.
func ParseForkProof(b []byte) (ForkProof, error) {
	if len(b) > 2*MaxNote+64 {
		return ForkProof{}, fmt.Errorf("fork proof: %d bytes, limit %d", len(b), 2*MaxNote+64)
	}
	var f forkFile
	if err := cose.Unmarshal(b, &f); err != nil {
		return ForkProof{}, fmt.Errorf("fork proof: %w", err)
	}
	if f.Domain != forkDomain {
		return ForkProof{}, fmt.Errorf("fork proof: domain %.40q, want %q", f.Domain, forkDomain)
	}
	return ForkProof{f.A, f.B}, nil
}

// Verify returns both checkpoints if p proves a fork of the log.
func (p ForkProof) Verify(origin string, key VerifierKey) (a, b *Checkpoint, err error) {
	if _, a, err = openLog(p.A, origin, key); err != nil {
		return nil, nil, fmt.Errorf("fork proof: first: %w", err)
	}
	if _, b, err = openLog(p.B, origin, key); err != nil {
		return nil, nil, fmt.Errorf("fork proof: second: %w", err)
	}
	switch {
	case a.Size != b.Size:
		return nil, nil, fmt.Errorf("fork proof: sizes %d and %d prove nothing by themselves", a.Size, b.Size)
	case a.Root == b.Root:
		return nil, nil, errors.New("fork proof: both have the same root")
	}
	return a, b, nil
}
