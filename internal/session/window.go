package session

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

// WindowLife is how long a window answers joins (protocol part 2).
const WindowLife = 10 * time.Minute

// MaxWindow is the most hellos of one window.
const MaxWindow = 1 << 16

// Window is an enclave's side of one batch of joins: it collects hellos until
// Close, then answers the joins of those hellos under one KEM key that exists only
// here. It is safe for concurrent use.
type Window struct {
	federation Digest
	self       *cose.Signer
	made       time.Time
	public     []byte // of the KEM key

	mu      sync.Mutex // owns all below
	private hpke.PrivateKey
	tree    attestation.NonceTree
	leaves  []*leaf
	byTH1   map[Digest]*leaf
	seen    map[Digest]int // hellos to leaves, so that a repeated one takes no second
	closed  bool
	unused  int
}

type leaf struct {
	node   Digest
	nonce  [32]byte
	hello  []byte
	th1    Digest
	joined Digest // SHA-256 of the join that was accepted
	accept []byte // its answer, for the same join again
	sess   *Session
}

// NewWindow opens a window for the enclave that signs with self.
func NewWindow(federation Digest, self *cose.Signer, now time.Time) (*Window, error) {
	k, err := kem.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	return &Window{
		federation: federation, self: self, made: now, public: k.PublicKey().Bytes(),
		private: k, byTH1: map[Digest]*leaf{}, seen: map[Digest]int{},
	}, nil
}

// KEMPublic returns the encapsulation key for the claims. The caller must not
// change it.
func (w *Window) KEMPublic() []byte { return w.public }

// Add takes a hello and returns the index of its leaf; the same hello again is
// the same leaf. Hellos of other federations are [ErrBinding]; after Close it is
// [ErrExpired], and the hello belongs to the next window.
func (w *Window) Add(hello []byte) (index int, node Digest, err error) {
	var f helloFrame
	if err := parseFrame(hello, FrameHello, &f); err != nil {
		return 0, Digest{}, err
	}
	if f.Federation != w.federation {
		return 0, Digest{}, fmt.Errorf("%w: hello for federation %s", ErrBinding, f.Federation.Short())
	}
	if f.Node.IsZero() || len(f.Nonce) != 32 {
		return 0, Digest{}, fmt.Errorf("%w: hello without node or nonce", ErrFrame)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, Digest{}, fmt.Errorf("%w: window is closed", ErrExpired)
	}
	id := cose.Sum(hello)
	if i, ok := w.seen[id]; ok {
		return i, f.Node, nil
	}
	if len(w.leaves) >= MaxWindow {
		return 0, Digest{}, fmt.Errorf("%w: window is full", ErrExpired)
	}
	l := &leaf{node: f.Node, nonce: [32]byte(f.Nonce), hello: append([]byte(nil), hello...)}
	if _, err := w.tree.Add(l.node, l.nonce); err != nil {
		return 0, Digest{}, fmt.Errorf("%w: %w", ErrExpired, err)
	}
	w.seen[id] = len(w.leaves)
	w.leaves = append(w.leaves, l)
	w.unused++
	return len(w.leaves) - 1, f.Node, nil
}

// Close ends the collecting and returns the Merkle root and count of the nonces
// for the claims. A window without hellos has count 0 and makes no evidence.
func (w *Window) Close() (root Digest, count uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	return w.tree.Root(), uint64(len(w.leaves))
}

// Offers calls send with the offer of every leaf, in order, and then returns its
// first error. claims hold this window's KEM key, nonce root and signing key, or
// nothing is offered; envelope is the encoded attestation.Evidence for them. It is
// called after [Window.Close].
func (w *Window) Offers(claims, envelope []byte, lp LogProof, send func(node Digest, offer []byte) error) error {
	w.mu.Lock()
	if !w.closed {
		w.mu.Unlock()
		panic("session: internal error: offers of an open window")
	}
	if err := w.check(claims); err != nil {
		w.mu.Unlock()
		return err
	}
	proofs := w.tree.Proofs()
	nodes := make([]Digest, len(w.leaves))
	for i, l := range w.leaves {
		nodes[i] = l.node
		l.th1 = transcript1(l.hello, claims, envelope)
		w.byTH1[l.th1] = l
	}
	w.mu.Unlock()
	for i, node := range nodes { // one frame at a time: each has the whole evidence in it
		frame := cose.Marshal(offerFrame{Label: label(FrameOffer), Claims: claims, Evidence: envelope, Index: proofs[i].Index, Path: proofs[i].Path, LogProof: lp})
		if len(frame) > MaxOffer {
			return fmt.Errorf("session: offer of %d bytes, limit %d", len(frame), MaxOffer)
		}
		if err := send(node, frame); err != nil {
			return err
		}
	}
	return nil
}

// check says whether claims are of this window. Others would offer a key that
// nobody here has, or freshness that no hello asked for.
func (w *Window) check(claims []byte) error {
	c, err := attestation.ParseClaims(claims)
	switch {
	case err != nil:
		return fmt.Errorf("session: offer: %w", err)
	case c.Federation != w.federation || c.SignPub != w.self.Public() || !bytes.Equal(c.KEMPub, w.public):
		return errors.New("session: offer: the claims name another federation or key")
	case c.NonceRoot != w.tree.Root() || c.NonceCount != uint64(len(w.leaves)):
		return errors.New("session: offer: the claims are for other nonces")
	}
	return nil
}

// Joined is a node that proved its identity in a join.
type Joined struct {
	Node       Digest
	Member     policy.MemberID
	Key        cose.Key
	Credential []byte
	Heads      Heads
	Session    *Session
}

// Accept answers a join. The credential is judged by p as of at; denied says
// whether a key, given by its ID, may not join. heads are the enclave's own. The same
// join again, byte for byte, returns the same answer and a nil Joined; any other
// join for a used leaf is [ErrUsed]. The node counts as joined only once
// [Confirm] opened its first record.
func (w *Window) Accept(join []byte, p *policy.Policy, denied func(Digest) bool, at time.Time, heads Heads) (*Joined, []byte, error) {
	var f joinFrame
	if err := parseFrame(join, FrameJoin, &f); err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.byTH1[f.TH1]
	if l == nil {
		return nil, nil, ErrOtherWindow
	}
	if l.accept != nil {
		if h := cose.Sum(join); subtle.ConstantTimeCompare(h[:], l.joined[:]) == 1 {
			return nil, l.accept, nil
		}
		return nil, nil, ErrUsed
	}
	if w.private == nil {
		return nil, nil, fmt.Errorf("%w: window has ended", ErrExpired)
	}
	r, err := hpke.NewRecipient(f.Enc, w.private, kdf, aead, info("n2e", l.th1))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: join: %w", ErrBinding, err)
	}
	plain, err := r.Open(l.th1[:], f.Sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: join does not open", ErrBinding)
	}
	var body joinBody
	if err := cose.Unmarshal(plain, &body); err != nil {
		return nil, nil, fmt.Errorf("%w: join: %w", ErrFrame, err)
	}
	cred, member, err := p.VerifyCredential(body.Credential, at)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrBinding, err)
	}
	key := cred.NodeKey
	if key.ID() != l.node {
		return nil, nil, fmt.Errorf("%w: credential of node %s, hello of node %s", ErrBinding, key.ID().Short(), l.node.Short())
	}
	if denied(l.node) {
		return nil, nil, fmt.Errorf("%w: node %s is denied", ErrBinding, l.node.Short())
	}
	if err := key.VerifyRaw(joinSignatureInput(l.th1, f.Enc, body.Credential, body.Ephemeral, body.Heads), body.Signature); err != nil {
		return nil, nil, fmt.Errorf("%w: join: %w", ErrBinding, err)
	}
	theirs, err := parseHeads(body.Heads)
	if err != nil {
		return nil, nil, err
	}
	ephemeral, err := kem.NewPublicKey(body.Ephemeral)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: join: ephemeral key: %w", ErrFrame, err)
	}
	th2 := transcript2(l.th1, join)
	enc2, sender, err := hpke.NewSender(ephemeral, kdf, aead, info("e2n", th2))
	if err != nil {
		return nil, nil, fmt.Errorf("session: %w", err)
	}
	th3 := transcript3(th2, enc2)
	s, err := newSession(r, sender, th3, false)
	if err != nil {
		return nil, nil, err
	}
	sig, err := w.self.SignRaw(acceptSignatureInput(th3))
	if err != nil {
		return nil, nil, fmt.Errorf("session: %w", err)
	}
	answer := cose.Marshal(acceptBody{SID: s.id[:], Heads: heads.Encode(), Signature: sig})
	accept := cose.Marshal(acceptFrame{Label: label(FrameAccept), Enc2: enc2, Sealed: s.out.aead.Seal(nil, counterNonce(0), answer, th3[:])})
	s.out.next = 1
	if len(accept) > MaxAccept {
		return nil, nil, fmt.Errorf("session: accept of %d bytes, limit %d", len(accept), MaxAccept)
	}
	l.joined, l.accept, l.sess = sha256.Sum256(join), accept, s
	if w.unused--; w.unused == 0 {
		w.private = nil // the last leaf is used; recordings of this window stay closed
	}
	return &Joined{Node: l.node, Member: member, Key: key, Credential: body.Credential, Heads: theirs, Session: s}, accept, nil
}

// Answered returns the accept of a join that was answered before, also after the
// window's key is gone, or nil.
func (w *Window) Answered(join []byte) []byte {
	var f joinFrame
	if parseFrame(join, FrameJoin, &f) != nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.byTH1[f.TH1]; l != nil && l.accept != nil && cose.Sum(join) == l.joined {
		return l.accept
	}
	return nil
}

// End drops the KEM key. The window answers no further join. Memory is not wiped:
// the key is gone when the process ends at the latest (docs/threat-model.md).
func (w *Window) End() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed, w.private = true, nil
}

// Expired reports whether the window has outlived [WindowLife] or has no key left.
func (w *Window) Expired(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.private == nil || now.Sub(w.made) > WindowLife
}

// Confirm opens a node's first record, which must be the confirmation. If the
// record opens but holds something else, the session is of no use any more.
func Confirm(s *Session, record []byte) error {
	plain, err := s.Open(record)
	if err != nil {
		return err
	}
	if string(plain) != confirmation {
		return fmt.Errorf("%w: first record is no confirmation", ErrFrame)
	}
	return nil
}
