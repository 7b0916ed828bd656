package session

import (
	"fmt"

	"github.com/concordat/concordat/internal/cose"
)

// MaxMessage bounds the content of one record. What is larger travels as sealed
// chunks or as blobs named by digest.
const MaxMessage = 1 << 20

// Message is what a record holds: one of the types of this file. Statements in it
// are raw and unverified.
type Message interface{ kind() string }

// ManifestRef names a sealed manifest. The reader checks ID against the signed
// statement and, once open, OID and Size.
type ManifestRef struct {
	_    struct{} `cbor:",toarray"`
	OID  Digest   // object id of the manifest's plaintext
	ID   Digest   // chunk id: leaf 0 of the chunk tree
	Size uint64   // of the plaintext
}

// RunRequest (node to enclave) asks for a run on behalf of one of the node's users.
type RunRequest struct {
	_         struct{} `cbor:",toarray"`
	Statement []byte   // kind run-request, by the node
	Config    []byte   // effective config: canonical CBOR map, digest in the statement
	Initial   [][]byte // objects of the initial arrays, post-order, the root RecordDict last
}

// StoredRunRequest (node to enclave) is a [RunRequest] whose initial arrays are at the
// link, because they are too large for a message.
type StoredRunRequest struct {
	_         struct{} `cbor:",toarray"`
	Statement []byte   // kind run-request, by the node
	Config    []byte   // as in RunRequest
	Initial   StoredArrays
}

// StoredArrays names a parcel of the node's: the objects of a RecordDict of arrays,
// sealed with chunkstore.NewUplink(Secret, Place, 0) and stored in the scope of Place and
// the node.
type StoredArrays struct {
	_        struct{} `cbor:",toarray"`
	Place    Digest   // random: what stands for a run's digest, before there is one
	Secret   [32]byte
	Manifest ManifestRef
	Root     Digest // over all chunks
	Count    uint64 // of chunks, the manifest's included
}

// StopRun (node to enclave) ends a run that the node asked for, or takes its request
// back.
type StopRun struct {
	_       struct{} `cbor:",toarray"`
	Request Digest   // of the run request's statement
}

// RunOffer (enclave to node) shows the run statement to a node of its cohort.
type RunOffer struct {
	_         struct{} `cbor:",toarray"`
	Statement []byte   // kind run
	Request   []byte   // the request that it answers
	Cohort    []byte   // receipt.Cohort, canonical
	Config    []byte
	// Credentials is a blob: the list of the cohort's credentials, for whoever audits
	// the run.
	Credentials Digest
}

// RunAccept (node to enclave) hands over the node's uplink secret of this run.
type RunAccept struct {
	_      struct{} `cbor:",toarray"`
	Run    Digest
	Uplink []byte // U_run, 32 bytes
}

// RunDecline (node to enclave) says that the node takes no part.
type RunDecline struct {
	_    struct{} `cbor:",toarray"`
	Run  Digest
	Code string
}

// RunKey (enclave to node) hands the downlink secret to a node that accepted. The
// node checks it against the commitment in the run statement.
type RunKey struct {
	_          struct{} `cbor:",toarray"`
	Run        Digest
	Downlink   []byte // D_run, 32 bytes
	Generation uint32
}

// Task (enclave to node) releases a step: the node may open its outputs and
// answer it.
type Task struct {
	_        struct{} `cbor:",toarray"`
	Step     []byte   // kind step
	Release  []byte   // kind release; empty for the step that has no inputs
	Manifest ManifestRef
	Inputs   Digest // blob: the contribution statements in order; none without inputs
	Excluded Digest // blob: the excluded list; none without inputs
	Acks     Digest // blob: the ack statements in order; none without inputs
}

// Contribution (node to enclave) answers a task; the chunks are at the link.
type Contribution struct {
	_         struct{} `cbor:",toarray"`
	Statement []byte   // kind contribution
	Manifest  ManifestRef
}

// Failed (node to enclave) says that the node has no answer to a step: its app failed.
// Only Flower's error code and the name of a type leave the node (protocol F21).
type Failed struct {
	_    struct{} `cbor:",toarray"`
	Run  Digest
	Step Digest
	Code uint64
	Type string
}

// Admitted (enclave to node) says that a contribution is final, with the first
// receipt: its manifest's place in its chunk tree, signed by the enclave.
type Admitted struct {
	_            struct{} `cbor:",toarray"`
	Contribution Digest
	Receipt      []byte
}

// AckRequest (enclave to node) shows a step that waits for this node's ack, and
// where its contribution stands among the inputs.
type AckRequest struct {
	_        struct{} `cbor:",toarray"`
	Step     []byte   // kind step
	Index    uint64
	Path     []Digest // inclusion of the node's contribution in inputs_root
	Receipt  []byte   // the same, signed by the enclave
	Excluded []byte   // canonical list of [node id, code]
}

// Ack (node to enclave) answers an AckRequest.
type Ack struct {
	_         struct{} `cbor:",toarray"`
	Statement []byte   // kind ack
}

// AckRefused (node to enclave) says that the node will not ack. The reason stays in
// the node's log; the code is coarse.
type AckRefused struct {
	_    struct{} `cbor:",toarray"`
	Run  Digest
	Step Digest
	Code string
}

// Resume (node to enclave) brings a run to the successor of an enclave that was lost
// (protocol F11): what the run is, the last steps that were released to this node,
// what it answered, and the two secrets. Statements and blobs are checked against the log, the downlink
// secret against the commitment in the run statement.
type Resume struct {
	_        struct{} `cbor:",toarray"`
	Offer    RunOffer
	Uplink   []byte // U_run, 32 bytes
	Downlink []byte // D_run, 32 bytes; empty if the node never got it
	// Tasks and Contributions are the newest of the run, oldest first: the log may lack
	// the last ones, and the successor begins at what the log has.
	Tasks         []Task
	Contributions []Contribution
}

// MaxResume is the most tasks, and the most contributions, of a [Resume]:
// [ParseMessage] refuses more.
const MaxResume = 8

// Ended (enclave to node) closes a run.
type Ended struct {
	_         struct{} `cbor:",toarray"`
	Statement []byte   // kind end
}

// Refused (enclave to node) says that a request was refused. Subject is the digest
// of the statement that was refused.
type Refused struct {
	_       struct{} `cbor:",toarray"`
	Subject Digest
	Code    string
}

// CodeInstance is the code of a [Refused] run request that the next instance of the enclave
// may take: this one has served a run, and one with a ServerApp shares its instance with no
// other (protocol F5). This one ends.
const CodeInstance = "instance"

// Leave (either way) ends the session: nothing follows it.
type Leave struct {
	_    struct{} `cbor:",toarray"`
	Code string
}

func (*RunRequest) kind() string       { return "run-request" }
func (*StoredRunRequest) kind() string { return "stored-run-request" }
func (*StopRun) kind() string          { return "stop-run" }
func (*RunOffer) kind() string         { return "run-offer" }
func (*RunAccept) kind() string        { return "run-accept" }
func (*RunDecline) kind() string       { return "run-decline" }
func (*RunKey) kind() string           { return "run-key" }
func (*Task) kind() string             { return "task" }
func (*Contribution) kind() string     { return "contribution" }
func (*Failed) kind() string           { return "failed" }
func (*Admitted) kind() string         { return "admitted" }
func (*AckRequest) kind() string       { return "ack-request" }
func (*Ack) kind() string              { return "ack" }
func (*AckRefused) kind() string       { return "ack-refused" }
func (*Resume) kind() string           { return "resume" }
func (*Ended) kind() string            { return "ended" }
func (*Refused) kind() string          { return "refused" }
func (*Leave) kind() string            { return "leave" }

// messages makes an empty message of each kind.
var messages = map[string]func() Message{
	"run-request":        func() Message { return new(RunRequest) },
	"stored-run-request": func() Message { return new(StoredRunRequest) },
	"stop-run":           func() Message { return new(StopRun) },
	"run-offer":          func() Message { return new(RunOffer) },
	"run-accept":         func() Message { return new(RunAccept) },
	"run-decline":        func() Message { return new(RunDecline) },
	"run-key":            func() Message { return new(RunKey) },
	"task":               func() Message { return new(Task) },
	"contribution":       func() Message { return new(Contribution) },
	"failed":             func() Message { return new(Failed) },
	"admitted":           func() Message { return new(Admitted) },
	"ack-request":        func() Message { return new(AckRequest) },
	"ack":                func() Message { return new(Ack) },
	"ack-refused":        func() Message { return new(AckRefused) },
	"resume":             func() Message { return new(Resume) },
	"ended":              func() Message { return new(Ended) },
	"refused":            func() Message { return new(Refused) },
	"leave":              func() Message { return new(Leave) },
}

type envelope struct {
	_    struct{} `cbor:",toarray"`
	Kind string
	Body []byte
}

// EncodeMessage returns the record content of m.
func EncodeMessage(m Message) []byte {
	return cose.Marshal(envelope{Kind: m.kind(), Body: cose.Marshal(m)})
}

// ParseMessage decodes a record's content. The error wraps [ErrFrame].
func ParseMessage(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("%w: message of %d bytes, limit %d", ErrFrame, len(b), MaxMessage)
	}
	var e envelope
	if err := cose.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("%w: message: %w", ErrFrame, err)
	}
	make, ok := messages[e.Kind]
	if !ok {
		return nil, fmt.Errorf("%w: message kind %.40q", ErrFrame, e.Kind)
	}
	m := make()
	if err := cose.Unmarshal(e.Body, m); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrFrame, e.Kind, err)
	}
	if r, ok := m.(*Resume); ok && (len(r.Tasks) > MaxResume || len(r.Contributions) > MaxResume) {
		return nil, fmt.Errorf("%w: resume of %d tasks and %d contributions, limit %d", ErrFrame, len(r.Tasks), len(r.Contributions), MaxResume)
	}
	return m, nil
}
