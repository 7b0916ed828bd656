package transfer

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Client moves sealed chunks to and from a link. It is safe for concurrent use; its
// field must not change once it is in use.
type Client struct {
	// Window is how many bytes an [Upload] holds at most that the link has not confirmed,
	// or one chunk if that is larger: memory of whoever uploads, and what can be on its way.
	// An upload is no faster than a window in the time of a round trip and of the link's
	// disk. Zero is [DefaultWindow].
	Window int

	rpc  concordatv1.RelayClient
	held chan struct{} // a place in it is held by each [Reader.Stream] that is a call
}

// DefaultWindow is 16 MiB: three chunks of Flower's size. 60 ms from the first byte of a
// batch to its confirmation leave 260 MB/s. The link may have as much in memory for each
// who uploads, where its disk is slower than the network.
const DefaultWindow = 16 << 20

// maxHeld is how many calls stay open for who reads step by step. A link takes 256 at once
// on a connection: the rest is for calls that end by themselves.
const maxHeld = 128

// NewClient returns a client that calls over conn.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{rpc: concordatv1.NewRelayClient(conn), held: make(chan struct{}, maxHeld)}
}

func scopeProto(s chunkstore.Scope) *concordatv1.Scope {
	p := &concordatv1.Scope{Federation: s.Federation[:], Run: s.Run[:]}
	if !s.Owner.IsZero() {
		p.Owner = s.Owner[:]
	}
	return p
}

// frame is how many bytes one message of a stream has at most.
const frame = 256 << 10

// retry repeats a call that stores or reads nothing twice while the link is away.
func retry(ctx context.Context, call func() error) error {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		err := call()
		switch status.Code(err) {
		case codes.Unavailable, codes.Aborted, codes.ResourceExhausted:
		default:
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

// Missing reports for each id whether the link lacks it. A link takes up to 32 768 ids at once.
func (c *Client) Missing(ctx context.Context, scope chunkstore.Scope, ids []chunkstore.ID) ([]bool, error) {
	q := &concordatv1.MissingRequest{Scope: scopeProto(scope)}
	for i := range ids {
		q.Ids = append(q.Ids, ids[i][:])
	}
	var r *concordatv1.MissingResponse
	if err := retry(ctx, func() (err error) {
		r, err = c.rpc.Missing(ctx, q, grpc.WaitForReady(true))
		return err
	}); err != nil {
		return nil, fmt.Errorf("transfer: missing: %w", err)
	}
	if n := len(r.GetBitmap()); n != (len(ids)+63)/64 || len(ids)%64 > 0 && r.Bitmap[n-1]>>(len(ids)%64) != 0 {
		return nil, fmt.Errorf("transfer: missing: the link answers with %d words for %d chunks, or names others", n, len(ids))
	}
	out := make([]bool, len(ids))
	for i := range out {
		out[i] = r.Bitmap[i/64]>>(i%64)&1 == 1
	}
	return out, nil
}

// Reader reads whole chunks of one scope. It is safe for concurrent use.
type Reader struct {
	c     *Client
	scope chunkstore.Scope
	bytes atomic.Uint64
}

var _ chunkstore.Source = (*Reader)(nil)

// NewReader returns a reader of the scope's chunks.
func NewReader(c *Client, scope chunkstore.Scope) *Reader { return &Reader{c: c, scope: scope} }

// Bytes returns how many sealed bytes were read.
func (r *Reader) Bytes() uint64 { return r.bytes.Load() }

// Fetch appends the stored bytes of a chunk, at most size of them, to dst, as the link has
// them: the caller checks them against the id.
func (r *Reader) Fetch(ctx context.Context, dst []byte, id chunkstore.ID, size int64) ([]byte, error) {
	at := len(dst)
	err := r.c.Get(ctx, r.scope, []Range{{ID: id}}, func(_ int, stored uint64, in io.Reader) error {
		if stored > uint64(max(size, 0)) {
			return fmt.Errorf("%w: larger than its manifest says", chunkstore.ErrMismatch)
		}
		dst = slices.Grow(dst[:at], int(stored))[:at+int(stored)]
		_, err := io.ReadFull(in, dst[at:])
		return err
	})
	if err != nil {
		return nil, err
	}
	r.bytes.Add(uint64(len(dst) - at))
	return dst, nil
}

// Stream reads chunks one after the other over one call, on which the link sends ahead of
// what is read as far as the connection's windows allow. Where many streams are open, it
// makes a call for every piece instead, and holds none: readers that wait for each other
// must not wait for a call.
func (r *Reader) Stream(ctx context.Context, chunks []chunkstore.Stored) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	select {
	case r.c.held <- struct{}{}:
	default:
		return &pieces{r: r, ctx: ctx, cancel: cancel, chunks: chunks}
	}
	context.AfterFunc(ctx, func() { <-r.c.held }) // once: closed, or abandoned
	s := &chunkStream{r: r, chunks: chunks, cancel: cancel}
	ranges := make([]Range, len(chunks))
	for i, c := range chunks {
		ranges[i].ID = c.ID
	}
	s.g = getter{ctx: ctx, c: r.c, scope: r.scope, ranges: ranges}
	return s
}

// chunkStream reads whole chunks with a getter.
type chunkStream struct {
	r      *Reader
	chunks []chunkstore.Stored
	cancel context.CancelFunc
	g      getter
}

func (s *chunkStream) Read(p []byte) (int, error) {
	for s.g.at < len(s.chunks) {
		c := s.chunks[s.g.at]
		var err error
		if !s.g.known {
			err = s.g.fill() // the first message has the size
			if err == nil && s.g.size != uint64(c.Size) {
				err = errOtherSize
			}
		}
		n := 0
		if err == nil {
			n, err = s.g.Read(p)
		}
		if err == io.EOF {
			s.g.at, s.g.pos, s.g.known = s.g.at+1, 0, false
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("transfer: chunk %s: %w", c.ID.Short(), err)
		}
		s.r.bytes.Add(uint64(n))
		return n, nil
	}
	return 0, io.EOF
}

var errOtherSize = fmt.Errorf("%w: of another size than its manifest says", chunkstore.ErrMismatch)

// Close ends the call.
func (s *chunkStream) Close() error {
	s.cancel()
	return nil
}

// pieces reads whole chunks by a call for each piece.
type pieces struct {
	r      *Reader
	ctx    context.Context
	cancel context.CancelFunc
	chunks []chunkstore.Stored // the first is being read
	at     int64               // bytes of it that were asked for
	buf    []byte
	rest   []byte
}

func (s *pieces) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if len(s.chunks) == 0 {
			return 0, io.EOF
		}
		c := s.chunks[0]
		if s.at == c.Size {
			s.chunks, s.at = s.chunks[1:], 0
			continue
		}
		n := min(frame, c.Size-s.at)
		err := s.r.c.Get(s.ctx, s.r.scope, []Range{{c.ID, uint64(s.at), uint64(n)}}, func(_ int, size uint64, in io.Reader) error {
			if size != uint64(c.Size) {
				return errOtherSize
			}
			s.buf = slices.Grow(s.buf[:0], int(n))[:n]
			_, err := io.ReadFull(in, s.buf)
			return err
		})
		if err != nil {
			return 0, err
		}
		s.at += n
		s.rest = s.buf
		s.r.bytes.Add(uint64(n))
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close ends a call that is going on.
func (s *pieces) Close() error {
	s.cancel()
	return nil
}
