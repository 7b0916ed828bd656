package ci_test

import (
	"archive/zip"
	"bytes"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/ci"
	"github.com/concordat/concordat/ci/hostile"
	"github.com/concordat/concordat/node"
)

// large is a request for a run from a model of more than a chunk: it fits no message.
func large(t *testing.T, f *ci.Federation) node.RunRequest {
	t.Helper()
	objects, err := ci.Arrays(map[string][]float64{"w": make([]float64, 1<<20), "b": {0}})
	if err != nil {
		t.Fatal(err)
	}
	return node.RunRequest{App: f.App(), Strategy: "fedavg", Rounds: 2, Objects: func(add func([]byte) error) error {
		for _, raw := range objects {
			if err := add(raw); err != nil {
				return err
			}
		}
		return nil
	}}
}

// TestLargeInitialModel: a model that fits no message is stored at the link, sealed, and
// the run goes on from it, also if the enclave is lost before it began.
func TestLargeInitialModel(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"undisturbed": false, "enclave lost": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMoments()
			f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Observe(m.observe))
			joined(t, f.Nodes...)
			req, err := f.Nodes[0].Node.StartRun(t.Context(), large(t, f))
			if err != nil {
				t.Fatal(err)
			}
			if lost {
				m.await(t, "run", 0)
				if err := f.Enclave.Stop(); err != nil {
					t.Fatal(err)
				}
				f.StartEnclave(f.Machine, nil, nil)
				e := f.Nodes[0].Await(t, "end or refusal", func(e node.Event) bool { return e.Request == req && (e.Kind == "ended" || e.Kind == "refused") })
				if e.Outcome == "completed" {
					verifies(t, f, f.Nodes[0], e.Run)
				}
				return // what matters is that nobody waits for ever: see TestEnclaveLostEarly
			}
			for _, n := range f.Nodes {
				completed(t, f, n, req)
				run := ended(t, n, req).Run
				verifies(t, f, n, run)
				w := readArray(t, filepath.Join(filepath.Dir(f.BundleOf(n, run)), "model.npz"), "w")
				if len(w) != 1<<20 || w[0] != 2 || w[1<<20-1] != 2 {
					t.Errorf("%s: %d values, %v to %v; want 2 after two rounds of adding one", n.Name, len(w), w[0], w[len(w)-1])
				}
			}
		})
	}
}

// TestInitialModelFromLink: what the link makes of a stored model starts no run.
func TestInitialModelFromLink(t *testing.T) {
	t.Parallel()
	l := hostile.New()
	f := ci.StartFederation(t, ci.Policy(trainOnly), ci.Through(l))
	joined(t, f.Nodes...)
	first := chunkstore.ID{} // the manifest, which stays as it is
	heal := l.Substitute(func(r hostile.Read) []byte {
		if r.Party != "enclave" || first == (chunkstore.ID{}) || r.ID == first {
			first = r.ID
			return r.Data
		}
		b := bytes.Clone(r.Data)
		b[len(b)/2] ^= 1
		return b
	})
	req, err := f.Nodes[0].Node.StartRun(t.Context(), large(t, f))
	if err != nil {
		t.Fatal(err)
	}
	e := f.Nodes[0].Await(t, "refusal", func(e node.Event) bool { return e.Request == req && (e.Kind == "refused" || e.Kind == "started") })
	if e.Kind != "refused" || !strings.Contains(e.Reason, "invalid") {
		t.Errorf("%s %s", e.Kind, e.Reason)
	}
	heal()
	if req, err = f.Nodes[0].Node.StartRun(t.Context(), large(t, f)); err != nil {
		t.Fatal(err)
	}
	completed(t, f, f.Nodes[0], req)
}

// readArray returns one array of an archive.
func readArray(t *testing.T, file, name string) []float64 {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	r, err := z.Open(name + ".npy")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ci.Values(&object.Array{Chunks: object.SplitChunks(b)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
