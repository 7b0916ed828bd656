package tlog

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/concordat/concordat/internal/merkle"
)

// Errors of a checkpoint that a caller decides on. They are wrapped.
var (
	ErrOrigin    = errors.New("checkpoint of another log")
	ErrSignature = errors.New("checkpoint is not signed by the log")
)

// Checkpoint is a state of a log: C2SP tlog-checkpoint.
type Checkpoint struct {
	Origin string
	Size   uint64
	Root   Digest // of the RFC 9162 tree; SHA-256("") if Size is 0
}

// Cosignature is a witness's word that, at its Time, the checkpoint extended all
// that it had cosigned before. Time is the witness's clock, whole seconds.
type Cosignature struct {
	Witness VerifierKey
	Time    time.Time
}

// Trust says which log is meant and whose cosignatures count.
type Trust struct {
	Origin    string
	LogKey    VerifierKey
	Witnesses []VerifierKey
	Need      int         // distinct witnesses that make a checkpoint count
	Own       VerifierKey // if set, its cosignature must be there whatever Need says
}

// WitnessError says that too few witnesses, or not one's own, cosigned a
// checkpoint that the log did sign.
type WitnessError struct {
	Have, Need int
	Own        string // name of the own witness whose cosignature is missing, or empty
}

func (e *WitnessError) Error() string {
	if e.Own != "" {
		return fmt.Sprintf("checkpoint lacks the cosignature of %s", e.Own)
	}
	return fmt.Sprintf("checkpoint has %d cosignatures, want %d", e.Have, e.Need)
}

// Text returns the body that log and witnesses sign.
func (c *Checkpoint) Text() []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// Open reads a checkpoint note, checks the log's signature, and returns the
// cosignatures of the witnesses in t, the first of each, in the order of
// t.Witnesses. Lines of unknown keys are ignored; a line of a known key that does
// not verify is an error. With a [*WitnessError] the checkpoint and the
// cosignatures are returned beside the error.
func Open(raw []byte, t Trust) (*Checkpoint, []Cosignature, error) {
	n, c, err := openLog(raw, t.Origin, t.LogKey)
	if err != nil {
		return nil, nil, err
	}
	var sigs []Cosignature
	own := t.Own.IsZero()
	for i, w := range t.Witnesses {
		for _, before := range t.Witnesses[:i] {
			if before == w {
				return nil, nil, fmt.Errorf("checkpoint: witness %s is listed twice", w.name)
			}
		}
		cosig, ok, err := n.cosignature(w)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			sigs = append(sigs, cosig)
			own = own || w == t.Own
		}
	}
	if !own { // it may stand outside the witnesses that count
		if _, own, err = n.cosignature(t.Own); err != nil {
			return nil, nil, err
		}
	}
	switch {
	case !own:
		return c, sigs, &WitnessError{Have: len(sigs), Need: t.Need, Own: t.Own.name}
	case len(sigs) < t.Need:
		return c, sigs, &WitnessError{Have: len(sigs), Need: t.Need}
	}
	return c, sigs, nil
}

// openLog checks the log's part of a note.
func openLog(raw []byte, origin string, key VerifierKey) (*note, *Checkpoint, error) {
	n, err := parseNote(raw)
	if err != nil {
		return nil, nil, err
	}
	c, err := parseCheckpoint(n.text)
	if err != nil {
		return nil, nil, err
	}
	if c.Origin != origin {
		return nil, nil, fmt.Errorf("%w: %.100q, want %q", ErrOrigin, c.Origin, origin)
	}
	signed := false
	for _, s := range n.sigs {
		if !s.by(key) || key.typ != typeEd25519 {
			continue
		}
		if !key.verify(n.text, s.blob) {
			return nil, nil, fmt.Errorf("%w: the line of %s does not verify", ErrSignature, key.name)
		}
		signed = true
	}
	if !signed {
		return nil, nil, fmt.Errorf("%w: no line of %s", ErrSignature, key.name)
	}
	return n, c, nil
}

func parseCheckpoint(text []byte) (*Checkpoint, error) {
	lines := strings.Split(string(text), "\n")
	if len(lines) != 4 || lines[3] != "" {
		return nil, fmt.Errorf("checkpoint: %d lines, want 3 and no extensions", len(lines)-1)
	}
	c := &Checkpoint{Origin: lines[0]}
	if c.Origin == "" || len(c.Origin) > 255 {
		return nil, fmt.Errorf("checkpoint: origin of %d bytes, want 1 to 255", len(c.Origin))
	}
	var err error
	if c.Size, err = parseSize(lines[1]); err != nil {
		return nil, fmt.Errorf("checkpoint: %w", err)
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != len(c.Root) || base64.StdEncoding.EncodeToString(root) != lines[2] {
		return nil, errors.New("checkpoint: root is not 32 bytes in base64")
	}
	copy(c.Root[:], root)
	if c.Size == 0 && c.Root != merkle.EmptyRoot() {
		return nil, errors.New("checkpoint: empty log with a root of its own")
	}
	return c, nil
}

// parseSize reads a tree size: decimal, below 2^63, one spelling.
func parseSize(s string) (uint64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("size %.40q", s)
	}
	return uint64(n), nil
}

// maxTime is the last second of the year 9999: later times are mistakes.
const maxTime = 253402300799

// cosignature returns the first cosignature of w, if there is one, having checked
// all of them.
func (n *note) cosignature(w VerifierKey) (c Cosignature, ok bool, err error) {
	if !w.IsWitness() {
		return c, false, fmt.Errorf("checkpoint: key of %q is not a witness's", w.name)
	}
	for _, s := range n.sigs {
		if !s.by(w) {
			continue
		}
		if len(s.blob) != 8+64 {
			return c, false, fmt.Errorf("checkpoint: cosignature of %s of %d bytes, want 72", w.name, len(s.blob))
		}
		t := binary.BigEndian.Uint64(s.blob)
		if t == 0 || t > maxTime || !w.verify(cosigned(t, n.text), s.blob[8:]) {
			return c, false, fmt.Errorf("checkpoint: cosignature of %s does not verify", w.name)
		}
		if !ok {
			c, ok = Cosignature{w, time.Unix(int64(t), 0).UTC()}, true
		}
	}
	return c, ok, nil
}

// cosigned is what a witness signs (C2SP tlog-cosignature, v1).
func cosigned(t uint64, text []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", t, text)
}
