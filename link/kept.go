package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/pack"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/link/state"
	"github.com/concordat/concordat/policy"
)

// Kept is what a link that does not run keeps of one run's chunks.
type Kept struct {
	chunkstore.Usage           // Used is when a chunk was last written
	Logged           bool      // the federation's log has the run's statement; without it no run has begun
	Ended            time.Time // when the link noted the run's end; zero: it has not
	Due              time.Time // when a link with this configuration would release them; zero: never, or while its federation is not hosted

	noted state.Retirement
}

// depot is the data directory of a link that does not run.
type depot struct {
	lock   io.Closer
	state  *state.Store
	chunks *pack.Store
	heads  map[cose.Digest]*policy.Policy
	cfg    Config
}

func openDepot(ctx context.Context, cfg Config) (_ *depot, err error) {
	if err := cfg.Complete(); err != nil {
		return nil, err
	}
	if _, err := disk.Stat(filepath.Join(cfg.Data, stateFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("link: no link has run on %s", cfg.Data)
	}
	d := &depot{cfg: cfg, heads: make(map[cose.Digest]*policy.Policy)}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if d.lock, err = lock(cfg.Data); err != nil {
		return nil, fmt.Errorf("%w (a link that runs has to be stopped first)", err)
	}
	chains, err := cfg.chains()
	if err != nil {
		return nil, err
	}
	for _, c := range chains {
		d.heads[c.Federation()] = c.Head()
	}
	if d.state, err = state.Open(ctx, filepath.Join(cfg.Data, stateFile), state.DefaultLimits, cfg.Now); err != nil {
		return nil, err
	}
	d.chunks, err = cfg.openChunks()
	return d, err
}

func (d *depot) close() error {
	var errs []error
	if d.chunks != nil {
		errs = append(errs, d.chunks.Close())
	}
	if d.state != nil {
		errs = append(errs, d.state.Close())
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(errs...)
}

// list returns what is kept of every run, the one that was used first first.
func (d *depot) list(ctx context.Context) ([]Kept, error) {
	runs, err := d.chunks.Runs(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Kept, len(runs))
	for i, u := range runs {
		k := Kept{Usage: u}
		r, err := d.state.Retirement(ctx, u.Federation, u.Run)
		if err != nil {
			return nil, err
		}
		k.Ended, k.noted = r.Ended, r
		if _, k.Logged, err = d.state.EntryIndex(ctx, u.Federation, u.Run); err != nil {
			return nil, err
		}
		if head := d.heads[u.Federation]; head != nil {
			since, err := d.state.Served(ctx, u.Federation)
			if err != nil {
				return nil, err
			}
			if due := d.cfg.periods().due(head, u, since, r); due.Sub(d.cfg.Now()) < time.Duration(Forever)/2 {
				k.Due = due
			}
		}
		all[i] = k
	}
	slices.SortFunc(all, func(a, b Kept) int {
		return cmp.Or(a.Used.Compare(b.Used), strings.Compare(a.Run.String(), b.Run.String()))
	})
	return all, nil
}

// Chunks lists what the link with this configuration keeps of every run, the one that
// was used first first. The link must not run.
func Chunks(ctx context.Context, cfg Config) (all []Kept, err error) {
	d, err := openDepot(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	return d.list(ctx)
}

// minPrefix is how many digits name a run.
const minPrefix = 8

// ReleaseChunks releases the chunks of runs, each named by the first eight or more digits
// of its digest, and returns what it freed. It does nothing if one of them is not the
// name of exactly one run, or, unless forced, is of a run that has begun and whose end
// the link has not noted: an enclave may need its chunks. The link must not run.
func ReleaseChunks(ctx context.Context, cfg Config, names []string, force bool) (freed []Kept, err error) {
	d, err := openDepot(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	all, err := d.list(ctx)
	if err != nil {
		return nil, err
	}
	var chosen []Kept
	for _, name := range names {
		k, err := find(all, name)
		if err != nil {
			return nil, err
		}
		if k.Logged && k.Ended.IsZero() && !force {
			return nil, fmt.Errorf("link: run %s has not ended, as far as this link knows: %w", k.Run.Short(), ErrRunning)
		}
		if !slices.ContainsFunc(chosen, func(c Kept) bool { return c.Run == k.Run }) {
			chosen = append(chosen, k)
		}
	}
	for _, k := range chosen {
		k.Usage, err = release(ctx, d.state, d.chunks, k.Usage, k.noted, d.cfg.Now())
		if err != nil {
			return freed, fmt.Errorf("link: run %s: %w", k.Run.Short(), err)
		}
		freed = append(freed, k)
	}
	return freed, nil
}

// ErrRunning: the chunks of a run are not released, since an enclave may need them.
var ErrRunning = errors.New("an enclave may need its chunks")

func find(all []Kept, name string) (found Kept, err error) {
	n := 0
	for _, k := range all {
		if strings.HasPrefix(k.Run.String(), name) {
			found = k
			n++
		}
	}
	switch {
	case len(name) < minPrefix:
		return found, fmt.Errorf("link: %q: want at least %d digits of a run", name, minPrefix)
	case n == 0:
		return found, fmt.Errorf("link: no chunks of a run %s", name)
	case n > 1:
		return found, fmt.Errorf("link: %d runs begin with %s", n, name)
	}
	return found, nil
}
