package tlog

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of a signed note.
const (
	MaxNote       = 64 << 10 // bytes
	maxSignatures = 256
	maxSignature  = 8 << 10 // bytes of one signature: post-quantum ones of others fit
)

// note is a signed note (C2SP signed-note): text, and signatures that nobody has
// checked.
type note struct {
	text []byte // with its last newline: what is signed
	sigs []signature
}

type signature struct {
	name string
	id   [4]byte
	blob []byte
}

const signaturePrefix = "— " // U+2014 and a space

func parseNote(b []byte) (*note, error) {
	if len(b) > MaxNote {
		return nil, fmt.Errorf("note: %d bytes, limit %d", len(b), MaxNote)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("note: not UTF-8")
	}
	for _, c := range b {
		if c < 0x20 && c != '\n' {
			return nil, fmt.Errorf("note: control character %#02x", c)
		}
	}
	i := bytes.LastIndex(b, []byte("\n\n"))
	if i < 0 || len(b) == i+2 || b[len(b)-1] != '\n' {
		return nil, errors.New("note: no signatures after a blank line")
	}
	n := &note{text: b[:i+1]}
	lines := strings.Split(string(b[i+2:len(b)-1]), "\n")
	if len(lines) > maxSignatures {
		return nil, fmt.Errorf("note: %d signatures, limit %d", len(lines), maxSignatures)
	}
	for _, l := range lines {
		s, err := parseSignature(l)
		if err != nil {
			return nil, fmt.Errorf("note: %w", err)
		}
		n.sigs = append(n.sigs, s)
	}
	return n, nil
}

func parseSignature(line string) (s signature, err error) {
	rest, ok := strings.CutPrefix(line, signaturePrefix)
	name, data, ok2 := strings.Cut(rest, " ")
	if !ok || !ok2 {
		return s, fmt.Errorf("signature line %.80q", line)
	}
	if err := checkName(name); err != nil {
		return s, fmt.Errorf("signature: %w", err)
	}
	if len(data) > maxSignature*4/3 {
		return s, fmt.Errorf("signature of %d characters", len(data))
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(data)
	if err != nil || len(blob) <= len(s.id) {
		return s, fmt.Errorf("signature of %.80q is not base64 of a signature", name)
	}
	s.name = name
	copy(s.id[:], blob)
	s.blob = blob[len(s.id):]
	return s, nil
}

// by reports whether s claims to be made with k.
func (s signature) by(k VerifierKey) bool { return !k.IsZero() && s.name == k.name && s.id == k.id() }

func formatSignature(k VerifierKey, blob []byte) []byte {
	id := k.id()
	return []byte(signaturePrefix + k.name + " " + base64.StdEncoding.EncodeToString(append(id[:], blob...)) + "\n")
}
