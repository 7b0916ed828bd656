package grpcapp_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
)

// bundle is a Flower app bundle with one ClientApp: "train" doubles the arrays
// and counts its calls in the context's state, "evaluate" raises.
func bundle(t *testing.T) []byte {
	t.Helper()
	files := []struct{ name, text string }{
		{"pyproject.toml", `[project]
name = "probe"
version = "1.0.0"

[tool.flwr.app]
publisher = "concordat"

[tool.flwr.app.components]
serverapp = "probe.client:app"
clientapp = "probe.client:app"
`},
		{"probe/__init__.py", ""},
		{"probe/client.py", `from flwr.app import ArrayRecord, Array, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg, context):
    calls = context.state["calls"]["n"] if "calls" in context.state else 0
    context.state["calls"] = ConfigRecord({"n": calls + 1})
    doubled = ArrayRecord({k: Array(2 * v.numpy()) for k, v in msg.content["arrays"].items()})
    metrics = MetricRecord(
        {"num-examples": 5, "calls": calls + 1, "lr": context.run_config["lr"], "node": context.node_config["part"]}
    )
    return Message(content=RecordDict({"arrays": doubled, "metrics": metrics}), reply_to=msg)


@app.evaluate()
def evaluate(msg, context):
    raise ZeroDivisionError("patient 4711")
`},
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	var content []string
	add := func(name, text string) {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		add(f.name, f.text)
		content = append(content, fmt.Sprintf("%s,%x,%d", f.name, sha256.Sum256([]byte(f.text)), 8*len(f.text)))
	}
	add(".info/CONTENT", strings.Join(content, "\n"))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An unmodified flwr-clientapp against this server: CONCORDAT_FLWR names the
// folder that holds the executable (flwr 1.26 to 1.29).
func TestUnmodifiedFlower(t *testing.T) {
	dir := os.Getenv("CONCORDAT_FLWR")
	if dir == "" {
		t.Skip("CONCORDAT_FLWR is not set: no flwr-clientapp to test with")
	}
	config := flower.Config{
		RunID: 1<<63 + 5, NodeID: 1<<63 + 9, FabID: "concordat/probe", FabVersion: "1.0.0", Fab: bundle(t),
		NodeConfig: map[string]any{"part": int64(3)}, RunConfig: map[string]any{"lr": 0.25},
	}
	home := t.TempDir()
	start := func() *flower.App {
		app, address := serve(t, config)
		cmd := exec.Command(filepath.Join(dir, "flwr-clientapp"), "--insecure", "--clientappio-api-address", address, "--token", app.Token())
		cmd.Env = append(os.Environ(), "FLWR_HOME="+home, "FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1")
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			if err := cmd.Wait(); err != nil {
				t.Errorf("flwr-clientapp: %v", err)
			}
		})
		return app
	}
	finished := func(app *flower.App) {
		t.Helper()
		select {
		case <-app.Done():
		case <-time.After(time.Minute):
			t.Fatal("flwr-clientapp did not push its outputs")
		}
	}

	npy := object.NPY{Descr: "|u1", Shape: []int{6 << 20}} // two chunks
	data := bytes.Repeat([]byte{1, 2, 3}, 2<<20)
	a, err := object.NewArray(npy, data)
	if err != nil {
		t.Fatal(err)
	}
	content := object.RecordDict{{Name: "arrays", Record: object.ArrayRecord{{Name: "w", Array: a}}}}
	for call := 1; call <= 2; call++ { // the second process gets the first one's state
		app := start()
		r, err := instruct(t, app, "train", content)
		if err != nil {
			t.Fatal(err)
		}
		m, ok := r.Content.Get("metrics").(object.MetricRecord)
		if !ok || m.Get("calls") != object.Sint(call) || m.Get("lr") != object.Double(0.25) || m.Get("node") != object.Sint(3) {
			t.Errorf("call %d: metrics %v", call, m)
		}
		// The app's process wrote the bytes that our writer writes.
		double, err := object.NewArray(npy, bytes.Repeat([]byte{2, 4, 6}, 2<<20))
		if err != nil {
			t.Fatal(err)
		}
		objects, err := object.Objects(object.RecordDict{{Name: "arrays", Record: object.ArrayRecord{{Name: "w", Array: double}}}, {Name: "metrics", Record: m}})
		if err != nil {
			t.Fatal(err)
		}
		if r.Root != objects[len(objects)-1].ID {
			t.Errorf("call %d: Flower's objects are not ours", call)
		}
		finished(app)
		config.State = app.State()
	}

	app := start()
	_, err = instruct(t, app, "evaluate", content)
	f, ok := err.(*flower.Failure)
	if !ok || f.Code != flower.CodeRaised || f.Type != "ZeroDivisionError" || !strings.Contains(f.LocalText(), "4711") || strings.Contains(f.Error(), "4711") {
		t.Errorf("got %v, want a failure of type ZeroDivisionError", err)
	}
	finished(app)
}
