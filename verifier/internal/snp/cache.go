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

// forget empties m, for measurements.
func (m *memory) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.good = nil
}
