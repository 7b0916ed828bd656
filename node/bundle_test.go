package node

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/cose"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/fab"
	"github.com/concordat/concordat/policy"
	"github.com/concordat/concordat/verifier/receipt"
)

// flowerEnvironment is a folder that looks like a Python environment with flwr.
func flowerEnvironment(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"flwr-clientapp", "flwr-serverapp", "python3"} {
		if err := os.WriteFile(filepath.Join(dir, "bin", name), []byte("#!/bin/false\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "lib", "python3.11", "site-packages", "flwr-1.29.0.dist-info"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func readFAB(t *testing.T) []byte {
	t.Helper()
	raw, err := os.ReadFile("../internal/flower/fab/testdata/flwr-1.29.0.fab")
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestBundleApproval: a node starts nothing of a bundle before its owner has approved it,
// nor once the approval was taken back, nor if the file is another one by then.
func TestBundleApproval(t *testing.T) {
	t.Parallel()
	cfg := Config{Flower: &Flower{Environment: flowerEnvironment(t), NodeConfig: map[string]any{"data": "/rows", "partition-id": uint64(1)}}, Log: slog.New(slog.DiscardHandler)}
	dir := t.TempDir()
	raw := readFAB(t)
	digest := cose.Sum(raw)
	open := func() *apps {
		t.Helper()
		a, err := newApps(cfg, dir, newStates(t, t.TempDir()))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	r := &run{n: &Node{id: Digest{7}}, body: &receipt.Run{App: digest, RunID: 5},
		config: cose.Marshal(map[string]any{"epochs": int64(3), policy.TrainPrefix + "lr": 0.5})}
	a := open()
	if a.installed(digest) {
		t.Error("installed before the approval")
	}
	if _, err := a.program(r); err == nil {
		t.Error("started before the approval")
	}
	if _, err := a.bundles.approve(raw[:len(raw)-1]); !errors.Is(err, fab.ErrBundle) {
		t.Errorf("half a bundle: %v", err)
	}
	if b, err := a.bundles.approve(raw); err != nil || b.Digest != digest {
		t.Fatalf("approve: %v", err)
	}
	for _, a := range []*apps{a, open()} { // approvals outlive a restart
		p, err := a.program(r)
		if err != nil || !a.installed(digest) {
			t.Fatal(err)
		}
		c := p.config
		if c.FabID != "concordat/quickstart" || c.FabVersion != "1.0.0" || cose.Sum(c.Fab) != digest || c.RunID != 5 {
			t.Errorf("app %s %s", c.FabID, c.FabVersion)
		}
		if len(c.RunConfig) != 1 || c.RunConfig["epochs"] != int64(3) || len(p.settings) != 1 || p.settings["lr"] != 0.5 {
			t.Errorf("run config %v, settings %v", c.RunConfig, p.settings)
		}
		if c.NodeConfig["partition-id"] != int64(1) || c.NodeConfig["data"] != "/rows" {
			t.Errorf("node config %v", c.NodeConfig)
		}
		if !strings.HasSuffix(p.start.Command[0], "/bin/flwr-clientapp") || !p.bundle {
			t.Errorf("command %v", p.start.Command)
		}
	}
	// Somebody puts another file in its place.
	changed := append([]byte(nil), raw...)
	changed[200] ^= 1
	if err := os.WriteFile(a.bundles.file(digest), changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.program(r); err == nil || !strings.Contains(err.Error(), "somebody changed it") {
		t.Errorf("a changed bundle: %v", err)
	}
	if _, err := newApps(cfg, dir, newStates(t, t.TempDir())); err == nil {
		t.Error("a node starts with a changed bundle")
	}
	if _, err := a.bundles.approve(raw); err != nil {
		t.Fatal(err)
	}
	if err := a.bundles.revoke(digest); err != nil {
		t.Fatal(err)
	}
	if _, err := a.program(r); err == nil || a.installed(digest) || open().installed(digest) {
		t.Errorf("after the revocation: %v", err)
	}
	if err := a.bundles.revoke(digest); !errors.Is(err, ErrNotApproved) {
		t.Errorf("revoked twice: %v", err)
	}
}

func TestFlowerConfig(t *testing.T) {
	t.Parallel()
	env := flowerEnvironment(t)
	for what, f := range map[string]*Flower{
		"relative":      {Environment: "venv"},
		"not clean":     {Environment: env + "/."},
		"no flwr":       {Environment: t.TempDir()},
		"relative data": {Environment: env, ReadOnly: []string{"data"}},
		"list":          {Environment: env, NodeConfig: map[string]any{"x": []any{1}}},
	} {
		if _, err := openBundles(f, t.TempDir()); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	b, err := openBundles(nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.approve(readFAB(t)); !errors.Is(err, ErrNoFlower) {
		t.Errorf("a node without Flower: %v", err)
	}
}

// A ClientApp gets what Flower's own strategies send: arrays and config, the settings in
// train messages alone, and nothing that the enclave added.
func TestFlowerInstruction(t *testing.T) {
	t.Parallel()
	array, err := object.NewArray(object.NPY{Descr: "<f8", Shape: []int{2}}, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	arrays := object.ArrayRecord{{Name: "w", Array: array}}
	objects, err := object.Objects(object.RecordDict{
		{Name: "arrays", Record: arrays},
		{Name: "config", Record: object.ConfigRecord{{Key: "server-round", Value: object.Sint(2)}}},
		{Name: "metrics", Record: object.MetricRecord{{Key: "loss", Value: object.Double(1)}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	byID := map[object.ID][]byte{}
	for _, o := range objects {
		byID[o.ID] = o.Raw
	}
	settings := map[string]any{"lr": 0.5, "b": true, "i": int64(3), "s": "x"}
	for kind, config := range map[string]object.ConfigRecord{
		"train":    {{Key: "b", Value: object.Bool(true)}, {Key: "i", Value: object.Sint(3)}, {Key: "lr", Value: object.Double(0.5)}, {Key: "s", Value: object.String("x")}, {Key: "server-round", Value: object.Sint(2)}},
		"evaluate": {{Key: "server-round", Value: object.Sint(2)}},
	} {
		in, err := flowerInstruction(flower.Instruction{Type: kind, Round: 2, Content: objects[len(objects)-1].ID, Get: func(id object.ID) ([]byte, error) { return lookup(byID, id) }}, settings)
		if err != nil {
			t.Fatal(err)
		}
		want, err := object.Objects(object.RecordDict{{Name: "arrays", Record: arrays}, {Name: "config", Record: config}})
		if err != nil {
			t.Fatal(err)
		}
		if in.Content != want[len(want)-1].ID {
			t.Errorf("%s: content is not what Flower would send", kind)
		}
		for _, o := range want {
			if raw, err := in.Get(o.ID); err != nil || object.Sum(raw) != o.ID {
				t.Errorf("%s: an object is missing: %v", kind, err)
			}
		}
	}
}
