package object

import (
	"bytes"
	"math"
	"unicode/utf8"
)

// Message is the root of everything that goes between an app's two halves. It
// has either Content or Error.
type Message struct {
	Metadata Metadata
	Content  RecordDict // an empty one is not nil
	Error    *Error     // nil unless the message is an error reply
}

// Kind implements [Node].
func (*Message) Kind() Kind { return KindMessage }

// Metadata is a message's envelope. The message's own id is no field: it is the
// hash of these bytes.
type Metadata struct {
	RunID     uint64
	SrcNode   uint64
	DstNode   uint64
	ReplyTo   string // id of the message answered, or ""
	Group     string
	TTL       float64 // seconds
	Type      string  // "train", "evaluate", "query", with an optional ".action"
	CreatedAt float64 // seconds since the Unix epoch, by the sender's clock
	SrcTask   *uint64 // newer dialects only; nil is absent
	DstTask   *uint64
}

// Error is an app's failure. Reason may quote data: it does not leave a node.
type Error struct {
	Code   int64
	Reason string
}

// encodeBody returns Message{1 metadata, 3 error} with message_id (metadata
// field 2) and content (field 2) left out, as Flower hashes it.
func (m *Message) encodeBody() ([]byte, error) {
	md := &m.Metadata
	for _, s := range []string{md.ReplyTo, md.Group, md.Type} {
		if !utf8.ValidString(s) {
			return nil, invalid("Message: metadata is not UTF-8")
		}
	}
	var b []byte
	b = appendUint(b, 1, md.RunID)
	b = appendUint(b, 3, md.SrcNode)
	b = appendUint(b, 4, md.DstNode)
	b = appendString(b, 5, md.ReplyTo)
	b = appendString(b, 6, md.Group)
	b = appendDouble(b, 7, md.TTL)
	b = appendString(b, 8, md.Type)
	b = appendDouble(b, 9, md.CreatedAt)
	for i, task := range []*uint64{md.SrcTask, md.DstTask} {
		if task != nil { // declared optional: written even if zero
			b = appendVarint(appendTag(b, 10+i, wireVarint), *task)
		}
	}
	body := appendBytes(appendTag(nil, 1, wireBytes), b)
	if m.Error != nil {
		if !utf8.ValidString(m.Error.Reason) {
			return nil, invalid("Message: reason is not UTF-8")
		}
		var e []byte
		e = appendUint(e, 1, zigzag(m.Error.Code))
		e = appendString(e, 2, m.Error.Reason)
		body = appendBytes(appendTag(body, 3, wireBytes), e)
	}
	return body, nil
}

// A field of value zero is left out (proto3); minus zero is not zero.
func appendUint(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	return appendVarint(appendTag(b, field, wireVarint), v)
}

func appendString(b []byte, field int, v string) []byte {
	if v == "" {
		return b
	}
	return appendBytes(appendTag(b, field, wireBytes), v)
}

func appendDouble(b []byte, field int, v float64) []byte {
	if math.Float64bits(v) == 0 {
		return b
	}
	return appendFixed64(appendTag(b, field, wireFixed64), math.Float64bits(v))
}

// ParseMessage reads a Message object without what is below it: Content is nil,
// and content is the id of its RecordDict, or zero if the message is an error.
func ParseMessage(raw []byte) (m *Message, content ID, err error) {
	h, err := ParseHead(raw)
	if err != nil {
		return nil, ID{}, err
	}
	if h.Kind != KindMessage {
		return nil, ID{}, invalid("%v, want a Message", h.Kind)
	}
	return h.message()
}

func (h Head) message() (*Message, ID, error) {
	m := new(Message)
	if err := m.decodeBody(h.Body); err != nil {
		return nil, ID{}, err
	}
	again, err := m.encodeBody()
	if err != nil {
		return nil, ID{}, err
	}
	if !bytes.Equal(again, h.Body) {
		return nil, ID{}, invalid("Message: body is not in Flower's encoding")
	}
	if (m.Error != nil) == (len(h.Children) == 1) {
		return nil, ID{}, invalid("Message: want either content or an error")
	}
	if m.Error != nil {
		return m, ID{}, nil
	}
	return m, h.Children[0], nil
}

func (m *Message) decodeBody(body []byte) error {
	r := reader{b: body}
	for r.more() {
		f, w := r.tag()
		if w != wireBytes {
			return invalid("Message: unknown field %d", f)
		}
		sub := reader{b: r.bytes()}
		switch f {
		case 1:
			m.Metadata.decode(&sub)
		case 3:
			m.Error = new(Error)
			m.Error.decode(&sub)
		default:
			return invalid("Message: unknown field %d", f)
		}
		r.failed = r.failed || sub.failed
	}
	if r.failed {
		return invalid("Message: body is damaged or has unknown fields")
	}
	return nil
}

func (md *Metadata) decode(r *reader) {
	for r.more() {
		switch f, w := r.tag(); f<<3 | w {
		case 1<<3 | wireVarint:
			md.RunID = r.varint()
		case 3<<3 | wireVarint:
			md.SrcNode = r.varint()
		case 4<<3 | wireVarint:
			md.DstNode = r.varint()
		case 5<<3 | wireBytes:
			md.ReplyTo = string(r.bytes())
		case 6<<3 | wireBytes:
			md.Group = string(r.bytes())
		case 7<<3 | wireFixed64:
			md.TTL = math.Float64frombits(r.fixed64())
		case 8<<3 | wireBytes:
			md.Type = string(r.bytes())
		case 9<<3 | wireFixed64:
			md.CreatedAt = math.Float64frombits(r.fixed64())
		case 10<<3 | wireVarint:
			v := r.varint()
			md.SrcTask = &v
		case 11<<3 | wireVarint:
			v := r.varint()
			md.DstTask = &v
		default:
			r.fail()
		}
	}
}

func (e *Error) decode(r *reader) {
	for r.more() {
		switch f, w := r.tag(); f<<3 | w {
		case 1<<3 | wireVarint:
			e.Code = unzigzag(r.varint())
		case 2<<3 | wireBytes:
			e.Reason = string(r.bytes())
		default:
			r.fail()
		}
	}
}
