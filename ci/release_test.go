package ci_test

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/node"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// sets are the inputs of every step that was released, by sequence number.
func sets(l *hostile.Link) map[uint64][]ci.Digest {
	steps := map[ci.Digest]*receipt.Step{}
	out := map[uint64][]ci.Digest{}
	for _, s := range l.Logged() {
		switch b := s.Body.(type) {
		case *receipt.Step:
			steps[s.Digest()] = b
		case *receipt.Release:
			if root := steps[b.Step].InputsRoot; !slices.Contains(out[b.Seq], root) {
				out[b.Seq] = append(out[b.Seq], root)
			}
		}
	}
	return out
}

// noDifference fails the test if two sets were released for one step.
func noDifference(t *testing.T, l *hostile.Link) {
	t.Helper()
	for seq, roots := range sets(l) {
		if len(roots) > 1 {
			t.Errorf("step %d was released with %d different sets", seq, len(roots))
		}
	}
}

// storedDownlink matches what an enclave stores for the cohort.
func storedDownlink(party string) hostile.Match {
	return func(m hostile.Message) bool {
		p, ok := m.Body.(*concordatv1.PutChunksRequest)
		return ok && m.Party == party && p.GetScope() != nil && len(p.GetScope().GetOwner()) == 0
	}
}

// from matches what a party sends into mailboxes.
func from(party string) hostile.Match {
	return func(m hostile.Message) bool { return m.Party == party && m.Send() != nil }
}

// TestFeignedCrashDifferencing is finding F2: a host lets an enclave collect every ack
// of a step, "crashes" it before it releases anything, and gives a second one the same
// contributions without the victim's. Both enclaves are genuine, and the policy allows
// dropouts. The nodes that acked the first set ack no other: nothing leaves.
func TestFeignedCrashDifferencing(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	crashing := make(chan *ci.Daemon, 1)
	f := ci.StartFederation(t, ci.Members(4), ci.Policy(trainOnly), ci.Policy(dropouts(15)), ci.Through(l), ci.Observe(func(e enclave.Event) {
		if e.Kind == "acked" { // all acks are in, and nothing is out
			(<-crashing).Cancel()
		}
	}))
	crashing <- f.Enclave
	joined(t, f.Nodes...)
	req := start(t, f, f.Nodes[0], 2, nil)
	victim := f.Nodes[3]
	victim.Await(t, "its ack", func(e node.Event) bool { return e.Kind == "acked" })
	<-f.Enclave.Done()
	l.Drop(from(victim.Name))
	f.StartEnclave(f.Machine, nil, nil)
	refused := f.Nodes[0].AwaitKind(t, "ack-refused")
	t.Log("refused:", refused.Reason)
	if e := ended(t, f.Nodes[0], req); e.Outcome != "failed" {
		t.Errorf("run ended %s", e.Outcome)
	}
	noDifference(t, l)
	if s := sets(l); len(s) > 0 {
		t.Errorf("steps with inputs were released: %v", s)
	}
	if put := l.Seen(storedDownlink("enclave-2")); len(put) > 0 {
		t.Errorf("the second enclave stored outputs")
	}
}

// instance is what a party attached as.
func instance(l *hostile.Link, party string) string {
	for _, m := range l.Seen(func(m hostile.Message) bool { return m.Up && m.Party == party && m.Method == "Attach" }) {
		if a := m.Body.(*concordatv1.AttachRequest).GetAttach(); a != nil {
			return string(a.GetAddress().GetId())
		}
	}
	return ""
}

// TestTwoEnclavesNeverReleaseDifferentSets is finding F2 with both enclaves alive: the
// link keeps acks from the first, and the log, so that it does not know that it has a
// successor; shows the nodes a second; withholds the victim from that one; and then lets
// the first have its acks. Whatever comes out of both, no step has two sets.
func TestTwoEnclavesNeverReleaseDifferentSets(t *testing.T) {
	t.Parallel()
	for _, withheld := range []string{"every ack", "one ack", "no ack"} {
		t.Run(withheld, func(t *testing.T) {
			t.Parallel()
			l := hostile.New()
			release := func(func([]hostile.Message)) {}
			signed := make(chan struct{})
			once := sync.OnceFunc(func() { close(signed) })
			f := ci.StartFederation(t, ci.Members(4), ci.Policy(trainOnly), ci.Policy(dropouts(15)), ci.Through(l), ci.Observe(func(e enclave.Event) {
				if e.Kind != "step" || e.Seq != 2 {
					return
				}
				defer once()
				// On the enclave's loop: nobody was asked for an ack yet.
				first := instance(l, "enclave")
				if withheld != "no ack" {
					release = l.Hold(func(m hostile.Message) bool {
						return string(m.Send().GetTo().GetId()) == first && (withheld == "every ack" || m.Party == "member-a")
					})
				}
				l.Drop(func(m hostile.Message) bool {
					a, ok := m.Body.(*concordatv1.AttachResponse)
					return ok && m.Party == "enclave" && a.GetCheckpoint() != nil
				})
			}))
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 2, nil)
			<-signed
			for _, n := range f.Nodes {
				n.AwaitKind(t, "acked")
			}
			// Deliveries to the second enclave that come from the victim.
			victim := f.Nodes[3].Signer.Public().ID()
			l.Drop(func(m hostile.Message) bool {
				return m.Party == "enclave-2" && string(m.Deliver().GetFrom().GetId()) == string(victim[:])
			})
			f.StartEnclave(f.Machine, nil, nil)
			f.Nodes[0].Await(t, "join of the second enclave", func(e node.Event) bool {
				return e.Kind == "joined" && e.Instance == hex.EncodeToString([]byte(instance(l, "enclave-2")))
			})
			release(nil)
			e := ended(t, f.Nodes[0], req)
			noDifference(t, l)
			t.Logf("run ended %s %s; released sets: %d", e.Outcome, e.Reason, len(sets(l)))
			if withheld == "every ack" {
				// This is the attack at its strongest: the first enclave does release.
				if len(sets(l)[2]) != 1 {
					t.Errorf("the first enclave had all acks, and step 2 has %d released sets", len(sets(l)[2]))
				}
				if put := l.Seen(storedDownlink("enclave-2")); len(put) > 0 {
					t.Error("the second enclave stored outputs")
				}
			}
		})
	}
}

// failsAtStep demands that the run fails by policy and releases nothing that has inputs.
func failsAtStep(t *testing.T, f *ci.Federation, l *hostile.Link, req ci.Digest) {
	t.Helper()
	e := ended(t, f.Nodes[0], req)
	if e.Outcome != "failed" || e.Reason != "policy" {
		t.Errorf("run ended %s: %s, want failed: policy", e.Outcome, e.Reason)
	}
	verifies(t, f, f.Nodes[0], e.Run) // it failed, and its history is in order
	for _, s := range l.Logged() {
		if b, ok := s.Body.(*receipt.Step); ok && b.InputsCount > 0 {
			t.Errorf("step %d with %d inputs of %d members is in the log", b.Seq, b.InputsCount, b.Members)
		}
	}
}

// TestSybilNodesCountOnce is finding F4: one member's two nodes are one contributor. The
// policy wants three; with the third member out, three nodes of two members answer.
func TestSybilNodesCountOnce(t *testing.T) {
	t.Parallel()
	l, m := hostile.New(), newMoments()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Policy(dropouts(30)), ci.Through(l), ci.Observe(m.observe), ci.Policy(func(p *policy.Policy) {
		p.Release.MinContributors, p.Release.MaxWeightShare = 3, 1000
	}))
	f.Nodes = append(f.Nodes, f.StartNode(f.Members[0]))
	m.await(t, "joined", 4) // at the enclave: a run needs a node of each member, not every node
	req := start(t, f, f.Nodes[0], 1, map[string]any{"raise member-c": "out"})
	failsAtStep(t, f, l, req)
	if e := f.Nodes[0].AwaitKind(t, "started"); e.Inputs != 4 {
		t.Errorf("%d nodes are in the run, want 4", e.Inputs)
	}
}

// TestZeroWeightColluders is finding F4: colluders who contribute nothing leave the
// victim's update alone in the aggregate. Members without weight do not count, and a
// member with too large a share fails the step.
func TestZeroWeightColluders(t *testing.T) {
	t.Parallel()
	for name, colluders := range map[string]int64{"zero": 0, "next to nothing": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := hostile.New()
			f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
			joined(t, f.Nodes...)
			req := start(t, f, f.Nodes[0], 1, map[string]any{"examples member-a": int64(1000), "examples member-b": colluders, "examples member-c": colluders})
			failsAtStep(t, f, l, req)
		})
	}
}

// TestKrumNeedsExposure is finding F4, at the level of the policy: a strategy whose
// output is one member's update by definition is refused under exposure aggregate, in
// the policy itself and in a run; a federation cannot even be founded with it.
func TestKrumNeedsExposure(t *testing.T) {
	t.Parallel()
	f := ci.StartFederation(t)
	for _, strategy := range []string{"krum", "multikrum", "bulyan", "fedmedian", "fedtrimmedavg", "qfedavg", "fedxgbbagging", "fedxgbcyclic", "custom"} {
		p, err := policy.Decode(f.Policy.Encode())
		if err != nil {
			t.Fatal(err)
		}
		p.Apps[0].Strategies = []string{strategy}
		if err := p.Check(); err == nil {
			t.Errorf("a policy allows %s with exposure aggregate", strategy)
		}
		terms := policy.RunTerms{App: f.App(), Config: ci.Digest{1}, Exposure: policy.ExposureAggregate, Strategy: strategy, Rounds: 1, Cohort: []policy.MemberID{"member-a", "member-b", "member-c"}}
		if err := p.AllowRun(terms, nil); err == nil {
			t.Errorf("a run of %s with exposure aggregate is allowed", strategy)
		}
	}
	// And end to end: asked for, it is refused.
	joined(t, f.Nodes...)
	req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "krum", Rounds: 1, Initial: initial(t)})
	if err != nil {
		t.Fatal(err)
	}
	f.Nodes[0].Await(t, "the refusal", func(e node.Event) bool { return e.Kind == "refused" && e.Request == req })
}

// TestFinalModelWaitsForWitnesses: the last outputs of a run go to the link only after
// a checkpoint came to the enclave that holds their release.
func TestFinalModelWaitsForWitnesses(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	completed(t, f, f.Nodes[0], start(t, f, f.Nodes[0], 2, nil))
	mine := l.Seen(func(m hostile.Message) bool { return m.Party == "enclave" })
	var index, published uint64 // of the last release; entries under the newest checkpoint
	for _, m := range mine {
		if b, ok := m.Body.(*concordatv1.AppendResponse); ok {
			if u, err := receipt.Parse(m.Request.(*concordatv1.AppendRequest).GetEntry()); err == nil && u.Kind() == receipt.KindRelease {
				index = b.GetIndex()
			}
		}
	}
	stored := 0
	for _, m := range mine {
		if b, ok := m.Body.(*concordatv1.AttachResponse); ok && b.GetCheckpoint() != nil {
			// The second line of a C2SP checkpoint is its size.
			n, err := strconv.ParseUint(strings.Split(string(b.GetCheckpoint().GetNote()), "\n")[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			published = n
		}
		if !storedDownlink("enclave")(m) {
			continue
		}
		if stored++; stored == 3 && published <= index {
			t.Errorf("the final model left with %d entries published, its release is entry %d", published, index)
		}
	}
	if stored != 3 {
		t.Errorf("outputs were stored %d times, want 3", stored)
	}
}

// TestDifferencingOverRuns is finding F17: the same app, config and initial model, once
// with all members and once without the victim, differ by the victim's update. Nodes
// remember with whom they answered a task on a model, and refuse the second.
func TestDifferencingOverRuns(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	completed(t, f, f.Nodes[0], start(t, f, f.Nodes[0], 1, nil))
	again := func(config map[string]any, cohort ...string) node.Event {
		t.Helper()
		req, err := f.Nodes[0].Node.StartRun(t.Context(), node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: 1, Config: config, Initial: initial(t), Cohort: cohort})
		if err != nil {
			t.Fatal(err)
		}
		return ended(t, f.Nodes[0], req)
	}
	if e := again(nil, "member-a", "member-b"); e.Outcome != "failed" {
		t.Errorf("without the victim: %s", e.Outcome)
	}
	if e := again(nil); e.Outcome != "completed" {
		t.Errorf("with the same members: %s %s", e.Outcome, e.Reason)
	}
	f.Restart(f.Nodes[0])
	f.Restart(f.Nodes[1])
	joined(t, f.Nodes...)
	if e := again(nil, "member-a", "member-b"); e.Outcome != "failed" {
		t.Errorf("without the victim, after a restart: %s", e.Outcome)
	}
	if e := again(map[string]any{"another": true}, "member-a", "member-b"); e.Outcome != "completed" {
		t.Errorf("another config: %s %s", e.Outcome, e.Reason)
	}
}
