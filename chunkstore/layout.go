package chunkstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/merkle"
)

// A chunk as it is stored: header || segment 0 || … || segment s-1, where
//
//	header  = "CCH1" || u8 suite=1 || u8 16 || u16be 0 || u64be n || commitment(32)
//	s       = max(1, ceil(n / 65536))
//	segment = AES-256-GCM(key, nonce, aad = header, 65536 bytes of plaintext or the rest)
//	nonce   = u8 (1 for the last segment, else 0) || 000000 || u64be i
//	leaf    = SHA-256(00 || segment)
//	id      = SHA-256("concordat/chunk/1/id" || 00 || header || MTH(leaves))
const (
	// MaxPlain is the largest object that one chunk holds, in bytes.
	MaxPlain = object.MaxSize
	// HeaderSize is the length of a chunk's header.
	HeaderSize = 48
	// SegmentSize is how many bytes of plaintext one segment holds; the last
	// one may hold fewer.
	SegmentSize = 1 << 16

	tagSize       = 16 // AES-GCM
	storedSegment = SegmentSize + tagSize
	labelID       = "concordat/chunk/1/id"
)

// headerStart is a header up to n: magic, suite 1, log2 of the segment size,
// two reserved bytes.
var headerStart = []byte{'C', 'C', 'H', '1', 1, 16, 0, 0}

// Segments returns the number of segments of an object of n bytes; the empty
// object has one.
func Segments(n int64) int { return int(max(1, (n+SegmentSize-1)/SegmentSize)) }

// StoredSize returns the length of the chunk of an object of n bytes.
func StoredSize(n int64) int64 { return HeaderSize + n + tagSize*int64(Segments(n)) }

// MaxStored is the largest chunk: [StoredSize] of [MaxPlain].
const MaxStored = HeaderSize + MaxPlain + tagSize*(MaxPlain/SegmentSize)

// segmentSpan returns where segment i of an object of n bytes lies in the
// chunk.
func segmentSpan(n int64, i int) (off int64, size int) {
	off = HeaderSize + int64(i)*storedSegment
	return off, int(min(storedSegment, StoredSize(n)-off))
}

func newHeader(n int, commitment [32]byte) (h [HeaderSize]byte) {
	copy(h[:], headerStart)
	binary.BigEndian.PutUint64(h[8:], uint64(n))
	copy(h[16:], commitment[:])
	return h
}

// plainSize checks a header and returns n.
func plainSize(h *[HeaderSize]byte) (int64, error) {
	if !bytes.Equal(h[:len(headerStart)], headerStart) {
		return 0, fmt.Errorf("%w: unknown header %x", ErrMismatch, h[:len(headerStart)])
	}
	n := binary.BigEndian.Uint64(h[8:])
	if n > MaxPlain {
		return 0, fmt.Errorf("%w: chunk of %d bytes, limit %d", ErrTooLarge, n, MaxPlain)
	}
	return int64(n), nil
}

// Layout is what a chunk id is the hash of: the header and the hash of every
// segment. It may come from anyone; [NewOpener] checks it.
type Layout struct {
	Header [HeaderSize]byte
	Leaves []merkle.Hash // one for each segment, SHA-256(00 || segment)
}

// ID returns the chunk id of l, or why no chunk has that layout.
func (l *Layout) ID() (ID, error) {
	n, err := plainSize(&l.Header)
	if err != nil {
		return ID{}, err
	}
	if len(l.Leaves) != Segments(n) {
		return ID{}, fmt.Errorf("%w: %d leaves for %d bytes, want %d", ErrMismatch, len(l.Leaves), n, Segments(n))
	}
	root := merkle.Root(l.Leaves)
	b := make([]byte, 0, len(labelID)+1+HeaderSize+len(root))
	b = append(b, labelID...)
	b = append(b, 0)
	b = append(b, l.Header[:]...)
	return sha256.Sum256(append(b, root[:]...)), nil
}

// Measure returns the layout of a chunk's stored bytes.
func Measure(stored []byte) (*Layout, error) {
	if len(stored) < HeaderSize {
		return nil, errTruncated
	}
	l := &Layout{Header: [HeaderSize]byte(stored)}
	n, err := plainSize(&l.Header)
	if err != nil {
		return nil, err
	}
	if int64(len(stored)) != StoredSize(n) {
		return nil, fmt.Errorf("%w: chunk has %d bytes, its header says %d", ErrMismatch, len(stored), StoredSize(n))
	}
	l.Leaves = make([]merkle.Hash, Segments(n))
	segments := make([][]byte, len(l.Leaves))
	for i := range segments {
		off, size := segmentSpan(n, i)
		segments[i] = stored[off : off+int64(size)]
	}
	merkle.LeafHashes(l.Leaves, segments)
	return l, nil
}

// together is how many segments are hashed at once (package lanes).
const together = 4

// Copy copies one chunk from src to dst and checks that it is the chunk id,
// with eight segments in memory. src must end where the chunk ends. Until Copy
// returns nil, dst holds bytes that nobody vouches for. Errors of src and dst
// are passed on; bytes that are not the chunk are [ErrMismatch] or
// [ErrTooLarge].
func Copy(dst io.Writer, src io.Reader, id ID) (size int64, err error) {
	l, err := measure(dst, src)
	if err != nil {
		return 0, fmt.Errorf("chunk %s: %w", id.Short(), err)
	}
	got, err := l.ID()
	if err != nil {
		return 0, fmt.Errorf("chunk %s: %w", id.Short(), err)
	}
	if got != id {
		return 0, fmt.Errorf("%w: want %s, got %s", ErrMismatch, id.Short(), got.Short())
	}
	n, err := plainSize(&l.Header)
	return StoredSize(n), err
}

func measure(dst io.Writer, src io.Reader) (*Layout, error) {
	l := new(Layout)
	if err := readFull(src, l.Header[:]); err != nil {
		return nil, err
	}
	n, err := plainSize(&l.Header)
	if err != nil {
		return nil, err
	}
	if _, err := dst.Write(l.Header[:]); err != nil {
		return nil, err
	}
	l.Leaves = make([]merkle.Hash, Segments(n))
	// Writing to a file takes about as long as hashing: the two go on side by side, each
	// block with a buffer of its own.
	var bufs [2][]byte
	var hashed [len(bufs)]sync.WaitGroup
	for i := range bufs {
		defer hashed[i].Wait()
		bufs[i] = make([]byte, min(together*storedSegment, StoredSize(n)-HeaderSize))
		if len(l.Leaves) <= together {
			break // no block uses the other
		}
	}
	for from := 0; from < len(l.Leaves); from += together {
		k := from / together % len(bufs)
		hashed[k].Wait()
		leaves := l.Leaves[from:min(from+together, len(l.Leaves))]
		segments, used := make([][]byte, len(leaves)), 0
		for i := range segments {
			_, size := segmentSpan(n, from+i)
			segments[i] = bufs[k][used : used+size]
			used += size
		}
		if err := readFull(src, bufs[k][:used]); err != nil {
			return nil, err
		}
		hashed[k].Go(func() { merkle.LeafHashes(leaves, segments) })
		if _, err := dst.Write(bufs[k][:used]); err != nil {
			return nil, err
		}
	}
	for i := range hashed {
		hashed[i].Wait()
	}
	switch err := readFull(src, make([]byte, 1)); {
	case err == nil:
		return nil, fmt.Errorf("%w: bytes after the last segment", ErrMismatch)
	case !errors.Is(err, errTruncated):
		return nil, err
	}
	return l, nil
}

var errTruncated = fmt.Errorf("%w: truncated", ErrMismatch)

// readFull tells the end of the bytes, which is the sender's fault, from a
// failure to read them.
func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errTruncated
	}
	return err
}
