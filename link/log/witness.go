package log

import (
	"errors"
	"fmt"
	"slices"

	"github.com/concordat/concordat/verifier/tlog"
)

// Request asks a witness for a cosignature (C2SP tlog-witness, add-checkpoint).
type Request struct {
	Note    []byte
	OldSize uint64
	Proof   [][]byte // consistency from OldSize; empty if that is 0 or the note's size
}

// maxCosignature bounds a witness's answer: a line of its name and 76 bytes.
const maxCosignature = 1 << 10

// maxMoves bounds how often a witness may say, for one checkpoint, that it holds
// another size than it was asked from.
const maxMoves = 3

// Witness is one attached witness. Its methods are safe for concurrent use.
type Witness struct {
	feed *feed
	key  tlog.VerifierKey
	ask  func(Request)

	// What follows belongs to the feed's goroutine.
	size    uint64 // of the largest checkpoint that it says it cosigned
	asked   *round // waiting for its answer
	refused *round // not asked for this one again
	moves   int
	warned  bool
}

// AttachWitness has the witness with this key asked for cosignatures from now on:
// by calls of ask, one at a time until each is answered, from one goroutine, which
// must not block. size is that of the largest checkpoint that it cosigned. A key
// that is not in [Config].Witnesses is an error. The caller detaches it.
func (l *Log) AttachWitness(key tlog.VerifierKey, size uint64, ask func(Request)) (*Witness, error) {
	if !slices.Contains(l.cfg.Witnesses, key) {
		return nil, fmt.Errorf("log: %.100q is no witness of this federation", key.Name())
	}
	w := &Witness{feed: l.feed, key: key, ask: ask, size: size}
	l.feed.do(func() { l.feed.witnesses[w] = struct{}{} })
	return w, nil
}

// Detach ends the asking. A call of ask may still be under way when it returns.
func (w *Witness) Detach() {
	w.feed.do(func() {
		w.asked = nil
		delete(w.feed.witnesses, w)
	})
}

// Answer takes the witness's answer to the last request: a cosignature line, or,
// if there is none, the size that the witness holds. An answer that nobody asked
// for is ignored, a wrong one noted; neither is an error to the caller. It keeps
// cosignature.
func (w *Witness) Answer(cosignature []byte, size uint64) {
	w.feed.do(func() { w.feed.answer(w, cosignature, size) })
}

func (f *feed) answer(w *Witness, cosignature []byte, size uint64) {
	r := w.asked
	if r == nil {
		return
	}
	w.asked = nil
	if len(cosignature) == 0 {
		w.size = size
		if w.moves++; w.moves > maxMoves {
			w.moves, w.refused = 0, r
		}
		return
	}
	w.moves = 0
	if err := f.verify(w.key, r, cosignature); err != nil {
		f.log.cfg.Logger.Warn("a witness's cosignature is refused", "witness", w.key.Name(), "error", err)
		w.refused = r
		return
	}
	w.size = max(w.size, r.Size)
	if r.lines[w.key] != nil {
		return
	}
	r.lines[w.key] = cosignature
	// The current round is published by publish. One that was published before it
	// is stored with what came late, for receipts.
	if r != f.round && r.published > 0 {
		if _, err := f.keep(r); err != nil {
			f.log.cfg.Logger.Error("late cosignature is not stored", "size", r.Size, "error", err)
		}
	}
}

// verify checks that a cosignature is one line, of the round's checkpoint, by key.
func (f *feed) verify(key tlog.VerifierKey, r *round, line []byte) error {
	if len(line) > maxCosignature {
		return fmt.Errorf("%d bytes, limit %d", len(line), maxCosignature)
	}
	if slices.Index(line, '\n') != len(line)-1 {
		return errors.New("not one line")
	}
	_, _, err := tlog.Open(slices.Concat(r.note, line), tlog.Trust{Origin: f.log.cfg.Origin, LogKey: f.log.signer.key, Witnesses: []tlog.VerifierKey{key}, Need: 1})
	return err
}
