package verifier

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier/receipt"
)

// TestResultsInBundle: what a node kept of its appraisal is appraised again, and only the
// same bytes by the node that was challenged pass.
func TestResultsInBundle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	node := w.nodes[0]
	id := node.key.Public().ID()
	var tree attestation.NonceTree
	if _, err := tree.Add(id, [32]byte{7}); err != nil {
		t.Fatal(err)
	}
	e := w.boot(func(c *attestation.Claims) { c.NonceRoot = tree.Root() })
	r := e.begin()
	r.step(e, receipt.OpensTrain, 1, nil, true)
	r.step(e, receipt.OpensNone, 1, w.nodes, true)
	r.end(e)
	good := w.bundle()

	var evidence *attestation.Evidence
	for k, raw := range w.blobs {
		if k.role == receipt.RoleEvidence {
			var err error
			if evidence, err = attestation.ParseEvidence(raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	ends := new(attestation.Endorsements)
	for _, d := range evidence.Items[0].Endorsements {
		if _, err := ends.Add(w.docs[d]); err != nil {
			t.Fatal(err)
		}
	}
	proof := tree.Proof(0)
	proof.Node, proof.Nonce = id, [32]byte{7}
	kept := func(signer *cose.Signer, issuer string, nonce *attestation.NonceProof, edit func(*EAR)) []byte {
		t.Helper()
		res, err := Appraise(evidence, ends, w.policy, nonce, now)
		if err != nil {
			t.Fatal(err)
		}
		if res.Verdict() != PassSimulated {
			t.Fatalf("%s: %s", res.Verdict(), res.obstacle(res.Verdict()))
		}
		payload, subject := res.EAR(), res.evidence
		if edit != nil {
			ear, err := ParseEAR(payload)
			if err != nil {
				t.Fatal(err)
			}
			edit(ear)
			payload, subject = cose.Marshal(*ear), ear.Concordat.Evidence
		}
		raw, err := cose.Sign(signer, cose.Header{Type: typeEAR, Issuer: issuer, Subject: subject.String()}, payload, nil)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	own := receipt.NodeIssuer(id)
	flipped := kept(node.key, own, proof, nil)
	flipped[len(flipped)-1] ^= 1
	for name, c := range map[string]struct {
		result []byte
		want   Verdict
	}{
		"as it was":            {kept(node.key, own, proof, nil), PassSimulated},
		"flipped":              {flipped, Fail},
		"another's key":        {kept(w.nodes[1].key, own, proof, nil), Fail},
		"another's challenge":  {kept(w.nodes[1].key, receipt.NodeIssuer(w.nodes[1].key.Public().ID()), proof, nil), Fail},
		"no challenge":         {kept(node.key, own, nil, nil), Fail},
		"nobody's":             {kept(key("a stranger"), receipt.NodeIssuer(key("a stranger").Public().ID()), proof, nil), Incomplete},
		"an enclave's":         {kept(e.key, receipt.EnclaveIssuer(e.instance), proof, nil), Incomplete},
		"better than it was":   {kept(node.key, own, proof, func(x *EAR) { x.Concordat.Verdict = "pass"; x.Concordat.Simulated = false }), Fail},
		"a check left out":     {kept(node.key, own, proof, func(x *EAR) { x.Concordat.Checks = x.Concordat.Checks[1:] }), Fail},
		"of another time":      {kept(node.key, own, proof, func(x *EAR) { x.IssuedAt += 24 * 3600 * 3650 }), Fail},
		"by another policy":    {kept(node.key, own, proof, func(x *EAR) { x.Concordat.Policy[0] ^= 1 }), Fail},
		"of other evidence":    {kept(node.key, own, proof, func(x *EAR) { x.Concordat.Evidence[0] ^= 1 }), Incomplete},
		"with another's proof": {kept(node.key, own, proof, func(x *EAR) { x.Concordat.Challenge.Nonce[0] ^= 1; x.Nonce = x.Concordat.Challenge.Nonce[:] }), Fail},
		"no result":            {[]byte("no result"), Fail},
		"empty":                {nil, Fail},
	} {
		report, err := VerifyBundle(context.Background(), bytes.NewReader(good), w.trust(), time.Time{}, nil, c.result)
		if err != nil {
			t.Fatal(err)
		}
		if report.Verdict != c.want || len(report.Results) != 1 || report.Results[0].Same != (c.want == PassSimulated) {
			t.Errorf("%s: %s, %+v\n%s", name, report.Verdict, report.Results, report.Text())
		}
	}
}
