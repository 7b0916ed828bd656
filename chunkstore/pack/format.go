package pack

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/concordat/concordat/chunkstore"
)

// The format, which files on disks have for ever. A pack is a header
//
//	"CCPACK1\n" || federation(32) || run(32) || owner(32) || u32be crc
//
// and then batches, at least one. A batch is its chunks, each of them
//
//	"CHNK" || u32be crc || u64be n || id(32) || the chunk, n bytes
//
// at least one, and what commits it:
//
//	"CMIT" || u32be crc || u64be nanoseconds since the Unix epoch || sum(32)
//
// crc is CRC-32C (Castagnoli): in the header over what precedes it, in the
// others over u64be offset of the record in the file || its 48 bytes without
// the crc. The offset makes a record that a chunk's bytes contain, or a stray
// write moved, no record. sum is SHA-256 over the 48 bytes of each chunk of the
// batch, in order. The chunks' own bytes have no checksum here: their ids are
// one.
const (
	packMagic  = "CCPACK1\n"
	packHeader = len(packMagic) + 3*32 + 4
	recordSize = 48
	chunkKind  = "CHNK"
	commitKind = "CMIT"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged: bytes that no crash explains.
var errDamaged = errors.New("damaged")

func appendHeader(b []byte, sc chunkstore.Scope) []byte {
	start := len(b)
	b = append(b, packMagic...)
	b = append(b, sc.Federation[:]...)
	b = append(b, sc.Run[:]...)
	b = append(b, sc.Owner[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// putRecord writes a record that will lie at off in its file to the start of b.
func putRecord(b []byte, kind string, n uint64, sum [32]byte, off int64) {
	copy(b, kind)
	binary.BigEndian.PutUint64(b[8:], n)
	copy(b[16:], sum[:])
	binary.BigEndian.PutUint32(b[4:], recordSum(b, off))
}

func recordSum(b []byte, off int64) uint32 {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(off))
	crc := crc32.Checksum(at[:], castagnoli)
	crc = crc32.Update(crc, castagnoli, b[:4])
	return crc32.Update(crc, castagnoli, b[8:recordSize])
}

// isRecord reports whether the first 48 bytes of b are a record at off.
func isRecord(b []byte, off int64) bool {
	return binary.BigEndian.Uint32(b[4:]) == recordSum(b, off)
}

// record is a chunk within a file: its bytes, after the 48 that announce it.
type record struct {
	id        chunkstore.ID
	off, size int64
}

// announcement returns the 48 bytes before the chunk.
func (r record) announcement() (b [recordSize]byte) {
	putRecord(b[:], chunkKind, uint64(r.size), r.id, r.off-recordSize)
	return b
}

// layout is the records of one batch so far.
type layout struct {
	records []record
	sum     hash.Hash
}

func newLayout() layout { return layout{sum: sha256.New()} }

func (l *layout) add(r record) {
	b := r.announcement()
	l.sum.Write(b[:])
	l.records = append(l.records, r)
}

// commit returns what commits the batch if it ends at off.
func (l *layout) commit(at time.Time, off int64) []byte {
	b := make([]byte, recordSize)
	putRecord(b, commitKind, uint64(at.UnixNano()), [32]byte(l.sum.Sum(nil)), off)
	return b
}

// committed is a batch as it is found in a pack.
type committed struct {
	at      time.Time
	records []record
}

// parse reads the announcements of a pack of total bytes, not the chunks. end is
// where the last batch ends; what follows, if anything, a crash left. An error
// that wraps errDamaged says what else is wrong; others are r's.
func parse(r io.ReaderAt, total int64, sc chunkstore.Scope) (batches []committed, end int64, err error) {
	w := window{r: r, total: total}
	head, err := w.at(0, packHeader)
	if err != nil {
		return nil, 0, err
	}
	if !bytes.Equal(head, appendHeader(nil, sc)) {
		return nil, 0, fmt.Errorf("%w: its first %d bytes are not a pack's of this scope", errDamaged, packHeader)
	}
	off, l := int64(packHeader), newLayout()
	end = off
	for {
		b, err := w.at(off, recordSize)
		if err != nil {
			return nil, 0, err
		}
		if len(b) < recordSize || !isRecord(b, off) {
			break
		}
		n, sum := binary.BigEndian.Uint64(b[8:]), [32]byte(b[16:])
		off += recordSize
		switch kind := string(b[:4]); {
		case kind == chunkKind && n <= chunkstore.MaxStored && int64(n) <= total-off:
			l.add(record{sum, off, int64(n)})
			off += int64(n)
			continue
		case kind == commitKind && len(l.records) > 0 && [32]byte(l.sum.Sum(nil)) == sum:
			batches = append(batches, committed{time.Unix(0, int64(n)), l.records})
			l, end = newLayout(), off
			continue
		}
		off -= recordSize
		break
	}
	if len(batches) == 0 { // a pack gets its name with its first batch
		return nil, 0, fmt.Errorf("%w: no record where one should be at %d, in its first batch", errDamaged, off)
	}
	return batches, end, w.torn(off, end)
}

// torn tells what a crash leaves behind the last batch from damage; off is where
// the records end. Batches are appended a group at a time, and a group's commit
// comes after its chunks are durable. So what is torn is no longer than a group,
// and no commit is in it.
//
// An owner who has a chunk contain what looks like a commit can make a torn pack
// look damaged. All it holds are batches of that owner.
func (w *window) torn(off, end int64) error {
	if w.total-end > maxGroup {
		return fmt.Errorf("%w: no record where one should be at %d, and %d bytes after it", errDamaged, off, w.total-off)
	}
	for ; off+recordSize <= w.total; off++ {
		b, err := w.at(off, recordSize)
		if err != nil {
			return err
		}
		if string(b[:4]) == commitKind && isRecord(b, off) {
			return fmt.Errorf("%w: a batch that is committed at %d is not whole", errDamaged, off)
		}
	}
	return nil
}

// window reads few bytes here and there with fewer calls.
type window struct {
	r     io.ReaderAt
	total int64
	off   int64
	buf   []byte
}

// at returns n bytes at off, fewer at the file's end; they are valid until the
// next call.
func (w *window) at(off int64, n int) ([]byte, error) {
	n = int(min(int64(n), w.total-off))
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		if w.buf == nil {
			w.buf = make([]byte, 4<<10)
		}
		w.off, w.buf = off, w.buf[:min(int64(cap(w.buf)), w.total-off)]
		if k, err := w.r.ReadAt(w.buf, off); k < len(w.buf) {
			w.buf = w.buf[:0]
			return nil, fmt.Errorf("read at %d: %w", off, err)
		}
	}
	return w.buf[off-w.off:][:n], nil
}
