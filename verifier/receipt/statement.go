package receipt

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
)

// Digest is a SHA-256 value; the zero value is "none".
type Digest = cose.Digest

// ID is the random name of an enclave instance.
type ID = attestation.ID

// MaxStatement bounds one statement in bytes: what a log entry may hold.
const MaxStatement = cose.MaxMessage

// schema is the version of the payload. A later one is another number.
const schema = 1

// Statement is one signed sentence of an enclave or a node. One that comes out of
// [Unverified.Verify] was signed by the key that its reader named; nothing else
// about it is checked but its shape.
type Statement struct {
	Kind       Kind
	Federation Digest
	Run        Digest // digest of the run statement; none in what belongs to no run, and in the run statement itself
	Seq        uint64 // place in the chain of (Federation, issuer key), from 1
	// Prev is the digest of the statement before in that chain. The first of a
	// node has none; the first of an enclave names the last statement of the
	// instance that it follows, if there was one.
	Prev   Digest
	Policy Digest // of the policy version in force for the issuer
	Issuer string // see [EnclaveIssuer], [NodeIssuer]
	Body   any    // a pointer to the struct of Kind: [Run], [Step], …

	raw []byte
}

// Raw returns the signed bytes: what the log holds. It is nil before [Sign]. The
// caller must not change them.
func (s *Statement) Raw() []byte { return s.raw }

// Digest returns the statement's identity, the SHA-256 of [Statement.Raw], or
// none before [Sign].
func (s *Statement) Digest() Digest {
	if s.raw == nil {
		return Digest{}
	}
	return cose.Sum(s.raw)
}

// Instance returns the enclave instance that issued s; false if a node did.
func (s *Statement) Instance() (ID, bool) {
	var id ID
	ok := parseIssuer(s.Issuer, enclavePrefix, id[:])
	return id, ok
}

// Node returns the id of the node that issued s; false if an enclave did.
func (s *Statement) Node() (Digest, bool) {
	var d Digest
	ok := parseIssuer(s.Issuer, nodePrefix, d[:])
	return d, ok
}

// The forms of an issuer (CWT claim iss).
const (
	enclavePrefix = "enclave:" // and the instance, 32 hex digits
	nodePrefix    = "node:"    // and the node id, 64 hex digits
)

// EnclaveIssuer returns the issuer of statements of an enclave instance.
func EnclaveIssuer(instance ID) string { return enclavePrefix + instance.String() }

// NodeIssuer returns the issuer of statements of a node. node is the thumbprint
// of the node's key.
func NodeIssuer(node Digest) string { return nodePrefix + node.String() }

// parseIssuer fills id with what follows prefix: lower-case hex, not all zero.
func parseIssuer(s, prefix string, id []byte) bool {
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok || len(digits) != 2*len(id) || strings.ToLower(digits) != digits {
		return false
	}
	if _, err := hex.Decode(id, []byte(digits)); err != nil {
		return false
	}
	for _, b := range id {
		if b != 0 {
			return true
		}
	}
	return false
}

type payload struct {
	Schema     uint64   `cbor:"1,keyasint"`
	Kind       Kind     `cbor:"2,keyasint"`
	Federation Digest   `cbor:"3,keyasint"`
	Run        Digest   `cbor:"4,keyasint"`
	Seq        uint64   `cbor:"5,keyasint"`
	Prev       Digest   `cbor:"6,keyasint"`
	Policy     Digest   `cbor:"7,keyasint"`
	Body       cose.Raw `cbor:"8,keyasint"`
}

// Sign signs s with k, keeps the bytes in s and returns them. It refuses what
// [Parse] would refuse. A node's statement must be signed by the key that its
// issuer names.
func Sign(s *Statement, k *cose.Signer) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := checkNodeKey(s, k.Public()); err != nil {
		return nil, err
	}
	raw, err := cose.Sign(k, cose.Header{Type: s.Kind.mediaType(), Issuer: s.Issuer, Subject: s.Federation.String()},
		cose.Marshal(payload{schema, s.Kind, s.Federation, s.Run, s.Seq, s.Prev, s.Policy, cose.Marshal(s.Body)}),
		s.Federation[:])
	if err != nil {
		return nil, fmt.Errorf("%s statement: %w", s.Kind, err)
	}
	s.raw = raw
	return raw, nil
}

// Unverified is a statement whose signature nobody has checked yet. It shows only
// what is needed to find the key.
type Unverified struct {
	s   Statement
	msg *cose.Message
}

// Parse decodes one statement and checks its shape. It copies raw.
func Parse(raw []byte) (*Unverified, error) {
	if len(raw) > MaxStatement {
		return nil, fmt.Errorf("statement: %d bytes, limit %d", len(raw), MaxStatement)
	}
	raw = append([]byte(nil), raw...)
	msg, err := cose.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	if msg.Payload == nil {
		return nil, errors.New("statement: payload is detached")
	}
	var p payload
	if err := cose.Unmarshal(msg.Payload, &p); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	if p.Schema != schema {
		return nil, fmt.Errorf("statement: schema %d, want %d", p.Schema, schema)
	}
	body := p.Kind.newBody()
	if body == nil {
		return nil, fmt.Errorf("statement: %w: %.40q", ErrKind, string(p.Kind))
	}
	if err := cose.Unmarshal(p.Body, body); err != nil {
		return nil, fmt.Errorf("%s statement: body: %w", p.Kind, err)
	}
	u := &Unverified{msg: msg, s: Statement{
		Kind: p.Kind, Federation: p.Federation, Run: p.Run, Seq: p.Seq, Prev: p.Prev, Policy: p.Policy,
		Issuer: msg.Header.Issuer, Body: body, raw: raw,
	}}
	if err := u.s.check(); err != nil {
		return nil, err
	}
	if want := p.Kind.mediaType(); msg.Header.Type != want {
		return nil, fmt.Errorf("%s statement: typ %q, want %q", p.Kind, msg.Header.Type, want)
	}
	if want := p.Federation.String(); msg.Header.Subject != want {
		return nil, fmt.Errorf("%s statement: subject %q, want federation %q", p.Kind, msg.Header.Subject, want)
	}
	return u, nil
}

// ErrKind is wrapped by [Parse] for a kind of statement that this version does
// not know: a log may hold such entries, a reader cannot judge them.
var ErrKind = errors.New("unknown kind of statement")

// Kind returns the claimed kind.
func (u *Unverified) Kind() Kind { return u.s.Kind }

// Federation returns the claimed federation. Compare it with your own before
// anything else.
func (u *Unverified) Federation() Digest { return u.s.Federation }

// Run returns the claimed run.
func (u *Unverified) Run() Digest { return u.s.Run }

// Issuer returns the claimed issuer.
func (u *Unverified) Issuer() string { return u.s.Issuer }

// KeyID returns the thumbprint of the key that must verify the statement.
func (u *Unverified) KeyID() Digest { return u.msg.KeyID }

// Digest returns the SHA-256 of the bytes.
func (u *Unverified) Digest() Digest { return u.s.Digest() }

// Claims returns the encoded claims of an evidence statement, and nil for every
// other kind. They are the one thing in a body that must be read before the
// signature can be checked, because the key is in them: appraise the evidence
// over exactly these bytes first, then call [Unverified.Verify] with the key that
// the appraisal vouches for.
func (u *Unverified) Claims() []byte {
	if e, ok := u.s.Body.(*Evidence); ok {
		return append([]byte(nil), e.Claims...)
	}
	return nil
}

// Envelope returns the digest of the evidence envelope that an evidence statement
// names, and none for every other kind; see [Unverified.Claims].
func (u *Unverified) Envelope() Digest {
	if e, ok := u.s.Body.(*Evidence); ok {
		return e.Envelope
	}
	return Digest{}
}

// Endorsements returns the digests of the vendor documents that an evidence
// statement suggests for judging its evidence, and nil for every other kind.
func (u *Unverified) Endorsements() []Digest {
	if e, ok := u.s.Body.(*Evidence); ok {
		return append([]Digest(nil), e.Endorsements...)
	}
	return nil
}

// Verify checks the signature by k and returns the statement. k comes from
// evidence or a credential that was checked before, never from the statement. The
// error wraps [cose.ErrSignature] if the signature does not verify.
func (u *Unverified) Verify(k cose.Key) (*Statement, error) {
	if err := u.msg.Verify(k, u.s.Federation[:]); err != nil {
		return nil, fmt.Errorf("%s statement: %w", u.s.Kind, err)
	}
	if err := checkNodeKey(&u.s, k); err != nil {
		return nil, err
	}
	s := u.s
	return &s, nil
}

// checkNodeKey demands that a node speaks with the key that names it.
func checkNodeKey(s *Statement, k cose.Key) error {
	if node, ok := s.Node(); ok && node != k.ID() {
		return fmt.Errorf("%s statement: %w: issuer is node %s, key is of node %s", s.Kind, cose.ErrSignature, node.Short(), k.ID().Short())
	}
	return nil
}

func (s *Statement) check() error {
	if err := s.checkPlace(); err != nil {
		return fmt.Errorf("%s statement: %w", s.Kind, err)
	}
	if err := s.Body.(body).check(); err != nil {
		return fmt.Errorf("%s statement: %w", s.Kind, err)
	}
	return nil
}

func (s *Statement) checkPlace() error {
	info, ok := kinds[s.Kind]
	b, isBody := s.Body.(body)
	if !ok || !isBody || b.kind() != s.Kind {
		return fmt.Errorf("%w, or a body of type %T", ErrKind, s.Body)
	}
	_, byEnclave := s.Instance()
	_, byNode := s.Node()
	switch {
	case info.byNode && !byNode || !info.byNode && !byEnclave:
		return fmt.Errorf("issuer %.100q", s.Issuer)
	case s.Federation.IsZero():
		return errors.New("no federation")
	case s.Policy.IsZero():
		return errors.New("no policy")
	case info.inRun == s.Run.IsZero():
		return fmt.Errorf("run %q", s.Run.Short())
	case s.Seq == 0:
		return errors.New("sequence number 0")
	case s.Seq > 1 && s.Prev.IsZero():
		return fmt.Errorf("sequence number %d without a predecessor", s.Seq)
	case s.Seq == 1 && byNode && !s.Prev.IsZero():
		return errors.New("first statement of a node with a predecessor")
	}
	return nil
}
