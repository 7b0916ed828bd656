package receipt

// Every body is encoded as a CBOR map with the integer keys given here. No
// floats: shares, budgets and times are integers. A digest that may be "none" is
// marked so; what is not marked may not be.

// Evidence ties an enclave's claims, and with them its signing key, to the
// hardware's evidence. The envelope and the endorsements are blobs that are kept
// beside the log.
type Evidence struct {
	Claims       []byte   `cbor:"1,keyasint"` // encoded attestation.Claims, the exact bytes that the platform signed
	Envelope     Digest   `cbor:"2,keyasint"` // of the evidence envelope, attestation.Evidence.Digest
	Endorsements []Digest `cbor:"3,keyasint"` // attestation.Endorsement.Digest of those known to the enclave; sorted
}

// RunRequest asks, for a user of the node's member, for one run (protocol F3).
type RunRequest struct {
	App       Digest   `cbor:"1,keyasint"`
	Config    Digest   `cbor:"2,keyasint"` // of the effective config
	Strategy  string   `cbor:"3,keyasint"` // as the policy spells it: "fedavg", "custom"
	Rounds    uint64   `cbor:"4,keyasint"`
	ResultsTo string   `cbor:"5,keyasint"` // member id: whom logs and results are sealed to
	NotAfter  uint64   `cbor:"6,keyasint"` // Unix seconds
	Nonce     [32]byte `cbor:"7,keyasint"` // an enclave takes each once
	// Cohort is the rule for who takes part: the member ids that must, sorted; empty
	// for every member of the policy. The run starts when each has a joined node.
	Cohort []string `cbor:"8,keyasint"`
}

// Strategy classes (protocol F4).
const (
	ClassMixing    = "mixing"    // every output depends on all admitted inputs
	ClassSelecting = "selecting" // outputs may be the values of one member
	ClassCustom    = "custom"    // a Python ServerApp
)

// Run begins a run and is its step 0.
type Run struct {
	Request        Digest   `cbor:"1,keyasint"` // of the run-request statement
	Requester      Digest   `cbor:"2,keyasint"` // node id
	App            Digest   `cbor:"3,keyasint"`
	Config         Digest   `cbor:"4,keyasint"`
	Strategy       string   `cbor:"5,keyasint"`
	Class          string   `cbor:"6,keyasint"` // [ClassMixing], …
	Exposure       string   `cbor:"7,keyasint"` // as the policy spells it
	Rounds         uint64   `cbor:"8,keyasint"`
	Cohort         Digest   `cbor:"9,keyasint"`  // [Cohort.Digest]
	Nodes          uint64   `cbor:"10,keyasint"` // nodes of the cohort
	Members        uint64   `cbor:"11,keyasint"` // distinct members of the cohort
	DownlinkCommit Digest   `cbor:"12,keyasint"` // HKDF-Expand(D_run, "concordat/run/1/commit", 32)
	Generation     uint32   `cbor:"13,keyasint"` // of D_run
	Frozen         []string `cbor:"14,keyasint"` // names of arrays that nobody sends; sorted
	Dropouts       string   `cbor:"15,keyasint"` // as the policy spells it: "refuse", "allow"
	Numeric        string   `cbor:"16,keyasint"` // numeric profile: dtype, accumulator, order, rounding
	Evidence       Digest   `cbor:"17,keyasint"` // digest of the evidence STATEMENT under which the enclave speaks
	RunID          uint64   `cbor:"18,keyasint"` // Flower's id of the run
}

// Contribution is a node's answer to one step.
type Contribution struct {
	Seq       uint64 `cbor:"1,keyasint"` // of the step answered
	Step      Digest `cbor:"2,keyasint"` // digest of that step's statement
	Manifest  Digest `cbor:"3,keyasint"` // chunk id: leaf 0 of the chunk tree
	ChunkRoot Digest `cbor:"4,keyasint"` // tree over merkle.ChunkEntry in manifest order
	Count     uint64 `cbor:"5,keyasint"` // chunks, the manifest included
}

// What a step opens.
const (
	OpensTrain    = "train"
	OpensEvaluate = "evaluate"
	OpensQuery    = "query"
	OpensNone     = "none" // the last step of a run: nobody answers it
)

// Step closes one batch of contributions and opens the next: it is the signed
// result and the signed task in one (protocol F1). The trees' roots are none
// where their count is 0.
type Step struct {
	Seq            uint64         `cbor:"1,keyasint"`  // from 1; the run statement is step 0
	Prev           Digest         `cbor:"2,keyasint"`  // the step before that was released, or the run statement
	Attempt        uint64         `cbor:"3,keyasint"`  // from 1, per enclave instance and Seq
	Opens          string         `cbor:"4,keyasint"`  // [OpensTrain], …
	Round          uint64         `cbor:"5,keyasint"`  // of what it opens
	InputsRoot     Digest         `cbor:"6,keyasint"`  // over merkle.InputEntry of the contribution statements; none at seq 1
	InputsCount    uint64         `cbor:"7,keyasint"`  // 0 at seq 1 only
	Members        uint64         `cbor:"8,keyasint"`  // distinct members whose weight is above 0
	ExcludedRoot   Digest         `cbor:"9,keyasint"`  // over merkle.ExcludedEntry, sorted by node; may be none
	ExcludedCount  uint64         `cbor:"10,keyasint"` // nodes of the cohort that are not among the inputs
	ExcludedCodes  ExcludedCounts `cbor:"11,keyasint"` // with Unasked, their sum is ExcludedCount
	OutputsRoot    Digest         `cbor:"12,keyasint"` // over merkle.ChunkEntry, manifest first; none only where Opens is none
	OutputsCount   uint64         `cbor:"13,keyasint"`
	Cohort         Digest         `cbor:"14,keyasint"` // [Cohort.Digest], equal to the run's
	Nodes          uint64         `cbor:"15,keyasint"` // nodes of the cohort
	App            Digest         `cbor:"16,keyasint"`
	Evidence       Digest         `cbor:"17,keyasint"` // digest of the evidence STATEMENT of the enclave that signs
	Numeric        string         `cbor:"18,keyasint"` // equal to the run's
	EpsilonMicro   uint64         `cbor:"19,keyasint"` // privacy budget charged to the run so far, millionths of epsilon
	Generation     uint32         `cbor:"20,keyasint"` // of D_run
	DownlinkCommit Digest         `cbor:"21,keyasint"` // of D_run in that generation
	// Unasked are the nodes of the cohort that the ServerApp sent no message, where the
	// policy lets it choose. It was not there in the first form of the statement.
	Unasked uint64 `cbor:"22,keyasint,omitempty"`
}

// Ack says that a node has signed this step and will sign no other in its place
// (protocol F2). The policy head is the statement's Policy.
type Ack struct {
	Seq        uint64     `cbor:"1,keyasint"`
	Attempt    uint64     `cbor:"2,keyasint"`
	Step       Digest     `cbor:"3,keyasint"`
	Instance   ID         `cbor:"4,keyasint"` // of the enclave that signed the step
	Checkpoint Checkpoint `cbor:"5,keyasint"` // the highest cosigned one that the node knows
	Denials    Digest     `cbor:"6,keyasint"` // none: no denial is known
}

// Checkpoint names a state of the transparency log. An empty log has size 0 and
// root none.
type Checkpoint struct {
	_    struct{} `cbor:",toarray"`
	Size uint64
	Root Digest
}

// Release says that every node of a step has acked it: only now does anything of
// the step leave the enclave.
type Release struct {
	Seq       uint64 `cbor:"1,keyasint"`
	Attempt   uint64 `cbor:"2,keyasint"`
	Step      Digest `cbor:"3,keyasint"`
	AcksRoot  Digest `cbor:"4,keyasint"` // over merkle.AckEntry of the ack statements, in the order of the inputs
	AcksCount uint64 `cbor:"5,keyasint"` // equal to the step's InputsCount
}

// How a run ends.
const (
	Completed = "completed"
	Failed    = "failed"
	Stopped   = "stopped"
)

// End closes a run.
type End struct {
	Seq     uint64 `cbor:"1,keyasint"` // of the last step that was released; 0 if none was
	Step    Digest `cbor:"2,keyasint"` // digest of that step, or of the run statement
	Outcome string `cbor:"3,keyasint"` // [Completed], …
	Code    string `cbor:"4,keyasint"` // coarse reason; empty if completed. Never text of an app
}

// Refusal records that an authenticated party was refused. The reason stays with
// the parties; the code is coarse (protocol F20).
type Refusal struct {
	Subject Digest `cbor:"1,keyasint"` // node id
	Code    string `cbor:"2,keyasint"`
}

func (*Evidence) kind() Kind     { return KindEvidence }
func (*RunRequest) kind() Kind   { return KindRunRequest }
func (*Run) kind() Kind          { return KindRun }
func (*Contribution) kind() Kind { return KindContribution }
func (*Step) kind() Kind         { return KindStep }
func (*Ack) kind() Kind          { return KindAck }
func (*Release) kind() Kind      { return KindRelease }
func (*End) kind() Kind          { return KindEnd }
func (*Refusal) kind() Kind      { return KindRefusal }
