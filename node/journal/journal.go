// Package journal is what a node must not forget: what it answered and acked, what
// it has seen of the federation's history, and the secrets of its runs. Every record
// is durable before the method that writes it returns, and so before the signature
// that it covers leaves the node.
//
// Start with [Open], which replays the file into a [State]. The secrets of runs are
// sealed under the node's at-rest key (package atrest): whoever deletes that key closes
// every run for ever.
package journal

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/atrest"
	"github.com/concordat/concordat/verifier/receipt"
)

// Digest is a SHA-256 value.
type Digest = cose.Digest

// State is everything that the journal holds. Only this package changes it;
// readers take what a method returned, or read between calls.
type State struct {
	Seq  uint64 // of the node's statement chain
	Last Digest

	Epoch    uint64 // highest that the node joined, and who held it
	Instance attestation.ID

	Acked []receipt.Acked
	Runs  map[Digest]*Run

	Checkpoints [][]byte          // cosigned notes, oldest first
	Witnessed   []byte            // the witness's state, opaque to the journal
	Collateral  map[string]uint64 // highest number seen of each issuer's endorsements
	Ledger      []Served
	Denials     []Denial // taken by hand, in their order
}

// Denial is a member's denial that somebody handed to this node (protocol F13).
type Denial struct {
	_         struct{} `cbor:",toarray"`
	Statement []byte
	Taken     uint64 // Unix time, by this node's clock
}

// Run is a run that the node takes part in.
type Run struct {
	Offer         session.RunOffer
	Uplink        [32]byte
	Downlink      *[32]byte              // nil until the enclave gave it
	Tasks         []session.Task         // oldest first
	Contributions []session.Contribution // oldest first
	Ended         []byte                 // the end statement
	Archived      bool                   // what is left of the run was written, or cannot be
}

// Served is a line of the ledger of tasks (protocol F17): with whom this node has
// answered a task on the same model before.
type Served struct {
	_       struct{} `cbor:",toarray"`
	App     Digest
	Config  Digest
	Model   Digest   // object id of the arrays
	Members []string // sorted
}

// Journal writes records. It is safe for concurrent use.
type Journal struct {
	mu    sync.Mutex // owns all below
	log   *durable.Log
	aead  cipher.AEAD
	state State
}

// Open replays the journal in dir, which exists, and closes secrets under key. It is the
// lock of the directory too: one process at a time has it open.
func Open(fsys durable.FS, dir string, key *atrest.Key) (*Journal, error) {
	j := &Journal{aead: key.AEAD(), state: State{Runs: map[Digest]*Run{}, Collateral: map[string]uint64{}}}
	var err error
	if j.log, err = durable.OpenLog(fsys, filepath.Join(dir, "journal"), j.replay); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return j, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.log.Close() }

// View calls f with the state; f must keep nothing of it.
func (j *Journal) View(f func(*State)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(&j.state)
}

// record is one line: what happened and its encoded body.
type record struct {
	_    struct{} `cbor:",toarray"`
	Kind string
	Body []byte
}

type keyed struct {
	_    struct{} `cbor:",toarray"`
	Run  Digest
	Data []byte
}

// append makes a record durable and applies it. A failed write ends the journal:
// what is not durable did not happen.
func (j *Journal) append(kind string, body []byte) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	rec := record{Kind: kind, Body: body}
	if err := j.log.Append(cose.Marshal(rec)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return j.apply(rec)
}

func (j *Journal) replay(b []byte) error {
	var r record
	if err := cose.Unmarshal(b, &r); err != nil {
		return err
	}
	return j.apply(r)
}

type signed struct {
	_    struct{} `cbor:",toarray"`
	Seq  uint64
	Last Digest
}

type joined struct {
	_        struct{} `cbor:",toarray"`
	Epoch    uint64
	Instance []byte
}

type accepted struct {
	_      struct{} `cbor:",toarray"`
	Offer  session.RunOffer
	Uplink []byte // sealed
}

type downlink struct {
	_   struct{} `cbor:",toarray"`
	Run Digest
	Key []byte // sealed
}

type seen struct {
	_      struct{} `cbor:",toarray"`
	Issuer string
	Number uint64
}

// answer is what is made durable before a signature leaves: the chain's new end and
// the record that the signature commits to.
type answer struct {
	_     struct{} `cbor:",toarray"`
	Seq   uint64
	Last  Digest
	Acked *receipt.Acked // of an ack
	Run   Digest
	Data  []byte // of a contribution: the encoded session.Contribution
}

func (j *Journal) apply(r record) error {
	s := &j.state
	switch r.Kind {
	case "signed":
		var v signed
		if err := cose.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		s.Seq, s.Last = v.Seq, v.Last
	case "answer":
		var v answer
		if err := cose.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		s.Seq, s.Last = v.Seq, v.Last
		if v.Acked != nil {
			s.Acked = append(s.Acked, *v.Acked)
		}
		if run := s.Runs[v.Run]; run != nil && len(v.Data) > 0 {
			var c session.Contribution
			if err := cose.Unmarshal(v.Data, &c); err != nil {
				return err
			}
			run.Contributions = append(run.Contributions, c)
		}
	case "joined":
		var v joined
		if err := cose.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		s.Epoch = v.Epoch
		copy(s.Instance[:], v.Instance)
	case "run":
		var v accepted
		if err := cose.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		u, err := j.openSecret(v.Uplink)
		if err != nil {
			return err
		}
		s.Runs[cose.Sum(v.Offer.Statement)] = &Run{Offer: v.Offer, Uplink: u}
	case "downlink":
		var v downlink
		if err := cose.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		d, err := j.openSecret(v.Key)
		if err != nil {
			return err
		}
		if run := s.Runs[v.Run]; run != nil {
			run.Downlink = &d
		}
	case "task", "ended", "archived":
		var v keyed
		if err := cose.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		run := s.Runs[v.Run]
		if run == nil {
			return fmt.Errorf("%s of unknown run %s", r.Kind, v.Run.Short())
		}
		switch r.Kind {
		case "ended":
			run.Ended = v.Data
			return nil
		case "archived":
			run.Archived = true
			return nil
		}
		var t session.Task
		if err := cose.Unmarshal(v.Data, &t); err != nil {
			return err
		}
		run.Tasks = append(run.Tasks, t)
	case "checkpoint":
		s.Checkpoints = append(s.Checkpoints, r.Body)
	case "witness":
		s.Witnessed = r.Body
	case "seen":
		var v seen
		if err := cose.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		s.Collateral[v.Issuer] = max(s.Collateral[v.Issuer], v.Number)
	case "served":
		var v Served
		if err := cose.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		s.Ledger = append(s.Ledger, v)
	case "denied":
		var v Denial
		if err := cose.Unmarshal(r.Body, &v); err != nil {
			return err
		}
		s.Denials = append(s.Denials, v)
	default:
		return fmt.Errorf("record of kind %.40q: written by a newer version?", r.Kind)
	}
	return nil
}

func (j *Journal) sealSecret(k [32]byte) []byte { return j.aead.Seal(nil, nil, k[:], nil) }

func (j *Journal) openSecret(b []byte) (k [32]byte, err error) {
	plain, err := j.aead.Open(nil, nil, b, nil)
	if err != nil || len(plain) != len(k) {
		return k, errors.New("a run's secret does not open: was at-rest.key replaced?")
	}
	return [32]byte(plain), nil
}

// Signed records that the chain goes on with a statement that commits to nothing
// else: a run request.
func (j *Journal) Signed(s *receipt.Statement) error {
	return j.append("signed", cose.Marshal(signed{Seq: s.Seq, Last: s.Digest()}))
}

// Contributed records a contribution before it is sent.
func (j *Journal) Contributed(s *receipt.Statement, m *session.Contribution) error {
	return j.append("answer", cose.Marshal(answer{Seq: s.Seq, Last: s.Digest(), Run: s.Run, Data: cose.Marshal(m)}))
}

// Acked records an ack before it is sent (protocol F2).
func (j *Journal) Acked(s *receipt.Statement, a receipt.Acked) error {
	return j.append("answer", cose.Marshal(answer{Seq: s.Seq, Last: s.Digest(), Acked: &a}))
}

// Joined records the epoch of an enclave before the node joins it: nothing of an
// earlier one is acked any more.
func (j *Journal) Joined(epoch uint64, instance attestation.ID) error {
	return j.append("joined", cose.Marshal(joined{Epoch: epoch, Instance: instance[:]}))
}

// Accepted records a run and the node's uplink secret before the secret is handed
// over.
func (j *Journal) Accepted(m *session.RunOffer, uplink [32]byte) error {
	return j.append("run", cose.Marshal(accepted{Offer: *m, Uplink: j.sealSecret(uplink)}))
}

// Downlink records a run's downlink secret.
func (j *Journal) Downlink(run Digest, key [32]byte) error {
	return j.append("downlink", cose.Marshal(downlink{Run: run, Key: j.sealSecret(key)}))
}

// Task records a released step before the app sees it.
func (j *Journal) Task(run Digest, m *session.Task) error {
	return j.append("task", cose.Marshal(keyed{Run: run, Data: cose.Marshal(m)}))
}

// Ended records the end of a run.
func (j *Journal) Ended(run Digest, statement []byte) error {
	return j.append("ended", cose.Marshal(keyed{Run: run, Data: statement}))
}

// Archived records that what is left of an ended run was written, or cannot be.
func (j *Journal) Archived(run Digest) error {
	return j.append("archived", cose.Marshal(keyed{Run: run, Data: []byte{}}))
}

// Checkpoint records a cosigned checkpoint that extends all before it.
func (j *Journal) Checkpoint(note []byte) error {
	return j.append("checkpoint", slices.Clone(note))
}

// Witness records the witness's state before its cosignature leaves.
func (j *Journal) Witness(state []byte) error { return j.append("witness", slices.Clone(state)) }

// Seen records the number of an endorsement that was relied on.
func (j *Journal) Seen(issuer string, number uint64) error {
	return j.append("seen", cose.Marshal(seen{Issuer: issuer, Number: number}))
}

// Serve adds a line to the ledger of tasks.
func (j *Journal) Serve(s Served) error { return j.append("served", cose.Marshal(s)) }

// Denied records a denial before it takes effect.
func (j *Journal) Denied(d Denial) error { return j.append("denied", cose.Marshal(d)) }
