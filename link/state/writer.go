package state

import (
	"context"
	"database/sql"
	"fmt"
)

// maxGroup bounds the writes that share a transaction, and with them how long the
// first one waits.
const maxGroup = 256

// op is one write: do runs in a transaction that other writes share.
type op struct {
	do   func(*sql.Tx) error
	done chan error
}

// update runs do in a transaction and returns when it is durable, or rolled back
// because do failed. ctx bounds the wait for a place in the queue only: once
// accepted, the outcome is always known.
func (s *Store) update(ctx context.Context, do func(*sql.Tx) error) error {
	o := &op{do, make(chan error, 1)}
	select {
	case s.ops <- o:
		return <-o.done
	case <-s.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is the only goroutine that writes. While it waits for the disk, callers
// gather; the next transaction takes all of them.
func (s *Store) write() {
	defer close(s.done)
	for {
		select {
		case <-s.closing:
			return
		case o := <-s.ops:
			s.commit(s.gather(o))
		}
	}
}

func (s *Store) gather(first *op) []*op {
	group := []*op{first}
	for len(group) < maxGroup {
		select {
		case o := <-s.ops:
			group = append(group, o)
		default:
			return group
		}
	}
	return group
}

func (s *Store) commit(group []*op) {
	errs := make([]error, len(group))
	err := s.transact(func(tx *sql.Tx) error {
		for i, o := range group {
			// One that fails takes back its own changes and nobody else's.
			if _, err := tx.Exec("SAVEPOINT one"); err != nil {
				return err
			}
			if errs[i] = o.do(tx); errs[i] != nil {
				if _, err := tx.Exec("ROLLBACK TO one"); err != nil {
					return err
				}
			}
			if _, err := tx.Exec("RELEASE one"); err != nil {
				return err
			}
		}
		return nil
	})
	for i, o := range group {
		if err != nil {
			errs[i] = fmt.Errorf("state: %w", err)
		}
		o.done <- errs[i]
	}
}

func (s *Store) transact(do func(*sql.Tx) error) error {
	tx, err := s.w.Begin()
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		tx.Rollback()
		return err
	}
	return tx.Commit()
}
