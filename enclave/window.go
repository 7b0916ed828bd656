package enclave

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
)

var errWriter = errors.New("enclave: the log takes no statements")

// maxEarly bounds the hellos that wait for the log to be read.
const maxEarly = 1 << 12

// boot fixes the epoch, once the log is known: one more than the highest that a
// cosigned checkpoint shows.
func (e *Enclave) boot() {
	if e.booted {
		return
	}
	e.booted = true
	e.epoch = e.history.epochs.Highest() + 1
	e.ledger.chain = receipt.NewChain(e.history.epochs.Last())
	e.log.InfoContext(e.ctx, "epoch chosen", "epoch", e.epoch, "log_size", e.history.size())
	early := e.early
	e.early = nil
	for _, h := range early {
		if err := e.hello(h); err != nil {
			e.log.WarnContext(e.ctx, "frame refused", "reason", err.Error())
		}
	}
}

// hello takes a node's challenge into the open window, and opens one if there is
// none.
func (e *Enclave) hello(frame []byte) error {
	if !e.booted {
		if len(e.early) >= maxEarly {
			return errors.New("enclave: too many hellos before the log is known")
		}
		e.early = append(e.early, frame)
		return nil
	}
	if e.window == nil {
		w, err := session.NewWindow(e.fed, e.signer, e.cfg.Now())
		if err != nil {
			return err
		}
		e.window = w
		e.loop.After(e.cfg.WindowDelay, e.closeWindow)
		e.loop.After(session.WindowLife, func() { e.endWindow(w) }) // its KEM key ends then, whatever else
	}
	_, _, err := e.window.Add(frame)
	return err
}

// closeWindow gets one piece of evidence for everybody who asked.
func (e *Enclave) closeWindow() {
	w := e.window
	e.window = nil
	root, count := w.Close()
	if count == 0 {
		return
	}
	claims := attestation.Claims{
		Federation: e.fed, Policy: e.policy.Digest(), PolicyVersion: e.policy.Version,
		Denials: e.history.denials.Digest(), Instance: e.instance, Role: attestation.RoleAggregator, Epoch: e.epoch,
		SignPub: e.signer.Public(), KEMPub: w.KEMPublic(), Image: e.cfg.Image, Config: e.cfg.Config,
		NonceRoot: root, NonceCount: count, Checkpoint: e.history.checkpoint(),
		Simulated: e.policy.Simulated, IssuedAt: uint64(e.cfg.Now().Unix()),
	}
	e.loop.Job(func(ctx context.Context) func() {
		e.collecting.Lock() // the machine, and the link's vendors, are asked once at a time
		ev, ends, err := e.collect(ctx, claims)
		e.collecting.Unlock()
		if err != nil {
			return func() { e.log.ErrorContext(e.ctx, "no evidence", "reason", err.Error()) }
		}
		return func() { e.offer(w, ev, ends) }
	})
}

// collect gets the machine's evidence for claims and puts it, with what endorses
// it, where the nodes can fetch it.
func (e *Enclave) collect(ctx context.Context, claims attestation.Claims) (*attestation.Evidence, []Digest, error) {
	var gpus []attestation.Item
	if n := e.cfg.Machine.GPUs(); n > 0 {
		nonces := make([][32]byte, n)
		for i := range nonces {
			nonces[i] = attestation.GPUNonce(&claims, i)
		}
		var err error
		if gpus, err = e.cfg.Machine.CollectGPU(ctx, nonces); err != nil {
			return nil, nil, fmt.Errorf("gpu: %w", err)
		}
		claims.GPU = attestation.GPUDigest(gpus)
	}
	raw := claims.Encode()
	items, err := e.cfg.Machine.Collect(ctx, attestation.ReportData(raw, claims.Simulated))
	if err != nil {
		return nil, nil, fmt.Errorf("cpu: %w", err)
	}
	var ends []Digest
	docs, err := e.cfg.Machine.Endorsements()
	if err != nil {
		return nil, nil, fmt.Errorf("endorsements: %w", err)
	}
	for _, d := range docs.All() {
		digest, err := e.peer.PutBlob(ctx, d.Encode())
		if err != nil {
			return nil, nil, err
		}
		ends = append(ends, digest)
	}
	ev := &attestation.Evidence{Claims: raw, Items: append(items, gpus...)}
	ends = append(ends, e.fetchEndorsements(ctx, ev, attestation.MaxEndorsements-len(ends))...)
	if _, err := e.peer.PutBlob(ctx, ev.Encode()); err != nil {
		return nil, nil, err
	}
	slices.SortFunc(ends, func(a, b Digest) int { return bytes.Compare(a[:], b[:]) })
	return ev, slices.Compact(ends), nil
}

// offer logs the evidence and, once its statement is witnessed, answers the
// window's hellos.
func (e *Enclave) offer(w *session.Window, ev *attestation.Evidence, ends []Digest) {
	s, err := e.sign(receipt.KindEvidence, Digest{}, &receipt.Evidence{Claims: ev.Claims, Envelope: ev.Digest(), Endorsements: ends}, nil)
	if err != nil {
		e.log.ErrorContext(e.ctx, "evidence not signed", "reason", err.Error())
		return
	}
	e.observe("evidence", e.epoch)
	e.whenPublished(s.Digest(), func() {
		index, cp, note := e.ledger.published[s.Digest()], e.history.head, e.history.note
		e.loop.Job(func(ctx context.Context) func() {
			path, err := tlog.InclusionFromTiles(ctx, e.peer, cp, index)
			if err != nil {
				return func() { e.log.ErrorContext(e.ctx, "no log proof for the evidence", "reason", err.Error()) }
			}
			lp := session.LogProof{Statement: s.Raw(), Index: index, Path: path, Checkpoint: note}
			return func() {
				if err := w.Offers(ev.Claims, ev.Encode(), lp, func(node Digest, frame []byte) error {
					return e.peer.Send(relay.Node(node), frame)
				}); err != nil {
					e.log.ErrorContext(e.ctx, "offers not sent", "reason", err.Error())
					return
				}
				e.windows = append(e.windows, w)
			}
		})
	})
}

func (e *Enclave) endWindow(w *session.Window) {
	w.End()
	for i, x := range e.windows {
		if x == w {
			e.windows = append(e.windows[:i:i], e.windows[i+1:]...)
			return
		}
	}
}
