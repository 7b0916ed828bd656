package main

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/pack"
	"github.com/concordat/concordat/chunkstore/storetest"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/link"
)

// TestLinkChunks lists what a link keeps and removes some of it.
func TestLinkChunks(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	l, err := link.New(link.Config{Data: data, Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
	store, err := pack.Open(durable.OS{}, filepath.Join(data, "chunks"), pack.Options{})
	if err != nil {
		t.Fatal(err)
	}
	scope := chunkstore.Scope{Federation: cose.Digest{1}, Run: cose.Sum([]byte("run"))}
	id, stored := storetest.Chunk(1, 100_000)
	if err := storetest.Put(store, scope, []chunkstore.ID{id}, [][]byte{stored}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	concordat := func(args ...string) (string, error) {
		t.Helper()
		var out bytes.Buffer
		root := newRootCommand()
		root.SetOut(&out)
		root.SetErr(&out)
		root.SetArgs(append([]string{"link"}, args...))
		err := root.Execute()
		return out.String(), err
	}
	run := scope.Run.String()
	out, err := concordat("chunks", "--data", data)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); err != nil || len(lines) != 3 || !strings.HasPrefix(lines[0], "run  ") || !strings.HasPrefix(lines[1], run[:16]+"  01000000    no run  1       1       97.7 KiB") || lines[2] != "97.7 KiB in all" {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = concordat("chunks", "--data", data, "--output", "json")
	var list struct {
		Bytes int64
		Runs  []keptLine
	}
	if jerr := json.Unmarshal([]byte(out), &list); err != nil || jerr != nil || list.Bytes != int64(len(stored)) || len(list.Runs) != 1 || list.Runs[0].Run != run || list.Runs[0].Due != nil {
		t.Errorf("%v, %v\n%s", err, jerr, out)
	}
	if out, err = concordat("release", "--data", data, "00000000"); err == nil {
		t.Errorf("a run that is not there was released: %s", out)
	}
	if out, err = concordat("release", "--data", data, run[:8]); err != nil || out != "released "+run+": 1 chunks, 97.7 KiB\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err = concordat("chunks", "--data", data); err != nil || !strings.HasSuffix(out, "0 B in all\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
