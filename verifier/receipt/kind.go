package receipt

// Kind names what a statement says. The set is closed: a later version adds kinds
// and never changes one.
type Kind string

// The kinds of statement. Policies, approvals, credentials and denials are
// statements of members and live in package policy.
const (
	KindEvidence     Kind = "evidence"     // enclave: what vouches for me
	KindRunRequest   Kind = "run-request"  // node: please run this
	KindRun          Kind = "run"          // enclave: this run begins; step 0
	KindContribution Kind = "contribution" // node: this is my answer to a step
	KindStep         Kind = "step"         // enclave: closes one batch, opens the next
	KindAck          Kind = "ack"          // node: I signed this step and no other
	KindRelease      Kind = "release"      // enclave: everybody in the step has acked it
	KindEnd          Kind = "end"          // enclave: this run is over
	KindRefusal      Kind = "refusal"      // enclave: an authenticated party was refused
)

// mediaType returns the typ of the kind's COSE message (RFC 9596).
func (k Kind) mediaType() string { return "application/vnd.concordat." + string(k) + "+cose" }

var kinds = map[Kind]struct {
	byNode bool // issued by a node, not by an enclave
	inRun  bool // names a run
	body   func() body
}{
	KindEvidence:     {false, false, func() body { return new(Evidence) }},
	KindRunRequest:   {true, false, func() body { return new(RunRequest) }},
	KindRun:          {false, false, func() body { return new(Run) }},
	KindContribution: {true, true, func() body { return new(Contribution) }},
	KindStep:         {false, true, func() body { return new(Step) }},
	KindAck:          {true, true, func() body { return new(Ack) }},
	KindRelease:      {false, true, func() body { return new(Release) }},
	KindEnd:          {false, true, func() body { return new(End) }},
	KindRefusal:      {false, false, func() body { return new(Refusal) }},
}

func (k Kind) newBody() body {
	if info, ok := kinds[k]; ok {
		return info.body()
	}
	return nil
}

// body is the struct of one kind.
type body interface {
	kind() Kind
	check() error // of its shape alone
}
