package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limits of one call, as in api/concordat/v1.
const (
	maxMissing = 1 << 15 // ids of a MissingRequest
	maxRanges  = 1 << 12 // of a GetChunksRequest
	maxData    = 1 << 20 // bytes of one message of a stream
	maxPut     = 1 << 15 // chunks of one PutChunks stream
)

// Server answers the chunk calls of the Relay service from a store. It knows
// nothing of who calls: whether the caller may touch a scope is for whoever parsed
// the scope with [ParseScope] to decide before. Its errors are gRPC statuses, but
// for those of the store that are nobody's fault but the store's.
type Server struct{ Store chunkstore.Store }

// ParseScope checks and converts a scope.
func ParseScope(p *concordatv1.Scope) (chunkstore.Scope, error) {
	var s chunkstore.Scope
	for _, f := range []struct {
		name  string
		value []byte
		to    *chunkstore.Digest
	}{{"federation", p.GetFederation(), &s.Federation}, {"run", p.GetRun(), &s.Run}, {"owner", p.GetOwner(), &s.Owner}} {
		if f.name == "owner" && len(f.value) == 0 {
			continue // the downlink
		}
		if len(f.value) != len(f.to) || chunkstore.Digest(f.value).IsZero() {
			return chunkstore.Scope{}, status.Errorf(codes.InvalidArgument, "scope: %s of %d bytes, want 32 that are not all zero", f.name, len(f.value))
		}
		*f.to = chunkstore.Digest(f.value)
	}
	return s, nil
}

func parseID(b []byte) (chunkstore.ID, error) {
	if len(b) != len(chunkstore.ID{}) {
		return chunkstore.ID{}, status.Errorf(codes.InvalidArgument, "chunk id of %d bytes, want 32", len(b))
	}
	return chunkstore.ID(b), nil
}

// Missing answers a MissingRequest whose scope is s.
func (v Server) Missing(ctx context.Context, s chunkstore.Scope, q *concordatv1.MissingRequest) (*concordatv1.MissingResponse, error) {
	if len(q.GetIds()) > maxMissing {
		return nil, status.Errorf(codes.InvalidArgument, "missing: %d ids, limit %d", len(q.GetIds()), maxMissing)
	}
	ids := make([]chunkstore.ID, len(q.GetIds()))
	for i, b := range q.GetIds() {
		var err error
		if ids[i], err = parseID(b); err != nil {
			return nil, err
		}
	}
	bitmap, err := v.Store.Missing(ctx, s, ids)
	if err != nil {
		return nil, fault(err)
	}
	return &concordatv1.MissingResponse{Bitmap: bitmap}, nil
}

// PutStream is the server's end of PutChunks.
type PutStream interface {
	Context() context.Context
	RecvMsg(m any) error // a *concordatv1.PutChunksRequest
}

// Put stores what comes after first, the stream's first message, whose scope is s. It
// reads later messages into first.
// All of it is durable when Put returns without an error; otherwise the batch is
// given up, and whether it was stored is not known only if that is what failed.
func (v Server) Put(stream PutStream, s chunkstore.Scope, first *concordatv1.PutChunksRequest) (*concordatv1.PutChunksResponse, error) {
	batch, err := v.Store.Put(stream.Context(), s)
	if err != nil {
		return nil, fault(err)
	}
	defer batch.Discard()
	done := new(concordatv1.PutChunksResponse)
	in := &chunkReader{stream: stream, msg: first}
	if len(first.GetData()) == 0 {
		memory := frames.Get(frame)
		defer frames.Put(memory)
		first.Data = (*memory)[:0] // what comes next is read into it
	}
	if len(first.GetId()) > 0 { // a chunk may begin in the message that has the scope
		in.ahead = true
	} else if len(first.GetData()) > 0 {
		return nil, status.Error(codes.InvalidArgument, "put: data before a chunk id")
	}
	for {
		id, err := in.begin()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if done.Chunks++; done.Chunks > maxPut {
			return nil, status.Errorf(codes.InvalidArgument, "put: more than %d chunks in a stream", maxPut)
		}
		done.Bytes += in.left
		if err := batch.Add(id, in); err != nil {
			if in.err != nil {
				return nil, in.err // the stream's, not the store's
			}
			return nil, fault(err)
		}
	}
	if err := batch.Commit(); err != nil {
		return nil, fault(err)
	}
	return done, nil
}

// chunkReader reads the chunks of a stream one after the other: begin, and then
// Read to its end.
type chunkReader struct {
	stream PutStream
	msg    *concordatv1.PutChunksRequest // the current message; its memory is used again
	ahead  bool                          // it begins the next chunk
	data   []byte                        // what is left of it
	left   uint64                        // bytes of the current chunk that have not been read
	err    error                         // of the stream
}

// begin returns the id of the next chunk, or io.EOF after the last.
func (r *chunkReader) begin() (chunkstore.ID, error) {
	m := r.msg
	if r.ahead {
		r.ahead = false
	} else {
		if err := r.stream.RecvMsg(m); err != nil {
			return chunkstore.ID{}, err
		}
		if m.GetScope() != nil {
			return chunkstore.ID{}, status.Error(codes.InvalidArgument, "put: a second scope")
		}
	}
	id, err := parseID(m.GetId())
	if err != nil {
		return id, err
	}
	if m.GetSize() == 0 || m.GetSize() > chunkstore.MaxStored {
		return id, status.Errorf(codes.InvalidArgument, "chunk %s: size %d", id.Short(), m.GetSize())
	}
	r.left = m.GetSize()
	return id, r.take(m.GetData())
}

func (r *chunkReader) take(data []byte) error {
	if len(data) > maxData || uint64(len(data)) > r.left {
		return status.Errorf(codes.InvalidArgument, "put: %d bytes of data, where a message may have %d and the chunk lacks %d", len(data), maxData, r.left)
	}
	r.data = data
	return nil
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 {
		if r.left == 0 {
			return 0, io.EOF
		}
		m := r.msg
		err := r.stream.RecvMsg(m)
		switch {
		case err == io.EOF:
			err = status.Error(codes.InvalidArgument, "put: the stream ends within a chunk")
		case err == nil && (m.GetScope() != nil || len(m.GetId()) > 0 || m.GetSize() > 0 || len(m.GetData()) == 0):
			err = status.Error(codes.InvalidArgument, "put: a chunk is not continued with data alone")
		case err == nil:
			err = r.take(m.GetData())
		}
		if err != nil {
			r.err = err
			return 0, err
		}
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	r.left -= uint64(n)
	return n, nil
}

// GetStream is the server's end of GetChunks.
type GetStream interface {
	Context() context.Context
	Send(*concordatv1.GetChunksResponse) error
}

// Get answers a GetChunksRequest whose scope is s. It holds one message in memory, and
// what the transport has taken.
func (v Server) Get(stream GetStream, s chunkstore.Scope, q *concordatv1.GetChunksRequest) error {
	if len(q.GetRanges()) > maxRanges {
		return status.Errorf(codes.InvalidArgument, "get: %d ranges, limit %d", len(q.GetRanges()), maxRanges)
	}
	for i, r := range q.GetRanges() {
		id, err := parseID(r.GetId())
		if err != nil {
			return err
		}
		size, err := v.Store.Size(stream.Context(), s, id)
		if err != nil {
			return fault(err)
		}
		from, length := r.GetOffset(), r.GetLength()
		if from > uint64(size) || length > uint64(size)-from {
			return status.Errorf(codes.InvalidArgument, "chunk %s has %d bytes: no %d at %d", id.Short(), size, length, from)
		}
		if length == 0 {
			length = uint64(size) - from
		}
		m := &concordatv1.GetChunksResponse{Range: uint32(i), Size: uint64(size)}
		for first := true; first || length > 0; first = false {
			n := min(length, frame)
			m.Data = *frames.Get(int(n)) // the transport gives it back
			if k, err := v.Store.ReadAt(stream.Context(), s, id, m.Data, int64(from)); uint64(k) < n {
				return fault(err)
			}
			if err := stream.Send(m); err != nil {
				return err
			}
			from, length = from+n, length-n
			m = &concordatv1.GetChunksResponse{Range: uint32(i)}
		}
	}
	return nil
}

// fault gives errors about a chunk their status; others are passed on.
func fault(err error) error {
	switch {
	case errors.Is(err, chunkstore.ErrNotFound):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, chunkstore.ErrMismatch), errors.Is(err, chunkstore.ErrTooLarge):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, chunkstore.ErrQuota):
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return fmt.Errorf("transfer: %w", err)
}
