package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/dial"
)

// chunkRelay is the part of a link that takes and gives chunks, to anybody.
type chunkRelay struct{ dropping }

func (r *chunkRelay) GetChunks(q *concordatv1.GetChunksRequest, stream concordatv1.Relay_GetChunksServer) error {
	s, err := transfer.ParseScope(q.GetScope())
	if err != nil {
		return err
	}
	return r.chunks.Get(stream, s, q)
}

// newPassage returns one without a process: chunks lie in store.
func newPassage(t *testing.T, store chunkstore.Store) *passage {
	t.Helper()
	cert, pin, err := benchCertificate()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(dial.ServerOptions(), grpc.ForceServerCodecV2(transfer.Codec{}),
		grpc.Creds(dial.Gathered(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}))))...)
	concordatv1.RegisterRelayServer(s, &chunkRelay{dropping{chunks: transfer.Server{Store: store}}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-served })
	connect := func(o dial.Options) *party {
		conn, err := dial.Dial(l.Addr().String()+"#"+pin.String(), o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return &party{conn: conn, chunks: transfer.NewClient(conn)}
	}
	p := &passage{ctx: t.Context(), federation: cose.Digest{1}, enclave: connect(dial.Options{Window: enclave.ReadWindow})}
	for i := range 3 {
		n := connect(dial.Options{})
		n.id = cose.Digest{2, byte(i)}
		p.nodes = append(p.nodes, n)
	}
	return p
}

// What comes out is the mean of what went in, and the outputs that are named are those that
// are stored.
func TestPassage(t *testing.T) {
	t.Parallel()
	const elements, n = 3<<19 + 5, 4 // 6 MiB and a little: two chunks
	p := newPassage(t, new(chunkstore.Mem))
	all, err := p.deposit(n, elements)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.sealed.Load(); got != 4*elements*n {
		t.Errorf("counted %d bytes", got)
	}
	var in []*opened
	owners := map[cose.Digest]int{}
	for i, c := range all {
		o, err := c.open(t.Context(), transfer.NewReader(p.enclave.chunks, c.Scope))
		if err != nil {
			t.Fatal(err)
		}
		if o.weight.Examples != uint64(i+1) || c.Sealed.Count != 3 {
			t.Errorf("contribution %d: %+v, %d chunks", i, o.weight, c.Sealed.Count)
		}
		owners[c.Scope.Owner]++
		in = append(in, o)
	}
	if len(owners) != 3 {
		t.Errorf("%d nodes contributed", len(owners))
	}
	var want, got bytes.Buffer
	want.Write(object.NPY{Descr: "<f4", Shape: []int{elements}}.Append(nil))
	if err := writeElements(&want, 4*elements, new(atomic.Int64)); err != nil {
		t.Fatal(err)
	}
	for _, strategy := range []string{aggregate.FedAvg, aggregate.FedMedian} {
		plan, err := planFor(strategy, in)
		if err != nil {
			t.Fatal(err)
		}
		got.Reset()
		if err := aggregateOnce(t.Context(), plan, syntheticTensor(elements), in, &got); err != nil {
			t.Fatal(err)
		}
		if err := near(got.Bytes(), want.Bytes()); err != nil {
			t.Errorf("%s: %v", strategy, err)
		}
		task := memoryTask{Contributions: all[:2], Elements: elements, Members: n, Strategy: strategy}
		checked, err := task.check(t.Context(), []*transfer.Reader{transfer.NewReader(p.enclave.chunks, all[0].Scope), transfer.NewReader(p.enclave.chunks, all[1].Scope)})
		if err == nil && len(checked) != n {
			t.Errorf("%d contributions were read", len(checked))
		}
		if err == nil {
			err = task.produce(t.Context(), p.enclave, checked)
		}
		if err != nil {
			t.Errorf("%s: %v", strategy, err)
		}
	}
	if err := p.aggregate(all, elements); err != nil || p.meant.Load() < 4*elements*n {
		t.Errorf("%v, %d bytes in the mean", err, p.meant.Load())
	}
}

// near demands equal headers, and elements that differ by a rounding.
func near(got, want []byte) error {
	if len(got) != len(want) {
		return errors.New("of another size")
	}
	for i := 128; i < len(got); i += 4 {
		a, b := math.Float32frombits(binary.LittleEndian.Uint32(got[i:])), math.Float32frombits(binary.LittleEndian.Uint32(want[i:]))
		if !(math.Abs(float64(a-b)) <= 1e-6) {
			return errors.New("another value")
		}
	}
	return nil
}

// bent is a store that gives other bytes than it was given.
type bent struct{ chunkstore.Mem }

func (b *bent) ReadAt(ctx context.Context, s chunkstore.Scope, id chunkstore.ID, p []byte, off int64) (int, error) {
	n, err := b.Mem.ReadAt(ctx, s, id, p, off)
	if n > 0 && off > 0 { // within an array's chunk
		p[n-1] ^= 1
	}
	return n, err
}

// What a link bends is no figure but an error.
func TestPassageBent(t *testing.T) {
	t.Parallel()
	p := newPassage(t, new(bent))
	all, err := p.deposit(2, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.aggregate(all, 1<<20); !errors.Is(err, chunkstore.ErrMismatch) {
		t.Errorf("%v, want %v", err, chunkstore.ErrMismatch)
	}
}

// A party that is not attached is an error, whoever ended it.
func TestAttachEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the link has ended")
	cancel(why)
	if n, err := attachEnclave(ctx, "127.0.0.1:1", cose.Digest{1}); n != nil || !errors.Is(err, why) {
		t.Errorf("%v, %v", n, err)
	}
}

// No two chunks of an array are the same object: that would be sealed and sent once.
func TestWriteElements(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	var count atomic.Int64
	const size = 4*object.ChunkSize + 12
	if err := writeElements(&b, size, &count); err != nil || count.Load() != size || b.Len() != size {
		t.Fatalf("%d of %d bytes, %v", b.Len(), count.Load(), err)
	}
	seen := map[object.ID]bool{}
	for rest := b.Bytes(); len(rest) > 0; {
		n := min(len(rest), object.ChunkSize)
		seen[object.Sum(rest[:n])] = true
		rest = rest[n:]
	}
	if len(seen) != 5 {
		t.Errorf("%d different chunks of 5", len(seen))
	}
	for i := 0; i < size; i += 4 {
		if v := math.Float32frombits(binary.LittleEndian.Uint32(b.Bytes()[i:])); !(v >= 0 && v < 1) {
			t.Fatalf("element %d is %g", i/4, v)
		}
	}
	broken := errors.New("broken")
	if err := writeElements(failing{broken}, 8, &count); err != broken || count.Load() != size {
		t.Errorf("%v, %d", err, count.Load())
	}
}

type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f.error }

func TestPassageCost(t *testing.T) {
	t.Parallel()
	c := passageCost{bytes: 1e9, nodes: time.Second, linkIn: 2 * time.Second, linkOut: 500 * time.Millisecond, enclave: 1500 * time.Millisecond, depositTime: 3 * time.Second, aggregateTime: time.Second}
	const want = "nodes 1.0 ns, link 2.0 and 0.5 ns, enclave's end 1.5 ns; deposited in 3.0 ns, aggregated in 1.0 ns"
	if s := c.String(); !strings.HasSuffix(s, want) || c.all() != 5*time.Second {
		t.Errorf("%s, %s", s, c.all())
	}
	if s := (passageCost{bytes: 1, depositTime: time.Second}).String(); s != "" {
		t.Errorf("of nothing: %q", s)
	}
}
