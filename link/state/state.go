// Package state is what a link remembers besides chunks and the log's tiles: which
// federations it hosts, what waits in mailboxes, where entries are in the log,
// which checkpoints were published, public objects, and how much of its quotas a
// federation used. It holds all SQL of the link.
//
// Start with [Open]. What a method has returned without an error is on disk:
// SQLite in WAL mode with synchronous=FULL. Writes that come together share one
// transaction and one fsync. Every method takes the federation that it is about
// and reaches no other.
//
// It interprets nothing: addresses, payloads, notes and blobs are bytes.
package state

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	"github.com/concordat/concordat/internal/cose"
	"github.com/pressly/goose/v3"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

// Digest is a SHA-256 value.
type Digest = cose.Digest

// Errors that callers decide on; what is returned wraps them.
var (
	ErrFull     = errors.New("quota is used up")
	ErrConflict = errors.New("conflict")
	ErrClosed   = errors.New("state is closed")
)

// Limits bound what a federation may occupy. All are required.
type Limits struct {
	PairMessages, PairBytes       int64 // waiting from one sender to one recipient
	MailboxMessages, MailboxBytes int64 // waiting for one recipient
	Instances                     int64 // enclave instances that ever attached
	BlobBytes                     int64 // public objects
}

// DefaultLimits suit a federation of a few hundred nodes on one disk.
var DefaultLimits = Limits{
	PairMessages: 1 << 10, PairBytes: 32 << 20,
	MailboxMessages: 1 << 17, MailboxBytes: 2 << 30,
	Instances: 1 << 12,
	BlobBytes: 8 << 30,
}

// Store is an open database. Its methods are safe for concurrent use.
type Store struct {
	limits Limits
	now    func() time.Time
	db     *sql.DB // of w
	w      *tx
	r      *reader

	ops     chan *op
	closing chan struct{}
	done    chan struct{} // the writer has returned
}

//go:embed migrations/*.sql
var migrations embed.FS

// Open opens the database file at path, creates it if there is none, and brings
// its schema up to date. One process at a time opens a file: the caller sees to
// that. now is the clock for message ages.
func Open(ctx context.Context, path string, l Limits, now func() time.Time) (*Store, error) {
	// SQLite gives its other files the permissions of this one.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	f.Close()
	w, err := open(path, 1, "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)", "_pragma=foreign_keys(1)")
	if err != nil {
		return nil, err
	}
	if err := migrate(ctx, w); err != nil {
		w.Close()
		return nil, err
	}
	r, err := open(path, 4, "_pragma=query_only(1)")
	if err != nil {
		w.Close()
		return nil, err
	}
	conn, err := w.Conn(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("state: %w", err), w.Close(), r.Close())
	}
	s := &Store{limits: l, now: now, db: w, w: &tx{conn: conn, prepared: make(map[string]*sql.Stmt)}, r: &reader{DB: r, prepared: make(map[string]*sql.Stmt)}, ops: make(chan *op), closing: make(chan struct{}), done: make(chan struct{})}
	go s.write()
	return s, nil
}

func open(path string, conns int, params ...string) (*sql.DB, error) {
	// The path goes into a URI, where '?' and '#' would end it.
	dsn := "file:" + (&url.URL{Path: path}).EscapedPath() + "?_pragma=busy_timeout(10000)"
	for _, p := range params {
		dsn += "&" + p
	}
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

func migrate(ctx context.Context, db *sql.DB) error {
	dir, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	// A database of a later version of this program is not touched.
	if current, target, err := p.GetVersions(ctx); err != nil {
		return fmt.Errorf("state: %w", err)
	} else if current > target {
		return fmt.Errorf("state: the database has schema %d, this program knows up to %d", current, target)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("state: migrate: %w", err)
	}
	return nil
}

// Close ends all writes and closes the database. Calls that come later return
// [ErrClosed].
func (s *Store) Close() error {
	select {
	case <-s.closing:
		return nil
	default:
	}
	close(s.closing)
	<-s.done
	return errors.Join(s.r.Close(), s.w.Close(), s.db.Close())
}
