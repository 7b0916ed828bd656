package transfer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/storetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"
)

// disk is a store that keeps no bytes. To make a batch durable takes it a while.
type disk struct {
	chunkstore.Store
	has    func(id chunkstore.ID) bool // nil: nothing
	commit func() error

	bytes, asked, batches atomic.Int64
	mu                    sync.Mutex
	got                   map[chunkstore.ID]int // how often
}

func (d *disk) Missing(_ context.Context, _ chunkstore.Scope, ids []chunkstore.ID) ([]uint64, error) {
	d.asked.Add(1)
	words := make([]uint64, (len(ids)+63)/64)
	for i, id := range ids {
		if d.has == nil || !d.has(id) {
			words[i/64] |= 1 << (i % 64)
		}
	}
	return words, nil
}

func (d *disk) Put(context.Context, chunkstore.Scope) (chunkstore.Batch, error) {
	d.batches.Add(1)
	return diskBatch{d}, nil
}

type diskBatch struct{ d *disk }

func (b diskBatch) Add(id chunkstore.ID, r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	b.d.bytes.Add(n)
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if b.d.got == nil {
		b.d.got = map[chunkstore.ID]int{}
	}
	b.d.got[id]++
	return err
}

func (b diskBatch) Commit() error {
	if b.d.commit == nil {
		return nil
	}
	return b.d.commit()
}

func (b diskBatch) Discard() error { return nil }

// over runs f with the client of a link that has that store, in time that passes only while
// all wait. A byte takes delay each way.
func over(t *testing.T, delay time.Duration, store chunkstore.Store, f func(t *testing.T, s *service, c *Client)) {
	synctest.Test(t, func(t *testing.T) {
		network := newFar(delay)
		g := grpc.NewServer(grpc.MaxRecvMsgSize(8<<20), grpc.ForceServerCodecV2(Codec{}), grpc.WaitForHandlers(true))
		s := &service{Server: Server{store}}
		concordatv1.RegisterRelayServer(g, s)
		served := make(chan error, 1)
		go func() { served <- g.Serve(network) }()
		conn, err := grpc.NewClient("passthrough:///far", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(network.dial))
		if err != nil {
			t.Fatal(err)
		}
		f(t, s, NewClient(conn))
		conn.Close()
		g.Stop()
		<-served
	})
}

// numbered is the id of chunk i, where nobody compares ids with bytes.
func numbered(i int) (id chunkstore.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(i)+1)
	return id
}

func number(id chunkstore.ID) int { return int(binary.BigEndian.Uint64(id[:])) - 1 }

// TestFarUpload has a link 20 ms away, each way, whose disk takes 20 ms more. What an upload
// takes is far below what it would if each batch waited for the one before.
func TestFarUpload(t *testing.T) {
	const delay, sync = 20 * time.Millisecond, 20 * time.Millisecond
	large, small := make([]byte, 5<<20), make([]byte, 200)
	has := func(chunkstore.ID) bool { return true }
	for _, x := range []struct {
		name  string
		has   func(chunkstore.ID) bool
		n     int
		chunk []byte
		limit time.Duration
	}{
		{"new", nil, 60, large, 60 / 2 * (4*delay + sync)}, // a question and a batch are two ways each
		{"there", has, 60, large, 60 / 2 * 2 * delay},
		{"small and there", has, 1_000_000, small, 1_000_000 / batchChunks * 2 * delay},
	} {
		store := &disk{has: x.has, commit: func() error { time.Sleep(sync); return nil }}
		over(t, delay, store, func(t *testing.T, _ *service, c *Client) {
			began := time.Now()
			u := c.Upload(t.Context(), scope)
			for i := range x.n {
				if err := u.Add(numbered(i), x.chunk); err != nil {
					t.Fatal(err)
				}
			}
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			t.Logf("%d chunks of %d bytes, %s: %v, %.0f MB/s, asked %d times", x.n, len(x.chunk), x.name, took, float64(x.n*len(x.chunk))/took.Seconds()/1e6, store.asked.Load())
			if took > x.limit {
				t.Errorf("%s: %v, limit %v", x.name, took, x.limit)
			}
			if want := uint64(x.n * len(x.chunk)); u.Sent()+u.Saved() != want || (u.Saved() > 0) != (x.has != nil) {
				t.Errorf("%s: sent %d, saved %d of %d", x.name, u.Sent(), u.Saved(), want)
			}
		})
	}
}

// TestUploadWindow has a disk that stands still: whoever uploads waits, and holds no more
// than the window.
func TestUploadWindow(t *testing.T) {
	const window, chunk, n = 4 << 20, 300_000, 100
	var stand chan struct{}
	store := &disk{commit: func() error { <-stand; return nil }}
	over(t, time.Millisecond, store, func(t *testing.T, _ *service, c *Client) {
		stand = make(chan struct{})
		c.Window = window
		u := c.Upload(t.Context(), scope)
		var added atomic.Int64
		ended := make(chan error, 1)
		go func() {
			for i := range n {
				if err := u.Add(numbered(i), make([]byte, chunk)); err != nil {
					ended <- err
					return
				}
				added.Add(1)
			}
			ended <- u.Close()
		}()
		time.Sleep(time.Minute)
		if held := added.Load() * chunk; held > window || held < window-2*chunk {
			t.Errorf("%d bytes are held, the window has %d", held, window)
		}
		close(stand)
		if err := <-ended; err != nil || added.Load() != n || store.bytes.Load() != n*chunk {
			t.Errorf("%d added, %d bytes stored, %v", added.Load(), store.bytes.Load(), err)
		}
	})
}

// TestUploadSpares: chunks that go ahead of the answer are those of one window, about; once
// it is there, the link gets no others that it has.
func TestUploadSpares(t *testing.T) {
	const n, lacking, chunk = 1000, 500, 100_000
	store := &disk{has: func(id chunkstore.ID) bool { return number(id) >= lacking }}
	over(t, 20*time.Millisecond, store, func(t *testing.T, _ *service, c *Client) {
		u := c.Upload(t.Context(), scope)
		for i := range n {
			if err := u.Add(numbered(i), make([]byte, chunk)); err != nil {
				t.Fatal(err)
			}
		}
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
		for i := range lacking {
			if store.got[numbered(i)] != 1 {
				t.Errorf("chunk %d came %d times", i, store.got[numbered(i)])
			}
		}
		if waste := store.bytes.Load() - lacking*chunk; waste < 0 || waste > DefaultWindow+DefaultWindow/batchParts {
			t.Errorf("%d bytes were sent that the link had", waste)
		}
		if u.Sent() != uint64(store.bytes.Load()) || u.Sent()+u.Saved() != n*chunk {
			t.Errorf("sent %d, saved %d, stored %d", u.Sent(), u.Saved(), store.bytes.Load())
		}
	})
}

// TestUploadOfLies has a link that answers an upload with what cannot be.
func TestUploadOfLies(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		answer  func(*concordatv1.MissingResponse)
		confirm func(*concordatv1.PutChunksResponse)
		early   bool
		want    string
	}{
		"no bitmap":     {answer: func(r *concordatv1.MissingResponse) { r.Bitmap = nil }, want: "0 words for 3 chunks"},
		"long bitmap":   {answer: func(r *concordatv1.MissingResponse) { r.Bitmap = append(r.Bitmap, 0) }, want: "2 words for 3 chunks"},
		"other chunks":  {answer: func(r *concordatv1.MissingResponse) { r.Bitmap[0] |= 1 << 3 }, want: "names others"},
		"fewer chunks":  {confirm: func(r *concordatv1.PutChunksResponse) { r.Chunks-- }, want: "says that it stored 2 chunks"},
		"fewer bytes":   {confirm: func(r *concordatv1.PutChunksResponse) { r.Bytes-- }, want: "says that it stored 3 chunks"},
		"ends too soon": {early: true, want: "before it had all chunks"},
	} {
		s, c, _ := newService(t)
		s.answer, s.confirm, s.early = x.answer, x.confirm, x.early
		u := c.Upload(t.Context(), scope)
		var err error
		for i := range uint64(3) {
			id, b := storetest.Chunk(i, 1<<20)
			err = errors.Join(err, u.Add(id, b))
		}
		if err = errors.Join(err, u.Close()); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", name, err, x.want)
		}
		if u.Sent() != 0 || u.Saved() != 0 {
			t.Errorf("%s: sent %d, saved %d", name, u.Sent(), u.Saved())
		}
	}
}

// TestUploadFails: an error of one batch ends the upload, those on their way and who waits.
func TestUploadFails(t *testing.T) {
	store := new(disk)
	store.commit = func() error {
		if store.batches.Load() > 5 {
			return chunkstore.ErrMismatch
		}
		time.Sleep(time.Second)
		return nil
	}
	over(t, time.Millisecond, store, func(t *testing.T, _ *service, c *Client) {
		c.Window = 2 << 20
		u := c.Upload(t.Context(), scope)
		var err error
		added := 0
		for ; err == nil && added < 1000; added++ {
			err = u.Add(numbered(added), make([]byte, 300_000))
		}
		if again := u.Close(); status.Code(errors.Unwrap(again)) != codes.InvalidArgument || again != err || added > 50 {
			t.Errorf("after %d chunks: %v, closed with %v", added, err, again)
		}
	})
	over(t, time.Millisecond, &disk{commit: func() error { time.Sleep(time.Hour); return nil }}, func(t *testing.T, _ *service, c *Client) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		u := c.Upload(ctx, scope)
		began, err := time.Now(), error(nil)
		for i := 0; err == nil; i++ {
			err = u.Add(numbered(i), make([]byte, 1<<20))
		}
		if u.Close(); time.Since(began) > 2*time.Minute {
			t.Errorf("ended %v later, %v", time.Since(began), err)
		}
	})
	_, c, _ := newService(t)
	if err := c.Upload(t.Context(), scope).Add(numbered(1), nil); err == nil {
		t.Error("a chunk of no bytes is taken")
	}
}

// TestUploadMemory has a transport that keeps what it is given, beyond the link's word that
// it has all: nothing of that is written to again.
func TestUploadMemory(t *testing.T) {
	t.Parallel()
	k := new(keeping)
	c := NewClient(k)
	c.Window = 2 << 20
	u := c.Upload(t.Context(), scope)
	for i := range 30 {
		if err := u.Add(numbered(i), bytes.Repeat([]byte{byte(i)}, 300_000)); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if len(k.data) < 60 {
		t.Fatalf("%d messages", len(k.data))
	}
	for i, b := range k.data {
		if at := slices.IndexFunc(b, func(x byte) bool { return x != k.first[i] }); at >= 0 {
			t.Fatalf("message %d: byte %d was written to", i, at)
		}
	}
}

// keeping is a connection to a link that confirms everything, whose transport lets go of
// nothing.
type keeping struct {
	mu    sync.Mutex
	data  [][]byte
	first []byte // of each, when it came
}

// Invoke answers Missing.
func (k *keeping) Invoke(_ context.Context, _ string, q, r any, _ ...grpc.CallOption) error {
	m := r.(*concordatv1.MissingResponse)
	m.Bitmap = []uint64{1<<len(q.(*concordatv1.MissingRequest).GetIds()) - 1} // fewer than 64
	return nil
}

// NewStream answers PutChunks.
func (k *keeping) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s := &keepingStream{k: k, ctx: ctx}
	for _, o := range opts {
		if o, ok := o.(grpc.ForceCodecV2CallOption); ok {
			s.codec = o.CodecV2
		}
	}
	return s, nil
}

type keepingStream struct {
	grpc.ClientStream
	k     *keeping
	ctx   context.Context
	codec encoding.CodecV2
	done  concordatv1.PutChunksResponse
}

func (s *keepingStream) SendMsg(m any) error {
	q := m.(*concordatv1.PutChunksRequest)
	parts, err := s.codec.Marshal(q)
	if err != nil || len(q.GetData()) == 0 {
		return err
	}
	if len(q.GetId()) > 0 {
		s.done.Chunks++
	}
	s.done.Bytes += uint64(len(q.GetData()))
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	data := parts[len(parts)-1].ReadOnlyData()
	data = data[len(data)-len(q.GetData()):]
	s.k.data, s.k.first = append(s.k.data, data), append(s.k.first, data[0])
	return nil
}

func (s *keepingStream) RecvMsg(m any) error {
	r := m.(*concordatv1.PutChunksResponse)
	r.Chunks, r.Bytes = s.done.GetChunks(), s.done.GetBytes()
	return nil
}

func (s *keepingStream) CloseSend() error { return nil }
