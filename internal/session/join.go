package session

import (
	"crypto/hpke"
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier"
)

// ChallengeLife is how long after its hello a node accepts evidence (protocol
// F18). The node measures it with its monotonic clock.
const ChallengeLife = 60 * time.Second

// Challenge is a node's open question to whichever enclave of its federation
// answers. Nothing of it is persisted.
type Challenge struct {
	federation, node Digest
	nonce            [32]byte
	hello            []byte
	made             time.Time
}

// NewChallenge asks for evidence for node (its key's ID) in federation. now must
// carry a monotonic reading, as time.Now returns it.
func NewChallenge(federation, node Digest, now time.Time) (*Challenge, error) {
	c := &Challenge{federation: federation, node: node, made: now}
	if _, err := rand.Read(c.nonce[:]); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	c.hello = cose.Marshal(helloFrame{Label: label(FrameHello), Federation: federation, Node: node, Nonce: c.nonce[:]})
	return c, nil
}

// Hello returns the frame to send. The caller must not change it.
func (c *Challenge) Hello() []byte { return c.hello }

// Offer is an enclave's answer, parsed and not yet appraised: every byte of it is
// a claim of the link.
type Offer struct {
	Claims   []byte // exactly as hashed into the report data
	Envelope []byte // the attestation.Evidence, encoded; its claims are Claims
	Evidence *attestation.Evidence
	Nonce    attestation.NonceProof
	LogProof LogProof
}

// Offer parses the answer and puts this challenge's nonce and node beside its
// proof. It checks the timer, the form and that the claims are of this
// federation: the caller appraises next. The errors wrap [ErrFrame],
// [ErrBinding] or [ErrExpired].
func (c *Challenge) Offer(raw []byte, now time.Time) (*Offer, error) {
	if age := now.Sub(c.made); age < 0 || age > ChallengeLife {
		return nil, fmt.Errorf("%w: evidence came %s after the hello, limit %s", ErrExpired, age.Round(time.Second), ChallengeLife)
	}
	var f offerFrame
	if err := parseFrame(raw, FrameOffer, &f); err != nil {
		return nil, err
	}
	if len(f.Path) > 63 || len(f.LogProof.Path) > 63 {
		return nil, fmt.Errorf("%w: proof of more than 63 elements", ErrFrame)
	}
	claims, err := attestation.ParseClaims(f.Claims)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if claims.Federation != c.federation {
		return nil, fmt.Errorf("%w: offer of federation %s", ErrBinding, claims.Federation.Short())
	}
	evidence, err := attestation.ParseEvidence(f.Evidence)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if subtle.ConstantTimeCompare(evidence.Claims, f.Claims) != 1 {
		return nil, fmt.Errorf("%w: the evidence is for other claims", ErrBinding)
	}
	return &Offer{
		Claims:   f.Claims,
		Envelope: f.Evidence,
		Evidence: evidence,
		Nonce:    attestation.NonceProof{Node: c.node, Nonce: c.nonce, Index: f.Index, Count: claims.NonceCount, Path: f.Path},
		LogProof: f.LogProof,
	}, nil
}

// Joining is a join that was sent and waits for its accept. It is not safe for
// concurrent use.
type Joining struct {
	th2       Digest
	sender    *hpke.Sender
	ephemeral hpke.PrivateKey
	enclave   cose.Key
}

// Join makes the join frame for the enclave whose evidence passed. p must be the
// result for o, and o of this challenge: anything else is [ErrBinding]. self is
// the node's key, credential its member's statement about it, heads the newest
// history that the node knows.
func (c *Challenge) Join(p verifier.Passed, o *Offer, self *cose.Signer, credential []byte, heads Heads) (*Joining, []byte, error) {
	claims := p.Claims()
	if claims == nil || subtle.ConstantTimeCompare(claims.Encode(), o.Claims) != 1 || claims.Federation != c.federation {
		return nil, nil, fmt.Errorf("%w: the appraisal is of other claims", ErrBinding)
	}
	// A pass says that a challenge of this node was answered; it must be this one.
	if o.Nonce.Node != c.node || o.Nonce.Nonce != c.nonce {
		return nil, nil, fmt.Errorf("%w: the offer answers another challenge", ErrBinding)
	}
	if err := o.Nonce.Verify(claims.NonceRoot, claims.NonceCount); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrBinding, err)
	}
	if self.Public().ID() != c.node {
		return nil, nil, fmt.Errorf("%w: the hello names another node", ErrBinding)
	}
	pub, err := kem.NewPublicKey(claims.KEMPub)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: the enclave's KEM key: %w", ErrFrame, err)
	}
	th1 := transcript1(c.hello, o.Claims, o.Envelope)
	enc, sender, err := hpke.NewSender(pub, kdf, aead, info("n2e", th1))
	if err != nil {
		return nil, nil, fmt.Errorf("session: %w", err)
	}
	ephemeral, err := kem.GenerateKey()
	if err != nil {
		return nil, nil, fmt.Errorf("session: %w", err)
	}
	body := joinBody{Credential: credential, Ephemeral: ephemeral.PublicKey().Bytes(), Heads: heads.Encode()}
	if body.Signature, err = self.SignRaw(joinSignatureInput(th1, enc, body.Credential, body.Ephemeral, body.Heads)); err != nil {
		return nil, nil, fmt.Errorf("session: %w", err)
	}
	sealed, err := sender.Seal(th1[:], cose.Marshal(body))
	if err != nil {
		return nil, nil, fmt.Errorf("session: %w", err)
	}
	join := cose.Marshal(joinFrame{Label: label(FrameJoin), TH1: th1, Enc: enc, Sealed: sealed})
	if len(join) > MaxJoin {
		return nil, nil, fmt.Errorf("session: join of %d bytes, limit %d", len(join), MaxJoin)
	}
	return &Joining{th2: transcript2(th1, join), sender: sender, ephemeral: ephemeral, enclave: claims.SignPub}, join, nil
}

// Finish reads the accept: that it opens proves that the enclave holds the window's
// KEM key now. It returns the session, the enclave's heads, and the confirmation
// frame, which the caller sends before any other record; until then the node
// does not count as joined. The ephemeral key is dropped on success. A refused
// accept changes nothing, for the link can forge one at any time: whoever gives up
// waiting drops j.
func (j *Joining) Finish(accept []byte) (s *Session, heads Heads, confirm []byte, err error) {
	var f acceptFrame
	if err := parseFrame(accept, FrameAccept, &f); err != nil {
		return nil, Heads{}, nil, err
	}
	if j.ephemeral == nil {
		return nil, Heads{}, nil, fmt.Errorf("%w: this join has ended", ErrUsed)
	}
	th3 := transcript3(j.th2, f.Enc2)
	r, err := hpke.NewRecipient(f.Enc2, j.ephemeral, kdf, aead, info("e2n", j.th2))
	if err != nil {
		return nil, Heads{}, nil, fmt.Errorf("%w: accept: %w", ErrBinding, err)
	}
	s, err = newSession(j.sender, r, th3, true)
	if err != nil {
		return nil, Heads{}, nil, err
	}
	plain, err := s.in.aead.Open(nil, counterNonce(0), f.Sealed, th3[:])
	if err != nil {
		return nil, Heads{}, nil, fmt.Errorf("%w: accept does not open", ErrBinding)
	}
	s.in.next = 1
	var body acceptBody
	if err := cose.Unmarshal(plain, &body); err != nil {
		return nil, Heads{}, nil, fmt.Errorf("%w: accept: %w", ErrFrame, err)
	}
	if subtle.ConstantTimeCompare(body.SID, s.id[:]) != 1 {
		return nil, Heads{}, nil, fmt.Errorf("%w: accept names another session", ErrBinding)
	}
	if err := j.enclave.VerifyRaw(acceptSignatureInput(th3), body.Signature); err != nil {
		return nil, Heads{}, nil, fmt.Errorf("%w: accept: %w", ErrBinding, err)
	}
	if heads, err = parseHeads(body.Heads); err != nil {
		return nil, Heads{}, nil, err
	}
	j.ephemeral, j.sender = nil, nil
	confirm, err = s.Seal([]byte(confirmation))
	if err != nil {
		return nil, Heads{}, nil, err
	}
	return s, heads, confirm, nil
}

// confirmation is the content of a node's record 0.
const confirmation = prefix + "confirm"
