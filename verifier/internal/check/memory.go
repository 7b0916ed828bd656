package check

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"
)

// Memory holds what follows from documents whose signatures verified, by the digest of
// all that it follows from ([Key]). So an entry can stand for nothing else, and no result
// depends on what is remembered, only its cost does. What strangers send must cost no
// memory to speak of: who puts something in has seen that it leads to an accepted root, or
// bounds its size. When it is full it is emptied: a fleet needs few entries. Values are shared and never changed. It is safe for
// concurrent use.
type Memory[V any] struct {
	mu    sync.Mutex
	limit int
	known map[[sha256.Size]byte]V
}

// forgetters empty each Memory. Written while packages are initialised, then only read.
var forgetters []func()

// NewMemory returns an empty one of at most limit entries, for a package's variable.
func NewMemory[V any](limit int) *Memory[V] {
	m := &Memory[V]{limit: limit}
	forgetters = append(forgetters, m.forget)
	return m
}

// Forget empties every Memory of the program, for measurements.
func Forget() {
	for _, f := range forgetters {
		f()
	}
}

// Key is the digest of documents in an order.
func Key(docs ...[]byte) [sha256.Size]byte {
	digests := make([]byte, 0, 4*sha256.Size)
	for _, d := range docs {
		h := sha256.Sum256(d)
		digests = append(digests, h[:]...)
	}
	return sha256.Sum256(digests)
}

// Get returns what is remembered under a key.
func (m *Memory[V]) Get(key [sha256.Size]byte) (v V, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok = m.known[key]
	return v, ok
}

// Put remembers v under a key.
func (m *Memory[V]) Put(key [sha256.Size]byte, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil || len(m.known) >= m.limit {
		m.known = make(map[[sha256.Size]byte]V)
	}
	m.known[key] = v
}

func (m *Memory[V]) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = nil
}

// signatures holds signed documents with the certificates of their signers: an entry for
// each chip of a fleet, and a few for the CAs above them.
var signatures = NewMemory[struct{}](1 << 14)

// Signed returns the error of verify, which decides whether parent signed the document
// raw, or nil at once if it said so before. raw holds all that verify looks at beside
// parent, the signature too.
func Signed(raw []byte, parent *x509.Certificate, verify func() error) error {
	key := Key(raw, parent.Raw)
	if _, ok := signatures.Get(key); ok {
		return nil
	}
	err := verify()
	if err == nil {
		signatures.Put(key, struct{}{})
	}
	return err
}
