package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower/fab"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/policy/source"
)

const (
	fabFile   = "../../internal/flower/fab/testdata/flwr-1.29.0.fab"
	fabDigest = "2f7efea5085c9ea8e298cb3fd62e7e1b672e03343bcb1c93dcb06f4efbbf32b8"
)

func (n *tellingNode) ApproveApp(_ context.Context, q *concordatv1.ApproveAppRequest) (*concordatv1.ApproveAppResponse, error) {
	b, err := fab.Parse(q.GetFab())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	n.approved = &concordatv1.App{Digest: b.Digest[:], Kind: "fab", Name: b.ID(), Version: b.Version, Strategy: b.Strategy}
	return &concordatv1.ApproveAppResponse{App: n.approved}, nil
}

func (n *tellingNode) RevokeApp(_ context.Context, q *concordatv1.RevokeAppRequest) (*concordatv1.RevokeAppResponse, error) {
	if n.approved == nil || !bytes.Equal(q.GetDigest(), n.approved.Digest) {
		return nil, status.Error(codes.NotFound, "not approved")
	}
	n.approved = nil
	return &concordatv1.RevokeAppResponse{}, nil
}

func (n *tellingNode) ListApps(context.Context, *concordatv1.ListAppsRequest) (*concordatv1.ListAppsResponse, error) {
	r := &concordatv1.ListAppsResponse{Apps: []*concordatv1.App{{Digest: bytes.Repeat([]byte{0x2f}, 32), Kind: "executable", Name: "/opt/app", InPolicy: true}}}
	if n.approved != nil {
		r.Apps = append(r.Apps, n.approved)
	}
	return r, nil
}

func (n *tellingNode) PublishApp(_ context.Context, q *concordatv1.PublishAppRequest) (*concordatv1.PublishAppResponse, error) {
	p := n.signers
	if p == nil {
		return nil, status.Error(codes.InvalidArgument, "no signers")
	}
	a, key, err := p.VerifyAppSignature(q.GetSignature())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &concordatv1.PublishAppResponse{Name: a.App, Version: a.Version, Digest: a.Digest[:], Signer: key[:], Signed: 1, Threshold: 2}, nil
}

// TestAppSign: a key of "app key", in the policy, signs a bundle of its app, and no other.
func TestAppSign(t *testing.T) {
	t.Parallel()
	n, address := listening(t)
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) (string, error) {
		root := newRootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append([]string{"app"}, args...))
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	var made struct{ Key, ID string }
	for _, name := range []string{"app.key", "stranger.key"} {
		out, err := run("key", "--out", path(name), "--output", "json")
		if err != nil {
			t.Fatal(err)
		}
		if name == "app.key" {
			if err := json.Unmarshal([]byte(out), &made); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := run("key", "--out", path("app.key")); err == nil {
		t.Error("a key was overwritten")
	}
	k, err := source.ParseKey(made.Key)
	if err != nil {
		t.Fatal(err)
	}
	p := simulatedPolicy()
	p.SimulatedRoots, p.Platforms = []policy.Digest{{1}}, policy.Platforms{TDX: &policy.TDX{MRTD: []policy.Hex{make([]byte, 48)}, Statuses: []string{"UpToDate"}, MinEvaluation: 1, AnyPlatform: true, XFAMMask: 3, MRSignerSEAM: make([]byte, 48)}}
	p.SignedApps = []policy.SignedApp{{App: "concordat/quickstart", Signers: []cose.Key{k, testKey("other").Public()}, Threshold: 2, Strategies: []string{"fedavg"}, MaxRounds: 5}}
	slices.SortFunc(p.SignedApps[0].Signers, func(a, b cose.Key) int { return bytes.Compare(a.Encode(), b.Encode()) })
	var approvals [][]byte
	for _, m := range p.Members[:p.Approvals] {
		a, err := policy.Approve(testKey(string(m.ID)+" policy"), m.ID, p)
		if err != nil {
			t.Fatal(err)
		}
		approvals = append(approvals, a)
	}
	chain, err := policy.NewChain(p.Encode(), approvals)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path("federation.policy"), chain.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	n.signers = p
	sign := func(key string) (string, error) {
		return run("sign", fabFile, "--key", path(key), "--policy", path("federation.policy"), "--out", path(key+".sig"))
	}
	if out, err := sign("stranger.key"); err == nil || !strings.Contains(err.Error(), "is no key of a signer of concordat/quickstart") {
		t.Errorf("a stranger signs: %v\n%s", err, out)
	}
	if out, err := sign("app.key"); err != nil || !strings.Contains(out, "signed concordat/quickstart 1.0.0, digest "+fabDigest) || !strings.Contains(out, "wants 2 of its 2 signers") {
		t.Fatalf("sign: %v\n%s", err, out)
	}
	if out, err := run("publish", path("app.key.sig"), "--control", address); err != nil || !strings.Contains(out, "digest "+fabDigest+": signed by 1, the policy wants 2") {
		t.Errorf("publish: %v\n%s", err, out)
	}
	if _, err := run("publish", path("federation.policy"), "--control", address); err == nil {
		t.Error("a policy was published as a signature")
	}
}

func (n *tellingNode) StopRun(_ context.Context, q *concordatv1.StopRunRequest) (*concordatv1.StopRunResponse, error) {
	n.stopped = q.GetRequest()
	return &concordatv1.StopRunResponse{}, nil
}

func TestAppCommands(t *testing.T) {
	t.Parallel()
	_, address := listening(t)
	run := func(args ...string) (string, error) {
		root := newRootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		if args[0] != "show" {
			args = append(args, "--control", address)
		}
		root.SetArgs(append([]string{"app"}, args...))
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
	out, err := run("show", fabFile)
	if err != nil || !strings.Contains(out, "digest     "+fabDigest) || !strings.Contains(out, "config     epochs = 20") || !strings.Contains(out, "quickstart/task.py") {
		t.Errorf("show: %v\n%s", err, out)
	}
	var shown struct {
		Digest, Strategy string
		Files            []struct{ Path string }
	}
	digests := map[string]bool{}
	for _, c := range [][]string{nil, {"--run-config", "epochs=7"}, {"-c", "epochs=8"}, {"-c", "epochs=7", "-c", `concordat.strategy="fedadam"`}} {
		var v struct {
			Config map[string]any `json:"config"`
			Digest string         `json:"config_digest"`
		}
		if out, err = run(append([]string{"show", fabFile, "--output", "json"}, c...)...); err != nil || json.Unmarshal([]byte(out), &v) != nil || len(v.Digest) != 64 || len(v.Config) == 0 {
			t.Errorf("%v: %v\n%s", c, err, out)
		}
		digests[v.Digest] = true
	}
	if len(digests) != 3 { // the last is the second's: what is Concordat's own is not the app's
		t.Errorf("%d digests of configs, want 3", len(digests))
	}
	for _, c := range []string{"no-such-key=1", "epochs", "epochs=[1]"} {
		if _, err := run("show", fabFile, "-c", c); err == nil {
			t.Errorf("an override %s passes", c)
		}
	}
	if out, err = run("show", fabFile, "--output", "json"); err != nil || json.Unmarshal([]byte(out), &shown) != nil || shown.Digest != fabDigest || shown.Strategy != "fedavg" || len(shown.Files) != 5 {
		t.Errorf("show --output json: %v\n%s", err, out)
	}
	if out, err := run("approve", fabFile); err != nil || !strings.Contains(out, "approved concordat/quickstart 1.0.0, digest "+fabDigest) || !strings.Contains(out, "policy does not list it yet") {
		t.Errorf("approve: %v\n%s", err, out)
	}
	if out, err := run("list"); err != nil || strings.Count(out, "\n") != 3 || !strings.Contains(out, "concordat/quickstart") || !strings.Contains(out, "/opt/app") {
		t.Errorf("list: %v\n%s", err, out)
	}
	for _, bad := range []string{"", "ff", "2f2f"} { // nothing, nobody's, an executable's
		if _, err := run("revoke", bad); err == nil {
			t.Errorf("revoked %q", bad)
		}
	}
	if out, err := run("revoke", "2f7EFE"); err != nil || out != "revoked concordat/quickstart 1.0.0\n" {
		t.Errorf("revoke: %q, %v", out, err)
	}
	broken := filepath.Join(t.TempDir(), "broken.fab")
	if err := os.WriteFile(broken, []byte("no zip"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"show", broken}, {"approve", broken}, {"show", broken + "2"}} {
		if _, err := run(c...); err == nil || !strings.Contains(err.Error(), broken) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

func TestRunStop(t *testing.T) {
	t.Parallel()
	n, run := controlled(t)
	if _, err := run("stop", "a1"); err == nil || !strings.Contains(err.Error(), "has ended: completed") {
		t.Errorf("stop of a run that has ended: %v", err)
	}
	if _, err := run("stop", "ff"); err == nil || n.stopped != nil {
		t.Errorf("stop of no run: %v", err)
	}
}

// A node that serves the flwr command without being told how to run apps, or to others
// than its own machine, does not start.
func TestFlowerControlFlag(t *testing.T) {
	t.Parallel()
	root := newRootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs([]string{"node", "--link", "x:1", "--key", "k", "--policy", "p", "--data", t.TempDir(), "--flower-control", "127.0.0.1:0"})
	if err := root.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "no flower section") {
		t.Errorf("%v", err)
	}
}
