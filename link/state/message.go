package state

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Enqueue stores n payloads of one sender, in this order; at returns each. The
// outcomes are returned in the same order. The same sender, recipient, handle and
// payload again is no error and changes nothing; another payload under the handle
// is [ErrConflict]. A full mailbox, or too much from this sender in it, is
// [ErrFull].
func (s *Store) Enqueue(ctx context.Context, federation Digest, sender string, n int, at func(i int) (handle [16]byte, recipient string, payload []byte)) []error {
	do := make([]func(*tx) error, n)
	for i := range do {
		handle, recipient, payload := at(i)
		do[i] = func(tx *tx) error {
			return s.enqueue(tx, federation, handle, []byte(sender), []byte(recipient), payload)
		}
	}
	return s.updates(ctx, do...)
}

func (s *Store) enqueue(tx *tx, federation Digest, handle [16]byte, sender, recipient, payload []byte) error {
	var known []byte
	err := tx.QueryRow("SELECT payload FROM message WHERE federation = ? AND recipient = ? AND handle = ? AND sender = ?",
		federation[:], recipient, handle[:], sender).Scan(&known)
	if err == nil {
		if !bytes.Equal(known, payload) {
			return fmt.Errorf("%w: the handle names another payload", ErrConflict)
		}
		return nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	for _, q := range []struct {
		sender          []byte
		messages, bytes int64
	}{
		{sender, s.limits.PairMessages, s.limits.PairBytes},
		{[]byte{}, s.limits.MailboxMessages, s.limits.MailboxBytes},
	} {
		var messages, bytes int64
		err := tx.QueryRow("SELECT messages, bytes FROM queue WHERE federation = ? AND recipient = ? AND sender = ?", federation[:], recipient, q.sender).Scan(&messages, &bytes)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if messages >= q.messages || bytes+int64(len(payload)) > q.bytes {
			return fmt.Errorf("%w: %d payloads of %d bytes wait in the mailbox", ErrFull, messages, bytes)
		}
	}
	_, err = tx.Exec("INSERT INTO message (federation, recipient, sender, handle, payload, sent) VALUES (?, ?, ?, ?, ?, ?)",
		federation[:], recipient, sender, handle[:], payload, s.now().Unix())
	return err
}

// Pending calls each for the payloads that wait for recipient with a sequence
// number above after, in the order of sending, until each returns false.
func (s *Store) Pending(ctx context.Context, federation Digest, recipient string, after int64, each func(seq int64, handle [16]byte, sender string, payload []byte) bool) error {
	rows, err := s.r.rows(ctx, "SELECT seq, handle, sender, payload FROM message WHERE federation = ? AND recipient = ? AND seq > ? ORDER BY seq",
		federation[:], []byte(recipient), after)
	if err != nil {
		return s.readErr(err)
	}
	defer rows.Close()
	for rows.Next() {
		var (
			seq                     int64
			handle, sender, payload []byte
		)
		if err := rows.Scan(&seq, &handle, &sender, &payload); err != nil {
			return fmt.Errorf("state: %w", err)
		}
		if len(handle) != 16 {
			return fmt.Errorf("state: message %d has a handle of %d bytes", seq, len(handle))
		}
		if !each(seq, [16]byte(handle), string(sender), payload) {
			return nil
		}
	}
	return s.readErr(rows.Err())
}

// Remove forgets payloads of the recipients by handle; unknown handles are ignored.
func (s *Store) Remove(ctx context.Context, federation Digest, handles [][16]byte, recipients ...string) error {
	return s.update(ctx, func(tx *tx) error {
		for _, r := range recipients {
			for _, h := range handles {
				if _, err := tx.Exec("DELETE FROM message WHERE federation = ? AND recipient = ? AND handle = ?", federation[:], []byte(r), h[:]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Expire forgets payloads of all federations that were sent before the time, at
// most a thousand a call, and returns how many.
func (s *Store) Expire(ctx context.Context, before time.Time) (n int64, err error) {
	err = s.update(ctx, func(tx *tx) error {
		r, err := tx.Exec("DELETE FROM message WHERE seq IN (SELECT seq FROM message WHERE sent < ? ORDER BY sent LIMIT 1000)", before.Unix())
		if err != nil {
			return err
		}
		n, err = r.RowsAffected()
		return err
	})
	return n, err
}

// readErr words an error of a read; a closed database is [ErrClosed].
func (s *Store) readErr(err error) error {
	select {
	case <-s.closing:
		if err != nil {
			return ErrClosed
		}
	default:
	}
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	return nil
}
