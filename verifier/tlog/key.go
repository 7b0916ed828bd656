package tlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/concordat/concordat/internal/cose"
)

// Signature types of signed-note keys; both hold an Ed25519 key.
const (
	typeEd25519     = 1 // a log
	typeCosignature = 4 // a witness, tlog-cosignature v1
)

// VerifierKey is the public key of a log or of a witness under a name. Keys are
// comparable; the zero value verifies nothing.
type VerifierKey struct {
	name string
	typ  byte
	key  [ed25519.PublicKeySize]byte
}

// maxVerifierKey bounds the text form, in bytes.
const maxVerifierKey = 512

// NewLogKey returns the key of a log; name is its origin.
func NewLogKey(name string, pub ed25519.PublicKey) (VerifierKey, error) {
	return newKey(name, typeEd25519, pub)
}

// NewWitnessKey returns the key of a witness.
func NewWitnessKey(name string, pub ed25519.PublicKey) (VerifierKey, error) {
	return newKey(name, typeCosignature, pub)
}

func newKey(name string, typ byte, pub ed25519.PublicKey) (VerifierKey, error) {
	if err := checkName(name); err != nil {
		return VerifierKey{}, fmt.Errorf("verifier key: %w", err)
	}
	if len(pub) != ed25519.PublicKeySize {
		return VerifierKey{}, fmt.Errorf("verifier key: %d bytes, want %d", len(pub), ed25519.PublicKeySize)
	}
	return VerifierKey{name, typ, [ed25519.PublicKeySize]byte(pub)}, nil
}

func checkName(name string) error {
	if name == "" || len(name) > 255 || !utf8.ValidString(name) ||
		strings.ContainsFunc(name, func(r rune) bool { return r == '+' || unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return fmt.Errorf("name %.80q is not 1 to 255 printable characters without space and '+'", name)
	}
	return nil
}

// ParseVerifierKey reads the text form of signed-note,
// "name+hash+base64(type || key)".
func ParseVerifierKey(s string) (VerifierKey, error) {
	if len(s) > maxVerifierKey {
		return VerifierKey{}, fmt.Errorf("verifier key: %d bytes, limit %d", len(s), maxVerifierKey)
	}
	name, rest, _ := strings.Cut(s, "+")
	_, data, ok := strings.Cut(rest, "+")
	if !ok {
		return VerifierKey{}, errors.New(`verifier key: not of the form "name+hash+base64"`)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(data)
	if err != nil || len(b) != 1+ed25519.PublicKeySize {
		return VerifierKey{}, errors.New("verifier key: no Ed25519 key in base64")
	}
	if b[0] != typeEd25519 && b[0] != typeCosignature {
		return VerifierKey{}, fmt.Errorf("verifier key: signature type %d is not supported", b[0])
	}
	k, err := newKey(name, b[0], b[1:])
	if err != nil {
		return VerifierKey{}, err
	}
	if k.String() != s {
		return VerifierKey{}, fmt.Errorf("verifier key: %.100q is not its one spelling, %q", s, k.String())
	}
	return k, nil
}

// String returns the text form.
func (k VerifierKey) String() string {
	if k.IsZero() {
		return ""
	}
	id := k.id()
	return k.name + "+" + hex.EncodeToString(id[:]) + "+" + base64.StdEncoding.EncodeToString(k.typed())
}

// Name returns the name under which the key signs.
func (k VerifierKey) Name() string { return k.name }

// IsZero reports whether k is no key.
func (k VerifierKey) IsZero() bool { return k == VerifierKey{} }

// IsWitness reports whether k makes cosignatures.
func (k VerifierKey) IsWitness() bool { return k.typ == typeCosignature }

// COSE returns the same key for the COSE receipts that a log signs beside its
// checkpoints. One key for both is safe: what is signed for a note starts with
// the UTF-8 text of its origin, what is signed for COSE with byte 0x84, which
// starts no UTF-8 text.
func (k VerifierKey) COSE() (cose.Key, error) {
	if k.IsZero() {
		return cose.Key{}, errors.New("verifier key: none")
	}
	return cose.NewKey(ed25519.PublicKey(k.key[:]))
}

func (k VerifierKey) typed() []byte { return append([]byte{k.typ}, k.key[:]...) }

// id is the key hash of signed-note: SHA-256(name || 0A || type || key)[:4].
func (k VerifierKey) id() (id [4]byte) {
	h := sha256.Sum256(bytes.Join([][]byte{[]byte(k.name), k.typed()}, []byte{'\n'}))
	copy(id[:], h[:])
	return id
}

func (k VerifierKey) verify(msg, sig []byte) bool {
	return !k.IsZero() && len(sig) == ed25519.SignatureSize && ed25519.Verify(k.key[:], msg, sig)
}
