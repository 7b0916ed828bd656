package tlog

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/concordat/concordat/internal/merkle"
)

// ErrOldSize is wrapped by [Witness.Add] where the old size is larger than the
// checkpoint's, or the proof is too long (400 in C2SP tlog-witness).
var ErrOldSize = errors.New("witness: old size and proof do not fit the checkpoint")

// HeldError says that a checkpoint was offered from another size than the one
// that the witness holds (409 in C2SP tlog-witness). Offer it again from Held.
type HeldError struct{ Held uint64 }

func (e *HeldError) Error() string {
	return fmt.Sprintf("witness: holds a checkpoint of size %d", e.Held)
}

// ForkError says that the log has signed two roots for one size: it is caught,
// and Proof shows it to anybody.
type ForkError struct{ Proof ForkProof }

func (e *ForkError) Error() string { return "witness: the log has signed two histories" }

// State is the newest checkpoint that a witness has cosigned. The zero value is
// that of a witness that has seen nothing.
type State struct {
	Checkpoint
	Note []byte // as the log signed it
}

// WitnessConfig is what a witness needs. All fields are required.
type WitnessConfig struct {
	Origin string
	LogKey VerifierKey
	Name   string
	Key    ed25519.PrivateKey // used for nothing else
	// Save makes a state durable. Nothing is cosigned before it returns nil. It is
	// called with the witness locked.
	Save func(State) error
	Now  func() time.Time
}

// Witness cosigns the checkpoints of one log, each only if it extends the one
// before (C2SP tlog-witness). It is safe for concurrent use.
type Witness struct {
	cfg WitnessConfig
	pub VerifierKey

	mu   sync.Mutex
	held State
}

// NewWitness returns a witness that holds what it saved last, or the zero State.
func NewWitness(cfg WitnessConfig, held State) (*Witness, error) {
	if cfg.Origin == "" || cfg.LogKey.IsZero() || len(cfg.Key) != ed25519.PrivateKeySize || cfg.Save == nil || cfg.Now == nil {
		return nil, errors.New("witness: configuration is incomplete")
	}
	pub, err := NewWitnessKey(cfg.Name, cfg.Key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	w := &Witness{cfg: cfg, pub: pub, held: State{Checkpoint: Checkpoint{Origin: cfg.Origin, Root: merkle.EmptyRoot()}}}
	if held.Note != nil {
		_, c, err := openLog(held.Note, cfg.Origin, cfg.LogKey)
		if err != nil {
			return nil, fmt.Errorf("witness: held: %w", err)
		}
		w.held = State{*c, slices.Clone(held.Note)}
	}
	return w, nil
}

// Key returns the witness's public key.
func (w *Witness) Key() VerifierKey { return w.pub }

// Held returns the newest checkpoint that was saved.
func (w *Witness) Held() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return State{w.held.Checkpoint, slices.Clone(w.held.Note)}
}

// Add checks that the checkpoint in raw, signed by the log, extends the one that
// the witness holds, saves it, and returns the cosignature line, newline
// included. old is the size that proof starts from. Errors: wrapped [ErrOrigin]
// (404), [ErrSignature] (403), [ErrOldSize] (400), [*HeldError] (409),
// [*ForkError] and wrapped [merkle.ErrProof] (422); anything else is malformed
// input, or a save that failed, after which nothing has changed.
func (w *Witness) Add(old uint64, proof []Digest, raw []byte) ([]byte, error) {
	n, c, err := openLog(raw, w.cfg.Origin, w.cfg.LogKey)
	if err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	if old > c.Size || len(proof) > merkle.MaxProof {
		return nil, fmt.Errorf("%w: from %d to %d with %d hashes", ErrOldSize, old, c.Size, len(proof))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.Size == w.held.Size && c.Root != w.held.Root && c.Size > 0 {
		return nil, &ForkError{ForkProof{slices.Clone(w.held.Note), slices.Clone(raw)}}
	}
	if old != w.held.Size {
		return nil, &HeldError{w.held.Size}
	}
	if err := merkle.VerifyConsistency(old, c.Size, hashes(proof), w.held.Root, c.Root); err != nil {
		return nil, fmt.Errorf("witness: %w", err)
	}
	now := w.cfg.Now().Unix()
	if now <= 0 || now > maxTime {
		return nil, fmt.Errorf("witness: clock says %d", now)
	}
	if c.Size != w.held.Size || w.held.Note == nil {
		next := State{*c, slices.Clone(raw)}
		if err := w.cfg.Save(next); err != nil {
			return nil, fmt.Errorf("witness: save: %w", err)
		}
		w.held = next
	}
	blob := binary.BigEndian.AppendUint64(nil, uint64(now))
	blob = append(blob, ed25519.Sign(w.cfg.Key, cosigned(uint64(now), n.text))...)
	return formatSignature(w.pub, blob), nil
}
