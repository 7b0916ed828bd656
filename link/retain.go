package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/link/state"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier"
	"github.com/concordat/concordat/verifier/receipt"
)

// maxBreak is how long a link may be away without the time before counting for nothing.
// It is longer than an upgrade takes, and far shorter than anything is kept.
const maxBreak = day

// periods say how long chunks stay.
type periods struct{ retain, abandoned time.Duration }

func (c *Config) periods() periods {
	return periods{time.Duration(c.Retain), time.Duration(c.Abandoned)}
}

// due returns when the chunks of a run may be released if nobody uses them before. since
// is from when on its federation has been served: nobody can use what is not served.
//
// An end alone never counts. Whoever has one logged for a run that goes on shortens the
// time for which nobody may have used it, and to no less than a run with an enclave ever
// needs from one use to the next.
func (p periods) due(head *policy.Policy, u chunkstore.Usage, since time.Time, r state.Retirement) time.Time {
	from, wait := later(u.Used, since), p.abandoned
	if !r.Ended.IsZero() {
		from, wait = later(from, r.Ended), p.retain
	}
	// A step opens with outputs stored and ends with others, after the deadlines for
	// contributions and for acks. As much again is for what the machines need.
	pause := (2 * (head.Release.StepDeadline + head.Release.AckDeadline)).Duration()
	return from.Add(max(wait, pause))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// collector releases the chunks of runs that nobody needs any more. What belongs to it
// is used by the goroutine of run alone.
type collector struct {
	periods
	chunks      chunkstore.Store
	state       *state.Store
	federations map[cose.Digest]*federation
	interval    time.Duration
	now         func() time.Time
	logger      *slog.Logger
	metrics     *counters
	appraise    func(ctx context.Context, f *federation, evidence *receipt.Unverified) error

	heard map[cose.Digest]*heard
}

// heard is what was read of a federation's log.
type heard struct {
	entries uint64
	epochs  receipt.Epochs
}

func (l *Link) collector(chunks chunkstore.Store) *collector {
	return &collector{periods: l.cfg.periods(), chunks: chunks, state: l.state, federations: l.relay.federations, interval: l.cfg.ReleaseInterval,
		now: l.cfg.Now, logger: l.cfg.Logger, metrics: l.relay.metrics, appraise: l.appraise, heard: make(map[cose.Digest]*heard)}
}

// appraise says whether an evidence statement of the log passes, as nodes judge it.
func (l *Link) appraise(ctx context.Context, f *federation, evidence *receipt.Unverified) error {
	var failed error // of the link, which says nothing of the evidence
	err := verifier.AppraiseLogged(ctx, evidence, f.chain, func(ctx context.Context, d cose.Digest) ([]byte, error) {
		b, err := l.state.Blob(ctx, f.id, d)
		if err != nil {
			failed = err
		} else if b == nil {
			err = fmt.Errorf("no blob %s", d.Short())
		}
		return b, err
	}, l.cfg.Now())
	if failed != nil {
		return fmt.Errorf("%w: %w", errNotAppraised, failed)
	}
	return err
}

// errNotAppraised: evidence neither passes nor fails; it is to be tried again.
var errNotAppraised = errors.New("not appraised")

// run collects until ctx ends. It waits first: parties that come back after a restart
// use what they need.
func (c *collector) run(ctx context.Context) error {
	t := time.NewTicker(c.interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		if err := c.collect(ctx); err != nil && ctx.Err() == nil {
			c.logger.ErrorContext(ctx, "chunks are not released that may be", "error", err)
		}
	}
}

// collect releases what is due. A federation that is not hosted keeps all that it has.
func (c *collector) collect(ctx context.Context) error {
	var errs []error
	since := make(map[cose.Digest]time.Time) // of federations whose log was read
	for id, f := range c.federations {
		t, err := c.state.Serve(ctx, id, c.now(), maxBreak)
		if err == nil {
			err = c.hear(ctx, f)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("federation %s: %w", id.Short(), err))
			continue
		}
		since[id] = t
	}
	runs, err := c.chunks.Runs(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, u := range runs {
		served, ok := since[u.Federation]
		if !ok {
			continue
		}
		r, err := c.state.Retirement(ctx, u.Federation, u.Run)
		if err == nil && !c.now().Before(c.due(c.federations[u.Federation].policy, u, served, r)) {
			err = c.release(ctx, u, r)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("run %s: %w", u.Run.Short(), err))
		}
	}
	return errors.Join(errs...)
}

// hear reads what is new in a federation's log and notes which runs ended. An end counts
// as it does for nodes: if it is signed by the enclave that held the newest epoch there,
// whose evidence passed when it was first read.
func (c *collector) hear(ctx context.Context, f *federation) error {
	h := c.heard[f.id]
	if h == nil {
		h = new(heard)
		c.heard[f.id] = h
	}
	for {
		entries, err := f.log.Entries(ctx, h.entries)
		if err != nil || len(entries) == 0 {
			return err
		}
		for _, e := range entries {
			if err := c.enter(ctx, f, h, e); err != nil {
				return err
			}
			h.entries++
		}
	}
}

func (c *collector) enter(ctx context.Context, f *federation, h *heard, entry []byte) error {
	u, err := receipt.Parse(entry)
	if err != nil || u.Federation() != f.id {
		return nil // parties log what they like
	}
	switch u.Kind() {
	case receipt.KindEvidence:
		passed, err := c.passes(ctx, f, u)
		if err == nil && passed {
			_, _ = h.epochs.Evidence(u, f.id, f.policy.Simulated) // void, or not
		}
		return err
	case receipt.KindEnd:
		if _, _, err := h.epochs.Verify(u); err != nil {
			c.logger.InfoContext(ctx, "an end in the log counts for nothing", "federation", f.id.Short(), "run", u.Run().Short(), "reason", err)
			return nil
		}
		if r, err := c.state.Retirement(ctx, f.id, u.Run()); err != nil || !r.Ended.IsZero() {
			return err
		}
		if err := c.state.PutEnd(ctx, f.id, u.Run(), c.now()); err != nil {
			return err
		}
		c.logger.InfoContext(ctx, "a run has ended", "federation", f.id.Short(), "run", u.Run().Short())
	}
	return nil
}

// passes says whether evidence passed when it was first read: it may not later, when
// what endorses it is old.
func (c *collector) passes(ctx context.Context, f *federation, u *receipt.Unverified) (bool, error) {
	passed, known, err := c.state.Appraisal(ctx, f.id, u.Digest())
	if err != nil || known {
		return passed, err
	}
	err = c.appraise(ctx, f, u)
	if errors.Is(err, errNotAppraised) || ctx.Err() != nil {
		return false, errors.Join(err, ctx.Err())
	}
	if err != nil {
		c.logger.WarnContext(ctx, "evidence in the log is void", "federation", f.id.Short(), "issuer", u.Issuer(), "reason", err)
	}
	return err == nil, c.state.PutAppraisal(ctx, f.id, u.Digest(), err == nil)
}

// release releases a run. That it does is noted before: whoever misses a chunk is told,
// whatever happens in between.
func (c *collector) release(ctx context.Context, u chunkstore.Usage, r state.Retirement) error {
	freed, err := release(ctx, c.state, c.chunks, u, r, c.now())
	if errors.Is(err, chunkstore.ErrInUse) {
		return nil // since it was listed
	}
	if freed.Chunks > 0 {
		c.metrics.releasedChunks.Add(float64(freed.Chunks))
		c.metrics.releasedBytes.Add(float64(freed.Bytes))
		c.logger.InfoContext(ctx, "released the chunks of a run", "federation", u.Federation.Short(), "run", u.Run.String(), "ended", !r.Ended.IsZero(),
			"used", u.Used, "owners", freed.Owners, "chunks", freed.Chunks, "bytes", freed.Bytes)
	}
	return err
}

// release has the store release what u says, unless it was used since.
func release(ctx context.Context, s *state.Store, chunks chunkstore.Store, u chunkstore.Usage, r state.Retirement, now time.Time) (chunkstore.Usage, error) {
	if err := s.PutRelease(ctx, u.Federation, u.Run, now); err != nil {
		return chunkstore.Usage{}, err
	}
	freed, err := chunks.Release(ctx, u.Federation, u.Run, u.Used)
	if errors.Is(err, chunkstore.ErrInUse) {
		err = errors.Join(err, s.PutRelease(ctx, u.Federation, u.Run, r.Released))
	}
	return freed, err
}
