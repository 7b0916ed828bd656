package log

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/concordat/concordat/verifier/receipt"
	"github.com/concordat/concordat/verifier/tlog"
	"github.com/transparency-dev/tessera/api/layout"
)

// tilePath is every path that C2SP tlog-tiles defines below "tile/": a level of 0
// to 63 or "entries", an index in groups of three digits, and the width of a
// partial tile, 1 to 255. Nothing else reaches the file system.
var tilePath = regexp.MustCompile(`^tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/(x[0-9]{3}/){0,6}[0-9]{3}(\.p/([1-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5]))?$`)

// ErrPath is wrapped by errors about paths that no log has.
var ErrPath = errors.New("not a path of a log")

// ReadTile returns a static file of the log: "checkpoint", which is the newest
// published one with its cosignatures, or a tile or entry bundle.
func (l *Log) ReadTile(ctx context.Context, path string) ([]byte, error) {
	if path == layout.CheckpointPath {
		if note, _ := l.Published(); note != nil {
			return note, nil
		}
		return nil, fmt.Errorf("log: %w: nothing is published yet", ErrNotFound)
	}
	if len(path) > 64 || !tilePath.MatchString(path) {
		return nil, fmt.Errorf("log: %w: %.64q", ErrPath, path)
	}
	b, err := os.ReadFile(filepath.Join(l.cfg.Dir, filepath.FromSlash(path)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("log: %w: %s", ErrNotFound, path)
	}
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return b, nil
}

// Entries returns published entries from index first on, at least one and at most 256
// if there are any; nil, if not.
func (l *Log) Entries(ctx context.Context, first uint64) ([][]byte, error) {
	_, published := l.Published()
	if first >= published {
		return nil, nil
	}
	// Of the bundles that are not full, only the one of the log as it is stays.
	size, err := l.Size(ctx)
	if err != nil {
		return nil, err
	}
	n := first / layout.EntryBundleWidth
	entries, err := l.bundle(ctx, n, size)
	if err != nil {
		return nil, err
	}
	from := n * layout.EntryBundleWidth
	return entries[first-from : min(uint64(len(entries)), published-from)], nil
}

// Receipt returns the COSE receipt (RFC 9942) of the entry at index in the
// published checkpoint of the given size, 0 for the newest, and that checkpoint.
func (l *Log) Receipt(ctx context.Context, index, size uint64) (raw, note []byte, err error) {
	if size == 0 {
		note, size = l.Published()
	} else if note, err = l.cfg.Store.Checkpoint(ctx, l.cfg.Federation, size); err != nil {
		return nil, nil, err
	}
	if note == nil {
		return nil, nil, fmt.Errorf("log: %w: no checkpoint of size %d is published", ErrNotFound, size)
	}
	if index >= size {
		return nil, nil, fmt.Errorf("log: %w: entry %d in a checkpoint of %d", ErrNotFound, index, size)
	}
	c, err := l.open(note)
	if err != nil {
		return nil, nil, fmt.Errorf("log: %w", err)
	}
	path, err := tlog.InclusionFromTiles(ctx, l, c, index)
	if err != nil {
		return nil, nil, fmt.Errorf("log: %w", err)
	}
	entries, err := l.bundle(ctx, index/layout.EntryBundleWidth, size)
	if err != nil {
		return nil, nil, err
	}
	h := receipt.ReceiptHeader{Issuer: l.cfg.Origin, Subject: l.cfg.Federation.String(), Origin: l.cfg.Origin, Size: size}
	raw, err = receipt.IssueReceipt(h, entries[index%layout.EntryBundleWidth], receipt.Proof{Index: index, Size: size, Path: path}, c.Root, l.cfg.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("log: %w", err)
	}
	return raw, note, nil
}
