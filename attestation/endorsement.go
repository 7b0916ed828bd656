package attestation

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/concordat/concordat/internal/cose"
)

// The types of endorsement.
const (
	TypeAMDVCEK         = "amd-vcek"         // DER certificate of a chip (AMD 57230, VCEK)
	TypeAMDVLEK         = "amd-vlek"         // DER certificate of a cloud provider (AMD 57230, VLEK)
	TypeAMDChain        = "amd-chain"        // two PEM certificates, ASK (or ASVK) then ARK, as KDS cert_chain
	TypeAMDCRL          = "amd-crl"          // DER revocation list signed by the ARK
	TypeIntelCollateral = "intel-collateral" // JSON: TCB info, QE identity, CRLs and their chains
	TypeNVIDIAChain     = "nvidia-chain"     // PEM certificates, leaf first
	TypeNVIDIAOCSP      = "nvidia-ocsp"      // DER OCSP response (RFC 6960)
	TypeNVIDIARIM       = "nvidia-rim"       // SWID tag (XML) with reference measurements
	TypeEventLog        = "tcg-event-log"    // what was measured into PCRs or RTMRs, as package eventlog reads it; nobody signs it, it must replay
)

var endorsementTypes = []string{
	TypeAMDVCEK, TypeAMDVLEK, TypeAMDChain, TypeAMDCRL, TypeIntelCollateral,
	TypeNVIDIAChain, TypeNVIDIAOCSP, TypeNVIDIARIM, TypeEventLog,
}

// Limits of an endorsement set.
const (
	MaxEndorsement      = 256 << 10 // bytes of one document that is not an event log
	MaxEventLog         = 1 << 20   // bytes of one event log
	MaxEndorsements     = 128       // documents of a set
	MaxEndorsementBytes = 2 << 20   // of an encoded set
)

// Endorsement is one document of a hardware vendor. Whoever fetched it is not
// trusted: every document is checked against the vendor's root, or is only data.
type Endorsement struct {
	_    struct{} `cbor:",toarray"`
	Type string
	Data []byte
}

const endorsementDomain = "concordat/endorsement/1"

type document struct {
	_      struct{} `cbor:",toarray"`
	Domain string
	Type   string
	Data   []byte
}

// Encode returns the canonical bytes of e.
func (e Endorsement) Encode() []byte {
	return cose.Marshal(document{Domain: endorsementDomain, Type: e.Type, Data: e.Data})
}

// Digest returns the name of e in evidence items and sets: the SHA-256 of
// [Endorsement.Encode], so that a store by content finds it.
func (e Endorsement) Digest() Digest { return cose.Sum(e.Encode()) }

// ParseEndorsement decodes what [Endorsement.Encode] returns and checks its type
// and size. The document itself is the verifier's to judge.
func ParseEndorsement(b []byte) (Endorsement, error) {
	if len(b) > MaxEventLog+64 {
		return Endorsement{}, fmt.Errorf("endorsement: %d bytes, limit %d", len(b), MaxEventLog)
	}
	var d document
	if err := cose.Unmarshal(b, &d); err != nil {
		return Endorsement{}, fmt.Errorf("endorsement: %w", err)
	}
	if d.Domain != endorsementDomain {
		return Endorsement{}, fmt.Errorf("endorsement: domain %.40q, want %q", d.Domain, endorsementDomain)
	}
	e := Endorsement{Type: d.Type, Data: d.Data}
	return e, e.check()
}

func (e Endorsement) check() error {
	if !slices.Contains(endorsementTypes, e.Type) {
		return fmt.Errorf("endorsement: unknown type %.40q", e.Type)
	}
	limit := MaxEndorsement
	if e.Type == TypeEventLog {
		limit = MaxEventLog
	}
	if len(e.Data) == 0 || len(e.Data) > limit {
		return fmt.Errorf("endorsement: %s of %d bytes, limit %d", e.Type, len(e.Data), limit)
	}
	return nil
}

// Endorsements is a set of documents, each under its digest. The zero value and
// nil are the empty set. It is safe for concurrent reading.
type Endorsements struct {
	list []entry // sorted by digest
	size int     // bytes of data
}

type entry struct {
	digest Digest
	Endorsement
}

// NewEndorsements returns the set of the given documents.
func NewEndorsements(docs ...Endorsement) (*Endorsements, error) {
	s := new(Endorsements)
	for _, d := range docs {
		if _, err := s.Add(d); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Add puts e into the set and returns its digest. A document that is there
// already is not added twice. The set keeps e.Data.
func (s *Endorsements) Add(e Endorsement) (Digest, error) {
	if err := e.check(); err != nil {
		return Digest{}, err
	}
	d := e.Digest()
	i, ok := s.find(d)
	if ok {
		return d, nil
	}
	if len(s.list) >= MaxEndorsements {
		return Digest{}, fmt.Errorf("endorsements: more than %d documents", MaxEndorsements)
	}
	if s.size+len(e.Data) > MaxEndorsementBytes {
		return Digest{}, fmt.Errorf("endorsements: more than %d bytes", MaxEndorsementBytes)
	}
	s.list = slices.Insert(s.list, i, entry{d, e})
	s.size += len(e.Data)
	return d, nil
}

// All returns the documents in digest order. The caller must not change their
// data.
func (s *Endorsements) All() []Endorsement {
	if s == nil {
		return nil
	}
	out := make([]Endorsement, len(s.list))
	for i, e := range s.list {
		out[i] = e.Endorsement
	}
	return out
}

func (s *Endorsements) find(d Digest) (int, bool) {
	if s == nil {
		return 0, false
	}
	return slices.BinarySearchFunc(s.list, d, func(e entry, d Digest) int { return bytes.Compare(e.digest[:], d[:]) })
}

// Len returns the number of documents.
func (s *Endorsements) Len() int {
	if s == nil {
		return 0
	}
	return len(s.list)
}

// Get returns the document with the given digest. The caller must not change
// its Data.
func (s *Endorsements) Get(d Digest) (Endorsement, bool) {
	i, ok := s.find(d)
	if !ok {
		return Endorsement{}, false
	}
	return s.list[i].Endorsement, true
}

// ByType returns the data of every document of type t: first those that refs
// names, in the order of refs, then the others in the order of their digests.
// So a verifier tries what the attester named, and sees newer documents too.
func (s *Endorsements) ByType(t string, refs []Digest) [][]byte {
	if s == nil {
		return nil
	}
	var out [][]byte
	var named []Digest
	for _, d := range refs {
		if e, ok := s.Get(d); ok && e.Type == t && !slices.Contains(named, d) {
			out, named = append(out, e.Data), append(named, d)
		}
	}
	for _, e := range s.list {
		if e.Type == t && !slices.Contains(named, e.digest) {
			out = append(out, e.Data)
		}
	}
	return out
}

const endorsementsDomain = "concordat/endorsements/1"

type endorsementSet struct {
	_      struct{} `cbor:",toarray"`
	Domain string
	Docs   []Endorsement // in the order of their digests
}

// Encode returns the canonical bytes of the set.
func (s *Endorsements) Encode() []byte {
	w := endorsementSet{Domain: endorsementsDomain}
	if s != nil {
		for _, e := range s.list {
			w.Docs = append(w.Docs, e.Endorsement)
		}
	}
	return cose.Marshal(w)
}

// ParseEndorsements decodes a set. It looks into no document.
func ParseEndorsements(b []byte) (*Endorsements, error) {
	// The frame around MaxEndorsementBytes of data: less than 64 bytes a document.
	if limit := MaxEndorsementBytes + 64*MaxEndorsements; len(b) > limit {
		return nil, fmt.Errorf("endorsements: %d bytes, limit %d", len(b), limit)
	}
	var w endorsementSet
	if err := cose.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("endorsements: %w", err)
	}
	if w.Domain != endorsementsDomain {
		return nil, fmt.Errorf("endorsements: domain %.40q, want %q", w.Domain, endorsementsDomain)
	}
	s := new(Endorsements)
	for i, d := range w.Docs {
		if _, err := s.Add(d); err != nil {
			return nil, err
		}
		// Added at the end: digests rise, and none is there twice.
		if len(s.list) != i+1 || s.list[i].digest != d.Digest() {
			return nil, errors.New("endorsements: not in the order of their digests")
		}
	}
	return s, nil
}
