package interop

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/internal/flower/superlink"
)

// sameNodes is the number of partitions of testdata/same.
const sameNodes = 3

// TestSame runs one app, whose ClientApps are deterministic, with Flower's own SuperLink
// and SuperNodes and on Concordat, by the same command. Flower averages replies in the
// order in which they come, and a sum of floats depends on it: the app's ServerApp sorts
// them by the ids of Concordat's nodes, which is the order of the enclave. What comes out
// of both is the same, byte for byte.
func TestSame(t *testing.T) {
	for _, env := range environments(t) {
		if _, err := superlink.Version(env); err == nil {
			t.Run(filepath.Base(env), func(t *testing.T) { same(t, env) })
			return // one will do: Flower's FedAvg is the same in all
		}
	}
	t.Skip("NOT TESTED against Flower's own server: of these versions package superlink starts none")
}

func same(t *testing.T, env string) {
	u := newUser(t, env)
	app, err := filepath.Abs(filepath.Join("testdata", "same"))
	if err != nil {
		t.Fatal(err)
	}
	file, digest := u.build(app)
	f, approve := u.federation(digest, [3]string{env, env, env}, nil)
	approve(file)

	u.connections("my-node", u.address, "superlink", u.superlink().Address())
	nodes := order(f)
	// Each run writes into a folder of its own, so that none is taken for another. Most of
	// the SuperLink's time is waiting: both run at once.
	here, there := t.TempDir(), t.TempDir()
	run := func(connection, results string) (string, bool) {
		begin := time.Now()
		out, ok := u.run(filepath.Join(env, "bin", "flwr"), "run", app, connection, "--stream", "-c", fmt.Sprintf("order=%q results=%q", nodes, results))
		return fmt.Sprintf("%s: %.1f s:\n%s", connection, time.Since(begin).Seconds(), out), ok
	}
	type result struct {
		out string
		ok  bool
	}
	reference := make(chan result, 1)
	go func() {
		out, ok := run("superlink", there)
		reference <- result{out, ok}
	}()
	out, ok := run("my-node", here)
	r := <-reference
	t.Logf("%s\n%s", out, r.out)
	if !ok || !r.ok || !strings.Contains(out, "Run completed.") {
		t.Fatal("a run did not complete")
	}

	if left, err := os.ReadDir(here); err != nil || len(left) != 0 {
		t.Fatalf("on Concordat, code of the ServerApp after its first message ran: %v, %v", left, err)
	}
	ours := u.model(f, out)
	theirs, backwards := written(t, filepath.Join(there, "arrays.npz")), written(t, filepath.Join(there, "backwards.npz"))

	if a, b := slices.Sorted(maps.Keys(ours)), slices.Sorted(maps.Keys(theirs)); !slices.Equal(a, b) || len(a) < 8 {
		t.Fatalf("arrays %q, Flower has %q", a, b)
	}
	for name, want := range theirs {
		if !bytes.Equal(ours[name], want) {
			t.Errorf("array %s: %s; Flower has %s", name, described(ours[name]), described(want))
		}
	}
	// What Flower makes of the same last replies in another order is not the same: the
	// comparison above would have noticed.
	if bytes.Equal(ours["dense.weight"], backwards["dense.weight"]) {
		t.Error("the order of replies made no difference: this test would not notice a wrong one")
	}
}

// order is that of the enclave's inputs: the numbers of the nodes, by their ids.
func order(f *ci.Federation) string {
	numbers := make([]int, len(f.Nodes))
	for i := range numbers {
		numbers[i] = i
	}
	slices.SortFunc(numbers, func(a, b int) int {
		x, y := f.Nodes[a].Signer.Public().ID(), f.Nodes[b].Signer.Public().ID()
		return bytes.Compare(x[:], y[:])
	})
	return strings.Trim(fmt.Sprint(numbers), "[]")
}

// superlink starts Flower's own server and nodes, and stops them when the test ends.
func (u *user) superlink() *superlink.Federation {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), time.Minute)
	defer cancel()
	cfg := superlink.Config{Environment: u.env, Dir: u.t.TempDir()}
	for i := range sameNodes {
		cfg.Nodes = append(cfg.Nodes, map[string]any{"partition-id": i})
	}
	f, err := superlink.Start(ctx, cfg)
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() {
		f.Stop()
		if u.t.Failed() {
			var said strings.Builder
			if err := f.Log(&said); err != nil {
				u.t.Error(err)
			}
			u.t.Log(said.String())
		}
	})
	return f
}

// entries returns the .npy files of an .npz, by the names of the arrays.
func entries(t *testing.T, file string) map[string][]byte {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	all := make(map[string][]byte)
	for _, e := range z.File {
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(e.Name, ".npy")] = b
	}
	return all
}

// written reads what the ServerApp wrote: each array's own .npy, as an array of bytes.
func written(t *testing.T, file string) map[string][]byte {
	t.Helper()
	all := entries(t, file)
	for name, b := range all {
		h, err := object.ParseNPY(b)
		if err != nil || h.Descr != "|u1" {
			t.Fatalf("%s: %s: %+v, %v", file, name, h, err)
		}
		all[name] = b[h.HeaderSize:]
	}
	return all
}

// described says what an .npy file is.
func described(npy []byte) string {
	h, err := object.ParseNPY(npy)
	if err != nil {
		return fmt.Sprintf("%d bytes: %v", len(npy), err)
	}
	return fmt.Sprintf("%s%v, Fortran order %v, %d bytes: %.80x", h.Descr, h.Shape, h.Fortran, len(npy), npy[h.HeaderSize:])
}
