package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// PutBlob stores a public object under its digest. What is known is not stored
// again; a federation over Limits.BlobBytes gets [ErrFull].
func (s *Store) PutBlob(ctx context.Context, federation, digest Digest, data []byte) error {
	return s.update(ctx, func(tx *sql.Tx) error {
		var one int
		err := tx.QueryRow("SELECT 1 FROM blob WHERE federation = ? AND digest = ?", federation[:], digest[:]).Scan(&one)
		if err == nil || !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err := use(tx, federation, "blobs", int64(len(data)), s.limits.BlobBytes); err != nil {
			return err
		}
		_, err = tx.Exec("INSERT INTO blob VALUES (?, ?, ?)", federation[:], digest[:], data)
		return err
	})
}

// Blob returns a public object, or nil if there is none.
func (s *Store) Blob(ctx context.Context, federation, digest Digest) ([]byte, error) {
	var data []byte
	err := s.r.QueryRowContext(ctx, "SELECT data FROM blob WHERE federation = ? AND digest = ?", federation[:], digest[:]).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return data, s.readErr(err)
}

// Use adds n bytes, or takes -n away, from what the federation uses of kind, and
// refuses with [ErrFull] to go over limit.
func (s *Store) Use(ctx context.Context, federation Digest, kind string, n, limit int64) error {
	return s.update(ctx, func(tx *sql.Tx) error { return use(tx, federation, kind, n, limit) })
}

func use(tx *sql.Tx, federation Digest, kind string, n, limit int64) error {
	var used int64
	err := tx.QueryRow("SELECT bytes FROM usage WHERE federation = ? AND kind = ?", federation[:], kind).Scan(&used)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if n > 0 && (n > limit || used > limit-n) {
		return fmt.Errorf("%w: %d bytes of %s, limit %d", ErrFull, used, kind, limit)
	}
	_, err = tx.Exec("INSERT INTO usage VALUES (?1, ?2, max(0, ?3)) ON CONFLICT DO UPDATE SET bytes = max(0, bytes + ?3)", federation[:], kind, n)
	return err
}
