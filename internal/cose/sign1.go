package cose

import (
	"errors"
	"fmt"

	gocose "github.com/veraison/go-cose"
)

// MaxMessage bounds one COSE message: what a transparency log entry may hold.
const MaxMessage = 65535

// Header is what the protected header of a message says besides algorithm and
// key.
type Header struct {
	Type    string // typ, a media type (RFC 9596): what kind of statement this is
	Issuer  string // CWT iss (RFC 9597): who speaks, at most 255 bytes
	Subject string // CWT sub: what it speaks about, at most 255 bytes
}

func (h Header) check() error {
	for name, v := range map[string]string{"typ": h.Type, "iss": h.Issuer, "sub": h.Subject} {
		if v == "" || len(v) > 255 {
			return fmt.Errorf("cose: header %s of %d bytes, want 1 to 255", name, len(v))
		}
	}
	return nil
}

// The protected header's labels (IANA COSE header parameters).
const (
	labelAlg       = int64(1)
	labelKeyID     = int64(4)
	labelCWTClaims = int64(15)
	labelType      = int64(16)
	cwtIssuer      = int64(1)
	cwtSubject     = int64(2)
)

func (h Header) protected(k Key) gocose.ProtectedHeader {
	id := k.ID()
	return gocose.ProtectedHeader{
		labelAlg:       gocose.Algorithm(k.Alg()),
		labelKeyID:     id[:],
		labelCWTClaims: map[any]any{cwtIssuer: h.Issuer, cwtSubject: h.Subject},
		labelType:      h.Type,
	}
}

// Sign returns the tagged COSE_Sign1 over payload with aad as external data.
func Sign(s *Signer, h Header, payload, aad []byte) ([]byte, error) {
	return sign(s, h, payload, aad, false)
}

// SignDetached is [Sign] with the payload left out of the message (nil, f6).
func SignDetached(s *Signer, h Header, payload, aad []byte) ([]byte, error) {
	return sign(s, h, payload, aad, true)
}

func sign(s *Signer, h Header, payload, aad []byte, detach bool) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	if len(payload) == 0 {
		return nil, errors.New("cose: empty payload")
	}
	m := gocose.NewSign1Message()
	m.Headers.Protected = h.protected(s.pub)
	m.Payload = payload
	if err := m.Sign(nil, aad, s); err != nil {
		return nil, fmt.Errorf("cose: sign: %w", err)
	}
	if detach {
		m.Payload = nil
	}
	raw, err := m.MarshalCBOR()
	if err != nil {
		return nil, fmt.Errorf("cose: %w", err)
	}
	if len(raw) > MaxMessage {
		return nil, fmt.Errorf("cose: message of %d bytes, limit %d", len(raw), MaxMessage)
	}
	return raw, nil
}

// Message is a parsed message of the profile that nobody has verified yet:
// everything in it is a claim of whoever sent it.
type Message struct {
	Header  Header
	Alg     Alg
	KeyID   Digest
	Payload []byte // nil if detached

	msg *gocose.Sign1Message
	raw []byte
}

// Parse decodes one message of the profile (see the package comment) and
// refuses every other. It checks no signature.
func Parse(raw []byte) (*Message, error) {
	if len(raw) > MaxMessage {
		return nil, fmt.Errorf("cose: message of %d bytes, limit %d", len(raw), MaxMessage)
	}
	// Outermost: tag 18 and an array of four whose second is the empty map. The
	// rest is re-encoded and compared, so one message has one encoding.
	if len(raw) < 2 || raw[0] != 0xd2 || raw[1] != 0x84 {
		return nil, errors.New("cose: not a tagged COSE_Sign1")
	}
	var parts struct {
		_           struct{} `cbor:",toarray"`
		Protected   []byte
		Unprotected map[int64]Raw
		Payload     *[]byte
		Signature   []byte
	}
	if err := Unmarshal(raw[1:], &parts); err != nil {
		return nil, fmt.Errorf("cose: %w", err)
	}
	if len(parts.Unprotected) != 0 {
		return nil, errors.New("cose: unprotected header is not empty")
	}
	if len(parts.Signature) != 64 {
		return nil, fmt.Errorf("cose: signature of %d bytes, want 64", len(parts.Signature))
	}
	var head struct {
		Alg    int64  `cbor:"1,keyasint"`
		KeyID  []byte `cbor:"4,keyasint"`
		Claims struct {
			Issuer  string `cbor:"1,keyasint"`
			Subject string `cbor:"2,keyasint"`
		} `cbor:"15,keyasint"`
		Type string `cbor:"16,keyasint"`
	}
	if err := Unmarshal(parts.Protected, &head); err != nil {
		return nil, fmt.Errorf("cose: protected header: %w", err)
	}
	m := &Message{
		Header: Header{head.Type, head.Claims.Issuer, head.Claims.Subject},
		Alg:    Alg(head.Alg),
		msg:    new(gocose.Sign1Message),
		raw:    raw,
	}
	if m.Alg != ES256 && m.Alg != EdDSA {
		return nil, fmt.Errorf("cose: algorithm %v is not in the profile", m.Alg)
	}
	if len(head.KeyID) != len(m.KeyID) {
		return nil, fmt.Errorf("cose: kid of %d bytes, want %d", len(head.KeyID), len(m.KeyID))
	}
	copy(m.KeyID[:], head.KeyID)
	if err := m.Header.check(); err != nil {
		return nil, err
	}
	if err := m.msg.UnmarshalCBOR(raw); err != nil {
		return nil, fmt.Errorf("cose: %w", err)
	}
	if parts.Payload != nil {
		if len(*parts.Payload) == 0 {
			return nil, errors.New("cose: empty payload")
		}
		m.Payload = *parts.Payload
	}
	return m, nil
}

// Raw returns the message's bytes. The caller must not change them.
func (m *Message) Raw() []byte { return m.raw }

// Verify checks the signature by k over the message and aad. The key comes from
// a policy or a statement that was verified before, never from the message. The
// error wraps [ErrSignature].
func (m *Message) Verify(k Key, aad []byte) error {
	if m.Payload == nil {
		return fmt.Errorf("%w: payload is detached", ErrSignature)
	}
	return m.verify(k, m.Payload, aad)
}

// VerifyDetached is [Message.Verify] for a message whose payload the caller
// holds. A message that has a payload of its own is refused.
func (m *Message) VerifyDetached(k Key, payload, aad []byte) error {
	if m.Payload != nil || len(payload) == 0 {
		return fmt.Errorf("%w: payload is not detached", ErrSignature)
	}
	return m.verify(k, payload, aad)
}

func (m *Message) verify(k Key, payload, aad []byte) error {
	if k.IsZero() {
		return fmt.Errorf("%w: no key", ErrSignature)
	}
	if m.Alg != k.Alg() {
		return fmt.Errorf("%w: message says %v, the key is for %v", ErrSignature, m.Alg, k.Alg())
	}
	if m.KeyID != k.ID() {
		return fmt.Errorf("%w: signed by key %s, want %s", ErrSignature, m.KeyID.Short(), k.ID().Short())
	}
	msg := *m.msg
	msg.Payload = payload
	if err := msg.Verify(aad, verifier{k}); errors.Is(err, ErrSignature) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// verifier makes a Key go-cose's Verifier, so that the profile's rules on curve
// and low S hold.
type verifier struct{ key Key }

func (v verifier) Algorithm() gocose.Algorithm      { return gocose.Algorithm(v.key.Alg()) }
func (v verifier) Verify(content, sig []byte) error { return v.key.VerifyRaw(content, sig) }
