package state

import (
	"context"
	"database/sql"
	"errors"
)

// EntryIndex returns where in the federation's log the entry with the digest is.
func (s *Store) EntryIndex(ctx context.Context, federation, digest Digest) (index uint64, known bool, err error) {
	var i int64
	err = s.r.row(ctx, "SELECT idx FROM entry WHERE federation = ? AND digest = ?", federation[:], digest[:]).Scan(&i)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, false, nil
	}
	return uint64(i), err == nil, s.readErr(err)
}

// PutEntries records the indices first, first+1, … of entries. A digest that is
// known keeps the smallest index.
func (s *Store) PutEntries(ctx context.Context, federation Digest, first uint64, digests []Digest) error {
	return s.update(ctx, func(tx *tx) error {
		for i, d := range digests {
			if _, err := tx.Exec("INSERT INTO entry VALUES (?, ?, ?) ON CONFLICT DO NOTHING", federation[:], d[:], int64(first)+int64(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// NextEntry returns the first index from which on PutEntries may have missed
// entries: after a crash, the log is read again from there.
func (s *Store) NextEntry(ctx context.Context, federation Digest) (uint64, error) {
	var n, last int64
	if err := s.r.row(ctx, "SELECT count(*), coalesce(max(idx), -1) FROM entry WHERE federation = ?", federation[:]).Scan(&n, &last); err != nil {
		return 0, s.readErr(err)
	}
	if last+1 != n {
		return 0, nil // a gap somewhere
	}
	return uint64(n), nil
}

// PutCheckpoint stores the published checkpoint of the size; a later one of the
// same size replaces it.
func (s *Store) PutCheckpoint(ctx context.Context, federation Digest, size uint64, note []byte) error {
	return s.update(ctx, func(tx *tx) error {
		_, err := tx.Exec("INSERT INTO checkpoint VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET note = excluded.note", federation[:], int64(size), note)
		return err
	})
}

// Checkpoint returns the published checkpoint of the size, or the newest for size
// 0, or nil if there is none.
func (s *Store) Checkpoint(ctx context.Context, federation Digest, size uint64) ([]byte, error) {
	if size > 1<<62 {
		return nil, nil
	}
	var note []byte
	err := s.r.row(ctx, "SELECT note FROM checkpoint WHERE federation = ?1 AND (?2 = 0 OR size = ?2) ORDER BY size DESC LIMIT 1", federation[:], int64(size)).Scan(&note)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return note, s.readErr(err)
}
