package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/concordat/concordat/internal/flower/control/auth"
	"github.com/concordat/concordat/internal/flower/fab"
)

// Runner is the node, as Flower's users see it. Its methods are called concurrently.
type Runner interface {
	Federation() Federation
	// Strategy is that of runs of a bundle which names none; empty: it must.
	Strategy(b *fab.Bundle) string
	// Check says why a bundle may not be run, with config in force. The text is for the
	// user.
	Check(b *fab.Bundle, t fab.Terms, config map[string]any) error
	// Run does a job. It returns nil when the run has completed, an error that wraps
	// [ErrStopped] when it was stopped, and any other when it failed. When ctx ends, Run
	// returns soon; the run itself may go on.
	Run(ctx context.Context, j *Job) error
	// Follow is Run for a job that was begun before a restart, with what [Job.Began] was
	// told of it. The job has an account and Stop, and nothing else.
	Follow(ctx context.Context, j *Job, mark []byte) error
	// Results returns the files that a run has left here, by what [Job.Began] was told of it.
	Results(mark []byte) ([]Result, error)
}

// ErrStopped: the run was stopped as its user wished.
var ErrStopped = errors.New("stopped by its user")

// Federation is what users are told of the one that the node is in.
type Federation struct {
	Name    string   // "@concordat/" and something short
	Members []string // ids
	Node    Node
}

// Node is the node that is asked.
type Node struct {
	ID     uint64
	Member string
	Since  time.Time
	Online bool // it has joined an enclave
}

// Job is one run, as its user wants it.
type Job struct {
	Account   auth.Account // who wants it
	Bundle    *fab.Bundle
	Terms     fab.Terms
	Config    map[string]any // with Overrides in it
	Overrides map[string]any
	Stop      <-chan struct{} // closed when the user wants it to end

	server *Server
	run    *run
}

// Print adds a line, or several, to the run's log.
func (j *Job) Print(text string) { j.server.print(j.run, text) }

// Running says that the run has begun; of several times, the first counts.
func (j *Job) Running() {
	j.server.mu.Lock()
	defer j.server.mu.Unlock()
	if j.run.running.IsZero() {
		j.run.running = j.server.config.Now()
		j.run.dirty = true
	}
}

// Began says that the run goes on without this process from here on: after a restart mark
// is handed to [Runner.Follow]. It returns when that is on disk.
func (j *Job) Began(mark []byte) {
	j.server.mu.Lock()
	j.run.mark = mark
	j.server.mu.Unlock()
	j.server.save(j.run)
}

// Limits of what is kept.
const (
	maxActive  = 16
	maxKept    = 256      // runs, the ended ones among them
	maxLogSize = 4 << 20  // bytes of one run's log
	maxLine    = 16 << 10 // bytes of one entry
	perLine    = 16       // bytes that an entry counts beside its text
)

func sizeOf(text string) int { return len(text) + perLine }

// saveEvery is how long what a run prints may be in memory alone.
const saveEvery = time.Second

// run is one run. The server's mutex guards it.
type run struct {
	id                         uint64
	account                    auth.Account // whose it is; nobody else sees it
	fabID, fabVersion, fabHash string
	overrides                  map[string]any
	stop                       chan struct{}
	stopping                   bool
	mark                       []byte // of [Job.Began]; nil before
	dirty                      bool   // its file is older

	pending, starting, running, finished time.Time
	outcome, details                     string // once finished: "completed", "failed", "stopped"

	log     []entry
	logSize int
	full    bool
	changed chan struct{} // closed and replaced when log or finished changes
}

type entry struct {
	at   float64 // seconds since 1970; no two of a run are equal
	text string  // with its newline
}

// Config is what a server is given.
type Config struct {
	Runner Runner
	Now    func() time.Time
	Store  *Store       // nil: runs are kept in memory alone
	Log    *slog.Logger // told what the store cannot do; nil without one
}

// Server keeps the runs. Make one with [New].
type Server struct {
	config Config
	saving sync.Mutex // held by whoever writes or removes a file; taken before mu

	mu     sync.Mutex // owns all below
	runs   map[uint64]*run
	offers map[[sha256.Size]byte]offer // by the hash of their keys
	ctx    context.Context             // of the jobs; nil before Serve, and when it ends
	jobs   sync.WaitGroup
}

// New returns a server that [Server.Serve] is to be called on, once. It has the runs that
// are in the store; a file there that does not open is named in the log, and is left.
func New(c Config) (*Server, error) {
	s := &Server{config: c, runs: map[uint64]*run{}, offers: map[[sha256.Size]byte]offer{}}
	if c.Store == nil {
		return s, nil
	}
	runs, faults, err := c.Store.read()
	if err != nil {
		return nil, fmt.Errorf("runs: %w", err)
	}
	for _, err := range faults {
		c.Log.Error("a run of the flwr command is not shown", "reason", err.Error())
	}
	for _, r := range runs {
		s.runs[r.id] = r
	}
	return s, nil
}

// save makes a run's file what the run is.
func (s *Server) save(r *run) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	c, forgotten := r.record(), s.runs[r.id] != r
	r.dirty = false
	s.mu.Unlock()
	if s.config.Store == nil || forgotten {
		return
	}
	if err := s.config.Store.write(r.id, c); err != nil {
		s.config.Log.Error("what a run of the flwr command printed is not on disk", "reason", err.Error())
	}
}

// saveAll saves what has changed.
func (s *Server) saveAll() {
	s.mu.Lock()
	var list []*run
	for _, r := range s.runs {
		if r.dirty {
			list = append(list, r)
		}
	}
	s.mu.Unlock()
	for _, r := range list {
		s.save(r)
	}
}

// keepSaving saves until ctx ends.
func (s *Server) keepSaving(ctx context.Context) {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.saveAll()
		case <-ctx.Done():
			return
		}
	}
}

// resume goes on with the runs that were begun before a restart. It is called once.
func (s *Server) resume(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runs {
		if !r.finished.IsZero() {
			continue
		}
		s.jobs.Go(func() {
			s.print(r, "[concordat] this node restarted")
			if r.mark == nil {
				s.finish(ctx, r, errUnknown)
				return
			}
			s.finish(ctx, r, s.config.Runner.Follow(ctx, &Job{Account: r.account, Stop: r.stop, server: s, run: r}, r.mark))
		})
	}
}

var (
	errTooMany  = fmt.Errorf("%d runs are active, which is the limit: stop one, or wait", maxActive)
	errFinished = errors.New("the run has finished")
)

// start registers a run and begins it.
func (s *Server) start(j *Job) (uint64, error) {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		return 0, errors.New("the node is stopping")
	}
	active := 0
	for _, r := range s.runs {
		if r.finished.IsZero() {
			active++
		}
	}
	if active >= maxActive {
		return 0, errTooMany
	}
	s.forget()
	r := &run{id: s.newID(), account: j.Account, fabID: j.Bundle.ID(), fabVersion: j.Bundle.Version, fabHash: j.Bundle.Hash(), overrides: j.Overrides,
		stop: make(chan struct{}), pending: s.config.Now(), changed: make(chan struct{})}
	r.starting = r.pending
	if s.config.Store != nil {
		if err := s.config.Store.write(r.id, r.record()); err != nil {
			return 0, fmt.Errorf("the run is not begun: %w", err)
		}
	}
	s.runs[r.id] = r
	j.server, j.run, j.Stop = s, r, r.stop
	ctx := s.ctx
	s.jobs.Go(func() { s.finish(ctx, r, s.config.Runner.Run(ctx, j)) })
	return r.id, nil
}

// newID returns a random number that no run has, as Flower makes them.
func (s *Server) newID() uint64 {
	for {
		var b [8]byte
		rand.Read(b[:]) // never fails: Go crashes the program instead
		if id := binary.LittleEndian.Uint64(b[:]); id != 0 && s.runs[id] == nil {
			return id
		}
	}
}

// forget drops a run that has finished, and its file, when there are too many: the oldest of the account
// that has the most of them, so that nobody pushes out another's.
func (s *Server) forget() {
	if len(s.runs) < maxKept {
		return
	}
	count := map[auth.Account]int{}
	for _, r := range s.runs {
		if !r.finished.IsZero() {
			count[r.account]++
		}
	}
	var oldest *run
	for _, r := range s.runs {
		if !r.finished.IsZero() && (oldest == nil || count[r.account] > count[oldest.account] ||
			count[r.account] == count[oldest.account] && r.pending.Before(oldest.pending)) {
			oldest = r
		}
	}
	delete(s.runs, oldest.id) // there is one: few are active
	if s.config.Store == nil {
		return
	}
	if err := s.config.Store.remove(oldest.id); err != nil {
		s.config.Log.Error("a run of the flwr command that is forgotten is left on disk", "reason", err.Error())
	}
}

// finish notes how a run ended. One that goes on without the node, which stops, has not:
// it is followed again after the restart.
func (s *Server) finish(ctx context.Context, r *run, err error) {
	if err != nil && !errors.Is(err, ErrStopped) && ctx.Err() != nil && s.config.Store != nil && s.hasBegun(r) {
		s.print(r, "[concordat] "+err.Error())
		return
	}
	switch {
	case err == nil:
		s.print(r, "Run completed.")
	case errors.Is(err, ErrStopped):
		s.print(r, "Run stopped.")
	default:
		s.print(r, "Run failed: "+err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.finished, r.dirty = s.config.Now(), true
	switch {
	case err == nil:
		r.outcome = "completed"
	case errors.Is(err, ErrStopped):
		r.outcome, r.details = "stopped", err.Error()
	default:
		r.outcome, r.details = "failed", err.Error()
	}
	r.wake()
}

func (s *Server) hasBegun(r *run) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return r.mark != nil
}

// wake tells those who follow the log; the mutex is held.
func (r *run) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

func (s *Server) print(r *run, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if text = strings.TrimRight(text, "\n"); text == "" || r.full {
		return
	}
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > maxLine {
		text = strings.ToValidUTF8(text[:maxLine], "") + " …"
	}
	if r.logSize += sizeOf(text); r.logSize > maxLogSize {
		r.full, text = true, "The log of this run is full; the rest is not kept."
	}
	at := float64(s.config.Now().UnixMicro()) / 1e6
	if n := len(r.log); n > 0 && at <= r.log[n-1].at {
		at = r.log[n-1].at + 1e-6
	}
	r.log = append(r.log, entry{at, text + "\n"})
	r.dirty = true
	r.wake()
}

// after returns what was printed after a time, the time of the last of it, whether the
// run has finished, and a channel that is closed when there is more.
func (s *Server) after(r *run, at float64) (text string, last float64, finished bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, _ := slices.BinarySearchFunc(r.log, at, func(e entry, at float64) int {
		if e.at <= at {
			return -1
		}
		return 1
	})
	var b strings.Builder
	last = at
	for ; i < len(r.log) && b.Len() < 1<<20; i++ {
		b.WriteString(r.log[i].text)
		last = r.log[i].at
	}
	return b.String(), last, !r.finished.IsZero() && i == len(r.log), r.changed
}

// find returns the account's run of that number, or nil.
func (s *Server) find(a auth.Account, id uint64) *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.runs[id]; r != nil && r.account == a {
		return r
	}
	return nil
}

// stop wishes a run to end; a second wish changes nothing.
func (s *Server) stop(r *run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !r.finished.IsZero() {
		return errFinished
	}
	if !r.stopping {
		r.stopping = true
		close(r.stop)
	}
	return nil
}

// list returns copies of the account's runs, the newest first, with no log.
func (s *Server) list(a auth.Account) []run {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []run
	for r := range maps.Values(s.runs) {
		if r.account != a {
			continue
		}
		x := *r
		x.log = nil
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b run) int { return b.pending.Compare(a.pending) })
	return out
}
