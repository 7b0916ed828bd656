package log

import (
	"context"
	"fmt"

	"github.com/concordat/concordat/internal/cose"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
)

// reindex notes the entries that the log took and the store did not hear of.
func (l *Log) reindex(ctx context.Context) error {
	next, err := l.cfg.Store.NextEntry(ctx, l.cfg.Federation)
	if err != nil {
		return err
	}
	size, err := l.Size(ctx)
	if err != nil {
		return err
	}
	if next > size {
		return fmt.Errorf("log: the directory holds %d entries, but %d were taken: it was set back", size, next)
	}
	for next < size {
		entries, err := l.bundle(ctx, next/layout.EntryBundleWidth, size)
		if err != nil {
			return err
		}
		first := next / layout.EntryBundleWidth * layout.EntryBundleWidth
		var digests []cose.Digest
		for _, e := range entries[next-first:] {
			digests = append(digests, cose.Sum(e))
		}
		if err := l.cfg.Store.PutEntries(ctx, l.cfg.Federation, next, digests); err != nil {
			return err
		}
		next += uint64(len(digests))
	}
	return nil
}

// bundle returns the entries of bundle n in a log of the given size.
func (l *Log) bundle(ctx context.Context, n, size uint64) ([][]byte, error) {
	want := min(layout.EntryBundleWidth, size-n*layout.EntryBundleWidth)
	raw, err := l.reader.ReadEntryBundle(ctx, n, layout.PartialTileSize(0, n, size))
	if err != nil {
		return nil, fmt.Errorf("log: entries from %d on: %w", n*layout.EntryBundleWidth, err)
	}
	var b api.EntryBundle
	if err := b.UnmarshalText(raw); err != nil {
		return nil, fmt.Errorf("log: entries from %d on: %w", n*layout.EntryBundleWidth, err)
	}
	if uint64(len(b.Entries)) < want {
		return nil, fmt.Errorf("log: %d entries from %d on, want %d", len(b.Entries), n*layout.EntryBundleWidth, want)
	}
	return b.Entries[:want], nil
}
