package state

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// Host notes that the federation is hosted here, with its log's origin and the
// policy in force. It refuses another origin, an origin that another federation
// has, an older policy version, and another policy of the same version: the error
// wraps [ErrConflict].
func (s *Store) Host(ctx context.Context, federation Digest, origin string, version uint64, policy Digest) error {
	return s.update(ctx, func(tx *tx) error {
		var (
			knownOrigin  string
			knownVersion int64
			knownPolicy  []byte
		)
		err := tx.QueryRow("SELECT origin, version, policy FROM federation WHERE id = ?", federation[:]).Scan(&knownOrigin, &knownVersion, &knownPolicy)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			var other []byte
			if err := tx.QueryRow("SELECT id FROM federation WHERE origin = ?", origin).Scan(&other); err == nil {
				return fmt.Errorf("%w: log origin %q is federation %x's", ErrConflict, origin, other[:4])
			} else if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			_, err := tx.Exec("INSERT INTO federation VALUES (?, ?, ?, ?)", federation[:], origin, int64(version), policy[:])
			return err
		case err != nil:
			return err
		case knownOrigin != origin:
			return fmt.Errorf("%w: log origin is %q, was %q", ErrConflict, origin, knownOrigin)
		case int64(version) < knownVersion:
			return fmt.Errorf("%w: policy version %d is given, version %d was hosted", ErrConflict, version, knownVersion)
		case int64(version) == knownVersion && !bytes.Equal(policy[:], knownPolicy):
			return fmt.Errorf("%w: another policy of version %d was hosted", ErrConflict, version)
		}
		_, err = tx.Exec("UPDATE federation SET version = ?, policy = ? WHERE id = ?", int64(version), policy[:], federation[:])
		return err
	})
}

// BindInstance notes the key with which an enclave instance attached first, and
// returns the instance's rank: a later one is larger. Another key for the same
// instance is [ErrConflict], more than Limits.Instances instances [ErrFull].
func (s *Store) BindInstance(ctx context.Context, federation Digest, id, key []byte) (rank int64, err error) {
	err = s.update(ctx, func(tx *tx) error {
		var known []byte
		err := tx.QueryRow("SELECT rank, public_key FROM instance WHERE federation = ? AND id = ?", federation[:], id).Scan(&rank, &known)
		if err == nil {
			if !bytes.Equal(known, key) {
				return fmt.Errorf("%w: the instance belongs to another key", ErrConflict)
			}
			return nil
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		var n int64
		if err := tx.QueryRow("SELECT count(*) FROM instance WHERE federation = ?", federation[:]).Scan(&n); err != nil {
			return err
		}
		if n >= s.limits.Instances {
			return fmt.Errorf("%w: %d enclave instances", ErrFull, n)
		}
		return tx.QueryRow("INSERT INTO instance (federation, id, public_key) VALUES (?, ?, ?) RETURNING rank", federation[:], id, key).Scan(&rank)
	})
	return rank, err
}
