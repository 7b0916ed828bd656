package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// Statements stay prepared: for what a link does, SQLite spends longer on reading its
// SQL than on running it.

// tx is the connection that writes, in a transaction. The writer's goroutine alone uses
// it, and so nothing of it is interrupted: the outcome of a write is always known.
type tx struct {
	conn     *sql.Conn
	prepared map[string]*sql.Stmt
}

func (t *tx) statement(query string) (*sql.Stmt, error) {
	if s := t.prepared[query]; s != nil {
		return s, nil
	}
	s, err := t.conn.PrepareContext(context.Background(), query)
	if err == nil {
		t.prepared[query] = s
	}
	return s, err
}

func (t *tx) Exec(query string, args ...any) (sql.Result, error) {
	s, err := t.statement(query)
	if err != nil {
		return nil, err
	}
	return s.Exec(args...)
}

// do is Exec of a statement that says nothing.
func (t *tx) do(query string) error {
	_, err := t.Exec(query)
	return err
}

func (t *tx) QueryRow(query string, args ...any) row {
	s, err := t.statement(query)
	if err != nil {
		return row{err: err}
	}
	return row{Row: s.QueryRow(args...)}
}

// transact runs do in a transaction.
func (t *tx) transact(do func() error) error {
	if err := t.do("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err := do()
	if err == nil {
		err = t.do("COMMIT")
	}
	if err != nil {
		err = errors.Join(err, t.do("ROLLBACK"))
	}
	return err
}

// Close gives up the connection.
func (t *tx) Close() error {
	for _, s := range t.prepared {
		s.Close() // of a connection that is closed next
	}
	return t.conn.Close()
}

// row is the first row of a result, or why there is none.
type row struct {
	*sql.Row
	err error
}

func (r row) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	return r.Row.Scan(dest...)
}

// reader is the connections that only read. It is safe for concurrent use.
type reader struct {
	*sql.DB
	mu       sync.Mutex
	prepared map[string]*sql.Stmt
}

func (r *reader) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.prepared[query]; s != nil {
		return s, nil
	}
	s, err := r.PrepareContext(ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	r.prepared[query] = s
	return s, nil
}

func (r *reader) row(ctx context.Context, query string, args ...any) row {
	s, err := r.statement(ctx, query)
	if err != nil {
		return row{err: err}
	}
	return row{Row: s.QueryRowContext(ctx, args...)}
}

func (r *reader) rows(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := r.statement(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}
