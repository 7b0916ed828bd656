package log

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/verifier/tlog"
	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
)

// MaxEntry bounds an entry. C2SP tlog-tiles allows 65,535 bytes, but 256 entries
// make one file, and a reader gets it in one message of 8 MiB: larger entries
// could make a part of the log unreadable.
const MaxEntry = 32000

// ErrNotFound is wrapped by errors about tiles, entries and checkpoints that are
// not there, or not yet.
var ErrNotFound = errors.New("not in the log")

// Store remembers what the log's directory does not say; link/state has it in SQL.
// Its methods are safe for concurrent use and durable on return.
type Store interface {
	// EntryIndex returns the index under which an entry's digest was put.
	EntryIndex(ctx context.Context, federation, digest cose.Digest) (index uint64, known bool, err error)
	// PutEntries notes the digests of the entries from index first on.
	PutEntries(ctx context.Context, federation cose.Digest, first uint64, digests []cose.Digest) error
	// NextEntry returns the index from which on entries may be missing.
	NextEntry(ctx context.Context, federation cose.Digest) (uint64, error)
	// PutCheckpoint stores a published checkpoint, over one of the same size.
	PutCheckpoint(ctx context.Context, federation cose.Digest, size uint64, note []byte) error
	// Checkpoint returns the one of the size, the newest for 0, or nil.
	Checkpoint(ctx context.Context, federation cose.Digest, size uint64) ([]byte, error)
}

// Config says whose log it is. All fields are required, but for the two times.
type Config struct {
	Federation cose.Digest
	Dir        string             // of Tessera; made if it is not there
	Origin     string             // C2SP checkpoint origin, as the policy has it
	Key        *cose.Signer       // Ed25519: signs checkpoints under the origin, and receipts
	Witnesses  []tlog.VerifierKey // whose cosignatures count
	Need       int                // how many of them publish a checkpoint; at least 1
	Store      Store
	Published  func(note []byte) // called with every published checkpoint, in order; must not block
	Logger     *slog.Logger

	BatchAge           time.Duration // how long an entry waits for company; zero: 20 ms
	CheckpointInterval time.Duration // between checkpoints of a log that grows; zero: 100 ms. After a pause the first one waits for nothing
}

// Log is an open log. Its methods are safe for concurrent use.
type Log struct {
	cfg      Config
	signer   *signer
	feed     *feed
	appender *tessera.Appender
	reader   tessera.LogReader
	shutdown func(context.Context) error
	cancel   context.CancelFunc // ends Tessera's goroutines

	mu      sync.Mutex
	closed  bool
	pending map[cose.Digest]*pending
	working sync.WaitGroup // of pending
}

// pending is an entry on its way into the log; everybody who appends the same
// bytes waits for the same one.
type pending struct {
	done  chan struct{}
	index uint64
	err   error
}

// Open opens the log in its directory, or founds it. It reads back what a crash
// kept from the store, and refuses a directory that was written under another key
// or that is older than what was published. One process at a time opens a log.
func Open(ctx context.Context, cfg Config) (*Log, error) {
	s, err := newSigner(cfg.Origin, cfg.Key)
	if err != nil {
		return nil, err
	}
	if cfg.Need < 1 || cfg.Need > len(cfg.Witnesses) {
		return nil, fmt.Errorf("log: %d cosignatures of %d witnesses are demanded", cfg.Need, len(cfg.Witnesses))
	}
	for _, w := range cfg.Witnesses {
		if !w.IsWitness() {
			return nil, fmt.Errorf("log: key %s of a witness is not for cosignatures", w.Name())
		}
	}
	if cfg.BatchAge == 0 {
		cfg.BatchAge = 20 * time.Millisecond
	}
	if cfg.CheckpointInterval == 0 {
		cfg.CheckpointInterval = 100 * time.Millisecond
	}

	routeTessera()
	l := &Log{cfg: cfg, signer: s, pending: make(map[cose.Digest]*pending)}
	driver, err := posix.New(ctx, posix.Config{Path: cfg.Dir})
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	l.feed = newFeed(l)
	// Tessera's publisher runs until its context ends, not until shutdown.
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	l.appender, l.shutdown, l.reader, err = tessera.NewAppender(background, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(s).
		WithBatching(256, cfg.BatchAge).
		// Tessera's own checkpoint tells its garbage collector how far it may go; what
		// is published is signed by this package, which has no fixed beat.
		WithCheckpointInterval(100*time.Millisecond).
		WithCheckpointRepublishInterval(0).
		WithGarbageCollectionInterval(time.Minute))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("log: %w", err)
	}
	if err := errors.Join(l.resume(ctx), l.reindex(ctx)); err != nil {
		cancel()
		return nil, err
	}
	l.feed.start()
	return l, nil
}

// resume finds where publishing stopped.
func (l *Log) resume(ctx context.Context) error {
	size, err := l.Size(ctx)
	if err != nil {
		return err
	}
	switch note, err := l.reader.ReadCheckpoint(ctx); {
	case errors.Is(err, fs.ErrNotExist): // a crash in the log's first moment
	case err != nil:
		return fmt.Errorf("log: %w", err)
	default:
		if _, err := l.open(note); err != nil {
			return fmt.Errorf("log: the directory's checkpoint: %w", err)
		}
	}
	published, err := l.cfg.Store.Checkpoint(ctx, l.cfg.Federation, 0)
	if err != nil || published == nil {
		return err
	}
	c, err := l.open(published)
	if err != nil {
		return fmt.Errorf("log: the last published checkpoint: %w", err)
	}
	if c.Size > size {
		return fmt.Errorf("log: the directory holds %d entries, but a checkpoint of %d was published: it was set back, and what it lacks must be restored", size, c.Size)
	}
	l.feed.published.Store(&checkpoint{*c, published})
	return nil
}

// open reads a checkpoint that this log must have signed.
func (l *Log) open(note []byte) (*tlog.Checkpoint, error) {
	c, _, err := tlog.Open(note, tlog.Trust{Origin: l.cfg.Origin, LogKey: l.signer.key})
	return c, err
}

// Append adds an entry and returns its index when the entry is durable. The same
// bytes again have the same index. ctx bounds the caller's wait; an entry that was
// taken is appended even if the caller has gone.
func (l *Log) Append(ctx context.Context, entry []byte) (uint64, error) {
	if len(entry) == 0 || len(entry) > MaxEntry {
		return 0, fmt.Errorf("log: entry of %d bytes, want 1 to %d", len(entry), MaxEntry)
	}
	d := cose.Sum(entry)
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return 0, errors.New("log: closed")
	}
	p := l.pending[d]
	if p == nil {
		p = &pending{done: make(chan struct{})}
		l.pending[d] = p
		l.working.Go(func() {
			p.index, p.err = l.append(context.WithoutCancel(ctx), d, entry)
			l.mu.Lock()
			delete(l.pending, d)
			l.mu.Unlock()
			close(p.done)
		})
	}
	l.mu.Unlock()
	select {
	case <-p.done:
		return p.index, p.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (l *Log) append(ctx context.Context, d cose.Digest, entry []byte) (uint64, error) {
	index, known, err := l.cfg.Store.EntryIndex(ctx, l.cfg.Federation, d)
	if err != nil || known {
		return index, err
	}
	i, err := l.appender.Add(ctx, tessera.NewEntry(entry))()
	if err != nil {
		return 0, fmt.Errorf("log: append: %w", err)
	}
	l.feed.grown()
	return i.Index, l.cfg.Store.PutEntries(ctx, l.cfg.Federation, i.Index, []cose.Digest{d})
}

// Size returns the number of entries that are durable, published or not.
func (l *Log) Size(ctx context.Context) (uint64, error) {
	n, err := l.reader.IntegratedSize(ctx)
	if err != nil {
		return 0, fmt.Errorf("log: %w", err)
	}
	return n, nil
}

// Published returns the newest published checkpoint, or nil and 0 if there is
// none. The caller must not change it.
func (l *Log) Published() (note []byte, size uint64) {
	if c := l.feed.published.Load(); c != nil {
		return c.note, c.Size
	}
	return nil, 0
}

// Close waits until what was appended is durable, and ends all goroutines. What
// was not published yet is so after the next [Open]. ctx bounds the wait.
func (l *Log) Close(ctx context.Context) error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if again {
		return nil
	}
	l.working.Wait()
	err := l.shutdown(ctx)
	l.cancel()
	l.feed.stop()
	if err != nil {
		return fmt.Errorf("log: close: %w", err)
	}
	return nil
}
