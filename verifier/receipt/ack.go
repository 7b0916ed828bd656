package receipt

// Acked is what a node keeps of every ack that it signed, durable before the
// signature leaves it. A node that lost these records acks nothing of that run
// any more.
type Acked struct {
	Run      Digest `cbor:"1,keyasint"`
	Seq      uint64 `cbor:"2,keyasint"`
	Attempt  uint64 `cbor:"3,keyasint"`
	Step     Digest `cbor:"4,keyasint"` // digest of the step statement
	Instance ID     `cbor:"5,keyasint"`
	Epoch    uint64 `cbor:"6,keyasint"`
	Inputs   Digest `cbor:"7,keyasint"` // inputs_root
	Excluded Digest `cbor:"8,keyasint"` // excluded_root
	Cohort   Digest `cbor:"9,keyasint"`
}

// inputs is what decides whose data is in a step's outputs.
type inputs struct{ root, excluded, cohort Digest }

func inputsOf(b *Step) inputs          { return inputs{b.InputsRoot, b.ExcludedRoot, b.Cohort} }
func sameInputs(a, b inputs) bool      { return a == b }
func (a Acked) inputs() inputs         { return inputs{a.Inputs, a.Excluded, a.Cohort} }
func (a Acked) sameStep(b *Acked) bool { return a.Run == b.Run && a.Seq == b.Seq }

// MayAck says whether a node may sign an ack of the newest step of c, and returns
// the record that it must persist first (protocol F2). prev are all records of
// this node in the federation, in the order in which they were made; joined is
// the highest epoch that the node ever joined in the federation. The newest
// attempt that was acked may be acked again: its record is then equal to the one
// that exists.
//
// The rules, and why they suffice. A colluder learns one member's update from two
// outputs whose inputs differ by it. Two such outputs need some honest node in
// both sets (all other contributors colluding is outside the promises), and that
// node asks these rules before each of its two acks:
//
//  1. One attempt of one instance has one digest: no enclave gets two sets under
//     one name.
//  2. Another instance gets an ack for a (run, seq) only with the inputs, cohort
//     and excluded nodes of the last attempt that the node acked of each instance
//     before. That instance may have released its last attempt, and no earlier
//     one; so what is out and what may come out have equal inputs.
//  3. The same instance may go on to a later attempt with another set: a node that
//     did not ack in time is excluded, and attempt+1 is issued. This is safe
//     because the code that was attested never releases an attempt after it has
//     signed a later one, and never signs one after a release: of all attempts of
//     one instance at most one comes out, the last. A host cannot bring about
//     anything else by dropping or delaying acks, and a copy of the VM is another
//     instance with keys of its own. Rule 2 still stands for the later attempt: if
//     another instance was acked for this step, then that one may have released,
//     and the set is fixed for everybody, this instance included. Without that,
//     A releases {1,2,3,V}, its successor B repeats {1,2,3,V} and then drops V.
//  4. An attempt not later than the last one acked of its instance is refused: the
//     enclave gave it up.
//  5. Having joined epoch e+1, nothing of an epoch up to e is acked, and one epoch
//     has one instance: a zombie that wakes finds no node.
//
// The node's contribution must be in the inputs: the caller checks its inclusion
// proof against the step's inputs root, and the policy head and denials against
// its own.
func (c *StepChain) MayAck(prev []Acked, step *Statement, joined uint64) (Acked, error) {
	b, ok := step.Body.(*Step)
	switch {
	case !ok || c.last == nil || step.Digest() != c.last.Digest():
		return Acked{}, refuse("ack of a %s that is not the newest step", step.Kind)
	case b.InputsCount == 0:
		return Acked{}, refuse("step %d has no inputs and needs no ack", b.Seq)
	case c.ended:
		return Acked{}, refuse("run has ended")
	}
	instance, _ := step.Instance()
	enclave, ok := c.enclaves[instance]
	if !ok || enclave.Epoch < joined {
		return Acked{}, refuse("step %d is of epoch %d, this node has joined epoch %d", b.Seq, enclave.Epoch, joined)
	}
	next := Acked{
		Run: step.Run, Seq: b.Seq, Attempt: b.Attempt, Step: step.Digest(), Instance: instance, Epoch: enclave.Epoch,
		Inputs: b.InputsRoot, Excluded: b.ExcludedRoot, Cohort: b.Cohort,
	}
	others := make(map[ID]Acked) // last attempt acked of every other instance
	for _, a := range prev {
		switch {
		case a == next:
		case a.Epoch > next.Epoch:
			return Acked{}, refuse("step %d is of epoch %d, this node has acked epoch %d", b.Seq, next.Epoch, a.Epoch)
		case a.Epoch == next.Epoch && a.Instance != instance:
			return Acked{}, refuse("instances %s and %s both claim epoch %d", a.Instance, instance, a.Epoch)
		case a.Run == next.Run && a.Seq > next.Seq:
			return Acked{}, refuse("step %d after this node acked step %d", b.Seq, a.Seq)
		case !a.sameStep(&next):
		case a.Instance != instance:
			others[a.Instance] = a
		case a.Attempt >= next.Attempt:
			return Acked{}, refuse("attempt %d of step %d after this node acked attempt %d", b.Attempt, b.Seq, a.Attempt)
		}
	}
	for id, a := range others {
		if !sameInputs(a.inputs(), next.inputs()) {
			return Acked{}, refuse("step %d has inputs %s, but instance %s was acked with %s: repeating it would show the difference",
				b.Seq, b.InputsRoot.Short(), id, a.Inputs.Short())
		}
	}
	return next, nil
}
