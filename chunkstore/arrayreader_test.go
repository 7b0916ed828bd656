package chunkstore_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
)

// source is a store of which single bytes can be changed.
type source struct {
	stored map[chunkstore.ID][]byte
	reads  int // chunks streamed
	cut    int // bytes that the next streams end after; 0: none
	open   int // streams that were not closed
}

func (s *source) Fetch(_ context.Context, dst []byte, id chunkstore.ID, _ int64) ([]byte, error) {
	return append(dst, s.stored[id]...), nil
}

func (s *source) Stream(ctx context.Context, chunks []chunkstore.Stored) io.ReadCloser {
	s.open++
	s.reads += len(chunks)
	r := chunkstore.Fetch(s.Fetch).Stream(ctx, chunks)
	if s.cut > 0 {
		return &counted{io.LimitReader(r, int64(s.cut)), s}
	}
	return &counted{r, s}
}

type counted struct {
	io.Reader
	s *source
}

func (c *counted) Close() error {
	c.s.open--
	return nil
}

// bigArray is one array of many chunks of some segments, beside small ones.
func bigArray(t *testing.T) (*chunkstore.Parcel, *object.Array, []byte, *source) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var data []byte
	a := &object.Array{DType: "x", SType: "x", Shape: []int{}}
	for _, n := range []int{chunkstore.SegmentSize*9 + 5, 0, 1, chunkstore.SegmentSize - 20, chunkstore.SegmentSize * 4, 3 * chunkstore.SegmentSize} {
		piece := make([]byte, n)
		for i := range piece {
			piece[i] = byte(r.Uint32())
		}
		a.Chunks = append(a.Chunks, object.Chunk{Data: piece})
		data = append(data, piece...)
	}
	objs, err := object.Objects(object.RecordDict{{Name: "r", Record: object.ArrayRecord{{Name: "a", Array: a}}}})
	if err != nil {
		t.Fatal(err)
	}
	key := chunkstore.NewUplink([32]byte{1}, chunkstore.Digest{2}, 3)
	sealed, stored := parcel(t, key, objs)
	src := &source{stored: stored}
	p, err := chunkstore.OpenParcel(t.Context(), key, sealed.Manifest, sealed.Root, sealed.Count, src)
	if err != nil {
		t.Fatal(err)
	}
	n, err := object.Inflate(p.Root(), p.Inline, object.Limits{Objects: 100, Bytes: 1 << 20, Outline: true})
	if err != nil {
		t.Fatal(err)
	}
	return p, n.(object.RecordDict)[0].Record.(object.ArrayRecord)[0].Array, data, src
}

// Every reading gives the same bytes, the first by whole chunks, those after by segments.
func TestArrayReader(t *testing.T) {
	t.Parallel()
	p, a, data, src := bigArray(t)
	for pass := range 3 {
		r := p.ArrayReader(t.Context(), a)
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("pass %d: %d bytes, %v", pass, len(got), err)
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("after the end: %d, %v", n, err)
		}
		if src.reads != (pass+1)*len(a.Chunks) || src.open != 0 {
			t.Errorf("pass %d: %d chunks streamed, %d streams are open", pass, src.reads, src.open)
		}
	}
}

// lender is what an ArrayReader is beside a reader.
type lender interface {
	io.Reader
	Lend(n int) []byte
}

// What is lent and what is read, in any order and of any size, are the same bytes, and are
// aligned in every reading but the first.
func TestArrayReaderLends(t *testing.T) {
	t.Parallel()
	p, a, data, src := bigArray(t)
	r := rand.New(rand.NewPCG(3, 4))
	for pass := range 20 {
		in := p.ArrayReader(t.Context(), a).(lender)
		lent := 0
		for at := 0; at < len(data); {
			n := 1 + r.IntN([]int{10, 1000, 3 * chunkstore.SegmentSize}[r.IntN(3)])
			got := in.Lend(n)
			switch {
			case got == nil:
				got = make([]byte, n)
				k, err := in.Read(got)
				if err != nil {
					t.Fatal(err)
				}
				got = got[:k]
			case len(got) != n:
				t.Fatalf("lent %d bytes of %d", len(got), n)
			case pass > 0 && (uintptr(unsafe.Pointer(&got[0]))-uintptr(at))%8 != 0:
				t.Fatalf("pass %d: byte %d lies at %p", pass, at, &got[0])
			default:
				lent += n
			}
			if !bytes.HasPrefix(data[at:], got) {
				t.Fatalf("pass %d: other bytes at %d", pass, at)
			}
			at += len(got)
		}
		if lent < len(data)/4 {
			t.Errorf("pass %d: %d of %d bytes were lent", pass, lent, len(data))
		}
		if b := in.Lend(1); b != nil {
			t.Error("lent what is behind the end")
		}
		if n, err := in.Read(make([]byte, 1)); n != 0 || err != io.EOF || src.open != 0 {
			t.Errorf("after the end: %d, %v, %d streams are open", n, err, src.open)
		}
	}
}

// What is lent has been checked: of a segment that was changed nothing comes out.
func TestArrayReaderLendsWhatIsChecked(t *testing.T) {
	t.Parallel()
	p, a, data, src := bigArray(t)
	if _, err := io.Copy(io.Discard, p.ArrayReader(t.Context(), a)); err != nil {
		t.Fatal(err)
	}
	changed := 0
	for id, b := range src.stored {
		src.stored[id] = bytes.Clone(b)
		src.stored[id][len(b)-1] ^= 1
		in := p.ArrayReader(t.Context(), a).(lender)
		at := 0
		for {
			got := in.Lend(1)
			if got == nil {
				break
			}
			if got[0] != data[at] {
				t.Fatal("another byte came out")
			}
			at++
		}
		n, err := in.Read(make([]byte, 1))
		if at < len(data) {
			changed++
			if n != 0 || !errors.Is(err, chunkstore.ErrMismatch) || in.Lend(1) != nil || src.open != 0 {
				t.Errorf("after %d bytes: %d, %v, %d streams are open", at, n, err, src.open)
			}
		} else if err != io.EOF { // the manifest is not read again
			t.Error(err)
		}
		src.stored[id] = b
	}
	if changed < 5 {
		t.Errorf("%d chunks were changed that are read", changed)
	}
}

// A byte that is changed between the readings is found, wherever it is; nothing of its
// segment comes out.
func TestArrayReaderChecksAgain(t *testing.T) {
	t.Parallel()
	p, a, data, src := bigArray(t)
	if _, err := io.Copy(io.Discard, p.ArrayReader(t.Context(), a)); err != nil {
		t.Fatal(err)
	}
	for id, b := range src.stored {
		good := bytes.Clone(b)
		for _, at := range []int{0, 15, 47, 48, 60, len(b) / 2, len(b) - 1} {
			bad := bytes.Clone(good)
			bad[at] ^= 1
			src.stored[id] = bad
			got, err := io.ReadAll(p.ArrayReader(t.Context(), a))
			if err == nil { // the manifest is not read again
				if !bytes.Equal(got, data) {
					t.Fatal("other bytes came out")
				}
				break
			}
			if !errors.Is(err, chunkstore.ErrMismatch) || !bytes.HasPrefix(data, got) || src.open != 0 {
				t.Errorf("byte %d of %d: %v, %d bytes came out, %d streams are open", at, len(b), err, len(got), src.open)
			}
		}
		src.stored[id] = good
	}
	src.cut = 1
	for ; src.cut < 1<<20; src.cut *= 3 {
		r := p.ArrayReader(t.Context(), a)
		if got, err := io.ReadAll(r); !errors.Is(err, chunkstore.ErrMismatch) || !bytes.HasPrefix(data, got) {
			t.Errorf("cut after %d bytes: %v", src.cut, err)
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, chunkstore.ErrMismatch) {
			t.Errorf("after the error: %d, %v", n, err)
		}
	}
}

// Chunks exchanged among each other are found in every pass.
func TestArrayReaderOrder(t *testing.T) {
	t.Parallel()
	p, a, _, src := bigArray(t)
	if _, err := io.Copy(io.Discard, p.ArrayReader(t.Context(), a)); err != nil {
		t.Fatal(err)
	}
	var ids []chunkstore.ID
	for id := range src.stored {
		ids = append(ids, id)
	}
	src.stored[ids[0]], src.stored[ids[1]] = src.stored[ids[1]], src.stored[ids[0]]
	if _, err := io.Copy(io.Discard, p.ArrayReader(t.Context(), a)); !errors.Is(err, chunkstore.ErrMismatch) {
		// One of them may be the manifest, the other is an array chunk all the same.
		t.Errorf("%v, want ErrMismatch", err)
	}
}
