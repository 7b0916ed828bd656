package journal

import (
	"bytes"
	"errors"
	"io/fs"
	"reflect"
	"testing"

	"github.com/concordat/concordat/attestation"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/durable"
	"github.com/concordat/concordat/internal/durable/faultfs"
	"github.com/concordat/concordat/internal/session"
	"github.com/concordat/concordat/node/atrest"
	"github.com/concordat/concordat/verifier/receipt"
)

func statement(t *testing.T, k *cose.Signer, c *receipt.Chain, run Digest, body any, kind receipt.Kind) *receipt.Statement {
	t.Helper()
	seq, prev := c.Next()
	s := &receipt.Statement{Kind: kind, Federation: Digest{1}, Run: run, Seq: seq, Prev: prev, Policy: Digest{2}, Issuer: receipt.NodeIssuer(k.Public().ID()), Body: body}
	if _, err := receipt.Sign(s, k); err != nil {
		t.Fatal(err)
	}
	if err := c.Extend(s); err != nil {
		t.Fatal(err)
	}
	return s
}

// write makes one record of every kind and returns after how many records it failed.
func write(t *testing.T, j *Journal) (written int, err error) {
	t.Helper()
	k, _ := cose.GenerateSigner(cose.EdDSA)
	c := receipt.NewChain(Digest{})
	offer := &session.RunOffer{Statement: []byte("run"), Request: []byte("request"), Cohort: []byte("cohort"), Config: []byte("config"), Credentials: Digest{3}}
	run := cose.Sum(offer.Statement)
	contribution := statement(t, k, c, run, &receipt.Contribution{Seq: 1, Step: Digest{4}, Manifest: Digest{5}, ChunkRoot: Digest{6}, Count: 1}, receipt.KindContribution)
	ack := statement(t, k, c, run, &receipt.Ack{Seq: 2, Attempt: 1, Step: Digest{7}, Instance: attestation.ID{8}}, receipt.KindAck)
	for _, f := range []func() error{
		func() error { return j.Joined(3, attestation.ID{8}) },
		func() error { return j.Accepted(offer, secretUp) },
		func() error { return j.Downlink(run, secretDown) },
		func() error { return j.Task(run, &session.Task{Step: []byte("step")}) },
		func() error {
			return j.Contributed(contribution, &session.Contribution{Statement: contribution.Raw(), Manifest: session.ManifestRef{Size: 9}})
		},
		func() error { return j.Acked(ack, receipt.Acked{Run: run, Seq: 2, Attempt: 1, Step: Digest{7}}) },
		func() error { return j.Checkpoint([]byte("note")) },
		func() error { return j.Witness([]byte("held")) },
		func() error { return j.Seen("amd-crl/Genoa", 7) },
		func() error { return j.Serve(Served{App: Digest{9}, Model: Digest{10}, Members: []string{"a", "b"}}) },
		func() error { return j.Denied(Denial{Statement: []byte("denial"), Taken: 11}) },
		func() error { return j.Ended(run, []byte("end")) },
		func() error { return j.Archived(run) },
	} {
		if err := f(); err != nil {
			return written, err
		}
		written++
	}
	return written, nil
}

var (
	secretUp   = [32]byte(bytes.Repeat([]byte{0xA5}, 32))
	secretDown = [32]byte(bytes.Repeat([]byte{0x5A}, 32))
)

func state(j *Journal) (s State) {
	j.View(func(st *State) { s = *st })
	return s
}

// open opens the key, and the journal under it.
func open(fsys durable.FS) (*Journal, error) {
	key, err := atrest.Open(fsys, "/node")
	if err != nil {
		return nil, err
	}
	return Open(fsys, "/node", key)
}

func TestReplay(t *testing.T) {
	fsys := faultfs.New()
	if err := durable.MkdirAll(fsys, "/node", 0o700); err != nil {
		t.Fatal(err)
	}
	j, err := open(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write(t, j); err != nil {
		t.Fatal(err)
	}
	before := state(j)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = open(fsys); err != nil {
		t.Fatal(err)
	}
	if after := state(j); !reflect.DeepEqual(before, after) {
		t.Errorf("replayed\n%+v, want\n%+v", after, before)
	}
	run := before.Runs[cose.Sum([]byte("run"))]
	if run == nil || run.Uplink != secretUp || run.Downlink == nil || *run.Downlink != secretDown || len(run.Contributions) != 1 || len(run.Tasks) != 1 {
		t.Errorf("run %+v", run)
	}
	if before.Seq != 2 || len(before.Acked) != 1 || before.Epoch != 3 || before.Collateral["amd-crl/Genoa"] != 7 {
		t.Errorf("state %+v", before)
	}
	// The secrets of a run are on disk under the at-rest key alone.
	raw, err := durable.ReadFile(fsys, "/node/journal", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(raw, secretUp[:]) || bytes.Contains(raw, secretDown[:]) {
		t.Error("the journal holds a run's secret in clear")
	}
}

// TestCrash crashes at every operation of the disk: what was recorded is there again.
func TestCrash(t *testing.T) {
	for n := 1; ; n++ {
		fsys := faultfs.New()
		if err := durable.MkdirAll(fsys, "/node", 0o700); err != nil {
			t.Fatal(err)
		}
		fsys.CrashAt(n)
		written := 0
		j, err := open(fsys)
		if err == nil {
			written, err = write(t, j)
		}
		if err == nil {
			return // every operation was reached
		}
		fsys = fsys.Recover(faultfs.Synced)
		j, err = open(fsys)
		if err != nil {
			t.Fatalf("crash at operation %d: %v", n, err)
		}
		records := 0
		j.View(func(s *State) {
			if s.Epoch != 0 {
				records++
			}
			for _, r := range s.Runs {
				records += 1 + len(r.Tasks) + len(r.Contributions)
				if r.Downlink != nil {
					records++
				}
				if len(r.Ended) > 0 {
					records++
				}
			}
			records += len(s.Acked) + len(s.Checkpoints) + len(s.Ledger) + len(s.Denials) + len(s.Collateral)
			if len(s.Witnessed) > 0 {
				records++
			}
		})
		if records < written {
			t.Fatalf("crash at operation %d: %d records are left of %d that were written", n, records, written)
		}
	}
}

func TestForeignKey(t *testing.T) {
	fsys := faultfs.New()
	if err := durable.MkdirAll(fsys, "/node", 0o700); err != nil {
		t.Fatal(err)
	}
	j, err := open(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write(t, j); err != nil {
		t.Fatal(err)
	}
	j.Close()
	if err := durable.WriteFile(fsys, "/node/at-rest.key", make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(fsys); err == nil {
		t.Error("journal opens under another at-rest key")
	}
	if err := fsys.Remove("/node/at-rest.key"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
