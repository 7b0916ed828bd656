package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/policy"
)

// TestMain is the program itself where a test starts it under its name: the release
// binary's main, without a seam.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "concordat-enclave" {
		main()
	}
	os.Exit(m.Run())
}

// start runs the program and returns its exit status and what it wrote.
func start(t *testing.T, args ...string) (int, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "concordat-enclave")
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit == nil {
		return 0, string(out)
	}
	return exit.ExitCode(), string(out)
}

func key(words string) *cose.Signer {
	seed := sha256.Sum256([]byte(words))
	s, err := cose.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		panic(err)
	}
	return s
}

// noteKey returns a C2SP verifier key (typ 1: Ed25519, 4: cosignature).
func noteKey(name string, typ byte) string {
	data := append([]byte{typ}, key(name).Public().Public().(ed25519.PublicKey)...)
	h := sha256.Sum256(slices.Concat([]byte(name), []byte{'\n'}, data))
	return fmt.Sprintf("%s+%x+%s", name, h[:4], base64.StdEncoding.EncodeToString(data))
}

// chain writes the signed policy chain of a federation whose enclaves are SEV-SNP.
func chain(t *testing.T, simulated bool) string {
	t.Helper()
	p := &policy.Policy{
		Schema: policy.Schema, Version: 1, Name: "test", Approvals: 2, Simulated: simulated,
		Platforms: policy.Platforms{SNP: &policy.SNP{
			Products: []string{"Genoa"}, Measurements: []policy.Hex{make([]byte, 48)},
			MinTCB: []policy.ProdTCB{{Product: "Genoa"}}, AnyChip: true, MinVersion: 3,
		}},
		Evidence: policy.Evidence{MaxAge: 600, MaxCollateralAge: 30 * 86400, MaxEpochAge: 86400, MaxRoundsPerEpoch: 100},
		Log:      policy.Log{Origin: "log.example", Key: noteKey("log.example", 1), Witnesses: 1, MaxUnpublishedSteps: 1, DenialLag: 60},
		Release: policy.Release{
			MinContributors: 2, MaxWeightShare: 600, Cohort: policy.CohortFixed, Dropouts: policy.DropoutsRefuse,
			Downlink: policy.DownlinkShared, MaxMetricBytes: 1024, StepDeadline: 60, AckDeadline: 60,
		},
		Apps:  []policy.App{{Digest: policy.Digest{1}, Name: "app", Exposure: policy.ExposureAggregate, Strategies: []string{"fedavg"}, MaxRounds: 10}},
		Nodes: policy.NodeRules{MessageTypes: []string{"train"}, MetricKeys: []string{"loss"}, CredentialAge: 86400},
	}
	if simulated {
		p.SimulatedRoots = []policy.Digest{{1}}
	}
	members := []policy.MemberID{"a", "b", "c"}
	for _, id := range members {
		p.Members = append(p.Members, policy.Member{
			ID: id, PolicyKeys: []cose.Key{key(string(id) + " policy").Public()}, IssuerKey: key(string(id) + " issuer").Public(),
			WitnessKey: noteKey(string(id)+".example/witness", 4),
		})
	}
	var approvals [][]byte
	for _, id := range members[:2] {
		a, err := policy.Approve(key(string(id)+" policy"), id, p)
		if err != nil {
			t.Fatal(err)
		}
		approvals = append(approvals, a)
	}
	c, err := policy.NewChain(p.Encode(), approvals)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "policy.cbor")
	if err := os.WriteFile(path, c.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWithoutTEE: on a machine that is no confidential VM the program says so and
// ends. It does not get as far as the link.
func TestWithoutTEE(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"/sys/kernel/config/tsm/report", "/dev/sev-guest", "/dev/tdx_guest"} {
		if _, err := os.Stat(p); err == nil {
			t.Skipf("skipped: %s is there, so this may be a confidential VM", p)
		}
	}
	status, out := start(t, "--link", "127.0.0.1:1", "--policy", chain(t, false))
	if status != 4 || !strings.Contains(out, "this machine cannot attest itself: it needs a confidential VM (SEV-SNP or TDX)") {
		t.Errorf("status %d, want 4: %s", status, out)
	}
}

// TestNothingSimulated: a simulated federation's policy gets no real machine, and there
// is no flag that makes one.
func TestNothingSimulated(t *testing.T) {
	t.Parallel()
	status, out := start(t, "--link", "127.0.0.1:1", "--policy", chain(t, true))
	if status != 1 || !strings.Contains(out, "simulated federation") {
		t.Errorf("status %d, want 1: %s", status, out)
	}
	status, out = start(t, "--link", "127.0.0.1:1", "--policy", chain(t, false), "--machine", "machine.json")
	if status != 2 || !strings.Contains(out, "flag provided but not defined: -machine") {
		t.Errorf("status %d, want 2: %s", status, out)
	}
}

func TestMisused(t *testing.T) {
	t.Parallel()
	good := chain(t, false)
	bad := filepath.Join(t.TempDir(), "bad.cbor")
	if err := os.WriteFile(bad, []byte("policy"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{nil, 2, "no --policy"},
		{[]string{"--policy", good}, 2, "no --link"},
		{[]string{"--policy", good, "--link", "x:1", "more"}, 2, `unexpected argument "more"`},
		{[]string{"--policy", bad, "--link", "x:1"}, 1, "bad.cbor"},
		{[]string{"--policy", bad + ".none", "--link", "x:1"}, 1, "no such file"},
		{[]string{"--policy", good, "--config", bad}, 2, "bad.cbor"},
		{[]string{"--help"}, 2, "-policy"},
	} {
		if status, out := start(t, c.args...); status != c.status || !strings.Contains(out, c.want) {
			t.Errorf("%q: status %d, want %d with %q: %s", c.args, status, c.status, c.want, out)
		}
	}
}
