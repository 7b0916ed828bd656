package receipt

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
)

// MaxCohort is the most nodes of one run.
const MaxCohort = 1 << 14

// MaxList bounds an encoded cohort, excluded list or list of statements, in
// bytes.
const MaxList = MaxItem

// Participant is one node of a cohort.
type Participant struct {
	_      struct{} `cbor:",toarray"`
	Member string   // member id as the policy spells it
	Node   Digest   // node id
}

// Cohort is the nodes that take part in a run, sorted by member and then node. A
// node has one place.
type Cohort []Participant

// NewCohort returns the cohort of the given nodes, in any order.
func NewCohort(nodes []Participant) (Cohort, error) {
	c := Cohort(slices.Clone(nodes))
	slices.SortFunc(c, compareParticipants)
	return c, c.check()
}

func compareParticipants(a, b Participant) int {
	if a.Member != b.Member {
		return bytes.Compare([]byte(a.Member), []byte(b.Member))
	}
	return bytes.Compare(a.Node[:], b.Node[:])
}

// ParseCohort decodes what [Cohort.Encode] returns.
func ParseCohort(b []byte) (Cohort, error) {
	if len(b) > MaxList {
		return nil, fmt.Errorf("cohort: %d bytes, limit %d", len(b), MaxList)
	}
	var c Cohort
	if err := cose.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("cohort: %w", err)
	}
	return c, c.check()
}

func (c Cohort) check() error {
	if len(c) == 0 || len(c) > MaxCohort {
		return fmt.Errorf("cohort: %d nodes, limit %d", len(c), MaxCohort)
	}
	nodes := make(map[Digest]bool, len(c))
	for i, p := range c {
		switch {
		case p.Node.IsZero() || nodes[p.Node]:
			return fmt.Errorf("cohort: node %s is none, or has two places", p.Node.Short())
		case i > 0 && compareParticipants(c[i-1], p) >= 0:
			return errors.New("cohort: not sorted")
		}
		if err := checkName("member", p.Member); err != nil {
			return fmt.Errorf("cohort: %w", err)
		}
		nodes[p.Node] = true
	}
	return nil
}

// Encode returns the canonical bytes.
func (c Cohort) Encode() []byte { return cose.Marshal(c) }

// Digest returns the SHA-256 of [Cohort.Encode].
func (c Cohort) Digest() Digest { return cose.Sum(c.Encode()) }

// Members returns the number of distinct members.
func (c Cohort) Members() uint64 {
	var n uint64
	for i, p := range c {
		if i == 0 || c[i-1].Member != p.Member {
			n++
		}
	}
	return n
}

// Member returns the member that node belongs to, and whether node takes part.
// It is linear in the cohort.
func (c Cohort) Member(node Digest) (string, bool) {
	for _, p := range c {
		if p.Node == node {
			return p.Member, true
		}
	}
	return "", false
}

// Code is why a node of the cohort is not among a step's inputs: one of a few
// coarse reasons, so that the log tells rivals nothing (protocol F20).
type Code uint8

// The reasons. Late is also a contributor that did not ack in time. Unasked is a node
// that the ServerApp sent no message.
const (
	Late       Code = 1
	Invalid    Code = 2
	ByPolicy   Code = 3
	ClippedOut Code = 4
	Unasked    Code = 5
)

// String returns the reason as reports spell it.
func (c Code) String() string {
	switch c {
	case Late:
		return "late"
	case Invalid:
		return "invalid"
	case ByPolicy:
		return "policy"
	case ClippedOut:
		return "clipped_out"
	case Unasked:
		return "unasked"
	}
	return fmt.Sprintf("code %d", uint8(c))
}

// ExcludedCounts counts excluded nodes by reason, but those that were not asked.
type ExcludedCounts struct {
	_          struct{} `cbor:",toarray"`
	Late       uint64
	Invalid    uint64
	ByPolicy   uint64
	ClippedOut uint64
}

func (c ExcludedCounts) sum() uint64 { return c.Late + c.Invalid + c.ByPolicy + c.ClippedOut }

// Exclusion is one node that a step leaves out.
type Exclusion struct {
	_    struct{} `cbor:",toarray"`
	Node Digest
	Code Code
}

// Excluded is the nodes that a step leaves out, sorted by node.
type Excluded []Exclusion

// ParseExcluded decodes what [Excluded.Encode] returns.
func ParseExcluded(b []byte) (Excluded, error) {
	if len(b) > MaxList {
		return nil, fmt.Errorf("excluded: %d bytes, limit %d", len(b), MaxList)
	}
	var e Excluded
	if err := cose.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("excluded: %w", err)
	}
	if len(e) > MaxCohort {
		return nil, fmt.Errorf("excluded: %d nodes, limit %d", len(e), MaxCohort)
	}
	for i, x := range e {
		switch {
		case x.Node.IsZero() || x.Code < Late || x.Code > Unasked:
			return nil, fmt.Errorf("excluded: node %s with %v", x.Node.Short(), x.Code)
		case i > 0 && bytes.Compare(e[i-1].Node[:], x.Node[:]) >= 0:
			return nil, errors.New("excluded: not sorted")
		}
	}
	return e, nil
}

// Sort puts e into its canonical order.
func (e Excluded) Sort() {
	slices.SortFunc(e, func(a, b Exclusion) int { return bytes.Compare(a.Node[:], b.Node[:]) })
}

// Encode returns the canonical bytes. e must be sorted.
func (e Excluded) Encode() []byte { return cose.Marshal(e) }

// Root returns the root for a step statement: none if e is empty.
func (e Excluded) Root() Digest {
	var t Tree
	for _, x := range e {
		t.Append(merkle.ExcludedEntry(x.Node, byte(x.Code)))
	}
	return t.Root()
}

// Counts returns the number of nodes by reason, and of those that were not asked.
func (e Excluded) Counts() (c ExcludedCounts, unasked uint64) {
	for _, x := range e {
		switch x.Code {
		case Late:
			c.Late++
		case Invalid:
			c.Invalid++
		case ByPolicy:
			c.ByPolicy++
		case ClippedOut:
			c.ClippedOut++
		case Unasked:
			unasked++
		}
	}
	return c, unasked
}
