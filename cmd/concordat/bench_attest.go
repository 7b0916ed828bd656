package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

// joinsPerSample are joined in one sample of the ratio.
const joinsPerSample = 4

// benchJoin compares what a node and an enclave do when they meet with the public-key
// operations in it. The federation of d has ended; its keys, policy and
// machine are used again.
func benchJoin(ctx context.Context, d *demo) ([]ratio, error) {
	w, err := newMeeting(ctx, d, (benchWarmup+benchRounds)*joinsPerSample)
	if err != nil {
		return nil, err
	}
	return []ratio{w.join()}, nil
}

// meeting is one window of an enclave with many nodes that challenged it.
type meeting struct {
	policy  *policy.Policy
	window  *session.Window
	nodes   []guest
	ends    *attestation.Endorsements
	next    int // node that joins next
	at      time.Time
	enclave *cose.Signer
}

// guest is a node, with the offer that it got.
type guest struct {
	key        *cose.Signer
	credential []byte
	challenge  *session.Challenge
	offer      *session.Offer
	passed     verifier.Passed
}

// newMeeting brings n nodes of the first hospital to the point of joining.
func newMeeting(ctx context.Context, d *demo, n int) (*meeting, error) {
	c, err := loadChain(d.chain)
	if err != nil {
		return nil, err
	}
	w := &meeting{policy: c.Head(), at: time.Now()}
	issuer, err := keyfile.ReadSigner(d.members[0].at("member/issuer.key"))
	if err != nil {
		return nil, err
	}
	if w.enclave, err = cose.GenerateSigner(cose.ES256); err != nil {
		return nil, err
	}
	if w.window, err = session.NewWindow(c.Federation(), w.enclave, w.at); err != nil {
		return nil, err
	}
	for i := range n {
		var g guest
		if g.key, err = cose.GenerateSigner(cose.EdDSA); err != nil {
			return nil, err
		}
		if g.credential, err = policy.SignCredential(issuer, policy.NodeCredential{Federation: c.Federation(), Member: d.members[0].id,
			NodeKey: g.key.Public(), Serial: uint64(i + 1), NotAfter: uint64(w.at.Add(time.Hour).Unix())}); err != nil {
			return nil, err
		}
		if g.challenge, err = session.NewChallenge(c.Federation(), g.key.Public().ID(), time.Now()); err != nil {
			return nil, err
		}
		if _, _, err := w.window.Add(g.challenge.Hello()); err != nil {
			return nil, err
		}
		w.nodes = append(w.nodes, g)
	}
	if err := w.attest(ctx, d, c.Federation()); err != nil {
		return nil, err
	}
	for i := range w.nodes {
		if err := w.appraise(i); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// attest has the simulated machine attest the window, and gives every node its offer.
func (w *meeting) attest(ctx context.Context, d *demo, federation cose.Digest) error {
	claims := benchClaims(federation, w.policy, w.enclave, w.window, w.at)
	evidence, ends, err := attest(ctx, d.sim, d.machine, claims)
	if err != nil {
		return err
	}
	w.ends = ends
	i := 0
	return w.window.Offers(claims.Encode(), evidence.Encode(), session.LogProof{}, func(_ cose.Digest, frame []byte) error {
		g := &w.nodes[i]
		i++
		g.offer, err = g.challenge.Offer(frame, time.Now())
		return err
	})
}

// benchClaims closes a window and returns claims for it.
func benchClaims(federation cose.Digest, p *policy.Policy, key *cose.Signer, w *session.Window, at time.Time) *attestation.Claims {
	c := &attestation.Claims{
		Federation: federation, Policy: p.Digest(), PolicyVersion: p.Version, Instance: attestation.ID{1},
		Role: attestation.RoleAggregator, Epoch: 1, SignPub: key.Public(), KEMPub: w.KEMPublic(),
		Image: cose.Digest{1}, Config: cose.Digest{1}, Simulated: true, IssuedAt: uint64(at.Unix()),
	}
	c.NonceRoot, c.NonceCount = w.Close()
	return c
}

// attest has a simulated machine attest claims: one call.
func attest(ctx context.Context, sim, machine string, claims *attestation.Claims) (*attestation.Evidence, *attestation.Endorsements, error) {
	cmd := exec.CommandContext(ctx, sim, "evidence", "--machine", machine)
	cmd.Stdin = bytes.NewReader(claims.Encode())
	out, err := cmd.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("evidence: %w", err)
	}
	var made struct{ Evidence, Endorsements []byte }
	if err := json.Unmarshal(out, &made); err != nil {
		return nil, nil, fmt.Errorf("evidence: %w", err)
	}
	e, err := attestation.ParseEvidence(made.Evidence)
	if err != nil {
		return nil, nil, err
	}
	ends, err := attestation.ParseEndorsements(made.Endorsements)
	return e, ends, err
}

// appraise is what a node does before it joins.
func (w *meeting) appraise(i int) error {
	g := &w.nodes[i]
	r, err := verifier.Appraise(g.offer.Evidence, w.ends, w.policy, &g.offer.Nonce, w.at)
	if err != nil {
		return err
	}
	g.passed, err = r.Passed()
	return err
}

// join is a join, both sides of it, up to the enclave's counting the node as joined.
func (w *meeting) join() ratio {
	nobody := func(cose.Digest) bool { return false }
	heads := session.Heads{PolicyVersion: w.policy.Version, Policy: w.policy.Digest()}
	one := func(g *guest) error {
		j, join, err := g.challenge.Join(g.passed, g.offer, g.key, g.credential, heads)
		if err != nil {
			return err
		}
		joined, accept, err := w.window.Accept(join, w.policy, nobody, w.at, heads)
		if err != nil {
			return err
		}
		_, _, confirm, err := j.Finish(accept)
		if err != nil {
			return err
		}
		return session.Confirm(joined.Session, confirm)
	}
	bound := rawJoin()
	return ratio{name: "join", limit: "its KEM and signature operations", better: "lower", target: 1.25,
		ours: func() error {
			for range joinsPerSample {
				if err := one(&w.nodes[w.next]); err != nil {
					return err
				}
				w.next++
			}
			return nil
		},
		bound: func() error {
			for range joinsPerSample {
				if err := bound(); err != nil {
					return err
				}
			}
			return nil
		}}
}

// rawJoin returns a function that does the public-key operations of one join by the
// standard library alone: two encapsulations and two decapsulations with the suite of
// the protocol, one fresh key, two Ed25519 verifications and one signature, and one
// P-256 signature and its verification.
func rawJoin() func() error {
	kem, kdf, aead := hpke.MLKEM768X25519(), hpke.HKDFSHA256(), hpke.AES256GCM()
	window, err := kem.GenerateKey()
	must(err)
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	enclave, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	text := sha256.Sum256([]byte("transcript"))
	exchange := func(k hpke.PrivateKey) error {
		enc, _, err := hpke.NewSender(k.PublicKey(), kdf, aead, text[:])
		if err == nil {
			_, err = hpke.NewRecipient(enc, k, kdf, aead, text[:])
		}
		return err
	}
	return func() error {
		fresh, err := kem.GenerateKey()
		if err != nil {
			return err
		}
		if err := errors.Join(exchange(window), exchange(fresh)); err != nil {
			return err
		}
		sig := ed25519.Sign(priv, text[:])
		for range 2 { // of the credential and of the join
			if !ed25519.Verify(pub, text[:], sig) {
				return errors.New("Ed25519 signature does not verify")
			}
		}
		accept, err := ecdsa.SignASN1(rand.Reader, enclave, text[:])
		if err != nil {
			return err
		}
		if !ecdsa.VerifyASN1(&enclave.PublicKey, text[:], accept) {
			return errors.New("P-256 signature does not verify")
		}
		return nil
	}
}
