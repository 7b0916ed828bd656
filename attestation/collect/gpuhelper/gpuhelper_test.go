package gpuhelper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

// fakeName begins the name under which a test starts this binary as a helper.
const fakeName = "fake-"

func TestMain(m *testing.M) {
	if mode, ok := strings.CutPrefix(filepath.Base(os.Args[0]), fakeName); ok {
		// Not os.Exit: the race detector would have every process wait a second.
		syscall.Exit(fake(mode))
	}
	os.Exit(m.Run())
}

// helper returns a helper whose program is this test's binary in the given mode.
func helper(t *testing.T, mode string) Helper {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), fakeName+mode)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return Helper{Path: path, Timeout: 30 * time.Second}
}

// fakeDriver has two GPUs that sign by repeating the nonce.
type fakeDriver struct {
	ready bool
	open  bool // confidential computing is off
	fail  error
}

func (d *fakeDriver) State() (State, error) {
	return State{Driver: "550.90.07", GPUs: 2, Environment: Production, Confidential: !d.open, Ready: d.ready}, nil
}

func (d *fakeDriver) Evidence(i int, nonce [32]byte) (GPU, error) {
	return GPU{Report: append([]byte{byte(i)}, nonce[:]...), Chain: []byte("chain")}, d.fail
}

func (d *fakeDriver) SetReady(ready bool) error { d.ready = ready; return d.fail }

func fake(mode string) int {
	status := func(err error) int {
		if err != nil {
			return 1
		}
		return 0
	}
	print := func(v any) int {
		io.Copy(io.Discard, os.Stdin) // the request, lest whoever writes it be told of a broken pipe
		return status(json.NewEncoder(os.Stdout).Encode(v))
	}
	two := []GPU{{Report: []byte{1}, Chain: []byte{1}}, {Report: []byte{2}, Chain: []byte{2}}}
	s := State{GPUs: 2}
	switch mode {
	case "good":
		return status(Serve(os.Stdin, os.Stdout, &fakeDriver{}))
	case "error":
		return status(Serve(os.Stdin, os.Stdout, &fakeDriver{fail: errors.New("the GPU fell off the bus")}))
	case "unsupported":
		return status(Serve(os.Stdin, os.Stdout, &fakeDriver{fail: fmt.Errorf("no driver: %w", errors.ErrUnsupported)}))
	case "environment":
		if len(os.Args) != 1 || len(os.Environ()) != 0 {
			return print(answer{Version: Version, Error: "it has arguments, or the caller's environment"})
		}
		return status(Serve(os.Stdin, os.Stdout, &fakeDriver{}))
	case "dies":
		fmt.Fprintln(os.Stderr, "symbol lookup error:\n undefined symbol")
		return 127
	case "chatty": // more than a pipe holds, before it answers
		os.Stderr.Write(bytes.Repeat([]byte("warning "), 1<<16))
		return status(Serve(os.Stdin, os.Stdout, &fakeDriver{}))
	case "flood":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<16)); err != nil {
				return 1
			}
		}
	case "orphan": // leaves a process behind that holds its pipes open
		files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
		_, err := os.StartProcess(os.Args[0], []string{fakeName + "hangs"}, &os.ProcAttr{Files: files})
		return status(err)
	case "hangs":
		time.Sleep(20 * time.Second)
	case "answers-and-fails":
		print(answer{Version: Version, State: &s, GPUs: two})
		return 9
	case "two-objects":
		print(answer{Version: Version, State: &s, GPUs: two})
		return print(answer{})
	case "unknown-field":
		io.Copy(io.Discard, os.Stdin)
		fmt.Println(`{"version":1,"verified":true}`)
	case "version":
		return print(answer{Version: 2, State: &s, GPUs: two})
	case "no-state":
		return print(answer{Version: Version, GPUs: two})
	case "one-gpu":
		return print(answer{Version: Version, State: &s, GPUs: two[:1]})
	case "empty-report":
		return print(answer{Version: Version, State: &s, GPUs: []GPU{two[0], {Chain: []byte{1}}}})
	case "large-report":
		return print(answer{Version: Version, State: &s, GPUs: []GPU{two[0], {Report: make([]byte, MaxReport+1), Chain: []byte{1}}}})
	case "large-chain":
		return print(answer{Version: Version, State: &s, GPUs: []GPU{two[0], {Report: []byte{1}, Chain: make([]byte, MaxChain+1)}}})
	case "many-gpus":
		return print(answer{Version: Version, State: &State{GPUs: MaxGPUs + 1}, GPUs: two})
	case "stubborn": // says not ready, whatever it is told
		return print(answer{Version: Version, State: &s})
	}
	return 1
}

var nonces = [][32]byte{{1}, {2}}

func TestHelper(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, mode := range []string{"good", "chatty", "environment"} {
		h := helper(t, mode)
		s, gpus, err := h.Evidence(ctx, nonces)
		if err != nil || !s.Confidential || s.Driver != "550.90.07" || len(gpus) != 2 {
			t.Fatalf("%s: %+v, %d GPUs, %v", mode, s, len(gpus), err)
		}
		for i, g := range gpus {
			if want := append([]byte{byte(i)}, nonces[i][:]...); !bytes.Equal(g.Report, want) || string(g.Chain) != "chain" {
				t.Errorf("%s: GPU %d: %x, want %x", mode, i, g.Report, want)
			}
		}
	}
	h := helper(t, "good")
	if s, err := h.State(ctx); err != nil || s.GPUs != 2 || s.Ready {
		t.Errorf("state %+v, %v", s, err)
	}
	for _, ready := range []bool{true, false} {
		if err := h.SetReady(ctx, ready); err != nil {
			t.Errorf("ready %t: %v", ready, err)
		}
	}
	if err := helper(t, "stubborn").SetReady(ctx, true); err == nil || !strings.Contains(err.Error(), "ready=false") {
		t.Errorf("a driver that does nothing: %v", err)
	}
}

func TestHelperFails(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{
		"error":             "gpu 0: the GPU fell off the bus",
		"unsupported":       "gpu 0: no driver",
		"dies":              "exit status 127: symbol lookup error: undefined symbol",
		"flood":             "invalid character",
		"answers-and-fails": "exit status 9",
		"two-objects":       "bytes after the object",
		"unknown-field":     `unknown field "verified"`,
		"version":           "protocol version 2, want 1",
		"no-state":          "no state",
		"one-gpu":           "evidence of 1 GPUs, want 2",
		"empty-report":      "gpu 1: report of 0 bytes",
		"large-report":      "gpu 1: report of 8193 bytes, limit 8192",
		"large-chain":       "chain of 5121, limit 5120",
		"many-gpus":         "17 GPUs, want 0 to 16",
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			if mode == "flood" {
				want = "more than 524288 bytes"
			}
			_, _, err := helper(t, mode).Evidence(context.Background(), nonces)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q in it", err, want)
			}
			if got := errors.Is(err, errors.ErrUnsupported); got != (mode == "unsupported") {
				t.Errorf("unsupported: %t", got)
			}
		})
	}
}

func TestHelperStops(t *testing.T) {
	t.Parallel()
	h := helper(t, "hangs")
	h.Timeout = 100 * time.Millisecond
	if _, err := h.State(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after its time: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := helper(t, "hangs").State(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context's end: %v", err)
	}
	// A process of the helper's that holds its pipes open is not waited for.
	h = helper(t, "orphan")
	h.Timeout = time.Second
	began := time.Now()
	if _, err := h.State(context.Background()); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 15*time.Second {
		t.Errorf("orphan: %v after %s", err, time.Since(began))
	}
	if _, err := (Helper{filepath.Join(t.TempDir(), "none"), time.Second}).State(context.Background()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	for _, n := range []int{0, MaxGPUs + 1} {
		if _, _, err := h.Evidence(context.Background(), make([][32]byte, n)); err == nil {
			t.Errorf("%d nonces accepted", n)
		}
	}
}

func TestServeRefuses(t *testing.T) {
	t.Parallel()
	n := strings.Repeat("00", 32)
	for name, request := range map[string]string{
		"nothing":          ``,
		"no JSON":          `state`,
		"two requests":     `{"version":1,"command":"state"}{"version":1,"command":"state"}`,
		"another version":  `{"version":2,"command":"state"}`,
		"unknown command":  `{"version":1,"command":"reset"}`,
		"unknown field":    `{"version":1,"command":"state","gpu":1}`,
		"no nonce":         `{"version":1,"command":"evidence"}`,
		"too few nonces":   `{"version":1,"command":"evidence","nonces":["` + n + `"]}`,
		"short nonce":      `{"version":1,"command":"evidence","nonces":["` + n[2:] + `","` + n + `"]}`,
		"nonce not in hex": `{"version":1,"command":"evidence","nonces":["` + strings.Repeat("zz", 32) + `","` + n + `"]}`,
		"many nonces":      `{"version":1,"command":"evidence","nonces":[` + strings.Repeat(`"`+n+`",`, MaxGPUs) + `"` + n + `"]}`,
		"needless nonces":  `{"version":1,"command":"ready","nonces":["` + n + `"]}`,
		"large":            strings.Repeat(" ", maxIn+1),
	} {
		d := &fakeDriver{}
		var out bytes.Buffer
		err := Serve(strings.NewReader(request), &out, d)
		var a answer
		if derr := json.Unmarshal(out.Bytes(), &a); err == nil || derr != nil || a.Error != err.Error() || a.State != nil || d.ready {
			t.Errorf("%s: %v, answer %s", name, err, out.Bytes())
		}
	}
}

// TestGolden freezes both objects: they are what the programs of one image agree on.
func TestGolden(t *testing.T) {
	t.Parallel()
	q := request{Version: Version, Command: commandEvidence, Nonces: []nonce{{1}, {2}}}
	in, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Serve(bytes.NewReader(in), &out, &fakeDriver{ready: true}); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"request.json": append(in, '\n'), "answer.json": out.Bytes()} {
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %s want %s", name, got, want)
		}
	}
}

// FuzzAnswer: whatever the helper writes is refused, or is within the limits.
func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"request.json", "answer.json"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"version":1,"error":"x","unsupported":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		q := request{Version: Version, Command: commandEvidence, Nonces: make([]nonce, 2)}
		var a answer
		if err := decode(bytes.NewReader(b), maxOut, &a); err != nil || a.check(&q) != nil {
			return
		}
		if a.State == nil || len(a.GPUs) != 2 || len(a.GPUs[0].Report) > MaxReport || len(a.GPUs[1].Chain) > MaxChain {
			t.Errorf("accepted %s", b)
		}
		var r request
		if decode(bytes.NewReader(b), maxIn, &r) == nil && r.check() == nil && len(r.Nonces) > MaxGPUs {
			t.Errorf("accepted %s", b)
		}
	})
}

// TestConfidentialComputingOff: a GPU that could sign and does not says what to do.
func TestConfidentialComputingOff(t *testing.T) {
	t.Parallel()
	request := func(command string, nonces ...string) (answer, error) {
		b, err := json.Marshal(map[string]any{"version": Version, "command": command, "nonces": nonces})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err = Serve(bytes.NewReader(b), &out, &fakeDriver{open: true, fail: errors.New("Unknown Error")})
		var a answer
		if derr := json.Unmarshal(out.Bytes(), &a); derr != nil {
			t.Fatal(derr)
		}
		return a, err
	}
	if a, err := request("state"); err != nil || a.State == nil || a.State.Confidential {
		t.Errorf("state: %v, %+v", err, a)
	}
	n := strings.Repeat("00", 32)
	if a, err := request("evidence", n, n); !errors.Is(err, errors.ErrUnsupported) || !a.Unsupported || !strings.Contains(a.Error, "turn it on at the host") || len(a.GPUs) > 0 {
		t.Errorf("evidence: %v, %+v", err, a)
	}
}
