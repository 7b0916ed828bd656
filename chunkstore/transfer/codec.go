package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	protobuf "google.golang.org/protobuf/proto"
)

// Codec is gRPC's codec for protobuf, but for the messages that carry chunks. Their data
// goes from where the transport has it into the memory that the message has from before,
// once, where gRPC's own makes it one piece and allocates it anew for every message; and
// what is sent is not copied. On the wire they are the same.
//
// Data that was sent belongs to the transport: that of a PutChunksRequest must not change
// until the transport has given it back, and that of a GetChunksResponse is used again for
// others, so that nobody may have it any more.
//
// A [Client] uses it for its calls; a server is made with grpc.ForceServerCodecV2.
type Codec struct {
	lent *lent // counts what the transport has of the data of PutChunksRequests; nil: nobody asks
}

var _ encoding.CodecV2 = Codec{}

// standard is gRPC's.
var standard = encoding.GetCodecV2(proto.Name)

// Name implements encoding.CodecV2.
func (Codec) Name() string { return proto.Name }

// Marshal implements encoding.CodecV2.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	var head protobuf.Message
	var data []byte
	var number protowire.Number
	var pool mem.BufferPool
	switch m := v.(type) {
	case *concordatv1.GetChunksResponse:
		head, data, number, pool = &concordatv1.GetChunksResponse{Range: m.Range, Size: m.Size}, m.Data, 3, frames
	case *concordatv1.PutChunksRequest:
		head, data, number, pool = &concordatv1.PutChunksRequest{Scope: m.Scope, Id: m.Id, Size: m.Size}, m.Data, 4, mem.NopBufferPool{}
		if c.lent != nil {
			pool = c.lent
		}
	}
	if len(data) == 0 {
		return standard.Marshal(v)
	}
	b, err := protobuf.Marshal(head)
	if err != nil {
		return nil, err
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, number, protowire.BytesType), uint64(len(data)))
	if l, ok := pool.(*lent); ok {
		if mem.IsBelowBufferPoolingThreshold(len(data)) { // gRPC does not give so few back
			return mem.BufferSlice{mem.SliceBuffer(append(b, data...))}, nil
		}
		l.count.Add(1)
	}
	return mem.BufferSlice{mem.SliceBuffer(b), mem.NewBuffer(&data, pool)}, nil
}

// lent counts pieces of memory that a transport has. It is a mem.BufferPool to which they
// come back.
type lent struct{ count atomic.Int64 }

// Get implements mem.BufferPool; nobody calls it.
func (*lent) Get(n int) *[]byte { b := make([]byte, n); return &b }

// Put implements mem.BufferPool.
func (l *lent) Put(*[]byte) { l.count.Add(-1) }

// framePool has memory for the data of one message, which gRPC's pools would clear each
// time. The transport gives it back.
type framePool struct{ pool sync.Pool }

var frames = &framePool{sync.Pool{New: func() any { b := make([]byte, frame); return &b }}}

// Get implements mem.BufferPool; n is at most frame.
func (p *framePool) Get(n int) *[]byte {
	b := p.pool.Get().(*[]byte)
	*b = (*b)[:n]
	return b
}

// Put implements mem.BufferPool. Memory from elsewhere is left to the collector.
func (p *framePool) Put(b *[]byte) {
	if cap(*b) == frame {
		p.pool.Put(b)
	}
}

// Unmarshal implements encoding.CodecV2. A message with data keeps the capacity of its
// Data.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	var err error
	switch m := v.(type) {
	case *concordatv1.GetChunksResponse:
		memory := m.Data[:0]
		m.Reset()
		err = eachField(data, memory, 3, func(n protowire.Number, x uint64, b []byte, kind protowire.Type) error {
			switch {
			case n == 1 && kind == protowire.VarintType:
				m.Range = uint32(x)
			case n == 2 && kind == protowire.VarintType:
				m.Size = x
			case n == 3 && kind == protowire.BytesType:
				m.Data = b
			}
			return nil
		})
	case *concordatv1.PutChunksRequest:
		memory := m.Data[:0]
		m.Reset()
		err = eachField(data, memory, 4, func(n protowire.Number, x uint64, b []byte, kind protowire.Type) error {
			switch {
			case n == 1 && kind == protowire.BytesType:
				if m.Scope == nil {
					m.Scope = new(concordatv1.Scope)
				}
				return protobuf.UnmarshalOptions{Merge: true, DiscardUnknown: true}.Unmarshal(b, m.Scope)
			case n == 2 && kind == protowire.BytesType:
				m.Id = b
			case n == 3 && kind == protowire.VarintType:
				m.Size = x
			case n == 4 && kind == protowire.BytesType:
				m.Data = b
			}
			return nil
		})
	default:
		return standard.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("transfer: malformed message: %w", err)
	}
	return nil
}

var errWire = errors.New("not protobuf")

// eachField reads a message field by field. Bytes of field large are read into memory,
// others into memory of their own. Groups, which these messages never had, are refused.
func eachField(data mem.BufferSlice, memory []byte, large protowire.Number, f func(n protowire.Number, x uint64, b []byte, kind protowire.Type) error) error {
	r := data.Reader()
	defer r.Close()
	for r.Remaining() > 0 {
		tag, err := binary.ReadUvarint(r)
		if err != nil {
			return errWire
		}
		n, kind := protowire.DecodeTag(tag)
		if n < protowire.MinValidNumber || tag > 1<<32-1 {
			return errWire
		}
		var x uint64
		var b []byte
		switch kind {
		case protowire.VarintType:
			x, err = binary.ReadUvarint(r)
		case protowire.BytesType:
			if x, err = binary.ReadUvarint(r); err != nil || x > uint64(r.Remaining()) {
				return errWire
			}
			if n == large {
				b = memory[:0]
			}
			if uint64(cap(b)) < x || b == nil {
				b = make([]byte, x)
			}
			b = b[:x]
			if n == large {
				memory = b
			}
			_, err = io.ReadFull(r, b)
		case protowire.Fixed32Type:
			_, err = io.CopyN(io.Discard, r, 4)
		case protowire.Fixed64Type:
			_, err = io.CopyN(io.Discard, r, 8)
		default:
			return errWire
		}
		if err != nil {
			return errWire
		}
		if err := f(n, x, b, kind); err != nil {
			return err
		}
	}
	return nil
}
