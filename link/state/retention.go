package state

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// Serve notes that the federation is served at now, and returns since when it has been,
// without a break longer than longest. A clock that was set back or ahead by more than
// that is a break as well: time that nobody can vouch for counts for nothing.
func (s *Store) Serve(ctx context.Context, federation Digest, now time.Time, longest time.Duration) (since time.Time, err error) {
	err = s.update(ctx, func(tx *tx) error {
		var from, until int64
		err := tx.QueryRow("SELECT since, until FROM served WHERE federation = ?", federation[:]).Scan(&from, &until)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if gap := now.Sub(time.Unix(until, 0)).Abs(); err != nil || gap > longest {
			from, until = now.Unix(), now.Unix()
		}
		since = time.Unix(from, 0)
		_, err = tx.Exec("INSERT INTO served VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET since = excluded.since, until = excluded.until", federation[:], from, max(until, now.Unix()))
		return err
	})
	return since, err
}

// Served returns what [Store.Serve] returned last, or the zero time.
func (s *Store) Served(ctx context.Context, federation Digest) (since time.Time, err error) {
	var from int64
	err = s.r.row(ctx, "SELECT since FROM served WHERE federation = ?", federation[:]).Scan(&from)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return time.Unix(from, 0), s.readErr(err)
}

// PutAppraisal notes whether an evidence statement passed when it was first read; what
// was noted first stays.
func (s *Store) PutAppraisal(ctx context.Context, federation, statement Digest, passed bool) error {
	return s.update(ctx, func(tx *tx) error {
		_, err := tx.Exec("INSERT INTO appraised VALUES (?, ?, ?) ON CONFLICT DO NOTHING", federation[:], statement[:], passed)
		return err
	})
}

// Appraisal returns what [Store.PutAppraisal] noted.
func (s *Store) Appraisal(ctx context.Context, federation, statement Digest) (passed, known bool, err error) {
	err = s.r.row(ctx, "SELECT passed FROM appraised WHERE federation = ? AND statement = ?", federation[:], statement[:]).Scan(&passed)
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, nil
	}
	return passed, err == nil, s.readErr(err)
}

// Retirement is when a run was noted to have ended, and when its chunks were last
// released. A zero time is never.
type Retirement struct{ Ended, Released time.Time }

// PutEnd notes that a run had ended at that time; an earlier note stays.
func (s *Store) PutEnd(ctx context.Context, federation, run Digest, at time.Time) error {
	return s.update(ctx, func(tx *tx) error {
		_, err := tx.Exec("INSERT INTO retired VALUES (?, ?, ?, NULL) ON CONFLICT DO UPDATE SET ended = coalesce(ended, excluded.ended)", federation[:], run[:], at.Unix())
		return err
	})
}

// PutRelease notes that the chunks of a run are released at that time, or, for the zero
// time, that they are not.
func (s *Store) PutRelease(ctx context.Context, federation, run Digest, at time.Time) error {
	return s.update(ctx, func(tx *tx) error {
		released := sql.NullInt64{Int64: at.Unix(), Valid: !at.IsZero()}
		_, err := tx.Exec("INSERT INTO retired VALUES (?, ?, NULL, ?) ON CONFLICT DO UPDATE SET released = excluded.released", federation[:], run[:], released)
		return err
	})
}

// Retirement returns what was noted of a run.
func (s *Store) Retirement(ctx context.Context, federation, run Digest) (r Retirement, err error) {
	var ended, released sql.NullInt64
	err = s.r.row(ctx, "SELECT ended, released FROM retired WHERE federation = ? AND run = ?", federation[:], run[:]).Scan(&ended, &released)
	if errors.Is(err, sql.ErrNoRows) {
		return Retirement{}, nil
	}
	if ended.Valid {
		r.Ended = time.Unix(ended.Int64, 0)
	}
	if released.Valid {
		r.Released = time.Unix(released.Int64, 0)
	}
	return r, s.readErr(err)
}
