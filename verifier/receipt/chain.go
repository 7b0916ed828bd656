package receipt

import (
	"errors"
	"fmt"
)

// ErrChain is wrapped by every statement that does not fit its issuer's chain.
var ErrChain = errors.New("statement does not fit its issuer's chain")

// Chain is one issuer's sequence of statements in one federation. The issuer asks
// it for the place of its next statement; a reader that sees all of them in order
// checks them with it. It is not safe for concurrent use.
type Chain struct {
	seq  uint64
	last Digest
}

// NewChain returns the chain of a new issuer. follows is the last statement of
// the enclave instance that a new instance follows, or none; a node passes none.
func NewChain(follows Digest) *Chain { return &Chain{last: follows} }

// ResumeChain returns the chain after the statement with this sequence number and
// digest: what a node has persisted.
func ResumeChain(seq uint64, last Digest) *Chain { return &Chain{seq, last} }

// Next returns Seq and Prev of the next statement.
func (c *Chain) Next() (seq uint64, prev Digest) { return c.seq + 1, c.last }

// Extend takes s as the next statement. The error wraps [ErrChain], and c is then
// unchanged.
func (c *Chain) Extend(s *Statement) error {
	if seq, prev := c.Next(); s.Seq != seq || s.Prev != prev {
		return fmt.Errorf("%w: %s has number %d after %s, want %d after %s", ErrChain, s.Kind, s.Seq, s.Prev.Short(), seq, prev.Short())
	}
	c.seq, c.last = s.Seq, s.Digest()
	return nil
}
