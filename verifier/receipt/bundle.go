package receipt

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/concordat/concordat/internal/cose"
)

// A bundle is a CBOR sequence (RFC 8742) in deterministic encoding:
//
//	header   ["concordat/bundle/1", federation, [run, …]]
//	items    [section, role, subject, index, data]   any number
//	trailer  [0, [items of section 1, …, of section 6]]
//
// Items are in strictly ascending order of (section, role, subject, index), so
// that the same content is the same bytes. Fields that a section does not use are
// "", none or 0. What a bundle says about itself proves nothing: a reader
// recomputes every digest.
const bundleDomain = "concordat/bundle/1"

// Section is one kind of item of a bundle.
type Section uint8

// The sections, in their order. Entries come last, so that a reader that streams
// them has all that it judges them with.
const (
	SectionPolicy      Section = 1 // Data: the signed policy chain, once
	SectionCheckpoint  Section = 2 // Index: size; Data: the note with its cosignatures
	SectionBlob        Section = 3 // Role, Subject, Data: see the roles
	SectionEndorsement Section = 4 // Role: its type; Subject: its digest; Data: the vendor's document
	SectionReceipt     Section = 5 // Role; Subject: digest of the entry; Data: COSE receipt
	SectionEntry       Section = 6 // Index: in the log; Data: the entry's bytes
)

const sections = 6

// The roles of blobs. What a blob is found by is its Subject; what binds it is the
// signed digest or root that its reader recomputes from it.
const (
	RoleEvidence   = "evidence"   // evidence envelope; Subject: its digest
	RoleRequest    = "request"    // run-request statement; Subject: its digest
	RoleCohort     = "cohort"     // encoded [Cohort]; Subject: its digest
	RoleCredential = "credential" // credential of a node of the cohort, or of the requester; Subject: node id
	RoleInputs     = "inputs"     // list of a step's contribution statements, in tree order; Subject: the step
	RoleExcluded   = "excluded"   // encoded [Excluded] of a step, where it is not empty; Subject: the step
	RoleAcks       = "acks"       // list of a step's ack statements, in the order of its inputs; Subject: the step
)

// RoleLog is the role of a receipt that the log signed.
const RoleLog = "log"

// MaxItem bounds the data of one item of a bundle, in bytes.
const MaxItem = cose.MaxItem - 1<<10

const maxRuns = 1 << 12

// Item is one item of a bundle.
type Item struct {
	_       struct{} `cbor:",toarray"`
	Section Section
	Role    string
	Subject Digest
	Index   uint64
	Data    []byte
}

func (i *Item) check() error {
	var ok bool
	switch i.Section {
	case SectionPolicy:
		ok = i.Role == "" && i.Subject.IsZero() && i.Index == 0
	case SectionCheckpoint:
		ok = i.Role == "" && i.Subject.IsZero()
	case SectionBlob, SectionEndorsement, SectionReceipt:
		ok = i.Role != "" && len(i.Role) <= maxName && !i.Subject.IsZero() && i.Index == 0
	case SectionEntry:
		ok = i.Role == "" && i.Subject.IsZero() && len(i.Data) <= MaxStatement
	}
	if !ok || len(i.Data) == 0 || len(i.Data) > MaxItem {
		return fmt.Errorf("bundle: section %d has an item %.40q of %d bytes", i.Section, i.Role, len(i.Data))
	}
	return nil
}

func compareItems(a, b *Item) int {
	return cmp.Or(cmp.Compare(a.Section, b.Section), cmp.Compare(a.Role, b.Role),
		bytes.Compare(a.Subject[:], b.Subject[:]), cmp.Compare(a.Index, b.Index))
}

type bundleHeader struct {
	_          struct{} `cbor:",toarray"`
	Domain     string
	Federation Digest
	Runs       []Digest
}

type bundleTrailer struct {
	_      struct{} `cbor:",toarray"`
	End    uint8
	Counts [sections]uint64
}

// bundleOrder checks the order of items and counts them.
type bundleOrder struct {
	last   Item // without data
	counts [sections]uint64
}

func (o *bundleOrder) add(i *Item) error {
	if err := i.check(); err != nil {
		return err
	}
	if o.last.Section != 0 && compareItems(&o.last, i) >= 0 {
		return fmt.Errorf("bundle: item %d %q %s %d is not in order", i.Section, i.Role, i.Subject.Short(), i.Index)
	}
	if i.Section == SectionPolicy && o.counts[0] > 0 {
		return errors.New("bundle: two policy chains")
	}
	o.last = Item{Section: i.Section, Role: i.Role, Subject: i.Subject, Index: i.Index}
	o.counts[i.Section-1]++
	return nil
}

// BundleWriter writes a bundle. It is not safe for concurrent use.
type BundleWriter struct {
	w      io.Writer
	order  bundleOrder
	err    error
	closed bool
}

// NewBundleWriter writes the header. runs are the digests of the run statements
// that the bundle is about, in ascending order; empty for the federation as such.
func NewBundleWriter(w io.Writer, federation Digest, runs []Digest) (*BundleWriter, error) {
	h := bundleHeader{Domain: bundleDomain, Federation: federation, Runs: runs}
	if err := h.check(); err != nil {
		return nil, err
	}
	b := &BundleWriter{w: w}
	b.write(h)
	return b, b.err
}

func (h *bundleHeader) check() error {
	if h.Federation.IsZero() || len(h.Runs) > maxRuns {
		return fmt.Errorf("bundle: no federation, or %d runs, limit %d", len(h.Runs), maxRuns)
	}
	for i, r := range h.Runs {
		if r.IsZero() || i > 0 && bytes.Compare(h.Runs[i-1][:], r[:]) >= 0 {
			return errors.New("bundle: runs are not in order")
		}
	}
	return nil
}

func (b *BundleWriter) write(v any) {
	if b.err == nil {
		_, b.err = b.w.Write(cose.Marshal(v))
	}
}

// Add writes one item. Items must come in the order of a bundle; one that does
// not is refused and may be followed by others.
func (b *BundleWriter) Add(i *Item) error {
	if b.closed {
		return errors.New("bundle: closed")
	}
	if b.err != nil {
		return b.err
	}
	if err := b.order.add(i); err != nil {
		return err
	}
	b.write(i)
	return b.err
}

// Close writes the trailer. It does not close the writer below.
func (b *BundleWriter) Close() error {
	if !b.closed {
		b.closed = true
		b.write(bundleTrailer{Counts: b.order.counts})
	}
	return b.err
}

// BundleReader reads a bundle item by item, in memory of one item. It is not safe
// for concurrent use.
type BundleReader struct {
	r      *bufio.Reader
	header bundleHeader
	order  bundleOrder
	err    error
}

// NewBundleReader reads the header.
func NewBundleReader(r io.Reader) (*BundleReader, error) {
	b := &BundleReader{r: bufio.NewReader(r)}
	raw, err := cose.ReadItem(b.r, maxRuns*34+1<<10)
	if err != nil {
		return nil, fmt.Errorf("bundle: header: %w", err)
	}
	if err := cose.Unmarshal(raw, &b.header); err != nil {
		return nil, fmt.Errorf("bundle: header: %w", err)
	}
	if b.header.Domain != bundleDomain {
		return nil, fmt.Errorf("bundle: domain %.40q, want %q", b.header.Domain, bundleDomain)
	}
	return b, b.header.check()
}

// Federation returns the federation that the bundle says it is about.
func (b *BundleReader) Federation() Digest { return b.header.Federation }

// Runs returns the runs that the bundle says it is about.
func (b *BundleReader) Runs() []Digest { return b.header.Runs }

// Next returns the next item. After the last one, when the trailer's counts agree
// and nothing follows it, the error is io.EOF: only then was the bundle complete.
func (b *BundleReader) Next() (*Item, error) {
	if b.err != nil {
		return nil, b.err
	}
	i, err := b.next()
	if err != nil {
		b.err = err
		return nil, err
	}
	return i, nil
}

func (b *BundleReader) next() (*Item, error) {
	raw, err := cose.ReadItem(b.r, cose.MaxItem)
	if errors.Is(err, io.EOF) {
		return nil, errors.New("bundle: ends without a trailer")
	}
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	if len(raw) < 2 || raw[1] != 0 { // a trailer starts with section 0
		i := new(Item)
		if err := cose.Unmarshal(raw, i); err != nil {
			return nil, fmt.Errorf("bundle: item: %w", err)
		}
		return i, b.order.add(i)
	}
	var t bundleTrailer
	if err := cose.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("bundle: trailer: %w", err)
	}
	if t.Counts != b.order.counts {
		return nil, fmt.Errorf("bundle: trailer counts %v items, there are %v", t.Counts, b.order.counts)
	}
	if _, err := b.r.Peek(1); !errors.Is(err, io.EOF) {
		return nil, errors.New("bundle: bytes after the trailer")
	}
	return nil, io.EOF
}

// EncodeList returns the blob that holds a list of statements: the
// canonical CBOR array of byte strings.
func EncodeList(raw [][]byte) []byte { return cose.Marshal(raw) }

// ParseList decodes what [EncodeList] returns: at most [MaxCohort] messages of at
// most [MaxStatement] bytes.
func ParseList(b []byte) ([][]byte, error) {
	if len(b) > MaxList {
		return nil, fmt.Errorf("list: %d bytes, limit %d", len(b), MaxList)
	}
	var raw [][]byte
	if err := cose.Unmarshal(b, &raw); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	if len(raw) > MaxCohort {
		return nil, fmt.Errorf("list: %d messages, limit %d", len(raw), MaxCohort)
	}
	for i, r := range raw {
		if len(r) == 0 || len(r) > MaxStatement {
			return nil, fmt.Errorf("list: message %d of %d bytes", i, len(r))
		}
	}
	return raw, nil
}
