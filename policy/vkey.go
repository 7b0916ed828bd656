package policy

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/concordat/concordat/internal/cose"
)

// Signature types of C2SP signed-note keys; both hold an Ed25519 key.
const (
	vkeyLog     = 1
	vkeyWitness = 4 // tlog-cosignature v1
)

// parseVerifierKey reads a C2SP signed-note verifier key,
// "<name>+<first 4 bytes of SHA-256(name || 0A || type || key) in hex>+<base64 of type || key>",
// and refuses every other type than typ. It is here, and not taken from
// verifier/tlog, because packages of one layer do not import each other.
func parseVerifierKey(s string, typ byte) (name string, key ed25519.PublicKey, err error) {
	if len(s) > 512 {
		return "", nil, fmt.Errorf("has %d characters, limit 512", len(s))
	}
	name, rest, ok1 := strings.Cut(s, "+")
	sum, data64, ok2 := strings.Cut(rest, "+")
	if !ok1 || !ok2 {
		return "", nil, errors.New(`is not a C2SP verifier key "name+hash+base64"`)
	}
	if name == "" || len(name) > 255 || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return "", nil, fmt.Errorf("has the name %q, want 1 to 255 printable characters without spaces", name)
	}
	data, err := base64.StdEncoding.Strict().DecodeString(data64)
	if err != nil || len(data) != 1+ed25519.PublicKeySize {
		return "", nil, errors.New("holds no Ed25519 key in base64")
	}
	if data[0] != typ {
		return "", nil, fmt.Errorf("is of signature type %d, want %d", data[0], typ)
	}
	h := sha256.Sum256(slices.Concat([]byte(name), []byte{'\n'}, data))
	if want := hex.EncodeToString(h[:4]); sum != want {
		return "", nil, fmt.Errorf("has the hash %.20q, want %q for its name and key", sum, want)
	}
	if base64.StdEncoding.EncodeToString(data) != data64 {
		return "", nil, errors.New("is not in its one spelling") // base64 skips line ends
	}
	return name, data[1:], nil
}

// sameVerifierKey reports whether the C2SP key s is the key k.
func sameVerifierKey(s string, typ byte, k cose.Key) bool {
	_, pub, err := parseVerifierKey(s, typ)
	if err != nil {
		return false
	}
	other, err := cose.NewKey(pub)
	return err == nil && other == k
}
