package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/enclave/aggregate"
	"github.com/concordat/concordat/examples/breast-cancer/model"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/grpcapp"
)

// TestMain lets the test binary be the program, so that the tests start real
// processes.
func TestMain(m *testing.M) {
	if os.Getenv("BREAST_CANCER_RUN_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // t.Context ends before processes are waited for
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "BREAST_CANCER_RUN_MAIN=1")
	cmd.Stderr = t.Output()
	return cmd
}

// start runs one app process behind a Unix socket of its own, as a node does.
func start(t *testing.T, c flower.Config, args ...string) *flower.App {
	t.Helper()
	app, err := flower.NewApp(c)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "app") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- grpcapp.Serve(ctx, l, app) }()

	cmd := command(t, append([]string{"--insecure", "--clientappio-api-address", "unix://" + socket, "--token", app.Token()}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		app.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("app process: %v", err)
		}
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return app
}

// instruct sends one message and returns the reply.
func instruct(t *testing.T, app *flower.App, typ string, round uint64, content object.RecordDict) (*flower.Reply, error) {
	t.Helper()
	objects, err := object.Objects(content)
	if err != nil {
		t.Fatal(err)
	}
	byID := map[object.ID][]byte{}
	for _, o := range objects {
		byID[o.ID] = o.Raw
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return app.Do(ctx, flower.Instruction{Type: typ, Round: round, Content: objects[len(objects)-1].ID,
		Get: func(id object.ID) ([]byte, error) {
			if b, ok := byID[id]; ok {
				return b, nil
			}
			return nil, errors.New("unknown object")
		}})
}

// npyOf returns the bytes of one array of a reply.
func npyOf(t *testing.T, r *flower.Reply, name string) []byte {
	t.Helper()
	arrays, ok := r.Content.Get(arraysKey).(object.ArrayRecord)
	if !ok {
		t.Fatal("reply without arrays")
	}
	for _, it := range arrays {
		if it.Name != name {
			continue
		}
		var b []byte
		for _, c := range it.Array.Chunks {
			h, err := object.ParseHead(r.Objects[c.ID])
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, h.Body...)
		}
		return b
	}
	t.Fatalf("reply without array %q", name)
	return nil
}

// Ten rounds over three hospitals, each a process of its own that keeps its
// rows, aggregated as the enclave does it: within one point of training on all
// rows in one place.
func TestFederation(t *testing.T) {
	var out bytes.Buffer
	dir := t.TempDir()
	cmd := command(t, "partition", "--out", dir)
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	var parts []struct{ Name, File string }
	if err := json.Unmarshal(out.Bytes(), &parts); err != nil || len(parts) != 3 {
		t.Fatalf("partition: %d parts, %v", len(parts), err)
	}
	var central struct{ Accuracy float64 }
	args := []string{"central"}
	var apps []*flower.App
	for i, p := range parts {
		args = append(args, p.File)
		c := flower.Config{RunID: 7, NodeID: uint64(i + 2)}
		if i == 0 { // either way to name the file
			apps = append(apps, start(t, c, "--data", p.File))
		} else {
			c.NodeConfig = map[string]any{"data": p.File}
			apps = append(apps, start(t, c))
		}
	}
	out.Reset()
	cmd = command(t, args...)
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(out.Bytes(), &central); err != nil {
		t.Fatal(err)
	}

	strategy, err := aggregate.New(aggregate.FedAvg, nil)
	if err != nil {
		t.Fatal(err)
	}
	global, err := arraysOf(&model.Model{})
	if err != nil {
		t.Fatal(err)
	}
	var accuracy float64
	for round := uint64(1); round <= 10; round++ {
		task := object.RecordDict{{Name: arraysKey, Record: global}, {Name: configKey, Record: object.ConfigRecord{{Key: "server-round", Value: object.Sint(round)}}}}
		replies, weights, _ := step(t, apps, "train", round, task)
		plan, err := strategy.Plan(aggregate.Step{Round: round, Contributions: weights})
		if err != nil {
			t.Fatal(err)
		}
		next := object.ArrayRecord{}
		for _, it := range global {
			var in []io.Reader
			for _, r := range replies {
				in = append(in, bytes.NewReader(npyOf(t, r, it.Name)))
			}
			var sum bytes.Buffer
			if err := plan.Array(aggregate.Tensor{Name: it.Name, Type: "<f8", Shape: it.Array.Shape}, aggregate.Sources{In: in}, &sum, nil); err != nil {
				t.Fatal(err)
			}
			h, err := object.ParseNPY(sum.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			a, err := object.NewArray(h, sum.Bytes()[h.HeaderSize:])
			if err != nil {
				t.Fatal(err)
			}
			next = append(next, object.ArrayItem{Name: it.Name, Array: a})
		}
		global = next
		_, _, mean := step(t, apps, "evaluate", round, object.RecordDict{{Name: arraysKey, Record: global}})
		accuracy = float64(mean.Get("accuracy").(object.Double))
		t.Logf("round %d: held-out accuracy %.4f, loss %.4f", round, accuracy, mean.Get("loss"))
	}
	t.Logf("central: %.4f", central.Accuracy)
	if central.Accuracy < 0.95 || math.Abs(accuracy-central.Accuracy) > 0.01 {
		t.Errorf("federated %.4f, central %.4f: want within one point, and central at least 0.95", accuracy, central.Accuracy)
	}
}

// step asks every app and returns the replies, their weights and the mean of
// their metrics.
func step(t *testing.T, apps []*flower.App, typ string, round uint64, content object.RecordDict) ([]*flower.Reply, []aggregate.Contribution, object.MetricRecord) {
	t.Helper()
	var replies []*flower.Reply
	var weights []aggregate.Contribution
	var records []object.MetricRecord
	for i, app := range apps {
		r, err := instruct(t, app, typ, round, content)
		if err != nil {
			t.Fatalf("app %d, %s %d: %v", i, typ, round, err)
		}
		m, ok := r.Content.Get(metricsKey).(object.MetricRecord)
		if !ok {
			t.Fatalf("app %d: reply without metrics", i)
		}
		w, err := aggregate.Weigh(m, aggregate.ExamplesKey)
		if err != nil {
			t.Fatal(err)
		}
		replies, weights, records = append(replies, r), append(weights, w), append(records, m)
	}
	mean, err := aggregate.Metrics(weights, aggregate.ExamplesKey, records)
	if err != nil {
		t.Fatal(err)
	}
	return replies, weights, mean
}

// Errors reach the node as code and type name; the text, which may hold data,
// stays. A process that answers once ends after it, and says so.
func TestErrorsAndEnd(t *testing.T) {
	app := start(t, flower.Config{RunID: 7, NodeID: 2}, "--once", "--data", filepath.Join(t.TempDir(), "patient-4711.csv"))
	_, err := instruct(t, app, "train", 1, object.RecordDict{})
	var failed *flower.Failure
	if !errors.As(err, &failed) || failed.Code != flower.CodeRaised || failed.Type != "fs.PathError" {
		t.Fatalf("got %v, want a failure of type fs.PathError", err)
	}
	if strings.Contains(failed.Error(), "4711") || !strings.Contains(failed.LocalText(), "4711") {
		t.Errorf("error %q, local text %q: the text belongs to the latter only", failed, failed.LocalText())
	}
	select {
	case <-app.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("process did not push its outputs")
	}
	if _, err := instruct(t, app, "train", 2, object.RecordDict{}); !errors.Is(err, flower.ErrFinished) {
		t.Errorf("second message: %v, want ErrFinished", err)
	}
}

func TestConfigBounds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		record object.ConfigRecord
		want   model.Config // the zero value: refused
	}{
		"defaults": {nil, model.DefaultConfig},
		"all":      {object.ConfigRecord{{Key: "epochs", Value: object.Sint(3)}, {Key: "rate", Value: object.Double(0.5)}, {Key: "decay", Value: object.Double(0)}, {Key: "server-round", Value: object.Sint(9)}}, model.Config{Epochs: 3, Rate: 0.5}},
		"none":     {object.ConfigRecord{{Key: "epochs", Value: object.Sint(0)}}, model.Config{}},
		"for ever": {object.ConfigRecord{{Key: "epochs", Value: object.Sint(math.MaxInt64)}}, model.Config{}},
		"no rate":  {object.ConfigRecord{{Key: "rate", Value: object.Double(math.NaN())}}, model.Config{}},
		"negative": {object.ConfigRecord{{Key: "decay", Value: object.Double(-1)}}, model.Config{}},
	} {
		got, err := configOf(object.RecordDict{{Name: configKey, Record: c.record}})
		if (err != nil) != (c.want == model.Config{}) || err == nil && got != c.want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestModelRoundTripAndRefusals(t *testing.T) {
	t.Parallel()
	m := &model.Model{Bias: -0.5}
	m.Weights[29] = 3
	good, err := arraysOf(m)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := modelOf(object.RecordDict{{Name: arraysKey, Record: good}}); err != nil || *got != *m {
		t.Errorf("round trip: %v, %v", got, err)
	}
	for name, arrays := range map[string]object.ArrayRecord{
		"none":      {},
		"one":       good[:1],
		"twice":     {good[1], good[1]},
		"unknown":   {good[0], {Name: "gradient", Array: good[1].Array}},
		"exchanged": {{Name: weightsKey, Array: good[1].Array}, {Name: biasKey, Array: good[0].Array}},
	} {
		if _, err := modelOf(object.RecordDict{{Name: arraysKey, Record: arrays}}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
