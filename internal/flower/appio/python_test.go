package appio_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/internal/flower"
	"github.com/concordat/concordat/internal/flower/grpcapp"
	"github.com/concordat/concordat/internal/flower/httpapp"
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

// serve serves an app, and returns the address that its process is given.
func serve(t *testing.T, c flower.Config, runtime bool) (app *flower.App, address string) {
	t.Helper()
	app, err := flower.NewApp(c)
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	serve := grpcapp.Serve
	if runtime {
		serve = httpapp.Serve
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		address = l.Addr().String()
	} else {
		dir, err := os.MkdirTemp("", "app") // t.TempDir is too long a name for a socket
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		if l, err = net.Listen("unix", filepath.Join(dir, "s")); err != nil {
			t.Fatal(err)
		}
		address = "unix://" + l.Addr().String()
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, l, app) }()
	t.Cleanup(func() {
		app.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return app, address
}

func instruct(t *testing.T, app *flower.App, typ string, content object.RecordDict) (*flower.Reply, error) {
	t.Helper()
	objects, err := object.Objects(content)
	if err != nil {
		t.Fatal(err)
	}
	byID := map[object.ID][]byte{}
	for _, o := range objects {
		byID[o.ID] = o.Raw
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return app.Do(ctx, flower.Instruction{Type: typ, Round: 1, Content: objects[len(objects)-1].ID, Get: func(id object.ID) ([]byte, error) {
		if raw, ok := byID[id]; ok {
			return raw, nil
		}
		return nil, errors.New("unknown object")
	}})
}

// An unmodified flwr-clientapp against the server of its dialect: CONCORDAT_FLWR names
// the folder that holds the executable.
func TestUnmodifiedFlower(t *testing.T) {
	dir := os.Getenv("CONCORDAT_FLWR")
	if dir == "" {
		t.Skip("CONCORDAT_FLWR is not set: no flwr-clientapp to test with")
	}
	help, err := exec.Command(filepath.Join(dir, "flwr-clientapp"), "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	runtime, flag := bytes.Contains(help, []byte("Runtime API")), "--runtime-api-address"
	if !bytes.Contains(help, []byte(flag)) { // until 1.35
		flag = "--clientappio-api-address"
	}
	config := flower.Config{
		RunID: 1<<63 + 5, NodeID: 1<<63 + 9, FabID: "concordat/probe", FabVersion: "1.0.0", Fab: bundle(t),
		NodeConfig: map[string]any{"part": int64(3)}, RunConfig: map[string]any{"lr": 0.25},
	}
	home := t.TempDir()
	start := func(raises bool) *flower.App {
		app, address := serve(t, config, runtime)
		cmd := exec.Command(filepath.Join(dir, "flwr-clientapp"), "--insecure", flag, address, "--token", app.Token())
		cmd.Env = append(os.Environ(), "FLWR_HOME="+home, "FLWR_TELEMETRY_ENABLED=0", "FLWR_DISABLE_UPDATE_CHECK=1")
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			// From 1.37 on at the latest, a process whose app raised says so by its exit status.
			var exit *exec.ExitError
			if err := cmd.Wait(); err != nil && !(raises && runtime && errors.As(err, &exit)) {
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
		app := start(false)
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

	app := start(true)
	_, err = instruct(t, app, "evaluate", content)
	f, ok := err.(*flower.Failure)
	if !ok || f.Code != flower.CodeRaised || f.Type != "ZeroDivisionError" || !strings.Contains(f.LocalText(), "4711") || strings.Contains(f.Error(), "4711") {
		t.Errorf("got %v, want a failure of type ZeroDivisionError", err)
	}
	finished(app)
}
