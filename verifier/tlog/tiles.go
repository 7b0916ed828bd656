package tlog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/concordat/concordat/internal/merkle"
)

// Sizes of C2SP tlog-tiles.
const (
	tileHeight    = 8
	tileWidth     = 1 << tileHeight
	MaxEntry      = 1<<16 - 1 // bytes of one entry
	maxBundleFile = tileWidth * (2 + MaxEntry)
)

// Tiles reads the files of a log under their tlog-tiles path, such as
// "tile/0/x001/234" or "tile/entries/000.p/5". What it returns is not trusted; it
// should read no more than 16 MiB of a file. Where a partial tile is not there
// any more, the full one is asked for.
type Tiles interface {
	ReadTile(ctx context.Context, path string) ([]byte, error)
}

// Audit reads the entries of the log from the size of from (nil: the empty range)
// up to c, hands each to each with its index, and checks that they lead from
// there to c's root. from is then at c.Size; on an error it is as before.
//
// What each is given is proven only when Audit returns nil: its effects must be
// provisional until then. The entry is only valid during the call.
func Audit(ctx context.Context, tiles Tiles, from *merkle.Range, c *Checkpoint, each func(index uint64, entry []byte) error) error {
	if from == nil {
		from = new(merkle.Range)
	}
	if from.Size() > c.Size {
		return fmt.Errorf("audit: log shrinks from %d to %d", from.Size(), c.Size)
	}
	r, err := merkle.ResumeRange(from.Size(), from.Peaks())
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	for r.Size() < c.Size {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := r.Size() / tileWidth
		entries, err := readEntries(ctx, tiles, n, c.Size)
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		for _, e := range entries[r.Size()-n*tileWidth:] {
			if err := each(r.Size(), e); err != nil {
				return fmt.Errorf("audit: entry %d: %w", r.Size(), err)
			}
			r.Append(merkle.LeafHash(e))
		}
	}
	if root := r.Root(); root != c.Root {
		return fmt.Errorf("audit: entries lead to root %x, the checkpoint of size %d says %x: %w", root[:8], c.Size, c.Root[:8], merkle.ErrProof)
	}
	*from = *r
	return nil
}

// readEntries returns the entries of bundle n in a log of the given size.
func readEntries(ctx context.Context, tiles Tiles, n, size uint64) ([][]byte, error) {
	width := min(size-n*tileWidth, tileWidth)
	b, err := readTile(ctx, tiles, "tile/entries/", n, width)
	if err != nil {
		return nil, err
	}
	if len(b) > maxBundleFile {
		return nil, fmt.Errorf("entry bundle %d of %d bytes, limit %d", n, len(b), maxBundleFile)
	}
	entries := make([][]byte, 0, width)
	for range width {
		if len(b) < 2 {
			return nil, fmt.Errorf("entry bundle %d has %d entries, want %d", n, len(entries), width)
		}
		l := int(binary.BigEndian.Uint16(b))
		if len(b) < 2+l {
			return nil, fmt.Errorf("entry bundle %d ends in an entry", n)
		}
		entries = append(entries, b[2:2+l])
		b = b[2+l:]
	}
	return entries, nil
}

// readTile reads tile n of a kind, first as the partial one of that width.
func readTile(ctx context.Context, tiles Tiles, prefix string, n, width uint64) ([]byte, error) {
	path := prefix + tilePath(n)
	if width == tileWidth {
		return tiles.ReadTile(ctx, path)
	}
	b, err := tiles.ReadTile(ctx, fmt.Sprintf("%s.p/%d", path, width))
	if err == nil {
		return b, nil
	}
	full, err2 := tiles.ReadTile(ctx, path)
	if err2 != nil {
		return nil, errors.Join(err, err2)
	}
	return full, nil
}

// tilePath is the index of a tile in groups of three digits, all but the last
// after an x.
func tilePath(n uint64) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	return s
}

// InclusionFromTiles returns the inclusion path of entry index in the tree of c,
// nearest sibling first, having checked that it leads to c's root.
func InclusionFromTiles(ctx context.Context, tiles Tiles, c *Checkpoint, index uint64) ([]Digest, error) {
	if index >= c.Size {
		return nil, fmt.Errorf("inclusion: entry %d in a log of %d", index, c.Size)
	}
	t := treeReader{ctx, tiles, c.Size, nil}
	var path []merkle.Hash
	// Down from the root, so the path comes out farthest sibling first.
	for lo, hi := uint64(0), c.Size; hi-lo > 1; {
		k := lo + split(hi-lo)
		var sibling merkle.Hash
		if index < k {
			sibling, hi = t.hash(k, hi), k
		} else {
			sibling, lo = t.hash(lo, k), k
		}
		path = append([]merkle.Hash{sibling}, path...)
	}
	leaf := t.hash(index, index+1)
	if t.err != nil {
		return nil, fmt.Errorf("inclusion: %w", t.err)
	}
	if err := merkle.VerifyInclusion(leaf, index, c.Size, path, c.Root); err != nil {
		return nil, fmt.Errorf("inclusion: %w", err)
	}
	return digests(path), nil
}

// ConsistencyFromTiles returns the proof that c extends the log of size old, whose
// root was oldRoot, having checked it. old must not be 0.
func ConsistencyFromTiles(ctx context.Context, tiles Tiles, old uint64, oldRoot Digest, c *Checkpoint) ([]Digest, error) {
	if old == 0 || old > c.Size {
		return nil, fmt.Errorf("consistency: from %d to %d", old, c.Size)
	}
	t := treeReader{ctx, tiles, c.Size, nil}
	var proof []merkle.Hash
	lo, hi, whole := uint64(0), c.Size, true
	for old != hi { // RFC 9162 2.1.4.1, farthest first
		k := lo + split(hi-lo)
		var sibling merkle.Hash
		if old <= k {
			sibling, hi = t.hash(k, hi), k
		} else {
			sibling, lo, whole = t.hash(lo, k), k, false
		}
		proof = append([]merkle.Hash{sibling}, proof...)
	}
	if !whole {
		proof = append([]merkle.Hash{t.hash(lo, hi)}, proof...)
	}
	if t.err != nil {
		return nil, fmt.Errorf("consistency: %w", t.err)
	}
	if err := merkle.VerifyConsistency(old, c.Size, proof, oldRoot, c.Root); err != nil {
		return nil, fmt.Errorf("consistency: %w", err)
	}
	return digests(proof), nil
}

// treeReader computes hashes of ranges of a log's tree from its tiles. It keeps
// the first error.
type treeReader struct {
	ctx   context.Context
	tiles Tiles
	size  uint64
	err   error
}

// hash returns the root of the leaves lo to hi, a subtree of the log's tree: lo is
// a multiple of the next power of two from hi-lo.
func (t *treeReader) hash(lo, hi uint64) merkle.Hash {
	if t.err != nil {
		return merkle.Hash{}
	}
	n := hi - lo
	if n&(n-1) != 0 {
		k := lo + split(n)
		return merkle.NodeHash(t.hash(lo, k), t.hash(k, hi))
	}
	level := 0 // of the tile whose nodes make up this subtree
	for n >= tileWidth {
		n, lo, level = n>>tileHeight, lo>>tileHeight, level+1
	}
	nodes := t.size >> (tileHeight * level) // whole ones at that level
	tile := lo / tileWidth
	width := min(nodes-tile*tileWidth, tileWidth)
	b, err := readTile(t.ctx, t.tiles, fmt.Sprintf("tile/%d/", level), tile, width)
	if err != nil {
		t.err = err
		return merkle.Hash{}
	}
	if uint64(len(b)) < width*32 || len(b) > tileWidth*32 {
		t.err = fmt.Errorf("tile %d/%d of %d bytes, want %d", level, tile, len(b), width*32)
		return merkle.Hash{}
	}
	first := lo - tile*tileWidth
	leaves := make([]merkle.Hash, n)
	for i := range leaves {
		copy(leaves[i][:], b[(first+uint64(i))*32:])
	}
	return merkle.Root(leaves)
}

// split returns the largest power of two below n, for n > 1.
func split(n uint64) uint64 {
	k := uint64(1)
	for k<<1 < n {
		k <<= 1
	}
	return k
}

func digests(h []merkle.Hash) []Digest {
	out := make([]Digest, len(h))
	for i := range h {
		out[i] = h[i]
	}
	return out
}

func hashes(d []Digest) []merkle.Hash {
	out := make([]merkle.Hash, len(d))
	for i := range d {
		out[i] = d[i]
	}
	return out
}
