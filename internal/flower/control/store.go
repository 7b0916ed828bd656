package control

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/flower/control/auth"
)

// Sealer closes and opens what is kept on disk: a node's at-rest key.
type Sealer interface {
	// Seal closes a content of a format, the domain, that belongs to a binding.
	Seal(domain string, binding, content []byte) []byte
	// Open returns the content, or an error if it is not what Seal made of that domain and
	// binding.
	Open(domain string, binding, sealed []byte) ([]byte, error)
}

// Store is where runs are kept: one file each, in a directory of its own, sealed, since
// they hold what apps print. Server is the only writer.
type Store struct {
	FS     durable.FS
	Dir    string // made if need be
	Sealer Sealer
}

// domain names the format of a file, whose name is the run's number in decimal: the
// record in CBOR, sealed with the number as u64be for a binding.
const domain = "concordat/flower-run/1"

// Limits of a file.
const (
	maxRunConfig = 1 << 20                           // bytes of a run's overrides
	maxFile      = maxLogSize + maxRunConfig + 1<<20 // the rest is a line, and what has limits elsewhere
)

// record is a run as it is kept.
type record struct {
	_                                    struct{} `cbor:",toarray"`
	Issuer, Subject                      string
	FabID, FabVersion, FabHash           string
	Overrides                            []override
	Pending, Starting, Running, Finished int64 // microseconds since 1970; 0: not yet
	Outcome, Details                     string
	Mark                                 []byte
	Full                                 bool
	Log                                  []kept
}

type override struct {
	_     struct{} `cbor:",toarray"`
	Key   string
	Value any
}

type kept struct {
	_    struct{} `cbor:",toarray"`
	At   float64
	Text string
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicro(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}

// record copies the run; the server's mutex is held. Lines that were printed do not
// change.
func (r *run) record() *record {
	c := &record{
		FabID: r.fabID, FabVersion: r.fabVersion, FabHash: r.fabHash,
		Pending: micro(r.pending), Starting: micro(r.starting), Running: micro(r.running), Finished: micro(r.finished),
		Outcome: r.outcome, Details: r.details, Mark: r.mark, Full: r.full,
	}
	c.Issuer, c.Subject = r.account.Parts()
	for _, k := range slices.Sorted(maps.Keys(r.overrides)) {
		c.Overrides = append(c.Overrides, override{Key: k, Value: r.overrides[k]})
	}
	for _, e := range r.log {
		c.Log = append(c.Log, kept{At: e.at, Text: e.text})
	}
	return c
}

// run is the opposite of [run.record].
func (c *record) run(id uint64) *run {
	r := &run{
		id: id, account: auth.Recall(c.Issuer, c.Subject), fabID: c.FabID, fabVersion: c.FabVersion, fabHash: c.FabHash, overrides: map[string]any{},
		pending: fromMicro(c.Pending), starting: fromMicro(c.Starting), running: fromMicro(c.Running), finished: fromMicro(c.Finished),
		outcome: c.Outcome, details: c.Details, mark: c.Mark, full: c.Full, stop: make(chan struct{}), changed: make(chan struct{}),
	}
	for _, o := range c.Overrides {
		if n, ok := o.Value.(uint64); ok { // CBOR has one type of integers that are not below 0
			o.Value = int64(n)
		}
		r.overrides[o.Key] = o.Value
	}
	for _, e := range c.Log {
		r.log = append(r.log, entry{at: e.At, text: e.Text})
		r.logSize += sizeOf(e.Text)
	}
	return r
}

func binding(id uint64) []byte { return binary.BigEndian.AppendUint64(nil, id) }

func (s *Store) file(id uint64) string { return filepath.Join(s.Dir, strconv.FormatUint(id, 10)) }

// write makes a run durable.
func (s *Store) write(id uint64, c *record) error {
	if n := len(cose.Marshal(c.Overrides)); n > maxRunConfig {
		return fmt.Errorf("run config of %d bytes, limit %d", n, maxRunConfig)
	}
	sealed := s.Sealer.Seal(domain, binding(id), cose.Marshal(c))
	if len(sealed) > maxFile {
		return fmt.Errorf("run of %d bytes, limit %d", len(sealed), maxFile)
	}
	return durable.WriteFile(s.FS, s.file(id), sealed, 0o600)
}

// remove removes a run.
func (s *Store) remove(id uint64) error { return s.FS.Remove(s.file(id)) }

// read returns all runs that are kept, the oldest first. Of files that do not open, it
// returns an error each, and leaves them where they are.
func (s *Store) read() (runs []*run, faults []error, err error) {
	if err := durable.MkdirAll(s.FS, s.Dir, 0o700); err != nil {
		return nil, nil, err
	}
	if err := durable.Sweep(s.FS, s.Dir); err != nil {
		return nil, nil, err
	}
	entries, err := s.FS.ReadDir(s.Dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		id, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil || s.file(id) != filepath.Join(s.Dir, e.Name()) {
			continue // nobody's run
		}
		var c record
		sealed, err := durable.ReadFile(s.FS, s.file(id), maxFile)
		if err == nil {
			var plain []byte
			if plain, err = s.Sealer.Open(domain, binding(id), sealed); err == nil {
				err = cose.Unmarshal(plain, &c)
			}
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", s.file(id), err))
			continue
		}
		runs = append(runs, c.run(id))
	}
	slices.SortFunc(runs, func(a, b *run) int { return cmp.Or(a.pending.Compare(b.pending), cmp.Compare(a.id, b.id)) })
	return runs, faults, nil
}

// errUnknown is the end of a run of which nobody knows more.
var errUnknown = errors.New("the node restarted; \"concordat run list\" knows more")
