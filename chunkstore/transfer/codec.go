package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	protobuf "google.golang.org/protobuf/proto"
)

// Codec is gRPC's codec for protobuf, but for how the messages that carry chunks are
// read: the data goes from where the transport has it into the memory that the message
// has from before, once, where gRPC's own makes it one piece and allocates it anew for
// every message. On the wire they are the same.
//
// A [Client] uses it for its calls; a server is made with grpc.ForceServerCodecV2.
type Codec struct{}

var _ encoding.CodecV2 = Codec{}

// standard is gRPC's.
var standard = encoding.GetCodecV2(proto.Name)

// Name implements encoding.CodecV2.
func (Codec) Name() string { return proto.Name }

// Marshal implements encoding.CodecV2.
func (Codec) Marshal(v any) (mem.BufferSlice, error) { return standard.Marshal(v) }

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
