package transfer

import (
	"context"
	"io"
	"testing"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/storetest"
	"google.golang.org/protobuf/proto"
)

// script is a PutStream that replays messages.
type script struct {
	ctx      context.Context
	messages [][]byte
}

func (s *script) Context() context.Context { return s.ctx }

func (s *script) RecvMsg(m any) error {
	if len(s.messages) == 0 {
		return io.EOF
	}
	raw := s.messages[0]
	s.messages = s.messages[1:]
	return Codec{}.Unmarshal(scattered(raw, 5), m)
}

// FuzzPut plays any messages into a store. Each is a length in two bytes and that
// many bytes of a PutChunksRequest. What it answers must be what was stored.
func FuzzPut(f *testing.F) {
	id, b := storetest.Chunk(1, 10)
	pack := func(messages ...*concordatv1.PutChunksRequest) (out []byte) {
		for _, m := range messages {
			p, err := proto.Marshal(m)
			if err != nil {
				f.Fatal(err)
			}
			out = append(append(out, byte(len(p)>>8), byte(len(p))), p...)
		}
		return out
	}
	head := &concordatv1.PutChunksRequest{Scope: scopeProto(scope)}
	f.Add(pack(head, &concordatv1.PutChunksRequest{Id: id[:], Size: uint64(len(b)), Data: b}))
	f.Add(pack(head, &concordatv1.PutChunksRequest{Id: id[:], Size: uint64(len(b)), Data: b[:5]}, &concordatv1.PutChunksRequest{Data: b[5:]}))
	f.Add(pack(head, &concordatv1.PutChunksRequest{Id: id[:], Size: 1 << 40}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := &script{ctx: t.Context()}
		for len(raw) >= 2 {
			n := min(int(raw[0])<<8|int(raw[1]), len(raw)-2)
			s.messages, raw = append(s.messages, raw[2:2+n]), raw[2+n:]
		}
		first := new(concordatv1.PutChunksRequest)
		if s.RecvMsg(first) != nil {
			return
		}
		sc, err := ParseScope(first.GetScope())
		if err != nil {
			return
		}
		store := new(chunkstore.Mem)
		done, err := Server{store}.Put(s, sc, first)
		missing, merr := store.Missing(t.Context(), sc, []chunkstore.ID{id})
		if merr != nil {
			t.Fatal(merr)
		}
		if has := missing[0] == 0; has && (err != nil || done.GetBytes() < uint64(len(b))) {
			t.Errorf("stored after %v, %v", done, err)
		}
	})
}
