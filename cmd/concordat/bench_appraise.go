package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/attestation/nvgpu"
	"github.com/concordat/concordat/attestation/snp"
	"github.com/concordat/concordat/attestation/tdx"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
)

// benchAppraisals compares the appraisal of each platform's evidence with the signature
// verifications in it, by the standard library alone. Cold is the first appraisal of a
// process; after that, chains, lists and OCSP responses that were verified once are not
// verified again, and what remains is the report's own signature.
func benchAppraisals(ctx context.Context, d *demo) ([]ratio, error) {
	var all []ratio
	for _, platform := range []struct {
		name    string
		machine []string
		kind    attestation.Kind
		raw     func(*attested) (report verification, rest []verification, err error)
		cold    float64
		cached  float64 // 0: not compared
	}{
		{"snp", nil, attestation.KindSNP, (*attested).rawSNP, 1.25, 1.10},
		{"tdx", []string{"--platform", "tdx"}, attestation.KindTDX, (*attested).rawTDX, 1.5, 0},
		{"gpu", []string{"--gpus", "1"}, attestation.KindGPU, (*attested).rawGPU, 1.15, 1.3},
	} {
		a, err := newAttested(ctx, d, platform.name, platform.machine, platform.kind)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", platform.name, err)
		}
		report, rest, err := platform.raw(a)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", platform.name, err)
		}
		name := "appraise-" + platform.name
		all = append(all, ratio{name: name + "-cold", limit: fmt.Sprintf("the %d signatures that it verifies", 1+len(rest)), better: "lower", target: platform.cold,
			ours: func() error { verifier.Forget(); return a.appraise() },
			bound: func() error {
				for _, v := range append(rest, report) {
					if err := v(); err != nil {
						return err
					}
				}
				return nil
			}})
		if platform.cached > 0 {
			all = append(all, ratio{name: name, limit: "one P-384 verification: the report's", better: "lower", target: platform.cached,
				prepare: a.appraise, ours: a.appraise, bound: report})
		}
	}
	return all, nil
}

// verification is one signature verification.
type verification func() error

// attested is one item of evidence with what is needed to judge it.
type attested struct {
	kind   attestation.Kind
	raw    []byte
	ends   *attestation.Endorsements
	policy *policy.Policy
	data   []byte // what the evidence must hold
	at     time.Time
}

// newAttested makes a simulated machine and has it attest some claims. The policy is the
// demo's, but for the platforms that it accepts: those of the machine.
func newAttested(ctx context.Context, d *demo, name string, machine []string, kind attestation.Kind) (*attested, error) {
	c, err := loadChain(d.chain)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(d.dir, "bench-"+name+".json")
	if _, err := output(ctx, append([]string{d.sim, "machine", "--out", file}, machine...)...); err != nil {
		return nil, err
	}
	out, err := output(ctx, d.sim, "describe", "--machine", file)
	if err != nil {
		return nil, err
	}
	var is struct {
		Roots     []cose.Digest
		Platforms policy.Platforms
	}
	if err := json.Unmarshal(out, &is); err != nil {
		return nil, fmt.Errorf("describe: %w", err)
	}
	a := &attested{kind: kind, policy: c.Head(), at: time.Now()}
	a.policy.SimulatedRoots, a.policy.Platforms = is.Roots, is.Platforms
	key, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		return nil, err
	}
	window, err := session.NewWindow(c.Federation(), key, a.at)
	if err != nil {
		return nil, err
	}
	challenge, err := session.NewChallenge(c.Federation(), cose.Digest{1}, time.Now())
	if err != nil {
		return nil, err
	}
	if _, _, err := window.Add(challenge.Hello()); err != nil {
		return nil, err
	}
	claims := benchClaims(c.Federation(), a.policy, key, window, a.at)
	evidence, ends, err := attest(ctx, d.sim, file, claims)
	if err != nil {
		return nil, err
	}
	a.ends = ends
	for _, item := range evidence.Items {
		if item.Kind == kind {
			a.raw = item.Raw
		}
	}
	if a.raw == nil {
		return nil, fmt.Errorf("the machine gave no evidence of kind %s", kind)
	}
	report := attestation.ReportData(claims.Encode(), true)
	a.data = report[:]
	if kind == attestation.KindGPU {
		nonce := attestation.GPUNonce(claims, 0)
		a.data = nonce[:]
	}
	return a, a.appraise()
}

// appraise demands that nothing about the item is amiss.
func (a *attested) appraise() error {
	r, err := verifier.AppraiseItem(a.kind, a.raw, a.ends, a.policy, a.data, a.at)
	if err != nil {
		return err
	}
	if r.Verdict() != verifier.PassSimulated {
		return fmt.Errorf("the appraisal says %s: %+v", r.Verdict(), r.Checks())
	}
	return nil
}

// issued is the verification of a certificate's signature.
func issued(c, by *x509.Certificate) verification {
	return func() error { return by.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) }
}

// listed is that of a revocation list's.
func listed(l *x509.RevocationList, by *x509.Certificate) verification {
	return func() error { return by.CheckSignature(l.SignatureAlgorithm, l.RawTBSRevocationList, l.Signature) }
}

// ecdsaSigned is that of a raw signature over a digest.
func ecdsaSigned(key any, digest, r, s []byte) verification {
	k, ok := key.(*ecdsa.PublicKey)
	x, y := new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)
	return func() error {
		if !ok || !ecdsa.Verify(k, digest, x, y) {
			return errors.New("a signature does not verify")
		}
		return nil
	}
}

// certificates parses PEM.
func certificates(b []byte) (all []*x509.Certificate, err error) {
	for {
		var p *pem.Block
		if p, b = pem.Decode(b); p == nil {
			return all, nil
		}
		c, err := x509.ParseCertificate(p.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
}

// rawSNP is the report, the chip's certificate, both CAs and the revocation list.
func (a *attested) rawSNP() (verification, []verification, error) {
	report, err := snp.Parse(a.raw)
	if err != nil {
		return nil, nil, err
	}
	vcek, err := x509.ParseCertificate(a.ends.ByType(attestation.TypeAMDVCEK, nil)[0])
	if err != nil {
		return nil, nil, err
	}
	cas, err := certificates(a.ends.ByType(attestation.TypeAMDChain, nil)[0])
	if err != nil {
		return nil, nil, err
	}
	crl, err := x509.ParseRevocationList(a.ends.ByType(attestation.TypeAMDCRL, nil)[0])
	if err != nil {
		return nil, nil, err
	}
	ask, ark := cas[0], cas[1]
	digest := sha512.Sum384(snp.SignedPart(a.raw))
	return ecdsaSigned(vcek.PublicKey, digest[:], report.R[:], report.S[:]),
		[]verification{issued(vcek, ask), issued(ask, ark), issued(ark, ark), listed(crl, ark)}, nil
}

// rawTDX is the quote, the quoting enclave's report, two chains under one root, TCB info,
// QE identity, and two revocation lists.
func (a *attested) rawTDX() (verification, []verification, error) {
	q, err := tdx.Parse(a.raw)
	if err != nil {
		return nil, nil, err
	}
	pck, err := certificates(bytes.TrimRight(q.Chain, "\x00"))
	if err != nil {
		return nil, nil, err
	}
	col, err := tdx.ParseCollateral(a.ends.ByType(attestation.TypeIntelCollateral, nil)[0])
	if err != nil {
		return nil, nil, err
	}
	signers, err := certificates(col.TCBInfo.Chain)
	if err != nil {
		return nil, nil, err
	}
	rootCRL, err := x509.ParseRevocationList(col.RootCRL)
	if err != nil {
		return nil, nil, err
	}
	pckCRL, err := x509.ParseRevocationList(col.PCKCRL)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, q.AttestationKey[:]...))
	if err != nil {
		return nil, nil, err
	}
	raw := func(key any, message []byte, signature [64]byte) verification {
		digest := sha256.Sum256(message)
		return ecdsaSigned(key, digest[:], signature[:32], signature[32:])
	}
	leaf, ca, root, signer := pck[0], pck[1], pck[2], signers[0]
	return raw(key, q.Signed(), q.Signature), []verification{
		raw(leaf.PublicKey, q.QEReport.Marshal(), q.QESignature), issued(leaf, ca), issued(ca, root), issued(root, root), issued(signer, root),
		raw(signer.PublicKey, col.TCBInfo.Doc, col.TCBInfo.Signature), raw(signer.PublicKey, col.QEIdentity.Doc, col.QEIdentity.Signature),
		listed(rootCRL, root), listed(pckCRL, ca)}, nil
}

// rawGPU is the report, the chain below its root, and for each certificate between leaf
// and root an OCSP response and its signer's certificate.
func (a *attested) rawGPU() (verification, []verification, error) {
	chain, err := certificates(a.ends.ByType(attestation.TypeNVIDIAChain, nil)[0])
	if err != nil {
		return nil, nil, err
	}
	cut := len(a.raw) - nvgpu.SignatureSize
	digest := sha512.Sum384(a.raw[:cut])
	half := cut + nvgpu.SignatureSize/2
	var rest []verification
	for i, c := range chain[:len(chain)-1] {
		issuer := chain[i+1]
		rest = append(rest, issued(c, issuer))
		if i == 0 {
			continue // the device makes its leaf itself: nobody answers for it
		}
		for _, doc := range a.ends.ByType(attestation.TypeNVIDIAOCSP, nil) {
			r, err := ocsp.ParseResponseForCert(doc, c, issuer)
			if err != nil {
				continue // of another certificate
			}
			rest = append(rest, func() error { return r.CheckSignatureFrom(r.Certificate) }, issued(r.Certificate, issuer))
		}
	}
	return ecdsaSigned(chain[0].PublicKey, digest[:], a.raw[cut:half], a.raw[half:]), rest, nil
}

// fleetNodes is the size of a window that a large federation fills.
const fleetNodes = 10_000

// benchFleet has one window of an enclave answer ten thousand nodes with one piece of
// evidence, and says what a node more costs: a proof, in an offer.
func benchFleet(ctx context.Context, d *demo) (benchValue, error) {
	c, err := loadChain(d.chain)
	if err != nil {
		return benchValue{}, err
	}
	key, err := cose.GenerateSigner(cose.ES256)
	if err != nil {
		return benchValue{}, err
	}
	report, err := newAttested(ctx, d, "fleet", nil, attestation.KindSNP)
	if err != nil {
		return benchValue{}, err
	}
	verify, _, err := report.rawSNP()
	if err != nil {
		return benchValue{}, err
	}
	var hellos [][]byte
	for i := range fleetNodes {
		challenge, err := session.NewChallenge(c.Federation(), cose.Sum([]byte(fmt.Sprint(i))), time.Now())
		if err != nil {
			return benchValue{}, err
		}
		hellos = append(hellos, challenge.Hello())
	}
	var samples []float64
	var took, quote time.Duration
	var kept uint64
	for range 5 {
		at := time.Now()
		before := heap()
		window, err := session.NewWindow(c.Federation(), key, at)
		if err != nil {
			return benchValue{}, err
		}
		for _, h := range hellos {
			if _, _, err := window.Add(h); err != nil {
				return benchValue{}, err
			}
		}
		claims := benchClaims(c.Federation(), c.Head(), key, window, at) // closes it
		took = time.Since(at)
		start := time.Now()
		evidence, _, err := attest(ctx, d.sim, d.machine, claims)
		if err != nil {
			return benchValue{}, err
		}
		quote = time.Since(start)
		envelope := evidence.Encode()
		start = time.Now()
		offers := 0
		if err := window.Offers(claims.Encode(), envelope, session.LogProof{}, func(cose.Digest, []byte) error { offers++; return nil }); err != nil {
			return benchValue{}, err
		}
		took += time.Since(start)
		if offers != fleetNodes {
			return benchValue{}, fmt.Errorf("%d offers for %d nodes", offers, fleetNodes)
		}
		kept = heap() - min(before, heap())
		runtime.KeepAlive(window)
		start = time.Now()
		const verifications = 100
		for range verifications {
			if err := verify(); err != nil {
				return benchValue{}, err
			}
		}
		samples = append(samples, took.Seconds()/fleetNodes/(time.Since(start).Seconds()/verifications))
	}
	return newBenchValue("fleet", fmt.Sprintf("ratio to one P-384 verification, for each of %d nodes in a window: its hello, proof and offer; %s and %d bytes each, one call for evidence (%s)",
		fleetNodes, (took/fleetNodes).Round(100*time.Nanosecond), kept/fleetNodes, quote.Round(time.Millisecond)), "lower", 0.10, samples), nil
}

// heap is the memory in use, after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
