package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/concordat/concordat/internal/cose"
)

// The one suite: HPKE base mode (RFC 9180) with ML-KEM-768 + X25519, HKDF-SHA256
// and AES-256-GCM.
var (
	kem  = hpke.MLKEM768X25519()
	kdf  = hpke.HKDFSHA256()
	aead = hpke.AES256GCM()
)

// KEMPublicSize is the length of an encapsulation key in claims: ML-KEM-768
// (1184) and X25519 (32).
const KEMPublicSize = 1216

func info(direction string, th1 Digest) []byte {
	return append(append([]byte(prefix+direction), 0), th1[:]...)
}

func transcript1(hello, claims, evidence []byte) Digest {
	e := sha256.Sum256(evidence)
	return cose.Hash(prefix+"th1", hello, claims, e[:])
}

func transcript2(th1 Digest, join []byte) Digest { return cose.Hash(prefix+"th2", th1[:], join) }
func transcript3(th2 Digest, enc2 []byte) Digest { return cose.Hash(prefix+"th3", th2[:], enc2) }

func joinSignatureInput(th1 Digest, enc, credential, ephemeral, heads []byte) []byte {
	h := cose.Hash(prefix+"sig", th1[:], enc, credential, ephemeral, heads)
	return h[:]
}

func acceptSignatureInput(th3 Digest) []byte {
	h := cose.Hash(prefix+"sigE", th3[:])
	return h[:]
}

// exporter is the side of an HPKE context that both ends have.
type exporter interface {
	Export(context string, length int) ([]byte, error)
}

// newSession derives the session keys: both KEM secrets enter, the transcript is
// the salt, so recordings stay closed if either private key did.
func newSession(first, second exporter, th3 Digest, node bool) (*Session, error) {
	ss1, err := first.Export(prefix+"ss", 32)
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	ss2, err := second.Export(prefix+"ss", 32)
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	prk, err := hkdf.Extract(sha256.New, append(ss1, ss2...), th3[:])
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	expand := func(label string) ([]byte, error) {
		return hkdf.Expand(sha256.New, prk, prefix+"key/"+label, 32)
	}
	s := &Session{th3: th3}
	sid, err := expand("sid")
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	copy(s.id[:], sid)
	out, in := "e2n", "n2e"
	if node {
		out, in = in, out
	}
	if s.out, err = newHalf(expand, out); err != nil {
		return nil, err
	}
	if s.in, err = newHalf(expand, in); err != nil {
		return nil, err
	}
	return s, nil
}

// half is one direction: a key and the next counter, which only grows.
type half struct {
	aead cipher.AEAD
	next uint64
}

func newHalf(expand func(string) ([]byte, error), label string) (half, error) {
	key, err := expand(label)
	if err != nil {
		return half{}, fmt.Errorf("session: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return half{}, fmt.Errorf("session: %w", err)
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		return half{}, fmt.Errorf("session: %w", err)
	}
	return half{aead: g}, nil
}

func counterNonce(ctr uint64) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], ctr)
	return n[:]
}

// ID names a session to both ends; the link sees it.
type ID [16]byte

// Session seals and opens the records of one join, in order, one key per
// direction. It is safe for concurrent use; records must be sent in the order in
// which Seal returned them. It holds no state that outlives its process: whoever
// loses it joins anew.
type Session struct {
	id  ID
	th3 Digest

	mu      sync.Mutex // owns out and in
	out, in half
}

// ID returns the session's name.
func (s *Session) ID() ID { return s.id }

// Seal returns the next record frame around plain, at most 1 MiB.
func (s *Session) Seal(plain []byte) ([]byte, error) {
	if len(plain) > MaxMessage {
		return nil, fmt.Errorf("session: message of %d bytes, limit %d", len(plain), MaxMessage)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ctr := s.out.next
	s.out.next++
	return cose.Marshal(recordFrame{Label: label(FrameRecord), SID: s.id[:], Counter: ctr,
		Sealed: s.out.aead.Seal(nil, counterNonce(ctr), plain, s.th3[:])}), nil
}

// Open checks and opens the next record. A repeated one is [ErrReplay], one after
// a gap [ErrOrder]; neither changes the session. Whatever does not open is
// [ErrBinding].
func (s *Session) Open(raw []byte) ([]byte, error) {
	var f recordFrame
	if err := parseFrame(raw, FrameRecord, &f); err != nil {
		return nil, err
	}
	if len(f.SID) != len(s.id) || ID(f.SID) != s.id {
		return nil, fmt.Errorf("%w: record of another session", ErrBinding)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case f.Counter < s.in.next:
		return nil, fmt.Errorf("%w: counter %d, next is %d", ErrReplay, f.Counter, s.in.next)
	case f.Counter > s.in.next:
		return nil, fmt.Errorf("%w: counter %d, next is %d", ErrOrder, f.Counter, s.in.next)
	}
	plain, err := s.in.aead.Open(nil, counterNonce(f.Counter), f.Sealed, s.th3[:])
	if err != nil {
		return nil, fmt.Errorf("%w: record %d does not open", ErrBinding, f.Counter)
	}
	s.in.next++
	return plain, nil
}

// SessionOf reads which session a record frame claims to be of.
func SessionOf(raw []byte) (ID, error) {
	var f recordFrame
	if err := parseFrame(raw, FrameRecord, &f); err != nil {
		return ID{}, err
	}
	if len(f.SID) != len(ID{}) {
		return ID{}, fmt.Errorf("%w: session id of %d bytes", ErrFrame, len(f.SID))
	}
	return ID(f.SID), nil
}
