package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/storetest"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func nodeScope(p *party, c *consortium) chunkstore.Scope {
	return chunkstore.Scope{Federation: c.id(), Run: cose.Sum([]byte("run")), Owner: cose.Digest([]byte(p.self.ID))}
}

func put(ctx context.Context, p *party, s chunkstore.Scope, id chunkstore.ID, stored []byte) error {
	u := transfer.NewClient(p.conn).Upload(ctx, s)
	return errors.Join(u.Add(id, stored), u.Close())
}

// TestChunkScopes has parties of two federations try each other's chunks.
func TestChunkScopes(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	a, b := newConsortium(t, data, "a", 1), newConsortium(t, data, "b", 1)
	a.host(t, data)
	b.host(t, data)
	addr, stop := startLink(t, data)
	ctx := t.Context()
	e, bank, lab := a.enclave(t, addr, 1).ready(t), a.node(t, addr, "bank").ready(t), a.node(t, addr, "lab").ready(t)
	thief := b.enclave(t, addr, 1).ready(t)

	up, down := nodeScope(bank, a), nodeScope(bank, a)
	down.Owner = cose.Digest{}
	id, stored := storetest.Chunk(1, 3<<20)
	if err := put(ctx, bank, up, id, stored); err != nil {
		t.Fatal(err)
	}
	if err := put(ctx, e, down, id, stored); err != nil {
		t.Fatal(err)
	}
	foreign := up
	foreign.Federation = b.id()
	for name, x := range map[string]struct {
		p           *party
		s           chunkstore.Scope
		read, write codes.Code
	}{
		"owner":                    {bank, up, codes.OK, codes.OK},
		"enclave, uplink":          {e, up, codes.OK, codes.OK},
		"enclave, downlink":        {e, down, codes.OK, codes.OK},
		"node, downlink":           {lab, down, codes.OK, codes.PermissionDenied},
		"another node's uplink":    {lab, up, codes.PermissionDenied, codes.PermissionDenied},
		"own federation, same ids": {thief, foreign, codes.NotFound, codes.OK},
	} {
		p := make([]byte, 100)
		_, err := transfer.NewClient(x.p.conn).ReadAt(ctx, x.s, id, p, 65536)
		if status.Code(err) != x.read || err == nil && !bytes.Equal(p, stored[65536:][:100]) {
			t.Errorf("%s: read: %v, want %v", name, err, x.read)
		}
		want := x.read
		if want == codes.NotFound {
			want = codes.OK
		}
		missing, err := transfer.NewClient(x.p.conn).Missing(ctx, x.s, []chunkstore.ID{id})
		if status.Code(errors.Unwrap(err)) != want && status.Code(err) != want || err == nil && missing[0] != (x.read == codes.NotFound) {
			t.Errorf("%s: missing: %v, %v, want %v", name, missing, err, want)
		}
		other, b := storetest.Chunk(uint64(len(name)), 10)
		if err := put(ctx, x.p, x.s, other, b); (err == nil) != (x.write == codes.OK) {
			t.Errorf("%s: write: %v, want %v", name, err, x.write)
		}
	}
	f, r := up.Federation, up.Run
	stream, err := concordatv1.NewRelayClient(thief.conn).GetChunks(ctx, &concordatv1.GetChunksRequest{
		Scope: &concordatv1.Scope{Federation: f[:], Run: r[:], Owner: up.Owner[:]}, Ranges: []*concordatv1.Range{{Id: id[:]}}})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the other federation reads: %v", err)
	}
	stop()
	addr, _ = startLink(t, data)
	e = a.enclave(t, addr, 1).ready(t)
	err = transfer.NewClient(e.conn).Get(ctx, up, []transfer.Range{{ID: id}}, func(_ int, size uint64, r io.Reader) error {
		got, err := io.ReadAll(r)
		if !bytes.Equal(got, stored) || size != uint64(len(stored)) {
			t.Errorf("%d bytes after a restart, want %d", len(got), len(stored))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestDamagedPack: a link whose disk lost something says in which file, and takes the
// chunk again.
func TestDamagedPack(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	c := newConsortium(t, data, "c", 1)
	c.host(t, data)
	addr, stop := startLink(t, data)
	bank := c.node(t, addr, "bank").ready(t)
	id, stored := storetest.Chunk(1, 1000)
	if err := put(t.Context(), bank, nodeScope(bank, c), id, stored); err != nil {
		t.Fatal(err)
	}
	stop()
	packs, err := filepath.Glob(filepath.Join(data, chunksDir, "*", "*", "*", "*.pack"))
	if err != nil || len(packs) != 1 {
		t.Fatalf("%v, %v", packs, err)
	}
	b, err := os.ReadFile(packs[0])
	if err != nil {
		t.Fatal(err)
	}
	b[120] ^= 1 // in the record that names the chunk, after the header of 108 bytes
	if err := os.WriteFile(packs[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	addr, stop = startLink(t, data, func(cfg *Config) { cfg.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
	bank = c.node(t, addr, "bank").ready(t)
	if err := put(t.Context(), bank, nodeScope(bank, c), id, stored); err != nil {
		t.Error(err)
	}
	stop()
	if !strings.Contains(said.String(), packs[0]) || !strings.Contains(said.String(), "level=ERROR") {
		t.Errorf("the log does not name %s:\n%s", packs[0], said.String())
	}
}

// TestNothingUnderAnotherName checks that whatever a link keeps of a federation is
// in a place with its name, or in the one database.
func TestNothingUnderAnotherName(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	c := newConsortium(t, data, "c", 1)
	c.host(t, data)
	addr, stop := startLink(t, data)
	bank := c.node(t, addr, "bank").ready(t)
	id, stored := storetest.Chunk(1, 1000)
	if err := put(t.Context(), bank, nodeScope(bank, c), id, stored); err != nil {
		t.Fatal(err)
	}
	if _, err := bank.Append(t.Context(), c.statement(t, "x")); err != nil {
		t.Fatal(err)
	}
	stop()
	known := map[string]bool{lockFile: true, stateFile: true, addressFile: true, tlsKeyFile: true, logKeyFile: true, stateFile + "-wal": true, stateFile + "-shm": true,
		filepath.Join(chunksDir, "lock"): true, filepath.Join(federationsDir, "c.policy"): true}
	err := filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(data, path)
		name := c.id().String()
		if err != nil || d.IsDir() || known[rel] || bytes.HasPrefix([]byte(rel), []byte(name+string(os.PathSeparator))) || bytes.HasPrefix([]byte(rel), []byte(filepath.Join(chunksDir, name)+string(os.PathSeparator))) {
			return err
		}
		t.Errorf("%s belongs to nobody", rel)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
