package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/node/atrest"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/node/state"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// TestLedger is protocol F17: with whom a node has answered a task on a model decides
// with whom it answers another on the same one, also after a restart.
func TestLedger(t *testing.T) {
	dir := t.TempDir()
	open := func(min uint64) *Node {
		t.Helper()
		key, err := atrest.Open(durable.OS{}, dir)
		if err != nil {
			t.Fatal(err)
		}
		j, err := journal.Open(durable.OS{}, dir, key)
		if err != nil {
			t.Fatal(err)
		}
		return &Node{journal: j, policy: &policy.Policy{Apps: []policy.App{{Digest: Digest{1}}}, Release: policy.Release{MinContributors: min}}}
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

// TestBefore: a step starts from the state after the newest step before it that this node
// contributed to, also where an enclave's successor has repeated that one, or repeats
// this one.
func TestBefore(t *testing.T) {
	r := &run{sent: map[Digest]*receipt.Statement{}}
	contributed := func(own, seq uint64, step byte) {
		r.sent[Digest{step}] = &receipt.Statement{Seq: own, Body: &receipt.Contribution{Seq: seq, Step: Digest{step}}}
	}
	is := func(seq uint64, want state.Step) {
		t.Helper()
		if got := r.before(seq); got != want {
			t.Errorf("before step %d comes %d (%s), want %d (%s)", seq, got.Seq, got.Digest.Short(), want.Seq, want.Digest.Short())
		}
	}
	is(1, state.Step{})
	contributed(2, 1, 11)
	is(1, state.Step{})
	is(2, state.Step{Seq: 1, Digest: Digest{11}})
	contributed(4, 2, 12)
	is(2, state.Step{Seq: 1, Digest: Digest{11}})
	contributed(6, 2, 13) // step 2 again
	is(2, state.Step{Seq: 1, Digest: Digest{11}})
	is(3, state.Step{Seq: 2, Digest: Digest{13}})
	is(5, state.Step{Seq: 2, Digest: Digest{13}}) // it had no part in 3 and 4
	n := &Node{runs: map[Digest]*run{{1}: r, {2}: {}}}
	if got := n.statesInUse(); len(got) != 2 || got[Digest{1}] != 1 || got[Digest{2}] != 0 {
		t.Errorf("in use: %v", got)
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
