package relay

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/cose"
)

func TestCalls(t *testing.T) {
	t.Parallel()
	l := newFakeLink(t)
	blob := []byte("blob")
	l.answer = func(call string, n int, req any) (any, error) {
		if n == 1 { // every first call finds the link away
			return nil, unavailable()
		}
		if f := req.(interface{ GetFederation() []byte }).GetFederation(); string(f) != string(federation[:]) {
			t.Errorf("%s for federation %x", call, f)
		}
		switch r := req.(type) {
		case *concordatv1.AppendRequest:
			return &concordatv1.AppendResponse{Index: uint64(len(r.GetEntry()))}, nil
		case *concordatv1.PutBlobRequest:
			return new(concordatv1.PutBlobResponse), nil
		case *concordatv1.GetBlobRequest:
			if d := cose.Sum(blob); string(r.GetDigest()) != string(d[:]) {
				return nil, status.Error(codes.NotFound, "no such blob")
			}
			return &concordatv1.GetBlobResponse{Data: blob}, nil
		case *concordatv1.GetTileRequest:
			return &concordatv1.GetTileResponse{Data: []byte(r.GetPath())}, nil
		case *concordatv1.GetReceiptRequest:
			return &concordatv1.GetReceiptResponse{Receipt: []byte{byte(r.GetIndex()), byte(r.GetSize())}}, nil
		}
		return nil, status.Error(codes.Unimplemented, call)
	}
	p := l.peer()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if i, err := p.Append(ctx, []byte("entry")); err != nil || i != 5 {
		t.Errorf("append: %d, %v", i, err)
	}
	if d, err := p.PutBlob(ctx, blob); err != nil || d != cose.Sum(blob) {
		t.Errorf("put: %s, %v", d, err)
	}
	if b, err := p.Blob(ctx, cose.Sum(blob)); err != nil || string(b) != "blob" {
		t.Errorf("get: %q, %v", b, err)
	}
	if b, err := p.ReadTile(ctx, "tile/0/000"); err != nil || string(b) != "tile/0/000" {
		t.Errorf("tile: %q, %v", b, err)
	}
	if b, err := p.Receipt(ctx, 3, 4); err != nil || string(b) != "\x03\x04" {
		t.Errorf("receipt: %x, %v", b, err)
	}
	for name, n := range l.calls {
		if n != 2 {
			t.Errorf("%s was called %d times, want 2", name, n)
		}
	}
}

// TestBlobIsChecked: the link cannot hand out other bytes under a digest.
func TestBlobIsChecked(t *testing.T) {
	t.Parallel()
	l := newFakeLink(t)
	l.answer = func(string, int, any) (any, error) { return &concordatv1.GetBlobResponse{Data: []byte("other")}, nil }
	if b, err := l.peer().Blob(t.Context(), cose.Sum([]byte("blob"))); err == nil || b != nil || !strings.Contains(err.Error(), "other bytes") {
		t.Errorf("%q, %v", b, err)
	}
}

// TestCallsAreNotRepeated: an answer that will not change is returned at once, and
// nothing is tried after the caller's end.
func TestCallsAreNotRepeated(t *testing.T) {
	t.Parallel()
	calls := map[string]func(context.Context, *Peer) error{
		"append":  func(ctx context.Context, p *Peer) error { _, err := p.Append(ctx, nil); return err },
		"put":     func(ctx context.Context, p *Peer) error { _, err := p.PutBlob(ctx, nil); return err },
		"get":     func(ctx context.Context, p *Peer) error { _, err := p.Blob(ctx, Digest{1}); return err },
		"tile":    func(ctx context.Context, p *Peer) error { _, err := p.ReadTile(ctx, "x"); return err },
		"receipt": func(ctx context.Context, p *Peer) error { _, err := p.Receipt(ctx, 1, 2); return err },
	}
	for name, call := range calls {
		l := newFakeLink(t)
		l.answer = func(string, int, any) (any, error) { return nil, status.Error(codes.NotFound, "nothing there") }
		if err := call(t.Context(), l.peer()); status.Code(err) != codes.NotFound || l.calls[name] != 1 {
			t.Errorf("%s: %v after %d calls", name, err, l.calls[name])
		}
		l.answer = func(string, int, any) (any, error) { return nil, unavailable() }
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := call(ctx, l.peer()); err == nil {
			t.Errorf("%s: no error", name)
		}
		cancel()
	}
}
