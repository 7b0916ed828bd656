package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/chunkstore/object"
	"github.com/concordat/concordat/policy"
)

// tellingNode is a node that tells of one completed and one failed run.
type tellingNode struct {
	concordatv1.UnimplementedControlServer
	started  *concordatv1.StartRunRequest
	approved *concordatv1.App
	stopped  []byte
	signers  *policy.Policy // that names them
}

var (
	runA, requestA = bytes.Repeat([]byte{0xa1}, 32), bytes.Repeat([]byte{0xa2}, 32)
	runB, requestB = bytes.Repeat([]byte{0xb1}, 32), bytes.Repeat([]byte{0xb2}, 32)
)

func (n *tellingNode) StartRun(in grpc.ClientStreamingServer[concordatv1.StartRunRequest, concordatv1.StartRunResponse]) (err error) {
	if n.started, err = in.Recv(); err != nil {
		return err
	}
	for {
		more, err := in.Recv()
		if err == io.EOF {
			return in.SendAndClose(&concordatv1.StartRunResponse{Request: requestA})
		} else if err != nil {
			return err
		}
		n.started.Initial = append(n.started.Initial, more.GetInitial()...)
	}
}

var told = []*concordatv1.WatchRunsResponse{
	{Event: "joined"},
	{Event: "requested", Request: requestA},
	{Event: "started", Run: runA, Request: requestA, Inputs: 3},
	{Event: "step", Run: runA, Request: requestA, Seq: 1, Round: 1, Opens: "train", BytesMoved: 100},
	{Event: "contributed", Run: runA, Seq: 1, BytesMoved: 50},
	{Event: "requested", Request: requestB},
	{Event: "step", Run: runA, Request: requestA, Seq: 2, Round: 1, Opens: "evaluate", Inputs: 2, Excluded: 1, Metrics: map[string]float64{"loss": 0.9}, BytesMoved: 100},
	{Event: "started", Run: runB, Request: requestB},
	{Event: "step", Run: runA, Request: requestA, Seq: 3, Round: 2, Opens: "train", Inputs: 3, Metrics: map[string]float64{"loss": 0.5, "accuracy": 0.75}, BytesMoved: 20, BytesSaved: 7},
	{Event: "ack-refused", Run: runB, Reason: "it would show the difference"},
	{Event: "step", Run: runA, Request: requestA, Seq: 4, Round: 2, Opens: "none", Inputs: 3, Metrics: map[string]float64{"loss": 0.25}, BytesMoved: 1024},
	{Event: "ended", Run: runA, Request: requestA, Seq: 4, Outcome: "completed"},
	{Event: "ended", Run: runB, Request: requestB, Outcome: "failed", Reason: "policy"},
}

func (n *tellingNode) WatchRuns(q *concordatv1.WatchRunsRequest, out grpc.ServerStreamingServer[concordatv1.WatchRunsResponse]) error {
	runs := map[string]string{string(requestA): string(runA), string(requestB): string(runB)}
	for _, e := range told {
		r := string(q.GetRequest())
		if r == "" || string(e.GetRequest()) == r || string(e.GetRun()) == runs[r] {
			if err := out.Send(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *tellingNode) GetBundle(q *concordatv1.GetBundleRequest, out grpc.ServerStreamingServer[concordatv1.GetBundleResponse]) error {
	if !bytes.Equal(q.GetRun(), runA) {
		return status.Error(codes.NotFound, "run has no bundle")
	}
	for _, piece := range []string{"bun", "dle"} {
		if err := out.Send(&concordatv1.GetBundleResponse{Data: []byte(piece)}); err != nil {
			return err
		}
	}
	return nil
}

// listening returns a node that is served on a socket.
func listening(t *testing.T) (n *tellingNode, address string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "control") // t.TempDir is too long a name for a socket
	if err != nil {
		t.Fatal(err)
	}
	address = unixPrefix + filepath.Join(dir, "s")
	l, release, err := listenControl(address)
	if err != nil {
		t.Fatal(err)
	}
	n = &tellingNode{}
	s, done := grpc.NewServer(), make(chan error, 1)
	concordatv1.RegisterControlServer(s, n)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
		release()
		if err := os.Remove(dir); err != nil {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return n, address
}

// controlled returns a node that is served on a socket, and a function that runs a
// command against it.
func controlled(t *testing.T) (*tellingNode, func(args ...string) (string, error)) {
	t.Helper()
	n, address := listening(t)
	return n, func(args ...string) (string, error) {
		root := newRootCommand()
		var out bytes.Buffer
		root.SetOut(&out)
		root.SetErr(&out)
		command := "run"
		if args[0] == "node" {
			command, args = args[0], args[1:]
		}
		root.SetArgs(append(append([]string{command}, args...), "--control", address))
		err := root.ExecuteContext(t.Context())
		return out.String(), err
	}
}

func TestRunCommands(t *testing.T) {
	t.Parallel()
	n, run := controlled(t)
	app := strings.Repeat("1e", 32)
	a, b := hex.EncodeToString(runA), hex.EncodeToString(requestB)

	out, err := run("start", "--app", app, "--rounds", "2", "-c", "epochs=5", "--member", "b", "--member", "a", "--zeros", "w=float32[2,3]")
	if err != nil || !strings.HasPrefix(out, "requested a2a2") {
		t.Errorf("start: %q, %v", out, err)
	}
	if q := n.started; hex.EncodeToString(q.GetApp()) != app || q.GetRounds() != 2 || q.GetStrategy() != "fedavg" || q.GetConfig()["epochs"] != "5" || fmt.Sprint(q.GetCohort()) != "[a b]" || len(q.GetInitial()) == 0 {
		t.Errorf("asked for %v", q)
	}
	out, err = run("start", "--app", app, "--zeros", "w=float32[]", "--wait")
	if want := "run " + a + ` started
round   1  2 contributions (1 excluded)  loss 0.5000  accuracy 0.7500  moved 270 B  saved 7 B
round   2  3 contributions  loss 0.2500  moved 1.0 KiB  saved 0 B
completed: 2 rounds
`; err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("start --wait: %v\n%s", err, out)
	}
	if out, err := run("watch", b[:4]); err == nil || err.Error() != "run failed: it would show the difference" || !strings.Contains(out, "started") {
		t.Errorf("watch of a failed run: %q, %v", out, err)
	}
	out, err = run("watch", a[:4], "--output", "json")
	if lines := strings.Count(out, "\n"); err != nil || lines != 8 || !strings.Contains(out, `"outcome":"completed"`) {
		t.Errorf("watch --output json: %d lines, %v\n%s", lines, err, out)
	}
	out, err = run("list")
	if err != nil || strings.Count(out, "\n") != 3 || !strings.Contains(out, "completed  2") || !strings.Contains(out, "it would show the difference") {
		t.Errorf("list: %v\n%s", err, out)
	}
	var v struct{ Runs []struct{ Run, State string } }
	if out, err = run("list", "--output", "json"); err != nil || json.Unmarshal([]byte(out), &v) != nil || len(v.Runs) != 2 || v.Runs[0].Run != a || v.Runs[1].State != "failed" {
		t.Errorf("list --output json: %v\n%s", err, out)
	}
	for prefix, want := range map[string]string{"ff": "knows no run ff", "": "knows no run"} {
		if _, err := run("watch", prefix); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("watch %q: %v", prefix, err)
		}
	}
}

func (n *tellingNode) Deny(_ context.Context, q *concordatv1.DenyRequest) (*concordatv1.DenyResponse, error) {
	if string(q.GetDenial()) != "denial" {
		return nil, status.Error(codes.InvalidArgument, "node: no denial")
	}
	return &concordatv1.DenyResponse{Digest: runA, Member: "lab-b", Kind: "app", Value: []byte{0xab}, Logged: true}, nil
}

func TestNodeDeny(t *testing.T) {
	t.Parallel()
	_, run := controlled(t)
	path := filepath.Join(t.TempDir(), "denial")
	if err := os.WriteFile(path, []byte("denial"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run("node", "deny", path); err != nil || out != "lab-b denies app ab\nthe log shows it already\n" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run("node", "deny", path, "--output", "json"); err != nil || !strings.Contains(out, `"logged": true`) {
		t.Errorf("%q, %v", out, err)
	}
	if err := os.WriteFile(path, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := run("node", "deny", path); err == nil || err.Error() != "node: no denial" {
		t.Errorf("%v", err)
	}
}

func TestRunBundle(t *testing.T) {
	t.Parallel()
	_, run := controlled(t)
	path := filepath.Join(t.TempDir(), "bundle")
	if out, err := run("bundle", "a1", "-o", path); err != nil || !strings.HasPrefix(out, "wrote "+path+" (6 B)") {
		t.Errorf("%q, %v", out, err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "bundle" {
		t.Errorf("%q, %v", b, err)
	}
	// What cannot be fetched leaves the file that is there alone.
	if _, err := run("bundle", "b1", "-o", path); err == nil || !strings.Contains(err.Error(), "run has no bundle") {
		t.Errorf("%v", err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
	if _, err := run("model", "a1", "-o", path+"2"); err == nil {
		t.Error("a model that the node does not have was written")
	}
	if _, err := os.Stat(path + "2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file was left")
	}
}

func TestControlSocket(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	if err := os.WriteFile(path, nil, 0o644); err != nil { // as a killed node's
		t.Fatal(err)
	}
	_, release, err := listenControl(unixPrefix + path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, _, err := listenControl(unixPrefix + path); err == nil || !strings.Contains(err.Error(), "another node answers") {
		t.Errorf("two nodes on one socket: %v", err)
	}
	release()
	if files, _ := os.ReadDir(dir); len(files) != 0 {
		t.Errorf("left: %v", files)
	}
	for _, bad := range []string{"", "127.0.0.1:1", "unix://relative", unixPrefix + "/" + strings.Repeat("x", maxSocketPath)} {
		if _, _, err := listenControl(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
		if _, _, err := dialControl(bad); err == nil {
			t.Errorf("%q dialled", bad)
		}
	}
}

// initialArrays returns the arrays of a model that was handed over object by object.
func initialArrays(npz string, zeros ...string) (object.ArrayRecord, error) {
	m, err := newInitialModel(npz, zeros)
	if err != nil {
		return nil, err
	}
	byID := map[object.ID][]byte{}
	var last object.ID
	if err := m.objects(func(raw []byte) error { last = object.Sum(raw); byID[last] = bytes.Clone(raw); return nil }); err != nil {
		return nil, err
	}
	v, err := object.Inflate(last, func(id object.ID) ([]byte, error) { return byID[id], nil }, object.Limits{Objects: 100, Bytes: 64 << 20})
	if err != nil {
		return nil, err
	}
	return v.(object.RecordDict).Get("arrays").(object.ArrayRecord), nil
}

func TestInitialArrays(t *testing.T) {
	t.Parallel()
	arrays, err := initialArrays("", "weights=float64[30]", "bias=float64[]", "none=float16[0,4]")
	if err != nil {
		t.Fatal(err)
	}
	if len(arrays) != 3 || arrays[0].Name != "weights" || fmt.Sprint(arrays[0].Array.Shape) != "[30]" || arrays[1].Array.DType != "float64" {
		t.Errorf("%+v", arrays)
	}
	for _, z := range []string{"", "w", "w=float64", "=float64[1]", "w=int8[1]", "w=float64[1", "w=float64[-1]", "w=float64[x]", "w=float64[1,]",
		"w=float64[4294967296]", "w=float64[2147483647,2147483647]"} {
		if _, err := newInitialModel("", []string{z}); err == nil {
			t.Errorf("--zeros %q accepted", z)
		}
	}
	if _, err := newInitialModel("", nil); err == nil {
		t.Error("no model accepted")
	}
	if _, err := newInitialModel("x.npz", []string{"w=float64[1]"}); err == nil {
		t.Error("two models accepted")
	}
}

func FuzzZeroArray(f *testing.F) {
	for _, s := range []string{"w=float32[10,3]", "b=float64[]", "x=float16[0]", "=[", "a=float64[9999999,9999999,0]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		z, err := parseZeros(s)
		if err != nil {
			return
		}
		if n, err := z.header.DataSize(); err != nil || n < 0 || z.name == "" {
			t.Errorf("%q makes %d bytes, %v", s, n, err)
		}
	})
}
