package pack

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/internal/durable"
)

// Options of a store. The zero value is a store without a limit.
type Options struct {
	// FederationBytes limits what the chunks of one federation take up, open
	// batches and repeated chunks included; 0 is no limit.
	FederationBytes int64
	// Now dates the batches; nil is time.Now.
	Now func() time.Time
}

// Store is a chunkstore.Store in a directory.
type Store struct {
	fsys    durable.FS
	root    string
	options Options
	lock    io.Closer
	files   *files
	damaged []error // since Open
	torn    []error // likewise

	mu     sync.RWMutex
	runs   map[runKey]*run
	used   map[chunkstore.Digest]int64 // by federation
	closed bool
}

var _ chunkstore.Store = (*Store)(nil)

type runKey struct{ federation, run chunkstore.Digest }

// run is the scopes of one run, by owner, under the store's lock.
type run struct {
	scopes map[chunkstore.Digest]*scope
	asked  atomic.Int64 // when somebody last asked for a chunk of it: nanoseconds since the Unix epoch, 0 if nobody did
}

// scope is what the store knows of one scope. All but the tail is under the
// store's lock; the scope's own locks are taken before that one.
type scope struct {
	dir     string
	users   int          // batches that go on
	batches []*batchInfo // oldest first
	chunks  map[chunkstore.ID]location
	waiting []*batch // small batches to be committed

	making sync.Mutex // held while dir is made
	made   bool

	tailMu sync.Mutex // held by who appends to a pack
	tail   *pack      // what small batches are appended to, if there is one
}

// pack is a file with at least one batch.
type pack struct {
	path string
	size int64 // under the scope's tailMu: where the last batch ends
	gone bool  // under the lock of files: it is removed
}

type batchInfo struct {
	pack    *pack
	at      time.Time
	bytes   int64
	records []record
}

// location is where a chunk lies, in the newest batch that has it.
type location struct {
	batch     *batchInfo
	pack      *pack
	off, size int64
}

// Open opens the store in root, which it creates if need be, and removes what
// an earlier process left half-done. Unknown files are an error: root belongs to
// the store. A pack that is damaged is none: see [Store.Damaged].
func Open(fsys durable.FS, root string, options Options) (*Store, error) {
	if options.Now == nil {
		options.Now = time.Now
	}
	if err := durable.MkdirAll(fsys, root, 0o700); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	lock, err := fsys.Lock(filepath.Join(root, "lock"))
	if err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	s := &Store{fsys: fsys, root: root, options: options, lock: lock, files: newFiles(fsys),
		runs: make(map[runKey]*run), used: make(map[chunkstore.Digest]int64)}
	if err := s.load(); err != nil {
		s.Close()
		return nil, fmt.Errorf("pack: %w", err)
	}
	return s, nil
}

// Damaged returns an error for each pack that Open found damaged, with its path.
// The store has none of its chunks, counts none of its bytes and leaves the file
// as it is, for whoever runs the program to keep or to remove.
func (s *Store) Damaged() []error { return s.damaged }

// Torn returns an error for each pack of which Open cut off what lay behind the last
// batch, with its path. A crash in the middle of a commit leaves that. So does damage to
// what commits the last batch, which cannot be told from a crash: then chunks that were
// committed are missing until nodes send them again.
func (s *Store) Torn() []error { return s.torn }

// Close gives the root back. Batches that are still open must not be committed.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.files.close()
	return s.lock.Close()
}

func (s *Store) dir(sc chunkstore.Scope) string {
	return filepath.Join(s.root, sc.Federation.String(), sc.Run.String(), sc.Owner.String())
}

const packSuffix = ".pack"

// packName returns a name that no file has: the time, for whoever looks, and
// chance.
func packName(at time.Time) string {
	var random [8]byte
	rand.Read(random[:]) // never fails
	return fmt.Sprintf("%016x-%s%s", uint64(at.UnixNano()), hex.EncodeToString(random[:]), packSuffix)
}

// begin makes the checks that every method starts with.
func begin(ctx context.Context, sc chunkstore.Scope) error {
	if err := sc.Check(); err != nil {
		return err
	}
	return ctx.Err()
}

// use returns a scope, which it makes if need be. It stays until leave.
func (s *Store) use(sc chunkstore.Scope) *scope {
	s.mu.Lock()
	defer s.mu.Unlock()
	idx := s.scope(sc)
	idx.users++
	return idx
}

// leave ends a use, and forgets a scope with nothing in it.
func (s *Store) leave(sc chunkstore.Scope, idx *scope) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if idx.users--; idx.users > 0 || len(idx.batches) > 0 {
		return
	}
	k := runKey{sc.Federation, sc.Run}
	if delete(s.runs[k].scopes, sc.Owner); len(s.runs[k].scopes) == 0 {
		delete(s.runs, k)
	}
}

// scope is called with the lock.
func (s *Store) scope(sc chunkstore.Scope) *scope {
	k := runKey{sc.Federation, sc.Run}
	r := s.runs[k]
	if r == nil {
		r = &run{scopes: make(map[chunkstore.Digest]*scope)}
		s.runs[k] = r
	}
	idx := r.scopes[sc.Owner]
	if idx == nil {
		idx = &scope{dir: s.dir(sc), chunks: make(map[chunkstore.ID]location)}
		r.scopes[sc.Owner] = idx
	}
	return idx
}

// ask returns where the chunks of a scope are, and notes that it was asked for them.
// The caller holds the lock for reading.
func (s *Store) ask(sc chunkstore.Scope) map[chunkstore.ID]location {
	r := s.runs[runKey{sc.Federation, sc.Run}]
	if r == nil {
		return nil
	}
	r.asked.Store(s.options.Now().UnixNano())
	if idx := r.scopes[sc.Owner]; idx != nil {
		return idx.chunks
	}
	return nil
}

func (s *Store) find(ctx context.Context, sc chunkstore.Scope, id chunkstore.ID) (location, error) {
	if err := begin(ctx, sc); err != nil {
		return location{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if loc, ok := s.ask(sc)[id]; ok {
		return loc, nil
	}
	return location{}, fmt.Errorf("%w: %s", chunkstore.ErrNotFound, id.Short())
}

// Missing implements chunkstore.Store.
func (s *Store) Missing(ctx context.Context, sc chunkstore.Scope, ids []chunkstore.ID) ([]uint64, error) {
	if err := begin(ctx, sc); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	bitmap, have := make([]uint64, (len(ids)+63)/64), s.ask(sc)
	for i, id := range ids {
		if _, ok := have[id]; !ok {
			bitmap[i/64] |= 1 << (i % 64)
		}
	}
	return bitmap, nil
}

// Size implements chunkstore.Store.
func (s *Store) Size(ctx context.Context, sc chunkstore.Scope, id chunkstore.ID) (int64, error) {
	loc, err := s.find(ctx, sc, id)
	return loc.size, err
}

// ReadAt implements chunkstore.Store.
func (s *Store) ReadAt(ctx context.Context, sc chunkstore.Scope, id chunkstore.ID, p []byte, off int64) (int, error) {
	for {
		loc, err := s.find(ctx, sc, id)
		if err != nil {
			return 0, err
		}
		if off < 0 {
			return 0, fmt.Errorf("pack: read of chunk %s at %d", id.Short(), off)
		}
		h, err := s.files.get(loc.pack)
		if errors.Is(err, fs.ErrNotExist) {
			// Released since find, and perhaps there again: then look again.
			if again, aerr := s.find(ctx, sc, id); aerr != nil || again.pack != loc.pack {
				continue
			}
		}
		if err != nil {
			return 0, fmt.Errorf("pack: %w", err)
		}
		n, err := loc.readAt(h, p, off)
		s.files.put(h)
		if err != nil && err != io.EOF {
			return n, fmt.Errorf("pack: %s: %w", loc.pack.path, err)
		}
		return n, err
	}
}

// readAt reads like an io.ReaderAt over the chunk alone.
func (l location) readAt(f io.ReaderAt, p []byte, off int64) (int, error) {
	if off >= l.size {
		return 0, io.EOF
	}
	if int64(len(p)) <= l.size-off {
		n, err := f.ReadAt(p, l.off+off)
		if n == len(p) {
			err = nil // the file may end where the chunk does not
		} else if err == io.EOF {
			err = io.ErrUnexpectedEOF // the file is shorter than it was
		}
		return n, err
	}
	n, err := l.readAt(f, p[:l.size-off], off)
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// reserve counts n bytes more, or fewer, for a federation.
func (s *Store) reserve(federation chunkstore.Digest, n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && s.options.FederationBytes > 0 && n > s.options.FederationBytes-s.used[federation] {
		return fmt.Errorf("%w: %d bytes for a federation", chunkstore.ErrQuota, s.options.FederationBytes)
	}
	s.used[federation] += n
	return nil
}
