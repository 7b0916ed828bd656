package ci_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/storetest"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/enclave"
	"github.com/concordat/concordat/link"
)

// stored returns the bytes that the link of f has on its disk for each run or place of
// initial arrays.
func stored(t *testing.T, f *ci.Federation) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	packs, err := filepath.Glob(filepath.Join(f.Dir, "link", "chunks", f.Chain.Federation().String(), "*", "*", "*.pack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		run := filepath.Base(filepath.Dir(filepath.Dir(p)))
		if info, err := os.Stat(p); err == nil { // or it has just gone
			out[run] += info.Size()
		}
	}
	return out
}

// TestChunkRetention: what a run left at the link goes some time after its end, whether
// the link was restarted or not, and what a running one needs stays. Nodes have by then
// what is theirs.
func TestChunkRetention(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	l, said := hostile.New(), new(output)
	heal, waits := func() {}, make(chan struct{})
	runs := 0
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l), ci.LogTo(said), ci.LinkConfig(func(c *link.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		c.Retain, c.Abandoned, c.ReleaseInterval = link.Period(6*time.Hour), link.Period(24*time.Hour), 20*time.Millisecond
	}), ci.Observe(func(e enclave.Event) {
		if e.Kind == "run" {
			runs++
		}
		if e.Kind == "step" && e.Seq == 2 && runs == 2 { // nobody was asked for an ack of it yet
			heal = l.Drop(from("member-c"))
			close(waits)
		}
	}))
	// await waits until what the link has is as wanted.
	await := func(what string, want func(map[string]int64) bool) map[string]int64 {
		t.Helper()
		limit := time.After(time.Minute)
		for {
			have := stored(t, f)
			if want(have) {
				return have
			}
			select {
			case <-time.After(20 * time.Millisecond):
			case <-limit:
				t.Fatalf("%s: the link has %v\n%s", what, have, said.lines("link"))
			}
		}
	}
	// noted waits until the link knows that a run has ended.
	noted := func(run ci.Digest) {
		t.Helper()
		await("the end of "+run.Short(), func(map[string]int64) bool {
			return strings.Contains(said.lines("link"), `msg="a run has ended" daemon=link federation=`+f.Chain.Federation().Short()+" run="+run.Short())
		})
	}
	joined(t, f.Nodes...)
	req := start(t, f, f.Nodes[0], 2, nil)
	for _, n := range f.Nodes {
		completed(t, f, n, req)
	}
	first := ended(t, f.Nodes[0], req).Run
	// Somebody stores initial arrays under a place of theirs, and asks for no run.
	key := signer(t)
	visitor := hostile.Attach(f.Dial("visitor"), f.Policy, key, f.Credential(f.Members[0], key.Public()))
	t.Cleanup(func() { visitor.Close() })
	place := ci.Digest{1}
	id, sealed := storetest.Chunk(1, 100_000)
	up := visitor.Chunks.Upload(t.Context(), chunkstore.Scope{Federation: f.Chain.Federation(), Run: place, Owner: visitor.ID()})
	if err := errors.Join(up.Add(id, sealed), up.Close()); err != nil {
		t.Fatal(err)
	}
	full := stored(t, f)
	if len(full) != 2 || full[first.String()] == 0 || full[place.String()] == 0 {
		t.Fatalf("after the first run the link has %v", full)
	}

	// A second run waits for an ack that does not come yet.
	req = start(t, f, f.Nodes[0], 2, nil)
	<-waits
	noted(first)
	ahead.Add(int64(7 * time.Hour))
	have := await("7 hours later", func(m map[string]int64) bool { return m[first.String()] == 0 })
	var running string
	for run := range have {
		if full[run] == 0 {
			running = run
		}
	}
	if len(have) != 2 || running == "" {
		t.Fatalf("with the first run the link gave up more: %v", have)
	}
	heal()
	f.RestartLink()
	for _, n := range f.Nodes {
		completed(t, f, n, req)
	}
	verifies(t, f, f.Nodes[0], first)
	second := ended(t, f.Nodes[1], req).Run
	verifies(t, f, f.Nodes[1], second)
	if second.String() != running {
		t.Errorf("the link has chunks of %s, not of the second run %s", running, second)
	}
	noted(second)
	ahead.Add(int64(7 * time.Hour))
	await("7 hours after the second run", func(m map[string]int64) bool { return m[running] == 0 && len(m) == 1 })
	// Of what lies in a place no run says how long.
	ahead.Add(int64(20 * time.Hour))
	await("a day after somebody used it", func(m map[string]int64) bool { return len(m) == 0 })
}
