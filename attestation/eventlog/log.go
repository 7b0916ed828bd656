package eventlog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Log is a parsed event log. It shares memory with what it was parsed from.
type Log struct {
	Algs   []Alg   // of every event's digests, in this order
	Events []Event // without the header, in the order of the log

	class uint32 // platformClass and the versions of the header, kept for Marshal
	spec  [4]byte
	info  []byte // vendorInfo
}

// Event is one entry of a log.
type Event struct {
	Index   uint32   // number of the register as the log counts; see [RTMR]
	Type    Type     // says how the data is meant; not measured
	Digests [][]byte // one for each of [Log.Algs]; what was extended
	Data    []byte   // not measured as such; see [Event.IsDataOf]
}

// Type is the type of an event (Firmware Profile, 10.4.1). Nothing here depends
// on one but on [NoAction].
type Type uint32

// The types that this package, or a simulator, writes.
const (
	NoAction  Type = 0x03 // EV_NO_ACTION: information, not extended into any register
	Separator Type = 0x04 // EV_SEPARATOR
	Tag       Type = 0x06 // EV_EVENT_TAG
	IPL       Type = 0x0d // EV_IPL
	Action    Type = 0x80000007
)

// RTMR returns the number by which a CCEL calls Intel's run-time measurement
// register n, 0 to 3: index 0 is MRTD, which no event extends (Intel, Guest
// Hypervisor Communication Interface 1.5, table "TD Measurement Registers").
func RTMR(n int) uint32 { return uint32(n) + 1 }

// signature starts the header event's data (Firmware Profile, 10.4.5.1).
const signature = "Spec ID Event03\x00"

// ErrMalformed is wrapped by every error of [Parse].
var ErrMalformed = errors.New("malformed event log")

// Parse reads a log. What firmware leaves of its buffer, all FF or all 00, may
// follow the last event and is ignored; nothing else may. It says nothing about
// the truth of the log.
func Parse(b []byte) (*Log, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(b), MaxSize)
	}
	r := &reader{b: b}
	l := new(Log)
	l.header(r)
	for r.err == nil && !r.padding() {
		if len(l.Events) == MaxEvents {
			return nil, fmt.Errorf("%w: more than %d events", ErrMalformed, MaxEvents)
		}
		l.Events = append(l.Events, l.event(r))
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: event %d: %w", ErrMalformed, len(l.Events), r.err)
	}
	return l, nil
}

// header reads the first event, which has the layout of the log with SHA-1: u32
// index, u32 type, 20 bytes, u32 size, data (Firmware Profile, 10.2.1).
func (l *Log) header(r *reader) {
	index, typ, digest := r.u32(), Type(r.u32()), r.take(20)
	d := &reader{b: r.data()}
	if r.err != nil {
		return
	}
	if index != 0 || typ != NoAction || !uniform(digest, 0) {
		r.err = errors.New("no header of a crypto-agile log")
		return
	}
	if s := d.take(len(signature)); d.err == nil && string(s) != signature {
		r.err = fmt.Errorf("header signature %q, want %q", s, signature)
		return
	}
	l.class = d.u32()
	copy(l.spec[:], d.take(4))
	n := d.u32()
	if d.err == nil && (n == 0 || n > maxAlgs) {
		d.err = fmt.Errorf("%d algorithms, want 1 to %d", n, maxAlgs)
	}
	for i := uint32(0); i < n && d.err == nil; i++ {
		a, size := Alg(d.u16()), int(d.u16())
		switch {
		case d.err != nil:
		case a.Size() == 0 || a.Size() != size:
			d.err = fmt.Errorf("%s with digests of %d bytes", a, size)
		case l.position(a) >= 0:
			d.err = fmt.Errorf("%s twice", a)
		}
		l.Algs = append(l.Algs, a)
	}
	l.info = d.take(int(d.u8()))
	if d.err == nil && len(d.b) > 0 {
		d.err = fmt.Errorf("%d bytes after the header's vendor information", len(d.b))
	}
	r.err = d.err
}

// event reads a TCG_PCR_EVENT2 (Firmware Profile, 10.2.2).
func (l *Log) event(r *reader) Event {
	e := Event{Index: r.u32(), Type: Type(r.u32()), Digests: make([][]byte, len(l.Algs))}
	if n := r.u32(); r.err == nil && int64(n) != int64(len(l.Algs)) {
		r.err = fmt.Errorf("%d digests, the header lists %d algorithms", n, len(l.Algs))
	}
	for range l.Algs {
		a := Alg(r.u16())
		i := l.position(a)
		switch {
		case r.err != nil:
		case i < 0:
			r.err = fmt.Errorf("digest of %s, which the header does not list", a)
		case e.Digests[i] != nil:
			r.err = fmt.Errorf("two digests of %s", a)
		}
		if r.err != nil {
			return e
		}
		e.Digests[i] = r.take(a.Size())
	}
	e.Data = r.data()
	return e
}

func (l *Log) position(a Alg) int {
	for i, b := range l.Algs {
		if a == b {
			return i
		}
	}
	return -1
}

// New returns an empty log whose events have digests of algs.
func New(algs ...Alg) *Log {
	return &Log{Algs: algs, spec: [4]byte{0, 2, 0, 2}} // version 2.0, UINTN of 64 bits
}

// Extend appends an event whose digests are those of data, as firmware measures
// most things. It panics on an algorithm that [Alg.Sum] does not know.
func (l *Log) Extend(index uint32, t Type, data []byte) {
	e := Event{Index: index, Type: t, Data: data}
	for _, a := range l.Algs {
		d := a.Sum(data)
		if d == nil {
			panic("eventlog: no digest of " + a.String())
		}
		e.Digests = append(e.Digests, d)
	}
	l.Events = append(l.Events, e)
}

// Marshal returns the bytes of l, without padding. Of a parsed log it returns
// what was parsed if every event lists its digests in the header's order. Every
// event must have one digest of the right size for each of l.Algs.
func (l *Log) Marshal() []byte {
	le := binary.LittleEndian
	h := append([]byte(signature), le.AppendUint32(nil, l.class)...)
	h = append(h, l.spec[:]...)
	h = le.AppendUint32(h, uint32(len(l.Algs)))
	for _, a := range l.Algs {
		h = le.AppendUint16(le.AppendUint16(h, uint16(a)), uint16(a.Size()))
	}
	h = append(append(h, byte(len(l.info))), l.info...)
	b := le.AppendUint32(le.AppendUint32(nil, 0), uint32(NoAction))
	b = append(b, make([]byte, 20)...)
	b = append(le.AppendUint32(b, uint32(len(h))), h...)
	for _, e := range l.Events {
		b = le.AppendUint32(le.AppendUint32(b, e.Index), uint32(e.Type))
		b = le.AppendUint32(b, uint32(len(l.Algs)))
		for i, a := range l.Algs {
			b = append(le.AppendUint16(b, uint16(a)), e.Digests[i]...)
		}
		b = append(le.AppendUint32(b, uint32(len(e.Data))), e.Data...)
	}
	return b
}

func uniform(b []byte, v byte) bool {
	for _, x := range b {
		if x != v {
			return false
		}
	}
	return true
}
