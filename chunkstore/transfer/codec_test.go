package transfer

import (
	"bytes"
	"testing"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// messages are what the codec reads by itself, with and without each field.
func messages() []proto.Message {
	return []proto.Message{
		&concordatv1.GetChunksResponse{},
		&concordatv1.GetChunksResponse{Range: 7, Size: 1 << 40, Data: []byte("data")},
		&concordatv1.GetChunksResponse{Data: make([]byte, 300_000)},
		&concordatv1.PutChunksRequest{},
		&concordatv1.PutChunksRequest{Scope: &concordatv1.Scope{Federation: []byte{1}, Run: []byte{2}, Owner: []byte{3}}, Id: []byte("id"), Size: 9, Data: []byte("data")},
		&concordatv1.PutChunksRequest{Data: []byte{0}},
	}
}

// scattered is b in pieces, as a transport has it.
func scattered(b []byte, piece int) (s mem.BufferSlice) {
	for len(b) > 0 {
		n := min(piece, len(b))
		s = append(s, mem.SliceBuffer(b[:n]))
		b = b[n:]
	}
	return s
}

func TestCodecReadsProtobuf(t *testing.T) {
	t.Parallel()
	for _, m := range messages() {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range []int{1, 3, 4096, 1 << 20} {
			if piece == 1 && len(raw) > 1000 {
				continue
			}
			got := m.ProtoReflect().New().Interface()
			if err := (Codec{}).Unmarshal(scattered(raw, piece), got); err != nil || !proto.Equal(got, m) {
				t.Errorf("%v in pieces of %d: %v, %v", m, piece, got, err)
			}
		}
	}
}

// The memory of a message is used again, and nothing of the message before is left.
func TestCodecReusesMemory(t *testing.T) {
	large, err := proto.Marshal(&concordatv1.GetChunksResponse{Range: 3, Size: 5, Data: bytes.Repeat([]byte{1}, 1000)})
	if err != nil {
		t.Fatal(err)
	}
	small, err := proto.Marshal(&concordatv1.GetChunksResponse{Data: []byte{2, 2}})
	if err != nil {
		t.Fatal(err)
	}
	var m concordatv1.GetChunksResponse
	for _, raw := range [][]byte{large, small, large} {
		if err := (Codec{}).Unmarshal(scattered(raw, 100), &m); err != nil {
			t.Fatal(err)
		}
		var want concordatv1.GetChunksResponse
		if err := proto.Unmarshal(raw, &want); err != nil || !proto.Equal(&m, &want) {
			t.Errorf("%v, %v; want %v", &m, err, &want)
		}
	}
	in := scattered(large, 100)
	allocs := testing.AllocsPerRun(100, func() {
		if err := (Codec{}).Unmarshal(in, &m); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 8 {
		t.Errorf("%v allocations to read into memory that is there", allocs)
	}
}

// What the codec writes, protobuf reads.
func TestCodecWritesProtobuf(t *testing.T) {
	t.Parallel()
	all := append(messages(), &concordatv1.PutChunksRequest{Data: make([]byte, 2000)})
	for _, m := range all {
		for _, c := range []Codec{{}, {new(lent)}} {
			b, err := c.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			got := m.ProtoReflect().New().Interface()
			if err := proto.Unmarshal(b.Materialize(), got); err != nil || !proto.Equal(got, m) {
				t.Errorf("%v: %v, %v", m, got, err)
			}
			if c.lent == nil {
				b.Free()
				continue
			}
			if n := c.lent.count.Load(); n > 1 || (n == 1) != (m == all[len(all)-1]) {
				t.Errorf("a message of %d bytes: %d pieces are lent", b.Len(), n)
			}
			if b.Free(); c.lent.count.Load() != 0 {
				t.Errorf("%d pieces did not come back", c.lent.count.Load())
			}
		}
	}
}

// Whatever the codec takes, protobuf takes, and reads the same in it.
func FuzzCodec(f *testing.F) {
	for _, m := range messages() {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		if len(raw) < 1000 {
			f.Add(raw, 3)
		}
	}
	f.Add([]byte{0x1a, 0xff, 0xff, 0xff, 0xff, 0x7f}, 1) // 32 GiB of data, it says
	f.Add([]byte{0x22, 1, 5, 0x22, 2, 6, 7}, 2)          // data twice: the last counts
	f.Add([]byte{0x55, 1, 2, 3, 4, 0x51, 1, 2, 3, 4, 5, 6, 7, 8, 0x58, 1}, 4)
	f.Fuzz(func(t *testing.T, raw []byte, piece int) {
		for _, m := range []proto.Message{new(concordatv1.GetChunksResponse), new(concordatv1.PutChunksRequest)} {
			want := m.ProtoReflect().New().Interface()
			err := (Codec{}).Unmarshal(scattered(raw, max(1, piece)), m)
			if err != nil {
				continue // groups, and numbers that are written too long, are taken by protobuf alone
			}
			if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, want); err != nil || !proto.Equal(m, want) {
				t.Errorf("%x: %v, protobuf reads %v, %v", raw, m, want, err)
			}
		}
	})
}
