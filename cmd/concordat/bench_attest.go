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
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os/exec"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/keyfile"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

// joinsPerSample are joined in one sample of the ratio.
const joinsPerSample = 4

// benchAttestation compares what a node and an enclave do when they meet with the
// public-key operations in it. The federation of d has ended; its keys, policy and
// machine are used again.
func benchAttestation(ctx context.Context, d *demo) ([]ratio, error) {
	w, err := newMeeting(ctx, d, (benchWarmup+benchRounds)*joinsPerSample)
	if err != nil {
		return nil, err
	}
	raw, err := w.rawSNP()
	if err != nil {
		return nil, err
	}
	appraisal := ratio{name: "appraise-snp", limit: "the signatures that it verifies", better: "lower", target: 1.15,
		ours: func() error { return w.appraise(0) }, bound: raw}
	return []ratio{appraisal, w.join()}, nil
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
	claims := attestation.Claims{
		Federation: federation, Policy: w.policy.Digest(), PolicyVersion: w.policy.Version, Instance: attestation.ID{1},
		Role: attestation.RoleAggregator, Epoch: 1, SignPub: w.enclave.Public(), KEMPub: w.window.KEMPublic(),
		Image: cose.Digest{1}, Config: cose.Digest{1}, Simulated: true, IssuedAt: uint64(w.at.Unix()),
	}
	claims.NonceRoot, claims.NonceCount = w.window.Close()
	cmd := exec.CommandContext(ctx, d.sim, "evidence", "--machine", d.machine)
	cmd.Stdin = bytes.NewReader(claims.Encode())
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	var made struct{ Evidence, Endorsements []byte }
	if err := json.Unmarshal(out, &made); err != nil {
		return fmt.Errorf("evidence: %w", err)
	}
	if w.ends, err = attestation.ParseEndorsements(made.Endorsements); err != nil {
		return err
	}
	i := 0
	return w.window.Offers(claims.Encode(), made.Evidence, session.LogProof{}, func(_ cose.Digest, frame []byte) error {
		g := &w.nodes[i]
		i++
		g.offer, err = g.challenge.Offer(frame, time.Now())
		return err
	})
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

// rawSNP returns a function that verifies the same signatures as an appraisal, by the
// standard library alone: the report's, the chip certificate's, the two of the CAs,
// and the revocation list's.
func (w *meeting) rawSNP() (func() error, error) {
	raw := w.nodes[0].offer.Evidence.Items[0].Raw
	report, err := snp.Parse(raw)
	if err != nil {
		return nil, err
	}
	vcek, err := x509.ParseCertificate(w.ends.ByType(attestation.TypeAMDVCEK, nil)[0])
	if err != nil {
		return nil, err
	}
	first, rest := pem.Decode(w.ends.ByType(attestation.TypeAMDChain, nil)[0])
	second, _ := pem.Decode(rest)
	ask, err := x509.ParseCertificate(first.Bytes)
	if err != nil {
		return nil, err
	}
	ark, err := x509.ParseCertificate(second.Bytes)
	if err != nil {
		return nil, err
	}
	crl, err := x509.ParseRevocationList(w.ends.ByType(attestation.TypeAMDCRL, nil)[0])
	if err != nil {
		return nil, err
	}
	pub, ok := vcek.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return nil, errors.New("the chip's key is no ECDSA key")
	}
	r, s := new(big.Int).SetBytes(report.R[:]), new(big.Int).SetBytes(report.S[:])
	verify := func() error {
		digest := sha512.Sum384(snp.SignedPart(raw))
		if !ecdsa.Verify(pub, digest[:], r, s) {
			return errors.New("the report's signature does not verify")
		}
		return errors.Join(
			ask.CheckSignature(vcek.SignatureAlgorithm, vcek.RawTBSCertificate, vcek.Signature),
			ark.CheckSignature(ask.SignatureAlgorithm, ask.RawTBSCertificate, ask.Signature),
			ark.CheckSignature(ark.SignatureAlgorithm, ark.RawTBSCertificate, ark.Signature),
			ark.CheckSignature(crl.SignatureAlgorithm, crl.RawTBSRevocationList, crl.Signature))
	}
	return verify, verify()
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
