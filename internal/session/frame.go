package session

import (
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// Digest is a SHA-256 value.
type Digest = cose.Digest

// FrameKind tells a receiver which frame it holds before it is parsed.
type FrameKind string

// The five frames of the join and after.
const (
	FrameHello  FrameKind = "hello"
	FrameOffer  FrameKind = "offer"
	FrameJoin   FrameKind = "join"
	FrameAccept FrameKind = "accept"
	FrameRecord FrameKind = "record"
)

var frameLimits = map[FrameKind]int{FrameHello: MaxHello, FrameOffer: MaxOffer, FrameJoin: MaxJoin, FrameAccept: MaxAccept, FrameRecord: MaxRecord}

// KindOf reads the label of a frame, and nothing else of it. The error wraps
// [ErrFrame].
func KindOf(raw []byte) (FrameKind, error) {
	// A frame is a CBOR array (0x80 + n) whose first element is a text of 18 to 23
	// bytes (0x60 + n), so the label can be read without parsing the rest.
	if len(raw) < 2 || raw[0]&0xe0 != 0x80 || raw[1]&0xe0 != 0x60 || raw[1]&0x1f > 23 {
		return "", fmt.Errorf("%w: no label", ErrFrame)
	}
	n := int(raw[1] & 0x1f)
	if len(raw) < 2+n {
		// Labels of 24 bytes and more have a longer head: none of ours has.
		return "", fmt.Errorf("%w: no label", ErrFrame)
	}
	label := string(raw[2 : 2+n])
	if len(label) <= len(prefix) || label[:len(prefix)] != prefix {
		return "", fmt.Errorf("%w: label %q", ErrFrame, label)
	}
	k := FrameKind(label[len(prefix):])
	limit, ok := frameLimits[k]
	if !ok {
		return "", fmt.Errorf("%w: label %q", ErrFrame, label)
	}
	if len(raw) > limit {
		return "", fmt.Errorf("%w: %s of %d bytes, limit %d", ErrFrame, k, len(raw), limit)
	}
	return k, nil
}

// parseFrame decodes raw, whose label must be kind's, into v, an array struct
// whose first field is Label.
func parseFrame(raw []byte, kind FrameKind, v any) error {
	k, err := KindOf(raw)
	if err != nil {
		return err
	}
	if k != kind {
		return fmt.Errorf("%w: %s, want %s", ErrFrame, k, kind)
	}
	if err := cose.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrFrame, kind, err)
	}
	return nil
}

func label(k FrameKind) string { return prefix + string(k) }

type helloFrame struct {
	_          struct{} `cbor:",toarray"`
	Label      string
	Federation Digest
	Node       Digest
	Nonce      []byte
}

type offerFrame struct {
	_        struct{} `cbor:",toarray"`
	Label    string
	Claims   []byte
	Evidence []byte
	Index    uint64
	Path     []Digest
	LogProof LogProof
}

type joinFrame struct {
	_      struct{} `cbor:",toarray"`
	Label  string
	TH1    Digest
	Enc    []byte
	Sealed []byte
}

type joinBody struct {
	_          struct{} `cbor:",toarray"`
	Credential []byte
	Ephemeral  []byte
	Heads      []byte
	Signature  []byte
}

type acceptFrame struct {
	_      struct{} `cbor:",toarray"`
	Label  string
	Enc2   []byte
	Sealed []byte
}

type acceptBody struct {
	_         struct{} `cbor:",toarray"`
	SID       []byte
	Heads     []byte
	Signature []byte
}

type recordFrame struct {
	_       struct{} `cbor:",toarray"`
	Label   string
	SID     []byte
	Counter uint64
	Sealed  []byte
}

// LogProof shows that the evidence statement of an offer is in the federation's
// log. Its reader verifies all of it.
type LogProof struct {
	_          struct{} `cbor:",toarray"`
	Statement  []byte   // the evidence statement, as logged
	Index      uint64
	Path       []Digest // inclusion in the checkpoint's tree
	Checkpoint []byte   // signed note with cosignatures
}

// Heads is the newest history that a party knows; it travels, signed, in every
// join (protocol F12). Whoever receives it takes the maximum of all.
type Heads struct {
	_             struct{} `cbor:",toarray"`
	Checkpoint    []byte   // signed note with cosignatures; empty if none was seen
	PolicyVersion uint64
	Policy        Digest
	Denials       Digest // none if no denial is known
}

// Encode returns the canonical bytes.
func (h Heads) Encode() []byte { return cose.Marshal(h) }

func parseHeads(b []byte) (h Heads, err error) {
	if err := cose.Unmarshal(b, &h); err != nil {
		return Heads{}, fmt.Errorf("%w: heads: %w", ErrFrame, err)
	}
	return h, nil
}
