package node

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/node/journal"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

// history is the node's own copy of the federation's log: every entry up to the
// newest checkpoint that the policy's witnesses cosigned, replayed against its root.
// The loop owns it.
type history struct {
	trust   tlog.Trust
	mirror  *durable.Log // the entries, in order
	entries [][]byte
	rng     *merkle.Range
	head    *tlog.Checkpoint // nil until the first
	note    []byte
	reading bool
	next    []byte
	waiting []func()

	own       tlog.Trust       // trust, and the member's own witness must have cosigned
	witnessed *tlog.Checkpoint // newest that fulfils it; nil: none
	officer   []func()         // run when witnessed grows: bundles wait for it

	epochs    receipt.Epochs
	denials   policy.Denials       // of any member, by the log or by hand
	signed    policy.AppSignatures // of apps, by the log
	denied    map[Digest]bool      // those that the log shows, by digest
	published map[Digest]uint64    // statement → index
}

func (h *history) close() error {
	if h.mirror == nil {
		return nil
	}
	return h.mirror.Close()
}

// entry returns the log's entry at index, if the mirror has it.
func (h *history) entry(index uint64) ([]byte, bool) {
	if index >= uint64(len(h.entries)) {
		return nil, false
	}
	return h.entries[index], true
}

// openHistory reads the mirror and the newest checkpoint back.
func (n *Node) openHistory(fsys durable.FS) error {
	trust, err := verifier.LogTrust(n.policy)
	if err != nil {
		return err
	}
	n.history = history{trust: trust, rng: new(merkle.Range), published: map[Digest]uint64{}, denied: map[Digest]bool{}}
	h := &n.history
	h.own = trust
	h.signed.Denials = &h.denials
	if h.own.Own, err = tlog.ParseVerifierKey(n.policy.Member(n.cfg.Member).WitnessKey); err != nil {
		return err
	}
	if h.mirror, err = durable.OpenLog(fsys, filepath.Join(n.dir, "log"), func(record []byte) error {
		if len(record) < 2 || record[0] > mirrorVoid {
			return errors.New("record of another version")
		}
		n.entered(entry{raw: append([]byte(nil), record[1:]...), void: record[0] == mirrorVoid})
		return nil
	}); err != nil {
		return fmt.Errorf("log mirror: %w", err)
	}
	n.journal.View(func(s *journal.State) {
		if k := len(s.Checkpoints); k > 0 {
			h.note = s.Checkpoints[k-1]
		}
		for i := len(s.Checkpoints) - 1; i >= 0 && h.witnessed == nil; i-- {
			h.see(s.Checkpoints[i])
		}
	})
	if h.note == nil {
		return nil
	}
	if h.head, _, err = tlog.Open(h.note, trust); err != nil {
		return fmt.Errorf("saved checkpoint: %w", err)
	}
	// Entries are mirrored before their checkpoint is saved: after a crash there may
	// be more of them, never fewer.
	if h.rng.Size() < h.head.Size {
		return fmt.Errorf("log mirror has %d entries, the saved checkpoint %d", h.rng.Size(), h.head.Size)
	}
	return nil
}

// A record of the mirror is one of these bytes, and the entry.
const (
	mirrorEntry byte = 0
	mirrorVoid  byte = 1 // evidence of an enclave that did not pass when it was first seen
)

// entry is one entry of the log.
type entry struct {
	raw  []byte
	void bool
}

func (e entry) record() []byte {
	flag := mirrorEntry
	if e.void {
		flag = mirrorVoid
	}
	return append([]byte{flag}, e.raw...)
}

// judge appraises an entry that is evidence of an enclave: what does not pass gives
// nobody an epoch.
func (n *Node) judge(ctx context.Context, e *entry) {
	u, err := receipt.Parse(e.raw)
	if err != nil || u.Kind() != receipt.KindEvidence {
		return
	}
	if err := verifier.AppraiseLogged(ctx, u, n.chain, n.peer.Blob, n.cfg.Now()); err != nil {
		n.log.WarnContext(ctx, "evidence in the log is void", "issuer", u.Issuer(), "reason", err.Error())
		e.void = true
	}
}

// entered applies one entry that is in the mirror.
func (n *Node) entered(e entry) {
	h := &n.history
	raw, index := e.raw, h.rng.Size()
	h.rng.Append(merkle.LeafHash(raw))
	h.entries = append(h.entries, raw)
	if d, err := h.denials.Add(n.policy, raw); err == nil {
		n.denialLogged(cose.Sum(raw), d)
		n.heedDenials()
		return
	}
	if h.signed.Add(n.policy, raw) {
		h.published[cose.Sum(raw)] = index
		n.signatureLogged(raw)
		return
	}
	u, err := receipt.Parse(raw)
	if err != nil || u.Federation() != n.fed || e.void {
		return // the link may log what it likes
	}
	h.published[u.Digest()] = index
	if u.Kind() == receipt.KindEvidence {
		// What is void stays void: the epoch's holder is the first in log order.
		_, _ = h.epochs.Evidence(u, n.fed, n.policy.Simulated)
		return
	}
	_, _, _ = h.epochs.Verify(u) // keeps epochs.Last; void statements change nothing
}

// checkpoint takes a published checkpoint from the link.
func (n *Node) checkpoint(note []byte) {
	h := &n.history
	if h.reading {
		h.next = note
		return
	}
	cp, _, err := tlog.Open(note, h.trust)
	if err != nil {
		n.log.WarnContext(n.ctx, "checkpoint refused", "reason", err.Error())
		return
	}
	n.catchUp(note, cp, func(err error) {
		if err != nil {
			n.log.WarnContext(n.ctx, "log refused", "size", cp.Size, "reason", err.Error())
		}
	})
}

// catchUp mirrors the entries up to cp and saves it: a checkpoint that does not
// extend what this node saw is refused, and proves that somebody rewrites history.
func (n *Node) catchUp(note []byte, cp *tlog.Checkpoint, then func(error)) {
	h := &n.history
	if h.reading {
		h.waiting = append(h.waiting, func() { n.catchUp(note, cp, then) })
		return
	}
	if cp.Size <= h.rng.Size() {
		then(n.known(note, cp))
		return
	}
	from, err := merkle.ResumeRange(h.rng.Size(), h.rng.Peaks())
	if err != nil {
		then(err)
		return
	}
	h.reading = true
	n.loop.Job(func(ctx context.Context) func() {
		var fresh []entry
		err := tlog.Audit(ctx, n.peer, from, cp, func(_ uint64, e []byte) error {
			fresh = append(fresh, entry{raw: append([]byte(nil), e...)})
			return nil
		})
		if err == nil {
			for i := range fresh {
				n.judge(ctx, &fresh[i])
			}
		}
		return func() {
			h.reading = false
			if err == nil {
				err = n.mirror(fresh, note, cp)
			}
			then(err)
			waiting := h.waiting
			h.waiting = nil
			for _, f := range waiting {
				f()
			}
			if next := h.next; next != nil && !h.reading {
				h.next = nil
				n.checkpoint(next)
			}
		}
	})
}

// known checks a checkpoint within the mirror against the mirror.
func (n *Node) known(note []byte, cp *tlog.Checkpoint) error {
	h := &n.history
	var r merkle.Range
	for _, e := range h.entries[:cp.Size] {
		r.Append(merkle.LeafHash(e))
	}
	if root := r.Root(); root != cp.Root {
		return fmt.Errorf("the log shows two histories of size %d: this node mirrored %x, the checkpoint says %x", cp.Size, root[:8], cp.Root[:8])
	}
	// The link shows a checkpoint once more when further witnesses have cosigned it:
	// the member's officer wants the one with the member's own.
	_, _, err := tlog.Open(note, h.own)
	more := err == nil && (h.witnessed == nil || cp.Size > h.witnessed.Size)
	if h.head == nil || cp.Size > h.head.Size || cp.Size == h.head.Size && more {
		return n.save(note, cp)
	}
	return nil
}

// see notes a checkpoint that the member's own witness has cosigned.
func (h *history) see(note []byte) (ok bool) {
	cp, _, err := tlog.Open(note, h.own)
	if err != nil {
		return false
	}
	h.witnessed = cp
	return true
}

func (n *Node) mirror(fresh []entry, note []byte, cp *tlog.Checkpoint) error {
	for _, e := range fresh {
		if err := n.history.mirror.Append(e.record()); err != nil {
			n.loop.Stop(fmt.Errorf("log mirror: %w", err))
			return err
		}
		n.entered(e)
	}
	if err := n.save(note, cp); err != nil {
		return err
	}
	n.overdue()
	return nil
}

func (n *Node) save(note []byte, cp *tlog.Checkpoint) error {
	if err := n.journal.Checkpoint(note); err != nil {
		n.loop.Stop(err)
		return err
	}
	h := &n.history
	h.head, h.note = cp, note
	if h.see(note) {
		waiting := h.officer
		h.officer = nil
		for _, f := range waiting {
			f()
		}
	}
	return nil
}

// openWitness makes the member's witness, if this node has its key.
func (n *Node) openWitness() error {
	if n.cfg.WitnessKey == nil {
		return nil
	}
	var held tlog.State
	n.journal.View(func(s *journal.State) { held.Note = s.Witnessed })
	if len(held.Note) == 0 {
		held.Note = nil
	}
	w, err := tlog.NewWitness(tlog.WitnessConfig{
		Origin: n.policy.Log.Origin, LogKey: n.history.trust.LogKey, Name: n.cfg.WitnessName, Key: n.cfg.WitnessKey,
		Save: func(s tlog.State) error { return n.journal.Witness(s.Note) }, Now: n.cfg.Now,
	}, held)
	if err != nil {
		return err
	}
	if own := n.policy.Member(n.cfg.Member).WitnessKey; w.Key().String() != own {
		return fmt.Errorf("witness key %s is not the one that the policy names for %s, %s", w.Key(), n.cfg.Member, own)
	}
	n.witness = w
	return nil
}

func (n *Node) witnessName() string {
	if n.witness == nil {
		return ""
	}
	return n.witness.Key().String()
}

func (n *Node) witnessedSize() uint64 {
	if n.witness == nil {
		return 0
	}
	return n.witness.Held().Size
}

// cosign answers the link's request for a cosignature: only an extension of what was
// cosigned before gets one, and it is saved first.
func (n *Node) cosign(r relay.WitnessRequest) {
	if n.witness == nil {
		return
	}
	line, err := n.witness.Add(r.OldSize, r.Proof, r.Note)
	var held *tlog.HeldError
	var fork *tlog.ForkError
	switch {
	case errors.As(err, &held):
		err = n.peer.Cosign(nil, held.Held)
	case errors.As(err, &fork):
		n.log.ErrorContext(n.ctx, "the log forks: two signed checkpoints of one size", "proof", fmt.Sprintf("%x", fork.Proof.Encode()))
		return
	case err != nil:
		n.log.WarnContext(n.ctx, "cosignature refused", "reason", err.Error())
		return
	default:
		err = n.peer.Cosign(line, n.witness.Held().Size)
	}
	if err != nil {
		n.loop.Stop(err)
	}
}
