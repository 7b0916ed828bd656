package ci_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
)

// TestSignedApp: an app that no policy lists runs once as many of its signers as the policy
// wants have signed it, in the log, and no longer once a member has denied their keys. An
// officer sees who signed.
func TestSignedApp(t *testing.T) {
	t.Parallel()
	var signers []*cose.Signer
	for range 3 {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s, err := cose.NewSigner(k)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, s)
	}
	f := ci.StartFederation(t, ci.Policy(func(p *policy.Policy) {
		a := policy.SignedApp{App: "ci/app", Threshold: 2, Strategies: []string{"fedavg"}, MaxRounds: 3}
		for _, s := range signers {
			a.Signers = append(a.Signers, s.Public())
		}
		slices.SortFunc(a.Signers, func(a, b cose.Key) int { return bytes.Compare(a.Encode(), b.Encode()) })
		p.Apps, p.SignedApps = nil, []policy.SignedApp{a}
	}))
	joined(t, f.Nodes...)
	refused := func(what string) {
		t.Helper()
		q := node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: 2, Initial: initial(t)}
		req, err := f.Nodes[0].Node.StartRun(t.Context(), q)
		if err != nil {
			return // here already
		}
		f.Nodes[0].Await(t, "the refusal with "+what, func(e node.Event) bool {
			return e.Request == req && (e.Kind == "refused" || e.Kind == "ended" && e.Outcome == "failed")
		})
	}
	publish := func(n *ci.Node, s *cose.Signer, version string, signed uint64) {
		t.Helper()
		raw, err := policy.SignApp(s, policy.AppSignature{Federation: f.Chain.Federation(), App: "ci/app", Version: version, Digest: f.App()})
		if err != nil {
			t.Fatal(err)
		}
		p, err := n.Node.PublishApp(t.Context(), raw)
		if err != nil || p.Signed != signed || p.Threshold != 2 || p.Logged {
			t.Fatalf("published %+v, %v", p, err)
		}
		for _, n := range f.Nodes {
			n.Await(t, "the signature of "+version, func(e node.Event) bool {
				return e.Kind == "signed" && bytes.Contains([]byte(e.Reason), []byte(version))
			})
		}
		if p, err := n.Node.PublishApp(t.Context(), raw); err != nil || !p.Logged {
			t.Errorf("published again: %+v, %v", p, err)
		}
	}

	refused("no signature")
	publish(f.Nodes[0], signers[0], "1.0.0", 1)
	publish(f.Nodes[0], signers[0], "1.0.0-again", 1) // the same signer
	refused("one signer")
	stranger, err := cose.GenerateSigner(cose.EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := policy.SignApp(stranger, policy.AppSignature{Federation: f.Chain.Federation(), App: "ci/app", Version: "1", Digest: f.App()})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"a stranger's": raw, "none": nil, "a denial": denial(t, f, f.Members[0], policy.DenyKey, make([]byte, 32))} {
		if _, err := f.Nodes[1].Node.PublishApp(t.Context(), b); !errors.Is(err, node.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	publish(f.Nodes[1], signers[2], "1.0.0-other", 2)

	// The enclave may see the checkpoint a moment after the nodes.
	var e node.Event
	for range 20 {
		req := start(t, f, f.Nodes[0], 1, nil)
		e = f.Nodes[0].Await(t, "what becomes of the run", func(e node.Event) bool { return e.Request == req && (e.Kind == "refused" || e.Kind == "ended") })
		if e.Kind == "ended" {
			break
		}
	}
	if e.Outcome != "completed" {
		t.Fatalf("run of a signed app: %+v", e)
	}
	for _, n := range f.Nodes {
		n.Await(t, "the end", func(x node.Event) bool { return x.Kind == "ended" && x.Run == e.Run })
		report := verifies(t, f, n, e.Run)
		if r := report.Runs[0]; r.AppName != "ci/app" || len(r.Signers) != 2 || !slices.Contains(r.Signers, signers[2].Public().ID()) {
			t.Errorf("%s: app %q signed by %v", n.Name, r.AppName, r.Signers)
		}
	}

	// A member denies one of the keys: what it signed counts no more, for anybody.
	id := signers[0].Public().ID()
	if _, err := f.Nodes[2].Node.Deny(denial(t, f, f.Members[2], policy.DenyKey, id[:])); err != nil {
		t.Fatal(err)
	}
	for _, n := range f.Nodes {
		n.AwaitKind(t, "denied")
	}
	refused("a denied signer")
	publish(f.Nodes[0], signers[1], "1.0.0-third", 2)
}
