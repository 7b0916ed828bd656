package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Name is what a public object is found by beside its digest: it is the list in a
// role of a statement by an enclave instance.
type Name struct {
	Instance  [16]byte
	Statement Digest
	Role      string
}

// nameBytes is about what a name costs, for the quota.
const nameBytes = 128

// PutBlob stores a public object under its digest and, unless it is nil, under a name.
// What is known is not stored again, and the first object of a name stays; a federation
// over Limits.BlobBytes gets [ErrFull].
func (s *Store) PutBlob(ctx context.Context, federation, digest Digest, data []byte, name *Name) error {
	return s.update(ctx, func(tx *tx) error {
		var known bool
		if err := tx.QueryRow("SELECT EXISTS (SELECT 1 FROM blob WHERE federation = ? AND digest = ?)", federation[:], digest[:]).Scan(&known); err != nil {
			return err
		}
		if !known {
			if err := use(tx, federation, "blobs", int64(len(data)), s.limits.BlobBytes); err != nil {
				return err
			}
			if _, err := tx.Exec("INSERT INTO blob VALUES (?, ?, ?)", federation[:], digest[:], data); err != nil {
				return err
			}
		}
		if name == nil {
			return nil
		}
		r, err := tx.Exec("INSERT INTO name VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", federation[:], name.Instance[:], name.Statement[:], name.Role, digest[:])
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return err
		}
		return use(tx, federation, "blobs", nameBytes, s.limits.BlobBytes)
	})
}

// Named returns the public object of a name, or nil if there is none.
func (s *Store) Named(ctx context.Context, federation Digest, name Name) ([]byte, error) {
	var data []byte
	err := s.r.row(ctx, `SELECT data FROM name JOIN blob USING (federation, digest)
		WHERE federation = ? AND instance = ? AND statement = ? AND role = ?`, federation[:], name.Instance[:], name.Statement[:], name.Role).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return data, s.readErr(err)
}

// Blob returns a public object, or nil if there is none.
func (s *Store) Blob(ctx context.Context, federation, digest Digest) ([]byte, error) {
	var data []byte
	err := s.r.row(ctx, "SELECT data FROM blob WHERE federation = ? AND digest = ?", federation[:], digest[:]).Scan(&data)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return data, s.readErr(err)
}

// Use adds n bytes, or takes -n away, from what the federation uses of kind, and
// refuses with [ErrFull] to go over limit.
func (s *Store) Use(ctx context.Context, federation Digest, kind string, n, limit int64) error {
	return s.update(ctx, func(tx *tx) error { return use(tx, federation, kind, n, limit) })
}

func use(tx *tx, federation Digest, kind string, n, limit int64) error {
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
