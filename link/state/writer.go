package state

import (
	"context"
	"fmt"
)

// maxGroup bounds the writes that share a transaction, and with them how long the
// first one waits.
const maxGroup = 256

// op is some writes in a row: each of do runs in a transaction that other writes
// share, and has its own outcome.
type op struct {
	do   []func(*tx) error
	errs []error // set when done is closed
	done chan struct{}
}

// update runs do in a transaction and returns when it is durable, or rolled back
// because do failed. ctx bounds the wait for a place in the queue only: once
// accepted, the outcome is always known.
func (s *Store) update(ctx context.Context, do func(*tx) error) error {
	return s.updates(ctx, do)[0]
}

// updates is update for several writes in their order, of which some may fail. It
// returns an error or nil for each.
func (s *Store) updates(ctx context.Context, do ...func(*tx) error) []error {
	o := &op{do: do, errs: make([]error, len(do)), done: make(chan struct{})}
	select {
	case s.ops <- o:
		<-o.done
		return o.errs
	case <-s.closing:
		return o.fail(ErrClosed)
	case <-ctx.Done():
		return o.fail(ctx.Err())
	}
}

func (o *op) fail(err error) []error {
	for i := range o.errs {
		o.errs[i] = err
	}
	return o.errs
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
	err := s.w.transact(func() error {
		for _, o := range group {
			for i, do := range o.do {
				// One that fails takes back its own changes and nobody else's.
				if err := s.w.do("SAVEPOINT one"); err != nil {
					return err
				}
				if o.errs[i] = do(s.w); o.errs[i] != nil {
					if err := s.w.do("ROLLBACK TO one"); err != nil {
						return err
					}
				}
				if err := s.w.do("RELEASE one"); err != nil {
					return err
				}
			}
		}
		return nil
	})
	for _, o := range group {
		if err != nil {
			o.fail(fmt.Errorf("state: %w", err))
		}
		close(o.done)
	}
}
