package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/chunkstore/pack"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
)

// ingestChunks is how many chunks of 5 MiB a batch has.
const ingestChunks = 8

// benchIngest compares what a link does with a batch of chunks, which it checks and makes
// durable, with making as many bytes durable in a file.
func benchIngest(ctx context.Context, dir string) (all []benchValue, err error) {
	store, err := pack.Open(durable.OS{}, filepath.Join(dir, "bench-chunks"), pack.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	scope := chunkstore.Scope{Federation: cose.Digest{1}, Run: cose.Digest{2}}
	secret := chunkstore.NewUplink([32]byte{1}, cose.Digest{2}, 3)
	chunk := benchChunk()
	id, stored := chunkstore.Seal(nil, secret, object.Sum(chunk), chunk)
	ids, chunks := []chunkstore.ID{id}, [][]byte{stored}
	for len(ids) < ingestChunks {
		plain := bytes.Clone(chunk)
		plain[0] ^= byte(len(ids))
		id, stored := chunkstore.Seal(nil, secret, object.Sum(plain), plain)
		ids, chunks = append(ids, id), append(chunks, stored)
	}
	file := filepath.Join(dir, "bench-raw")
	return measureRatios(ctx, []ratio{{name: "ingest", limit: "appending the same 40 MiB to a file and syncing it", better: "higher", target: 0.8,
		prepare: func() error {
			_, err := store.Release(ctx, scope.Federation, scope.Run, time.Now().Add(time.Hour))
			return errors.Join(err, os.RemoveAll(file))
		},
		ours: func() error {
			b, err := store.Put(ctx, scope)
			if err != nil {
				return err
			}
			defer b.Discard()
			for i, id := range ids {
				if err := b.Add(id, bytes.NewReader(chunks[i])); err != nil {
					return err
				}
			}
			return b.Commit()
		},
		bound: func() error {
			f, err := os.Create(file)
			if err != nil {
				return err
			}
			for _, c := range chunks {
				if _, err := f.Write(c); err != nil {
					return errors.Join(err, f.Close())
				}
			}
			return errors.Join(f.Sync(), f.Close())
		}}})
}
