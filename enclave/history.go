package enclave

import (
	"context"
	"fmt"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

// history is what the federation's log says, as far as the members' witnesses
// cosigned it. Every entry was replayed against the checkpoint's root. The loop
// owns it.
type history struct {
	trust   tlog.Trust
	head    *tlog.Checkpoint // nil until the first
	note    []byte
	entries *merkle.Range
	reading bool     // an advance runs
	next    []byte   // a note that came meanwhile
	waiting []func() // wait for reading to end

	epochs   receipt.Epochs
	runs     map[Digest]*loggedRun
	requests map[Digest]bool      // run requests that were used
	denials  policy.Denials       // of any member, as far as the log has them
	signed   policy.AppSignatures // of apps, as far as the log has them
}

// loggedRun is a run as the log tells it.
type loggedRun struct {
	statement *receipt.Statement
	by        receipt.Enclave
	steps     []loggedStep               // every step and release statement, in log order
	ended     *receipt.Statement         // nil until then
	without   map[Digest]*session.Resume // what nodes brought that came back without a step to resume it from
}

type loggedStep struct {
	statement *receipt.Statement
	by        receipt.Enclave
}

func newHistory(p *policy.Policy) (history, error) {
	trust, err := verifier.LogTrust(p)
	if err != nil {
		return history{}, err
	}
	return history{
		trust: trust, entries: new(merkle.Range), runs: map[Digest]*loggedRun{}, requests: map[Digest]bool{},
	}, nil
}

// known reports whether the log's state was learnt.
func (h *history) known() bool { return h.head != nil || h.reading }

// size returns the number of entries that were replayed.
func (h *history) size() uint64 { return h.entries.Size() }

// checkpoint is the state for claims and heads.
func (h *history) checkpoint() attestation.Checkpoint {
	if h.head == nil {
		return attestation.Checkpoint{}
	}
	return attestation.Checkpoint{Size: h.head.Size, Root: h.head.Root}
}

// checkpoint takes a published checkpoint from the link: it is verified, and the
// entries that it adds are replayed, before anything follows from it.
func (e *Enclave) checkpoint(note []byte) {
	if e.history.reading {
		e.history.next = note
		return
	}
	cp, _, err := tlog.Open(note, e.history.trust)
	if err != nil {
		e.log.WarnContext(e.ctx, "checkpoint refused", "reason", err.Error())
		return
	}
	if e.history.head != nil && cp.Size <= e.history.head.Size {
		if cp.Size == e.history.head.Size && cp.Root != e.history.head.Root {
			e.loop.Stop(fmt.Errorf("enclave: the log shows two histories of size %d", cp.Size))
		}
		return
	}
	e.history.reading = true
	e.advance(note, cp, func(err error) {
		if err != nil {
			e.log.WarnContext(e.ctx, "log entries refused", "size", cp.Size, "reason", err.Error())
		}
	})
}

type entry struct {
	index uint64
	raw   []byte
	void  bool // evidence that does not pass
}

// judge appraises an entry that is evidence of an enclave, this one too: what does not
// pass gives nobody an epoch, and every node finds so.
func (e *Enclave) judge(ctx context.Context, x *entry) {
	u, err := receipt.Parse(x.raw)
	if err != nil || u.Kind() != receipt.KindEvidence {
		return
	}
	if err := verifier.AppraiseLogged(ctx, u, e.chain, e.peer.Blob, e.cfg.Now()); err != nil {
		e.log.WarnContext(ctx, "evidence in the log is void", "index", x.index, "issuer", u.Issuer(), "reason", err.Error())
		x.void = true
	}
}

// advance replays the entries up to cp in a job and applies them on the loop.
func (e *Enclave) advance(note []byte, cp *tlog.Checkpoint, then func(error)) {
	from, err := merkle.ResumeRange(e.history.entries.Size(), e.history.entries.Peaks())
	if err != nil {
		panic("enclave: internal error: " + err.Error())
	}
	e.loop.Job(func(ctx context.Context) func() {
		var fresh []entry
		err := tlog.Audit(ctx, e.peer, from, cp, func(index uint64, raw []byte) error {
			fresh = append(fresh, entry{index: index, raw: append([]byte(nil), raw...)})
			return nil
		})
		if err == nil {
			for i := range fresh {
				e.judge(ctx, &fresh[i])
			}
		}
		return func() {
			h := &e.history
			h.reading = false
			if err == nil {
				h.head, h.note, h.entries = cp, note, from
				for _, x := range fresh {
					e.logged(x)
				}
				if !e.booted {
					e.boot()
				}
			}
			then(err)
			waiting := h.waiting
			h.waiting = nil
			for _, f := range waiting {
				f()
			}
			if next := h.next; next != nil {
				h.next = nil
				e.checkpoint(next)
			}
		}
	})
}

// logged takes one entry of the log. Entries that are no statements of this
// federation, or that nobody with a right to it signed, change nothing: the link
// may log what it likes.
func (e *Enclave) logged(x entry) {
	if d, err := e.history.denials.Add(e.policy, x.raw); err == nil {
		e.denial(d)
		return
	}
	if e.history.signed.Add(e.policy, x.raw) {
		return
	}
	u, err := receipt.Parse(x.raw)
	if err != nil || u.Federation() != e.fed {
		return
	}
	digest := cose.Sum(x.raw)
	own := u.KeyID() == e.signer.Public().ID()
	if own {
		e.notePublished(digest, x.index)
	}
	if x.void {
		return
	}
	h := &e.history
	if u.Kind() == receipt.KindEvidence {
		claims, err := h.epochs.Evidence(u, e.fed, e.policy.Simulated)
		if err == nil && own && e.evidence.IsZero() {
			e.evidence = digest
		}
		if err == nil && claims.Instance != e.instance && e.booted && claims.Epoch >= e.epoch {
			e.loop.Stop(ErrSuperseded)
		}
		return
	}
	s, by, err := h.epochs.Verify(u)
	if err != nil {
		return // unknown, or signed after a later epoch began (protocol F14)
	}
	switch body := s.Body.(type) {
	case *receipt.Run:
		h.runs[digest] = &loggedRun{statement: s, by: by}
		h.requests[body.Request] = true
	case *receipt.Step, *receipt.Release:
		if r := h.runs[s.Run]; r != nil {
			r.steps = append(r.steps, loggedStep{s, by})
		}
	case *receipt.End:
		if r := h.runs[s.Run]; r != nil {
			r.ended = s
		}
	}
}
