package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/storetest"
	"github.com/concordat/concordat/internal/cose"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
)

var scope = chunkstore.Scope{Federation: cose.Sum([]byte("f")), Run: cose.Sum([]byte("r")), Owner: cose.Sum([]byte("o"))}

// service is a Relay that breaks streams: breaks says after how many further
// messages of any stream one fails.
type service struct {
	concordatv1.UnimplementedRelayServer
	Server
	breaks   atomic.Int64 // 0: never
	sent     atomic.Int64 // bytes of data that came in
	messages atomic.Int64 // that went out
	lie      atomic.Pointer[func(*concordatv1.GetChunksResponse)]
	answer   func(*concordatv1.MissingResponse)   // nil: the truth
	confirm  func(*concordatv1.PutChunksResponse) // likewise
	early    bool                                 // confirms nothing, at once
}

func (s *service) tick() error {
	if s.breaks.Load() > 0 && s.breaks.Add(-1) == 0 {
		return status.Error(codes.Unavailable, "injected")
	}
	return nil
}

func (s *service) Missing(ctx context.Context, q *concordatv1.MissingRequest) (*concordatv1.MissingResponse, error) {
	sc, err := ParseScope(q.GetScope())
	if err != nil {
		return nil, err
	}
	r, err := s.Server.Missing(ctx, sc, q)
	if err == nil && s.answer != nil {
		s.answer(r)
	}
	return r, err
}

type putStream struct {
	concordatv1.Relay_PutChunksServer
	s *service
}

func (p putStream) RecvMsg(m any) error {
	if err := p.s.tick(); err != nil {
		return err
	}
	if err := p.Relay_PutChunksServer.RecvMsg(m); err != nil {
		return err
	}
	p.s.sent.Add(int64(len(m.(*concordatv1.PutChunksRequest).GetData())))
	return nil
}

func (s *service) PutChunks(stream concordatv1.Relay_PutChunksServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	sc, err := ParseScope(first.GetScope())
	if err != nil {
		return err
	}
	if s.early {
		return stream.SendAndClose(new(concordatv1.PutChunksResponse))
	}
	r, err := s.Put(putStream{stream, s}, sc, first)
	if err != nil {
		return err
	}
	if s.confirm != nil {
		s.confirm(r)
	}
	return stream.SendAndClose(r)
}

type getStream struct {
	concordatv1.Relay_GetChunksServer
	s *service
}

func (g getStream) Send(m *concordatv1.GetChunksResponse) error {
	if err := g.s.tick(); err != nil {
		return err
	}
	if lie := g.s.lie.Load(); lie != nil {
		(*lie)(m)
	}
	g.s.messages.Add(1)
	return g.Relay_GetChunksServer.Send(m)
}

func (s *service) GetChunks(q *concordatv1.GetChunksRequest, stream concordatv1.Relay_GetChunksServer) error {
	sc, err := ParseScope(q.GetScope())
	if err != nil {
		return err
	}
	return s.Get(getStream{stream, s}, sc, q)
}

func newService(t testing.TB) (*service, *Client, *grpc.ClientConn) {
	t.Helper()
	return serve(t, new(chunkstore.Mem))
}

func serve(t testing.TB, store chunkstore.Store, options ...grpc.ServerOption) (*service, *Client, *grpc.ClientConn) {
	t.Helper()
	s := &service{Server: Server{store}}
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer(append(options, grpc.MaxRecvMsgSize(8<<20), grpc.ForceServerCodecV2(Codec{}))...)
	concordatv1.RegisterRelayServer(g, s)
	go g.Serve(l)
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); g.Stop() })
	return s, NewClient(conn), conn
}

// chunks returns n chunks of growing sizes, up to some messages each.
func chunks(n int) (ids []chunkstore.ID, stored [][]byte) {
	for i := range n {
		id, b := storetest.Chunk(uint64(i), 1+i*i*5000)
		ids, stored = append(ids, id), append(stored, b)
	}
	return ids, stored
}

func upload(t testing.TB, c *Client, ids []chunkstore.ID, stored [][]byte) *Upload {
	t.Helper()
	u := c.Upload(t.Context(), scope)
	for i := range ids {
		if err := u.Add(ids[i], stored[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	return u
}

// TestUpload breaks an upload at every message once; all of it arrives, and what
// was there is not sent.
func TestUpload(t *testing.T) {
	t.Parallel()
	s, c, _ := newService(t)
	ids, stored := chunks(12)
	total := 0
	for _, b := range stored {
		total += len(b)
	}
	first := upload(t, c, ids[:3], stored[:3])
	if first.Sent() == 0 || first.Saved() != 0 {
		t.Errorf("sent %d, saved %d", first.Sent(), first.Saved())
	}
	again := upload(t, c, ids, stored)
	if want := uint64(len(stored[0]) + len(stored[1]) + len(stored[2])); again.Saved() != want || again.Sent()+again.Saved() != uint64(total) {
		t.Errorf("sent %d, saved %d of %d, want %d saved", again.Sent(), again.Saved(), total, want)
	}
	for at := int64(1); at < 20; at += 4 {
		broken, c, _ := newService(t)
		broken.breaks.Store(at)
		if u := upload(t, c, ids, stored); u.Sent() != uint64(total) || broken.breaks.Load() != 0 {
			t.Errorf("break at %d: sent %d of %d", at, u.Sent(), total)
		}
	}
	missing, err := c.Missing(t.Context(), scope, append(ids, chunkstore.ID{1}))
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range missing {
		if m != (i == len(ids)) {
			t.Errorf("chunk %d: missing %v", i, m)
		}
	}
	before := s.sent.Load()
	upload(t, c, ids, stored)
	if after := s.sent.Load(); after != before {
		t.Errorf("%d bytes were sent that the link had", after-before)
	}
}

// TestGet reads whole chunks and parts, with a break at every message.
func TestGet(t *testing.T) {
	t.Parallel()
	s, c, _ := newService(t)
	ids, stored := chunks(12)
	upload(t, c, ids, stored)
	var ranges []Range
	var want [][]byte
	for i, b := range stored {
		n := uint64(len(b))
		for _, r := range []Range{{ids[i], 0, 0}, {ids[i], 0, n}, {ids[i], n / 2, 0}, {ids[i], n / 3, n / 3}, {ids[i], n - 1, 1}, {ids[i], n, 0}} {
			end := r.Offset + r.Length
			if r.Length == 0 {
				end = n
			}
			ranges, want = append(ranges, r), append(want, b[r.Offset:end])
		}
	}
	read := func() {
		t.Helper()
		next := 0
		err := c.Get(t.Context(), scope, ranges, func(i int, size uint64, r io.Reader) error {
			if i != next || size != uint64(len(stored[i/6])) {
				t.Errorf("range %d of %d bytes, want %d of %d", i, size, next, len(stored[i/6]))
			}
			next++
			if i%5 == 4 {
				return nil // leaves it
			}
			got, err := io.ReadAll(r)
			if !bytes.Equal(got, want[i]) {
				t.Errorf("range %d: %d bytes, want %d", i, len(got), len(want[i]))
			}
			return err
		})
		if err != nil || next != len(ranges) {
			t.Errorf("%d ranges, %v", next, err)
		}
	}
	read()
	for at, all := int64(1), s.messages.Load(); at < all; at += 7 {
		s.breaks.Store(at)
		read()
	}
	s.breaks.Store(0)
	// More ranges than one request may have.
	many := make([]Range, maxRanges+10)
	for i := range many {
		many[i] = Range{ids[1], uint64(i % 100), 3}
	}
	n := 0
	if err := c.Get(t.Context(), scope, many, func(i int, _ uint64, r io.Reader) error {
		b, err := io.ReadAll(r)
		if !bytes.Equal(b, stored[1][i%100:][:3]) {
			t.Errorf("range %d: %x", i, b)
		}
		n++
		return err
	}); err != nil || n != len(many) {
		t.Errorf("%d ranges, %v", n, err)
	}
	boom := errors.New("boom")
	if err := c.Get(t.Context(), scope, ranges, func(int, uint64, io.Reader) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}

func TestReadAt(t *testing.T) {
	t.Parallel()
	_, c, _ := newService(t)
	ids, stored := chunks(3)
	upload(t, c, ids, stored)
	b := stored[2]
	for _, x := range []struct {
		off, n, want int
		err          error
	}{{0, 10, 10, nil}, {0, len(b), len(b), nil}, {len(b) - 5, 5, 5, nil}, {len(b) - 5, 6, 5, io.EOF}, {0, len(b) + 1, len(b), io.EOF}, {len(b), 1, 0, io.EOF}, {5, 0, 0, nil}} {
		p := make([]byte, x.n)
		n, err := c.ReadAt(t.Context(), scope, ids[2], p, int64(x.off))
		if n != x.want || err != x.err || !bytes.Equal(p[:n], b[x.off:x.off+n]) {
			t.Errorf("%d at %d: %d, %v", x.n, x.off, n, err)
		}
	}
	if _, err := c.ReadAt(t.Context(), scope, ids[2], make([]byte, 1), int64(len(b)+1)); err == nil || err == io.EOF {
		t.Errorf("beyond the end: %v", err)
	}
	if _, err := c.ReadAt(t.Context(), scope, chunkstore.ID{9}, make([]byte, 1), 0); status.Code(err) != codes.NotFound {
		t.Errorf("no such chunk: %v", err)
	}
}

// TestLyingLink has a link that answers Get with something else.
func TestLyingLink(t *testing.T) {
	t.Parallel()
	s, c, _ := newService(t)
	ids, stored := chunks(9)
	upload(t, c, ids, stored)
	for name, lie := range map[string]func(*concordatv1.GetChunksResponse){
		"other range":   func(m *concordatv1.GetChunksResponse) { m.Range++ },
		"no size":       func(m *concordatv1.GetChunksResponse) { m.Size = 0 },
		"huge size":     func(m *concordatv1.GetChunksResponse) { m.Size = 1 << 60 },
		"smaller size":  func(m *concordatv1.GetChunksResponse) { m.Size -= 2 },
		"larger size":   func(m *concordatv1.GetChunksResponse) { m.Size += 2 },
		"too much data": func(m *concordatv1.GetChunksResponse) { m.Data = append(m.Data, make([]byte, 1<<20)...) },
		"no data":       func(m *concordatv1.GetChunksResponse) { m.Data = nil },
	} {
		var told atomic.Bool
		once := func(m *concordatv1.GetChunksResponse) {
			if !told.Swap(true) {
				lie(m)
			}
		}
		s.lie.Store(&once)
		r := NewReader(c, scope)
		if b, err := r.Fetch(t.Context(), nil, ids[8], int64(len(stored[8]))); err == nil {
			t.Errorf("%s: %d bytes", name, len(b))
		}
	}
	s.lie.Store(nil)
	r := NewReader(c, scope)
	if b, err := r.Fetch(t.Context(), nil, ids[8], int64(len(stored[8]))); err != nil || !bytes.Equal(b, stored[8]) || r.Bytes() != uint64(len(b)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if _, err := r.Fetch(t.Context(), nil, ids[8], int64(len(stored[8])-1)); !errors.Is(err, chunkstore.ErrMismatch) {
		t.Errorf("larger than agreed: %v", err)
	}
}

// TestMalformedPut sends what no client sends; nothing of it is stored.
func TestMalformedPut(t *testing.T) {
	t.Parallel()
	s, _, conn := newService(t)
	id, b := storetest.Chunk(1, 100)
	other, _ := storetest.Chunk(2, 100)
	head := &concordatv1.PutChunksRequest{Scope: new(concordatv1.Scope)} // filled in below: a run a case
	begin := func(size int, data []byte) *concordatv1.PutChunksRequest {
		return &concordatv1.PutChunksRequest{Id: id[:], Size: uint64(size), Data: data}
	}
	type messages = []*concordatv1.PutChunksRequest
	for name, x := range map[string]struct {
		send messages
		want codes.Code
	}{
		"good":               {messages{head, begin(len(b), b)}, codes.OK},
		"in parts":           {messages{head, begin(len(b), nil), {Data: b[:7]}, {Data: b[7:]}}, codes.OK},
		"with the scope":     {messages{{Scope: head.Scope, Id: id[:], Size: uint64(len(b)), Data: b}}, codes.OK},
		"nothing":            {messages{head}, codes.OK},
		"no scope":           {messages{begin(len(b), b)}, codes.InvalidArgument},
		"short federation":   {messages{{Scope: &concordatv1.Scope{Federation: []byte{1}, Run: scope.Run[:]}}}, codes.InvalidArgument},
		"no run":             {messages{{Scope: &concordatv1.Scope{Federation: scope.Federation[:]}}}, codes.InvalidArgument},
		"zero owner":         {messages{{Scope: &concordatv1.Scope{Federation: scope.Federation[:], Run: scope.Run[:], Owner: make([]byte, 32)}}}, codes.InvalidArgument},
		"second scope":       {messages{head, head}, codes.InvalidArgument},
		"short id":           {messages{head, {Id: id[:31], Size: 1, Data: b[:1]}}, codes.InvalidArgument},
		"no size":            {messages{head, begin(0, nil)}, codes.InvalidArgument},
		"huge size":          {messages{head, begin(1<<40, b)}, codes.InvalidArgument},
		"more than its size": {messages{head, begin(10, b)}, codes.InvalidArgument},
		"less than its size": {messages{head, begin(len(b)+1, b)}, codes.InvalidArgument},
		"cut by the next":    {messages{head, begin(len(b), b[:5]), begin(len(b), b)}, codes.InvalidArgument},
		"empty data":         {messages{head, begin(len(b), nil), {}}, codes.InvalidArgument},
		"data first":         {messages{{Scope: head.Scope, Data: b}}, codes.InvalidArgument},
		"long message":       {messages{head, begin(chunkstore.MaxStored, make([]byte, maxData+1))}, codes.InvalidArgument},
		"other id":           {messages{head, {Id: other[:], Size: uint64(len(b)), Data: b}}, codes.InvalidArgument},
		"good, then bad":     {messages{head, begin(len(b), b), {Id: other[:], Size: uint64(len(b)), Data: b}}, codes.InvalidArgument},
	} {
		sc := scope
		sc.Run = cose.Sum([]byte(name))
		proto.Reset(head.Scope)
		proto.Merge(head.Scope, scopeProto(sc))
		stream, err := concordatv1.NewRelayClient(conn).PutChunks(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stored := 0
		for _, m := range x.send {
			stream.Send(m)
			stored += len(m.Data)
		}
		r, err := stream.CloseAndRecv()
		if status.Code(err) != x.want {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
		if x.want == codes.OK && r.GetBytes() != uint64(stored) {
			t.Errorf("%s: %d bytes stored, want %d", name, r.GetBytes(), stored)
		}
		missing, err := s.Store.Missing(t.Context(), sc, []chunkstore.ID{id, other})
		if err != nil {
			t.Fatal(err)
		}
		if has := missing[0]&1 == 0; has != (x.want == codes.OK && stored > 0) || missing[0]&2 == 0 {
			t.Errorf("%s: missing %b", name, missing[0])
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	_, _, conn := serve(t, &chunkstore.Mem{FederationBytes: 10})
	rpc := concordatv1.NewRelayClient(conn)
	if _, err := rpc.Missing(t.Context(), &concordatv1.MissingRequest{Scope: scopeProto(scope), Ids: make([][]byte, maxMissing+1)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("ids over the limit: %v", err)
	}
	if _, err := rpc.Missing(t.Context(), &concordatv1.MissingRequest{Scope: scopeProto(scope), Ids: [][]byte{{1}}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("short id: %v", err)
	}
	for name, ranges := range map[string][]*concordatv1.Range{"too many": make([]*concordatv1.Range, maxRanges+1), "short id": {{Id: []byte{1}}}} {
		stream, err := rpc.GetChunks(t.Context(), &concordatv1.GetChunksRequest{Scope: scopeProto(scope), Ranges: ranges})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	id, b := storetest.Chunk(1, 100)
	stream, err := rpc.PutChunks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&concordatv1.PutChunksRequest{Scope: scopeProto(scope), Id: id[:], Size: uint64(len(b)), Data: b})
	if _, err := stream.CloseAndRecv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("over quota: %v", err)
	}
}

func BenchmarkTransfer(b *testing.B) {
	id, stored := storetest.Chunk(1, 4<<20)
	b.Run("put", func(b *testing.B) {
		_, c, _ := serve(b, new(disk)) // which never has it
		b.SetBytes(int64(len(stored)))
		u := c.Upload(b.Context(), scope)
		for b.Loop() {
			if err := u.Add(id, stored); err != nil {
				b.Fatal(err)
			}
		}
		if err := u.Close(); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("get", func(b *testing.B) {
		_, c, _ := newService(b)
		upload(b, c, []chunkstore.ID{id}, [][]byte{stored})
		b.SetBytes(int64(len(stored)))
		r := NewReader(c, scope)
		for b.Loop() {
			if got, err := r.Fetch(context.Background(), nil, id, int64(len(stored))); err != nil || len(got) != len(stored) {
				b.Fatal(fmt.Sprint(len(got), err))
			}
		}
	})
}

// TestStreams: any number of streams are read side by side, on a link that takes fewer
// calls at once; all give their bytes, and in the end none is held.
func TestStreams(t *testing.T) {
	t.Parallel()
	_, c, _ := serve(t, new(chunkstore.Mem), grpc.MaxConcurrentStreams(maxHeld+20))
	id, b := storetest.Chunk(1, 400_000)
	other, small := storetest.Chunk(2, 10)
	upload(t, c, []chunkstore.ID{id, other}, [][]byte{b, small})
	want := slices.Concat(small, b, small)
	r := NewReader(c, scope)
	list := []chunkstore.Stored{{ID: other, Size: int64(len(small))}, {ID: id, Size: int64(len(b))}, {ID: other, Size: int64(len(small))}}
	var open []io.ReadCloser
	for range maxHeld + 100 {
		open = append(open, r.Stream(t.Context(), list))
	}
	got := make([][]byte, len(open))
	for at := 0; at < len(want); at += 100_000 {
		n := min(100_000, len(want)-at)
		for i, s := range open {
			p := make([]byte, n)
			if _, err := io.ReadFull(s, p); err != nil {
				t.Fatalf("stream %d at %d: %v", i, at, err)
			}
			got[i] = append(got[i], p...)
		}
	}
	for i, s := range open {
		if n, err := s.Read(make([]byte, 1)); n != 0 || err != io.EOF || !bytes.Equal(got[i], want) {
			t.Errorf("stream %d: %d bytes more, %v", i, n, err)
		}
		s.Close()
	}
	if got := r.Bytes(); got != uint64(len(open)*len(want)) {
		t.Errorf("%d bytes read, want %d", got, len(open)*len(want))
	}
	for range maxHeld { // every place is free again, or will be
		select {
		case c.held <- struct{}{}:
		case <-t.Context().Done():
			t.Fatal("a call is held")
		}
	}
	s := NewReader(c, scope).Stream(t.Context(), []chunkstore.Stored{{ID: id, Size: int64(len(b)) - 1}}) // all places are held by the test
	if _, err := io.ReadAll(s); !errors.Is(err, chunkstore.ErrMismatch) {
		t.Errorf("of another size, by pieces: %v", err)
	}
	<-c.held
	s = NewReader(c, scope).Stream(t.Context(), []chunkstore.Stored{{ID: id, Size: int64(len(b)) - 1}})
	if _, err := io.ReadAll(s); !errors.Is(err, chunkstore.ErrMismatch) {
		t.Errorf("of another size: %v", err)
	}
}
