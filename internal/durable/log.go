package durable

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// MaxRecord is the largest record of a [Log] in bytes. It exceeds the largest
// signed statement (64 KiB), which is what journals hold; more is arbitrary.
const MaxRecord = 128 << 10

// A log file is logMagic, then for each record
//
//	u32be n (1..MaxRecord) || u32be crc || n bytes
//
// where crc is CRC-32C (Castagnoli) over u64be offset of the record in the file
// || u32be n || the bytes. The offset makes a record that was copied to another
// place, by a stray write or within another record, no record.
const (
	logMagic        = "CCLOG1\r\n"
	recordHeaderLen = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrCorrupt is wrapped by [OpenLog] for a file that no crash explains. Its
// records may already have been acted on, so nothing is cut off or repaired:
// whoever runs the program decides.
var ErrCorrupt = errors.New("durable: log is corrupt")

// Log is a file of records that are appended and never changed. It is safe for
// concurrent use.
//
// It protects against crashes, not against whoever can write the file: a
// checksum is no signature.
type Log struct {
	mu   sync.Mutex
	f    File
	lock io.Closer
	name string
	size int64
	err  error // the first failure: what is on disk is unknown from then on
	buf  []byte
}

// OpenLog opens or creates the log at name, with name + ".lock" beside it
// against a second process, and calls replay for each record in order. The
// record is valid only during the call; an error from replay ends OpenLog with
// it.
//
// One record that a crash left incomplete at the end is cut off: its Append
// never returned. Any other damage is [ErrCorrupt]. When OpenLog returns, what
// it replayed is durable.
func OpenLog(fsys FS, name string, replay func(record []byte) error) (_ *Log, err error) {
	lock, err := fsys.Lock(name + ".lock")
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	l := &Log{lock: lock, name: name}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	l.f, err = fsys.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err = WriteFile(fsys, name, []byte(logMagic), 0o600); err != nil {
			return nil, err
		}
		l.f, err = fsys.OpenFile(name, os.O_RDWR, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("durable: %w", err)
	}
	if err = l.recover(replay); err != nil {
		return nil, err
	}
	// A process that was killed may have left complete records that were never
	// synced. They count, so they are made durable now.
	if err = l.f.Sync(); err != nil {
		return nil, fmt.Errorf("durable: sync %s: %w", name, err)
	}
	if err = fsys.SyncDir(filepath.Dir(name)); err != nil {
		return nil, fmt.Errorf("durable: sync %s: %w", filepath.Dir(name), err)
	}
	return l, nil
}

func (l *Log) recover(replay func([]byte) error) error {
	info, err := l.f.Stat()
	if err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	total := info.Size()
	r := bufio.NewReaderSize(io.NewSectionReader(l.f, 0, total), recordHeaderLen+MaxRecord)
	if magic, err := r.Peek(len(logMagic)); err != nil || string(magic) != logMagic {
		return fmt.Errorf("%w: %s does not start as a log", ErrCorrupt, l.name)
	}
	r.Discard(len(logMagic))
	l.size = int64(len(logMagic))
	for l.size < total {
		rest, err := r.Peek(int(min(total-l.size, recordHeaderLen+MaxRecord)))
		if err != nil {
			return fmt.Errorf("durable: read %s: %w", l.name, err)
		}
		rec := parseRecord(rest, l.size)
		if rec == nil {
			return l.cut(rest, total)
		}
		if err := replay(rec); err != nil {
			return err
		}
		n := recordHeaderLen + len(rec)
		r.Discard(n)
		l.size += int64(n)
	}
	return nil
}

// parseRecord returns the record at the start of b, which lies at offset off of
// the file, or nil if there is none.
func parseRecord(b []byte, off int64) []byte {
	if len(b) < recordHeaderLen {
		return nil
	}
	n := binary.BigEndian.Uint32(b)
	if n == 0 || n > MaxRecord || uint64(n) > uint64(len(b)-recordHeaderLen) {
		return nil
	}
	rec := b[recordHeaderLen : recordHeaderLen+n]
	if binary.BigEndian.Uint32(b[4:]) != recordSum(rec, off) {
		return nil
	}
	return rec
}

func recordSum(rec []byte, off int64) uint32 {
	var h [12]byte
	binary.BigEndian.PutUint64(h[:], uint64(off))
	binary.BigEndian.PutUint32(h[8:], uint32(len(rec)))
	return crc32.Update(crc32.Checksum(h[:], castagnoli), castagnoli, rec)
}

// cut removes the torn record at l.size, of which rest holds the bytes. Appends
// run one at a time and each is synced before the next, so a crash damages at
// most one record, and nothing follows it. Where something does, a record that
// was confirmed is damaged.
func (l *Log) cut(rest []byte, total int64) error {
	if total-l.size > recordHeaderLen+MaxRecord {
		return fmt.Errorf("%w: %s: no record at offset %d and %d bytes after it", ErrCorrupt, l.name, l.size, total-l.size)
	}
	for i := 1; i < len(rest); i++ {
		if parseRecord(rest[i:], l.size+int64(i)) != nil {
			return fmt.Errorf("%w: %s: no record at offset %d, but one at %d", ErrCorrupt, l.name, l.size, l.size+int64(i))
		}
	}
	if err := l.f.Truncate(l.size); err != nil {
		return fmt.Errorf("durable: %w", err)
	}
	return nil
}

// Append adds a record of 1 to [MaxRecord] bytes and returns once it is
// durable. After an error the record may or may not be there at the next
// start, and the log takes no more: open it again.
func (l *Log) Append(record []byte) error {
	if len(record) == 0 || len(record) > MaxRecord {
		return fmt.Errorf("durable: record of %d bytes, want 1 to %d", len(record), MaxRecord)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.buf = binary.BigEndian.AppendUint32(l.buf[:0], uint32(len(record)))
	l.buf = binary.BigEndian.AppendUint32(l.buf, recordSum(record, l.size))
	l.buf = append(l.buf, record...)
	_, err := l.f.WriteAt(l.buf, l.size)
	if err == nil {
		err = l.f.Sync()
	}
	if err != nil {
		l.err = fmt.Errorf("durable: append to %s: %w", l.name, err)
		return l.err
	}
	l.size += int64(len(l.buf))
	return nil
}

// Close closes the file and gives back the lock. A further Append fails.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.err, fs.ErrClosed) {
		return nil
	}
	l.err = fmt.Errorf("durable: %s: %w", l.name, fs.ErrClosed)
	var err error
	if l.f != nil {
		err = l.f.Close()
	}
	return errors.Join(err, l.lock.Close())
}
