package chunkstore

import (
	"context"
	"errors"
	"io"
	"time"
)

// Scope is whose chunks are meant: nothing is found, counted or shared across
// scopes, so that no question about one federation, run or node answers one
// about another.
type Scope struct {
	Federation Digest // not zero
	Run        Digest // digest of the run statement, not zero
	Owner      Digest // node id of a contribution's author; zero is the downlink
}

// Check refuses a scope without federation or run.
func (s Scope) Check() error {
	if s.Federation.IsZero() || s.Run.IsZero() {
		return errors.New("chunkstore: scope without federation or run")
	}
	return nil
}

// Store keeps chunks. It is not trusted: it checks ids for its own sake, and
// whoever reads checks them again with an [Opener].
//
// A store is safe for concurrent use, and every method fails on a scope that
// fails its Check. Chunks come in batches: a chunk is there once its batch is
// committed, whole or not at all, and until its run is released. Runs are released
// whole: who stores ciphertext cannot tell which of a run's chunks nobody needs.
type Store interface {
	// Missing returns a bitmap: bit i%64 of word i/64 is set if ids[i] is not
	// there. The caller bounds the list.
	Missing(ctx context.Context, s Scope, ids []ID) (bitmap []uint64, err error)
	// Put starts a batch. ctx holds for the whole batch.
	Put(ctx context.Context, s Scope) (Batch, error)
	// Size returns the stored length of a chunk in bytes, or [ErrNotFound].
	Size(ctx context.Context, s Scope, id ID) (int64, error)
	// ReadAt reads stored bytes as io.ReaderAt does: fewer than len(p) only
	// with an error, io.EOF at the chunk's end. [ErrNotFound] if it is not
	// there, or was released in between.
	ReadAt(ctx context.Context, s Scope, id ID, p []byte, off int64) (int, error)
	// Runs returns what is there of every run that has chunks, in no order.
	Runs(ctx context.Context) ([]Usage, error)
	// Release removes all chunks of a run, of every owner, and returns what it
	// freed; nothing, if there are none. If a batch of the run is going on, or the
	// run was used after that time (see [Usage]), it removes nothing and the error
	// is [ErrInUse]. After another error some are gone; those of which the store
	// still has something are there again when it is opened next.
	Release(ctx context.Context, federation, run Digest, since time.Time) (Usage, error)
}

// Usage is what a store has of one run.
type Usage struct {
	Federation, Run Digest
	Owners          int   // that have chunks in it
	Chunks          int   // one that two owners have counts twice
	Bytes           int64 // of storage; a chunk that came twice may count twice
	// Used is when a batch was last committed or, if that was later, when the store
	// was last asked about a chunk of a scope of the run. A store on disk remembers
	// the latter from its opening on.
	Used time.Time
}

// Batch is some chunks on their way into a store. It is not safe for concurrent
// use. It ends with Commit or Discard; Discard after either does nothing and
// may be deferred.
type Batch interface {
	// Add reads one chunk to its end and checks it while it streams, holding
	// a few segments in memory or, in a store in memory, the chunk. Bytes that are
	// not the chunk are [ErrMismatch] or [ErrTooLarge] and a full store
	// [ErrQuota]; errors of r are passed on. The batch then goes on without
	// that chunk. A chunk that is there already is checked all the same.
	Add(id ID, r io.Reader) error
	// Commit makes all chunks of the batch visible and, in a store on disk,
	// durable when it returns: all or none, whatever crashes. After an error
	// it is not known which.
	Commit() error
	// Discard gives the batch up. Its chunks are as if they never came.
	Discard() error
}

var errEnded = errors.New("chunkstore: the batch has ended")
