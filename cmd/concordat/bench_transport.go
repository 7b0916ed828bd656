package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/daemon/dial"
)

const (
	transportChunks  = 24 // of 5 MiB, in one sample: processors are timed in hundredths of a second
	transportSamples = 15
	transportPiece   = 1 << 20 // bytes of one write to the raw connection
)

// benchTransport compares what processors spend on chunks over gRPC and TLS, on both ends,
// with the same bytes over a plain TLS connection of the standard library; and counts the
// memory that is allocated on the way.
func benchTransport(ctx context.Context) (all []benchValue, err error) {
	const unit, memory = "ratio to what processors spend on a TLS connection of the standard library", "bytes allocated for each byte of chunks"
	if _, err := spentBy(os.Getpid()); err != nil {
		return []benchValue{notMeasured("transport", unit, "lower", 0.9, err.Error()), notMeasured("transport-memory", memory, "lower", 0.02, err.Error())}, nil
	}
	cert, pin, err := benchCertificate()
	if err != nil {
		return nil, err
	}
	chunks, closeChunks, err := chunksOverGRPC(ctx, cert, pin)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeChunks()) }()
	raw, closeRaw, err := bytesOverTLS(cert)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeRaw()) }()
	var ratios, allocated []float64
	for i := range transportSamples + 1 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		ours, size, err := spentOn(chunks)
		if err != nil {
			return nil, fmt.Errorf("chunks over gRPC: %w", err)
		}
		runtime.ReadMemStats(&after)
		bound, same, err := spentOn(raw)
		if err != nil {
			return nil, fmt.Errorf("bytes over TLS: %w", err)
		}
		if i > 0 { // the first warms up
			ratios = append(ratios, ours.Seconds()/float64(size)/(bound.Seconds()/float64(same)))
			allocated = append(allocated, float64(after.TotalAlloc-before.TotalAlloc)/float64(size))
		}
	}
	return []benchValue{newBenchValue("transport", unit, "lower", 0.9, ratios), newBenchValue("transport-memory", memory, "lower", 0.02, allocated)}, nil
}

// spentOn returns what processors spent in this process while f ran, and f's bytes.
func spentOn(f func() (int64, error)) (time.Duration, int64, error) {
	before, err := spentBy(os.Getpid())
	if err != nil {
		return 0, 0, err
	}
	size, err := f()
	if err != nil {
		return 0, 0, err
	}
	after, err := spentBy(os.Getpid())
	if err != nil {
		return 0, 0, err
	}
	return after[0].own - before[0].own, size, nil
}

func benchCertificate() (tls.Certificate, dial.Pin, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, dial.Pin{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, dial.Pin{}, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, dial.Pin{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, dial.PinOf(c), nil
}

// chunksOverGRPC returns a function that uploads chunks as a node does, to a server that
// takes them as a link does and drops them.
func chunksOverGRPC(ctx context.Context, cert tls.Certificate, pin dial.Pin) (send func() (int64, error), end func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	s := grpc.NewServer(append(dial.ServerOptions(), grpc.ForceServerCodecV2(transfer.Codec{}),
		grpc.Creds(dial.Gathered(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, DynamicRecordSizingDisabled: true}))))...)
	concordatv1.RegisterRelayServer(s, &dropping{chunks: transfer.Server{Store: nowhere{}}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := dial.Dial(l.Addr().String()+"#"+pin.String(), dial.Options{})
	if err != nil {
		s.Stop()
		return nil, nil, errors.Join(err, <-served)
	}
	secret := chunkstore.NewUplink([32]byte{1}, cose.Digest{2}, 3)
	chunk := benchChunk()
	id, stored := chunkstore.Seal(nil, secret, object.Sum(chunk), chunk)
	client := transfer.NewClient(conn)
	scope := chunkstore.Scope{Federation: cose.Digest{1}, Run: cose.Digest{2}, Owner: cose.Digest{3}}
	send = func() (int64, error) {
		up := client.Upload(ctx, scope)
		for i := range transportChunks {
			id[0] = byte(i) // nobody compares it with the bytes here
			if err := up.Add(id, stored); err != nil {
				return 0, errors.Join(err, up.Close())
			}
		}
		return transportChunks * int64(len(stored)), up.Close()
	}
	return send, func() error { err := conn.Close(); s.Stop(); return errors.Join(err, <-served) }, nil
}

// dropping is the part of a link that takes chunks.
type dropping struct {
	concordatv1.UnimplementedRelayServer
	chunks transfer.Server
}

func (d *dropping) Missing(ctx context.Context, q *concordatv1.MissingRequest) (*concordatv1.MissingResponse, error) {
	s, err := transfer.ParseScope(q.GetScope())
	if err != nil {
		return nil, err
	}
	return d.chunks.Missing(ctx, s, q)
}

func (d *dropping) PutChunks(stream concordatv1.Relay_PutChunksServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	s, err := transfer.ParseScope(first.GetScope())
	if err != nil {
		return err
	}
	done, err := d.chunks.Put(stream, s, first)
	if err != nil {
		return err
	}
	return stream.SendAndClose(done)
}

// nowhere is a store that has nothing and drops what it is given.
type nowhere struct{ chunkstore.Store }

func (nowhere) Missing(_ context.Context, _ chunkstore.Scope, ids []chunkstore.ID) ([]uint64, error) {
	words := make([]uint64, (len(ids)+63)/64)
	for i := range ids {
		words[i/64] |= 1 << (i % 64)
	}
	return words, nil
}

func (nowhere) Put(context.Context, chunkstore.Scope) (chunkstore.Batch, error) {
	return dropped{}, nil
}

type dropped struct{}

func (dropped) Add(_ chunkstore.ID, r io.Reader) error {
	b := droppedBytes.Get().(*[]byte)
	defer droppedBytes.Put(b)
	return readOut(r, *b)
}
func (dropped) Commit() error  { return nil }
func (dropped) Discard() error { return nil }

var droppedBytes = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// readOut reads to the end, by way of buf.
func readOut(r io.Reader, buf []byte) error {
	for {
		if _, err := r.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// bytesOverTLS returns a function that sends as many bytes over a TLS connection.
func bytesOverTLS(cert tls.Certificate) (send func() (int64, error), end func() error, err error) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}})
	if err != nil {
		return nil, nil, err
	}
	got := make(chan error, 1)
	const size = transportChunks * 5 << 20
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- err
			return
		}
		defer c.Close()
		buf := make([]byte, transportPiece)
		for err == nil {
			for left := size; left > 0 && err == nil; {
				var n int
				n, err = c.Read(buf)
				left -= n
			}
			got <- err
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}) // of this process alone
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	piece := make([]byte, transportPiece)
	send = func() (int64, error) {
		for range size / transportPiece {
			if _, err := c.Write(piece); err != nil {
				return 0, err
			}
		}
		return size, <-got
	}
	return send, func() error {
		err := errors.Join(c.Close(), l.Close())
		<-got // the reader has ended
		return err
	}, nil
}
