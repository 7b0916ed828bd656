package log

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/concordat/concordat/verifier/tlog"
	"github.com/transparency-dev/tessera/client"
)

// Times of a round of cosigning.
const (
	// grace is how long a published checkpoint waits for further cosignatures
	// before it is published once more with them, and the next round starts: each
	// member wants its own witness's among them. Arbitrary.
	grace = 250 * time.Millisecond
	// retry is how long a store that failed is left alone.
	retry = time.Second
)

// feed has the newest signed checkpoint cosigned, one round after the other. A
// round is one checkpoint. It is published as soon as enough witnesses cosigned
// it, and once more when all that were asked have answered or grace is over.
type feed struct {
	log       *Log
	published atomic.Pointer[checkpoint] // the newest; written by the feed's goroutine
	events    chan func()
	stopping  chan struct{}
	stopped   chan struct{}

	// What follows belongs to the feed's goroutine.
	witnesses map[*Witness]struct{}
	round     *round    // nil before the first
	begun     time.Time // when it began
	timer     bool      // whether begin will be tried again
}

// round is one checkpoint on its way to be published.
type round struct {
	checkpoint
	lines     map[tlog.VerifierKey][]byte // cosignatures
	published int                         // how many of them the last published note has; 0: not published
	closed    bool                        // nobody is waited for any more
}

func newFeed(l *Log) *feed {
	return &feed{log: l, events: make(chan func(), 256), stopping: make(chan struct{}), stopped: make(chan struct{}), witnesses: make(map[*Witness]struct{})}
}

func (f *feed) start() {
	go func() {
		defer close(f.stopped)
		for f.step(); ; f.step() {
			select {
			case do := <-f.events:
				do()
			case <-f.stopping:
				return
			}
		}
	}()
}

func (f *feed) stop() {
	close(f.stopping)
	<-f.stopped
}

// do has the feed's goroutine run an event; after stop it is dropped.
func (f *feed) do(event func()) {
	select {
	case f.events <- event:
	case <-f.stopping:
	}
}

// grown tells that there are new entries. It does not block: if many events wait,
// the log is looked at after them anyway.
func (f *feed) grown() {
	select {
	case f.events <- func() {}:
	default:
	}
}

// later has the feed look again after d.
func (f *feed) later(d time.Duration) { time.AfterFunc(d, func() { f.do(func() { f.timer = false }) }) }

// step does what can be done now.
func (f *feed) step() {
	f.publish()
	f.begin()
	if f.round == nil {
		return
	}
	for w := range f.witnesses {
		if w.asked == nil && w.refused != f.round && f.round.lines[w.key] == nil {
			f.ask(w)
		}
	}
}

// begin starts the next round if the log has grown, nobody is waited for and the
// last round is long enough ago.
func (f *feed) begin() {
	if f.timer || f.round != nil && !f.round.closed {
		return
	}
	size, err := f.log.Size(context.Background())
	known := uint64(0)
	if p := f.published.Load(); p != nil {
		known = p.Size
	}
	if err == nil && size <= known {
		return
	}
	if wait := f.log.cfg.CheckpointInterval - time.Since(f.begun); wait > 0 {
		f.timer = true
		f.later(wait)
		return
	}
	if err == nil {
		err = f.next()
	}
	if err != nil {
		f.log.cfg.Logger.Error("no new checkpoint", "error", err)
		f.timer = true
		f.later(retry)
	}
}

// next makes the log as it is now the round.
func (f *feed) next() error {
	c, err := f.log.sign(context.Background())
	if err != nil {
		return err
	}
	f.round, f.begun = &round{checkpoint: *c, lines: make(map[tlog.VerifierKey][]byte)}, time.Now()
	return nil
}

// ask sends the round's checkpoint to a witness that is idle.
func (f *feed) ask(w *Witness) {
	if w.size > f.round.Size && !f.skip(w) {
		return
	}
	r := f.round
	req := Request{Note: r.note, OldSize: w.size}
	if w.size > 0 && w.size < r.Size {
		proof, err := f.consistency(w.size, r.Size)
		if err != nil {
			f.log.cfg.Logger.Error("no consistency proof for a witness", "witness", w.key.Name(), "error", err)
			w.refused = r
			return
		}
		req.Proof = proof
	}
	w.asked = r
	w.ask(req)
}

// skip gives up the round for the newest checkpoint because a witness that
// cosigned more than the round's is needed. It does not where others suffice: one
// that lies about its size must not keep the rest from publishing.
func (f *feed) skip(w *Witness) bool {
	size, err := f.log.Size(context.Background())
	if err != nil || size < w.size {
		if !w.warned {
			w.warned = true
			f.log.cfg.Logger.Error("a witness holds a larger checkpoint than this log has: was the log set back?", "witness", w.key.Name(), "holds", w.size, "size", size, "error", err)
		}
		return false
	}
	able := make(map[tlog.VerifierKey]bool)
	for k := range f.round.lines {
		able[k] = true
	}
	for o := range f.witnesses {
		if o.size <= f.round.Size && o.refused != f.round {
			able[o.key] = true
		}
	}
	if len(able) >= f.log.cfg.Need {
		return false
	}
	if err := f.next(); err != nil {
		f.log.cfg.Logger.Error("no new checkpoint", "error", err)
		return false
	}
	return true
}

func (f *feed) consistency(from, to uint64) ([][]byte, error) {
	pb, err := client.NewProofBuilder(context.Background(), to, f.log.reader.ReadTile)
	if err != nil {
		return nil, err
	}
	return pb.ConsistencyProof(context.Background(), from, to)
}

// publish publishes the round if it has become worth it.
func (f *feed) publish() {
	r := f.round
	if r == nil || len(r.lines) < f.log.cfg.Need {
		return
	}
	waiting := false
	for w := range f.witnesses {
		waiting = waiting || w.asked == r
	}
	if r.published == 0 || len(r.lines) > r.published && (!waiting || r.closed) {
		first := r.published == 0
		if err := f.announce(r); err != nil {
			f.log.cfg.Logger.Error("checkpoint is not published", "size", r.Size, "error", err)
			f.later(retry)
			return
		}
		if first && waiting {
			time.AfterFunc(grace, func() { f.do(func() { r.closed = true }) })
		}
	}
	if !waiting {
		r.closed = true
	}
}

// announce publishes the round's checkpoint with its cosignatures.
func (f *feed) announce(r *round) error {
	note, err := f.keep(r)
	if err != nil {
		return err
	}
	r.published = len(r.lines)
	f.published.Store(&checkpoint{r.Checkpoint, note})
	f.log.cfg.Published(note)
	return nil
}

// keep stores the round's checkpoint with its cosignatures, in the policy's order.
func (f *feed) keep(r *round) ([]byte, error) {
	cfg := &f.log.cfg
	note := bytes.Clone(r.note)
	for _, k := range cfg.Witnesses {
		note = append(note, r.lines[k]...)
	}
	if _, _, err := tlog.Open(note, tlog.Trust{Origin: cfg.Origin, LogKey: f.log.signer.key, Witnesses: cfg.Witnesses, Need: cfg.Need}); err != nil {
		return nil, fmt.Errorf("internal error: %w", err)
	}
	return note, cfg.Store.PutCheckpoint(context.Background(), cfg.Federation, r.Size, note)
}
