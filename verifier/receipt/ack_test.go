package receipt

import "testing"

// ackNode is what one node remembers.
type ackNode struct {
	records []Acked
	joined  uint64
}

func (n *ackNode) ack(t testing.TB, c *StepChain, step *Statement) {
	t.Helper()
	a, err := c.MayAck(n.records, step, n.joined)
	if err != nil {
		t.Fatal(err)
	}
	n.records = append(n.records, a)
}

func (n *ackNode) refuses(t testing.TB, c *StepChain, step *Statement, want string) {
	t.Helper()
	_, err := c.MayAck(n.records, step, n.joined)
	refused(t, err, want)
}

// view is a node's own chain of the run: what A has shown it up to step 1.
func view(t testing.TB, s *sim, a *simEnclave, list ...*Statement) *StepChain {
	t.Helper()
	c, err := NewStepChain(s.run, s.cohort, s.rules, a.Enclave)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range list {
		if err := c.Extend(x); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestTwoEnclavesNeverReleaseDifferentSets: the same step in two enclaves. A node
// that acked one set acks no other of another instance.
func TestTwoEnclavesNeverReleaseDifferentSets(t *testing.T) {
	a, b := newEnclave(t, 1), newEnclave(t, 2)
	s := newSim(t, a)
	one := s.step(a, s.run, 1, 1, 0)
	full := s.step(a, one, 2, 1, 9)
	n := &ackNode{joined: 1}
	c := view(t, s, a, one, full)
	n.ack(t, c, full)
	n.ack(t, c, full) // the same again: the same record
	if n.records[0] != n.records[1] {
		t.Errorf("records %+v", n.records)
	}
	n.joined = 2
	if err := c.Succeed(b.Enclave, s.rules); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Step){
		"other inputs":   func(x *Step) { x.InputsRoot = Digest{8} },
		"other excluded": func(x *Step) { x.ExcludedRoot = Digest{8} },
	} {
		t.Run(name, func(t *testing.T) {
			other := s.step(b, one, 2, 1, 9, change)
			if err := c.Extend(other); err != nil { // nothing was released: the chain allows it
				t.Fatal(err)
			}
			n.refuses(t, c, other, "repeating it would show the difference")
			c = view(t, s, a, one, full)
			if err := c.Succeed(b.Enclave, s.rules); err != nil {
				t.Fatal(err)
			}
		})
	}
	again := s.step(b, one, 2, 1, 9)
	if err := c.Extend(again); err != nil {
		t.Fatal(err)
	}
	n.ack(t, c, again)
}

// TestFeignedCrashDifferencing: A may have released {1,2,3,V}; its successor repeats
// that and then drops V. Without looking past its own attempts a node would help.
func TestFeignedCrashDifferencing(t *testing.T) {
	a, b := newEnclave(t, 1), newEnclave(t, 2)
	s := newSim(t, a)
	one := s.step(a, s.run, 1, 1, 0)
	full := s.step(a, one, 2, 1, 9)
	n := &ackNode{joined: 1}
	c := view(t, s, a, one, full)
	n.ack(t, c, full)
	if err := c.Succeed(b.Enclave, s.rules); err != nil {
		t.Fatal(err)
	}
	n.joined = 2
	again, without := s.step(b, one, 2, 1, 9), s.step(b, one, 2, 2, 8)
	if err := c.Extend(again); err != nil {
		t.Fatal(err)
	}
	n.ack(t, c, again)
	if err := c.Extend(without); err != nil {
		t.Fatal(err)
	}
	n.refuses(t, c, without, "repeating it would show the difference")
}

// TestLaterAttempt: V does not ack in time; the same instance goes on without it.
func TestLaterAttempt(t *testing.T) {
	a, b := newEnclave(t, 1), newEnclave(t, 2)
	s := newSim(t, a)
	one := s.step(a, s.run, 1, 1, 0)
	full, without := s.step(a, one, 2, 1, 9), s.step(a, one, 2, 2, 8)
	n := &ackNode{joined: 1}
	c := view(t, s, a, one, full)
	n.ack(t, c, full)
	if err := c.Extend(without); err != nil {
		t.Fatal(err)
	}
	n.ack(t, c, without)
	// The attempt that was given up is not acked again, whoever shows it.
	n.refuses(t, c, full, "not the newest step")
	n.refuses(t, view(t, s, a, one, full), full, "after this node acked attempt 2")
	// A successor may repeat the last one only.
	if err := c.Succeed(b.Enclave, s.rules); err != nil {
		t.Fatal(err)
	}
	n.joined = 2
	wrong := s.step(b, one, 2, 1, 9)
	if err := c.Extend(wrong); err != nil {
		t.Fatal(err)
	}
	n.refuses(t, c, wrong, "repeating it would show the difference")
	right := s.step(b, one, 2, 2, 8)
	if err := c.Extend(right); err != nil {
		t.Fatal(err)
	}
	n.ack(t, c, right)
}

// TestOneDigestPerAttempt: two texts under one name.
func TestOneDigestPerAttempt(t *testing.T) {
	a := newEnclave(t, 1)
	s := newSim(t, a)
	one := s.step(a, s.run, 1, 1, 0)
	first, second := s.step(a, one, 2, 1, 9), s.step(a, one, 2, 1, 8)
	n := &ackNode{joined: 1}
	n.ack(t, view(t, s, a, one, first), first)
	n.refuses(t, view(t, s, a, one, second), second, "after this node acked attempt 1")
	// Same set, other outputs: still another text.
	third := s.step(a, one, 2, 1, 9, func(b *Step) { b.OutputsRoot = Digest{66} })
	n.refuses(t, view(t, s, a, one, third), third, "after this node acked attempt 1")
}

func TestAckEpochs(t *testing.T) {
	a, b := newEnclave(t, 1), newEnclave(t, 2)
	s := newSim(t, a)
	one := s.step(a, s.run, 1, 1, 0)
	two := s.step(a, one, 2, 1, 9)
	c := view(t, s, a, one, two)
	(&ackNode{joined: 2}).refuses(t, c, two, "has joined epoch 2")
	// What it acked says the same, even of another run.
	n := &ackNode{joined: 1, records: []Acked{{Run: Digest{77}, Seq: 2, Attempt: 1, Step: Digest{1}, Instance: b.Instance, Epoch: 2}}}
	n.refuses(t, c, two, "has acked epoch 2")
	n = &ackNode{joined: 1, records: []Acked{{Run: Digest{77}, Seq: 2, Attempt: 1, Step: Digest{1}, Instance: ID{3}, Epoch: 1}}}
	n.refuses(t, c, two, "both claim epoch 1")
	// Other runs of the same instance do not matter.
	n = &ackNode{joined: 1, records: []Acked{{Run: Digest{77}, Seq: 2, Attempt: 5, Step: Digest{1}, Instance: a.Instance, Epoch: 1, Inputs: Digest{1}}}}
	n.ack(t, c, two)
}

func TestAckOrder(t *testing.T) {
	a := newEnclave(t, 1)
	s := newSim(t, a)
	one := s.step(a, s.run, 1, 1, 0)
	n := &ackNode{joined: 1}
	n.refuses(t, view(t, s, a, one), one, "needs no ack")
	two := s.step(a, one, 2, 1, 9)
	rel := s.releaseOf(a, two)
	three := s.step(a, two, 3, 1, 9)
	c := view(t, s, a, one, two)
	n.ack(t, c, two)
	n.refuses(t, c, rel, "not the newest step")
	n.refuses(t, c, three, "not the newest step")
	for _, x := range []*Statement{rel, three} {
		if err := c.Extend(x); err != nil {
			t.Fatal(err)
		}
	}
	n.ack(t, c, three)
	n.refuses(t, view(t, s, a, one, two), two, "after this node acked step 3")
}

// TestForgedDownlinkFromMember: a member that holds the downlink secret seals a
// model of its own; no step names it.
func TestForgedDownlinkFromMember(t *testing.T) {
	a := newEnclave(t, 1)
	s := newSim(t, a)
	one := s.step(a, s.run, 1, 1, 0)
	c := view(t, s, a, one)
	refused(t, c.MayOpen(Digest{0xbd}), "not those of step 1")
	// Nor does a step that an accomplice signs with a key of its own.
	forged := s.step(&simEnclave{Enclave: a.Enclave, key: enclaveKey(t, 66)}, s.run, 1, 2, 0, func(b *Step) { b.OutputsRoot = Digest{0xbd} })
	u, err := Parse(forged.Raw())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Verify(a.key.Public()); err == nil {
		t.Error("a forged step verifies")
	}
}
