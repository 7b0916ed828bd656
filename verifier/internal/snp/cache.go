package snp

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
)

// goodSignatures remembers which RSA-4096 signatures of AMD's chains verified,
// so that ten thousand reports of one product line cost one check of its root.
var goodSignatures memory

// memory holds digests of (signed document, certificate of the signer) whose
// signature is good. Both are hashed whole, so an entry can stand for nothing
// else, and a result does not depend on what is remembered. The zero value is
// empty. It is safe for concurrent use.
type memory struct {
	mu   sync.Mutex
	good map[[sha256.Size]byte]struct{}
}

// maxMemory bounds a memory, at 32 bytes an entry and some. A fleet needs one
// entry for each of its chips and a few for the chains.
const maxMemory = 1 << 14

// check returns the error of verify, which decides whether parent signed the
// document raw, or nil if it said so before.
func (m *memory) check(raw []byte, parent *x509.Certificate, verify func() error) error {
	doc, by := sha256.Sum256(raw), sha256.Sum256(parent.Raw)
	key := sha256.Sum256(append(doc[:], by[:]...))
	m.mu.Lock()
	_, ok := m.good[key]
	m.mu.Unlock()
	if ok {
		return nil
	}
	if err := verify(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.good == nil || len(m.good) >= maxMemory {
		m.good = make(map[[sha256.Size]byte]struct{})
	}
	m.good[key] = struct{}{}
	return nil
}

// goodPairs remembers what was parsed of chain documents that led to an accepted
// root. Nothing else gets in: what strangers send costs no memory.
var goodPairs pairMemory

// pairMemory holds chains by the digest of their document. They are shared and
// never changed. The zero value is empty. It is safe for concurrent use.
type pairMemory struct {
	mu    sync.Mutex
	pairs map[[sha256.Size]byte]pair
}

// maxPairs bounds a pairMemory: two kinds of key, three product lines, and a few
// simulated worlds.
const maxPairs = 32

// parse returns parsePair(doc), and the document's digest.
func (m *pairMemory) parse(doc []byte) (p pair, digest [sha256.Size]byte, err error) {
	digest = sha256.Sum256(doc)
	m.mu.Lock()
	p, ok := m.pairs[digest]
	m.mu.Unlock()
	if !ok {
		p, err = parsePair(doc)
	}
	return p, digest, err
}

// keep remembers p as what the document with the digest parses to.
func (m *pairMemory) keep(digest [sha256.Size]byte, p pair) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pairs == nil || len(m.pairs) >= maxPairs {
		m.pairs = make(map[[sha256.Size]byte]pair)
	}
	m.pairs[digest] = p
}

// forget empties m, for measurements.
func (m *pairMemory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pairs = nil
}

// forget empties m, for measurements.
func (m *memory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.good = nil
}
