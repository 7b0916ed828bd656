package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/merkle"
	"github.com/concordat/concordat/verifier/receipt"
)

// benchPrimitives compares what every byte and every contribution goes through.
func benchPrimitives() []ratio {
	return []ratio{hashing(), sealing(), opening(), averaging(), receipting()}
}

// benchChunk is an object of the size of Flower's largest pieces of a message. It is made
// when it is first used: a link and a node are this program too, and hold none.
var benchChunk = sync.OnceValue(func() []byte { return bytes.Repeat([]byte("concordat bench "), 5<<20/16) })

// hashing is the leaves of a chunk's segments, on one core.
func hashing() ratio {
	chunk := benchChunk()
	var segments [][]byte
	for at := 0; at < len(chunk); at += chunkstore.SegmentSize {
		segments = append(segments, chunk[at:min(at+chunkstore.SegmentSize, len(chunk))])
	}
	leaves := make([]merkle.Hash, len(segments))
	return ratio{name: "hash", limit: "crypto/sha256 over the same 80 segments, one by one", better: "higher", target: 1.8,
		ours: func() error { merkle.LeafHashes(leaves, segments); return nil },
		bound: func() error {
			for _, s := range segments {
				sha256.Sum256(s)
			}
			return nil
		}}
}

// sealing is a chunk's way out of a party: its id, its ciphertext and the id of that.
func sealing() ratio {
	chunk := benchChunk()
	secret := chunkstore.NewUplink([32]byte{1}, cose.Digest{2}, 3)
	id := object.Sum(chunk)
	var dst, raw []byte
	gcm := benchGCM()
	return ratio{name: "seal", limit: "SHA-256 twice and AES-256-GCM once over the same 5 MiB", better: "lower", target: 1.1,
		ours: func() error { _, dst = chunkstore.Seal(dst[:0], secret, id, chunk); return nil },
		bound: func() error {
			sha256.Sum256(chunk)
			raw = gcm.Seal(raw[:0], make([]byte, 12), chunk, nil)
			sha256.Sum256(raw)
			return nil
		}}
}

// opening is its way in.
func opening() ratio {
	chunk := benchChunk()
	secret := chunkstore.NewUplink([32]byte{1}, cose.Digest{2}, 3)
	oid := object.Sum(chunk)
	id, stored := chunkstore.Seal(nil, secret, oid, chunk)
	gcm := benchGCM()
	sealed := gcm.Seal(nil, make([]byte, 12), chunk, nil)
	var dst, raw []byte
	return ratio{name: "open", limit: "SHA-256 twice and AES-256-GCM once over the same 5 MiB", better: "lower", target: 1.1,
		ours: func() (err error) {
			dst, err = chunkstore.Open(dst[:0], id, stored, secret.Opening(oid))
			return err
		},
		bound: func() (err error) {
			sha256.Sum256(sealed)
			raw, err = gcm.Open(raw[:0], make([]byte, 12), sealed, nil)
			sha256.Sum256(raw)
			return err
		}}
}

func benchGCM() cipher.AEAD {
	block, err := aes.NewCipher(make([]byte, 32))
	must(err)
	gcm, err := cipher.NewGCM(block)
	must(err)
	return gcm
}

// averaging is FedAvg over eight contributions that lie in memory.
func averaging() ratio {
	const elements, parties = 4 << 20, 8 // 16 MiB each: no cache holds them
	head := object.NPY{Descr: "<f4", Shape: []int{elements}}
	in := make([][]byte, parties)
	var weights []aggregate.Contribution
	for i := range in {
		in[i] = append(head.Append(nil), make([]byte, 4*elements)...)
		weights = append(weights, aggregate.Contribution{Examples: uint64(i + 1)})
	}
	s, err := aggregate.New(aggregate.FedAvg, nil)
	must(err)
	plan, err := s.Plan(aggregate.Step{Round: 1, Contributions: weights})
	must(err)
	tensor := aggregate.Tensor{Name: "a", Type: "<f4", Shape: []int{elements}}
	return ratio{name: "fedavg", limit: "reading the same 128 MiB once", better: "higher", target: 0.8,
		ours: func() error {
			return plan.Array(tensor, aggregate.Sources{In: lenders(in)}, io.Discard, nil)
		},
		bound: func() error {
			for _, b := range in {
				if bytes.IndexByte(b, 0xff) >= 0 { // vector code that finds nothing
					return errors.New("found a byte that is not there")
				}
			}
			return nil
		}}
}

// lender reads an array that lies in memory, and lends it, as the enclave's reader of what it
// has opened does.
type lender struct{ rest []byte }

func (l *lender) Read(b []byte) (int, error) {
	if len(l.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *lender) Lend(n int) []byte {
	if len(l.rest) < n {
		return nil
	}
	b := l.rest[:n]
	l.rest = l.rest[n:]
	return b
}

var _ aggregate.Lender = (*lender)(nil)

func lenders(in [][]byte) []io.Reader {
	readers := make([]io.Reader, len(in))
	for i := range in {
		readers[i] = &lender{in[i]}
	}
	return readers
}

// receipting is the receipt that each contribution gets.
func receipting() ratio {
	const receipts = 50
	k, err := cose.GenerateSigner(cose.ES256)
	must(err)
	var tree receipt.Tree
	for i := range 100 {
		tree.Append(fmt.Appendf(nil, "entry %d", i))
	}
	entry, proof, root := []byte("entry 7"), tree.Prove(7), tree.Root()
	head := receipt.ReceiptHeader{Issuer: "enclave:00", Subject: "bench", Origin: "bench", Size: tree.Size()}
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	digest := sha256.Sum256(entry)
	return ratio{name: "receipt", limit: "one ECDSA P-256 signature", better: "lower", target: 1.5,
		ours: func() error {
			for range receipts {
				if _, err := receipt.IssueReceipt(head, entry, proof, root, k); err != nil {
					return err
				}
			}
			return nil
		},
		bound: func() error {
			for range receipts {
				if _, err := ecdsa.SignASN1(rand.Reader, raw, digest[:]); err != nil {
					return err
				}
			}
			return nil
		}}
}
