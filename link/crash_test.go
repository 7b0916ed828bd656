package link

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/storetest"
	"github.com/concordat/concordat/chunkstore/transfer"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/relay"
	"github.com/concordat/concordat/verifier/tlog"
)

// linkInChild names the data directory for a test binary that is a link.
const linkInChild = "CONCORDAT_TEST_LINK"

func TestMain(m *testing.M) {
	if data := os.Getenv(linkInChild); data != "" {
		l, err := New(Config{Data: data, Listen: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), CheckpointInterval: 20 * time.Millisecond})
		if err == nil {
			fmt.Println(l.Address())
			err = l.Run(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// child is a link in a process of its own.
type child struct {
	cmd    *exec.Cmd
	addr   string
	stderr *bytes.Buffer
}

func startChild(t *testing.T, data string) *child {
	t.Helper()
	c := &child{cmd: exec.Command(os.Args[0]), stderr: new(bytes.Buffer)}
	c.cmd.Env = append(os.Environ(), linkInChild+"="+data)
	c.cmd.Stderr = c.stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		c.kill()
		t.Fatalf("link does not start: %v\n%s", err, c.stderr)
	}
	c.addr = strings.TrimSpace(line)
	go io.Copy(io.Discard, out)
	return c
}

// kill is SIGKILL: the process does nothing any more.
func (c *child) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// acknowledged is what a link has confirmed.
type acknowledged struct {
	mu         sync.Mutex
	entries    map[cose.Digest]uint64 // index by digest of the entry
	blobs      []cose.Digest
	chunks     []chunkstore.ID
	payloads   map[string]bool // sent and not received
	checkpoint *tlog.Checkpoint
}

// TestKill kills a working link again and again; all that it acknowledged is
// there afterwards, and nothing of its log ever changes.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	data := t.TempDir()
	c := newConsortium(t, data, "k", 1)
	c.host(t, data)
	ack := &acknowledged{entries: make(map[cose.Digest]uint64), payloads: make(map[string]bool)}
	const rounds = 8
	for round := range rounds {
		l := startChild(t, data)
		ack.check(t, c, l.addr, round)
		work(t, c, l, ack, round)
	}
	l := startChild(t, data)
	ack.check(t, c, l.addr, rounds)
	t.Logf("kept %d entries, %d blobs, %d chunks, %d payloads over %d kills", len(ack.entries), len(ack.blobs), len(ack.chunks), len(ack.payloads), rounds)
	if len(ack.entries) == 0 || len(ack.blobs) == 0 || len(ack.chunks) == 0 || len(ack.payloads) == 0 || ack.checkpoint == nil {
		t.Error("the link never got to acknowledge one of each")
	}
}

// work does everything at once until the link is killed in the middle of it.
func work(t *testing.T, c *consortium, l *child, ack *acknowledged, round int) {
	bank, hospital := c.node(t, l.addr, "bank").ready(t), c.node(t, l.addr, "hospital").ready(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	loop := func(do func(i int) error) {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := do(i); err != nil && ctx.Err() == nil {
					return // the link is gone; the caller knows of it
				}
			}
		})
	}
	rpc, f := concordatv1.NewRelayClient(hospital.conn), c.id()
	for w := range 3 {
		loop(func(i int) error {
			entry := c.statement(t, round, w, i)
			r, err := rpc.Append(ctx, &concordatv1.AppendRequest{Federation: f[:], Entry: entry})
			if err == nil {
				ack.mu.Lock()
				ack.entries[cose.Sum(entry)] = r.GetIndex()
				ack.mu.Unlock()
			}
			return err
		})
	}
	loop(func(i int) error {
		b := fmt.Append(nil, "blob ", round, " ", i)
		_, err := rpc.PutBlob(ctx, &concordatv1.PutBlobRequest{Federation: f[:], Data: b})
		if err == nil {
			ack.mu.Lock()
			ack.blobs = append(ack.blobs, cose.Sum(b))
			ack.mu.Unlock()
		}
		return err
	})
	loop(func(i int) error {
		id, stored := storetest.Chunk(uint64(round<<16|i), 200000)
		err := put(ctx, bank, nodeScope(bank, c), id, stored)
		if err == nil {
			ack.mu.Lock()
			ack.chunks = append(ack.chunks, id)
			ack.mu.Unlock()
		}
		return err
	})
	loop(func(i int) error { // to somebody who is not there
		p := fmt.Sprint("payload ", round, " ", i)
		if err := hospital.Send(relay.Node(signer("k", "lab", "node").Public().ID()), []byte(p)); err != nil {
			return err
		}
		if err := hospital.Flush(ctx); err != nil {
			return err
		}
		ack.mu.Lock()
		ack.payloads[p] = true
		ack.mu.Unlock()
		return nil
	})
	// Between nothing much and a few checkpoints.
	time.Sleep(time.Duration(20+rand.IntN(300)) * time.Millisecond)
	l.kill()
	cancel()
	bank.stop()
	hospital.stop()
	wg.Wait()
	for {
		select {
		case note := <-bank.checkpoints:
			ack.see(t, c, note)
			continue
		default:
		}
		break
	}
}

// see takes up a checkpoint that was published.
func (a *acknowledged) see(t *testing.T, c *consortium, note []byte) {
	t.Helper()
	k, err := tlog.ParseVerifierKey(c.policy.Log.Key)
	if err != nil {
		t.Fatal(err)
	}
	cp, _, err := tlog.Open(note, tlog.Trust{Origin: c.policy.Log.Origin, LogKey: k})
	if err != nil {
		t.Fatal(err)
	}
	if a.checkpoint == nil || cp.Size > a.checkpoint.Size {
		a.checkpoint = cp
	} else if cp.Size == a.checkpoint.Size && cp.Root != a.checkpoint.Root {
		t.Errorf("two roots for size %d", cp.Size)
	}
}

// check demands everything back.
func (a *acknowledged) check(t *testing.T, c *consortium, addr string, round int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	bank, lab := c.node(t, addr, "bank").ready(t), c.node(t, addr, "lab").ready(t)
	defer bank.stop()
	defer lab.stop()
	// A fresh witness has its say on the whole log: its old size is 0.
	entry := c.statement(t, "check", round)
	index, err := bank.Append(ctx, entry)
	if err != nil {
		t.Fatal(err)
	}
	a.entries[cose.Sum(entry)] = index
	cp := c.published(t, bank, index+1)
	if old := a.checkpoint; old != nil {
		if cp.Size < old.Size {
			t.Fatalf("round %d: the log shrank from %d to %d", round, old.Size, cp.Size)
		}
		if _, err := tlog.ConsistencyFromTiles(ctx, bank, old.Size, old.Root, cp); err != nil {
			t.Fatalf("round %d: from %d to %d: %v", round, old.Size, cp.Size, err)
		}
	}
	a.checkpoint = cp
	at := make(map[cose.Digest]uint64)
	if err := tlog.Audit(ctx, bank, nil, cp, func(i uint64, e []byte) error { at[cose.Sum(e)] = i; return nil }); err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	for d, i := range a.entries {
		if got, ok := at[d]; !ok || got != i {
			t.Errorf("round %d: entry acknowledged at %d is at %d, %v", round, i, got, ok)
		}
	}
	if uint64(len(at)) != cp.Size {
		t.Errorf("round %d: %d different entries in a log of %d", round, len(at), cp.Size)
	}
	for _, b := range a.blobs {
		if _, err := bank.Blob(ctx, b); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
	chunks := transfer.NewClient(bank.conn)
	missing, err := chunks.Missing(ctx, nodeScope(bank, c), a.chunks)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range missing {
		if m {
			t.Errorf("round %d: chunk %d is lost", round, i)
		}
	}
	if n := len(a.chunks); n > 0 {
		stored, err := transfer.NewReader(chunks, nodeScope(bank, c)).Fetch(ctx, nil, a.chunks[n-1], 1<<20)
		if err == nil {
			_, err = chunkstore.Copy(io.Discard, bytes.NewReader(stored), a.chunks[n-1])
		}
		if err != nil {
			t.Errorf("round %d: %v", round, err)
		}
	}
	left := make(map[string]bool)
	for p := range a.payloads {
		left[p] = true
	}
	for len(left) > 0 { // what was never received comes again each time
		select {
		case d := <-lab.delivered:
			delete(left, string(d.Payload))
		case <-ctx.Done():
			t.Fatalf("round %d: %d payloads are lost", round, len(left))
		}
	}
}
