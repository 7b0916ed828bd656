package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// TestLedger is protocol F17: with whom a node has answered a task on a model decides
// with whom it answers another on the same one, also after a restart.
func TestLedger(t *testing.T) {
	dir := t.TempDir()
	open := func(min uint64) *Node {
		t.Helper()
		j, err := journal.Open(durable.OS{}, dir)
		if err != nil {
			t.Fatal(err)
		}
		return &Node{journal: j, policy: &policy.Policy{Release: policy.Release{MinContributors: min}}}
	}
	with := func(config byte, members ...string) *run {
		var c []receipt.Participant
		for i, m := range members {
			c = append(c, receipt.Participant{Member: m, Node: Digest{byte(i + 1)}})
		}
		cohort, err := receipt.NewCohort(c)
		if err != nil {
			t.Fatal(err)
		}
		return &run{body: &receipt.Run{App: Digest{1}, Config: Digest{config}}, cohort: cohort}
	}
	n := open(3)
	for _, c := range []struct {
		name  string
		r     *run
		model object.ID
		ok    bool
	}{
		{"the first", with(1, "a", "b", "c", "d", "e"), object.ID{1}, true},
		{"again", with(1, "a", "b", "c", "d", "e"), object.ID{1}, true},
		{"one member less", with(1, "a", "b", "c", "d"), object.ID{1}, false},
		{"one in place of another", with(1, "a", "b", "c", "d", "f"), object.ID{1}, false},
		{"three members less", with(1, "a", "b"), object.ID{1}, true},
		{"one more than that", with(1, "a", "b", "c"), object.ID{1}, false},
		{"another model", with(1, "a", "b", "c", "d"), object.ID{2}, true},
		{"another config", with(2, "a", "b", "c", "d"), object.ID{1}, true},
		{"one member with two nodes", with(1, "a", "a", "b", "c", "d", "e"), object.ID{1}, true},
	} {
		if err := n.mayServe(c.r, c.model); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := n.journal.Close(); err != nil {
		t.Fatal(err)
	}
	n = open(3)
	defer n.journal.Close()
	if err := n.mayServe(with(1, "a", "b", "c", "d"), object.ID{1}); err == nil {
		t.Error("forgotten after a restart")
	}
}

// TestExecutableIsTheOneListed refuses an app whose bytes are not the policy's.
func TestExecutableIsTheOneListed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "app")
	if err := os.WriteFile(file, []byte("app"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := cose.Sum([]byte("app"))
	if err := checkExecutable(file, want); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("another app"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := checkExecutable(file, want); err == nil || !strings.Contains(err.Error(), want.Short()) {
		t.Errorf("another app: %v", err)
	}
	if err := checkExecutable(file+"-gone", want); err == nil {
		t.Error("no app: accepted")
	}
}
