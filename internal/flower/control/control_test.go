package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/internal/flower/control/auth"
	"github.com/concordat/concordat/internal/flower/fab"
)

// script is a node whose runs do what the test says.
type script struct {
	refuse error
	jobs   chan *Job
	end    chan error // one value a run
	left   []Result   // by runs whose mark is "mark"
}

func (s *script) Federation() Federation {
	return Federation{Name: "@concordat/test", Members: []string{"a", "b"}, Node: Node{ID: 1<<63 + 1, Member: "a", Since: time.Unix(1e9, 0), Online: true}}
}

func (s *script) Strategy(*fab.Bundle) string { return "" }

func (s *script) Check(*fab.Bundle, fab.Terms, map[string]any) error { return s.refuse }

func (s *script) Run(ctx context.Context, j *Job) error {
	s.jobs <- j
	select {
	case err := <-s.end:
		return err
	case <-j.Stop:
		j.Print("stopping")
		return fmt.Errorf("%w: in a round", ErrStopped)
	case <-ctx.Done():
		return errors.New("the node stopped")
	}
}

func (s *script) Follow(ctx context.Context, j *Job, mark []byte) error {
	if string(mark) != "mark" {
		return fmt.Errorf("mark %q", mark)
	}
	return s.Run(ctx, j)
}

func (s *script) Results(mark []byte) ([]Result, error) {
	if string(mark) != "mark" {
		return nil, fmt.Errorf("mark %q", mark)
	}
	return s.left, nil
}

// newServer is New for what cannot fail.
func newServer(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// serve returns a client of a server on loopback.
func serve(t *testing.T) (*script, flwr.ControlClient, *grpc.ClientConn) {
	t.Helper()
	s := &script{jobs: make(chan *Job, 100), end: make(chan error)}
	c, conn, _ := serveOn(t, newServer(t, Config{Runner: s, Now: time.Now}))
	return s, c, conn
}

// serveOn returns a client of a server that it serves on loopback until stop is called, or
// the test ends.
func serveOn(t *testing.T, server *Server) (_ flwr.ControlClient, _ *grpc.ClientConn, stop func()) {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		conn.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return flwr.NewControlClient(conn), conn, stop
}

// request asks for a run of a bundle that Flower built.
func request(t *testing.T) *flwr.StartRunRequest {
	t.Helper()
	raw, err := os.ReadFile("../fab/testdata/flwr-1.29.0.fab")
	if err != nil {
		t.Fatal(err)
	}
	b, err := fab.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &flwr.StartRunRequest{Fab: &flwr.Fab{HashStr: b.Hash(), Content: raw}}
}

func want(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		t.Errorf("%s: %v, want %v with %q", what, err, code, text)
	}
}

// logOf reads a run's log to its end.
func logOf(t *testing.T, c flwr.ControlClient, id uint64, after float64) (text string, last float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	in, err := c.StreamLogs(ctx, &flwr.StreamLogsRequest{RunId: id, AfterTimestamp: after})
	if err != nil {
		t.Fatal(err)
	}
	for {
		m, err := in.Recv()
		if err == io.EOF {
			return text, last
		}
		if err != nil {
			t.Fatalf("log: %v", err)
		}
		text += m.LogOutput
		last = m.LatestTimestamp
	}
}

func TestRuns(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t)
	ctx := t.Context()
	q := request(t)
	q.OverrideConfig = flwr.Scalars(map[string]any{"epochs": int64(7), "learning-rate": 0.5})
	var ids []uint64
	var jobs []*Job
	for range 2 {
		r, err := c.StartRun(ctx, q)
		if err != nil || r.GetRunId() == 0 {
			t.Fatalf("start: %v, %v", r, err)
		}
		ids = append(ids, r.GetRunId())
		jobs = append(jobs, <-s.jobs)
	}
	if j := jobs[0]; j.Config["epochs"] != int64(7) || j.Config["learning-rate"] != 0.5 || j.Config["num-server-rounds"] != int64(3) || j.Terms.Strategy != "fedavg" || j.Terms.Rounds != 3 {
		t.Errorf("job %+v", j)
	}
	if ids[0] == ids[1] {
		t.Error("two runs have one number")
	}
	list := func(id *uint64, limit *uint64) map[uint64]*flwr.Run {
		t.Helper()
		r, err := c.ListRuns(ctx, &flwr.ListRunsRequest{RunId: id, Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := time.Parse("2006-01-02T15:04:05.999999-07:00", r.Now); err != nil {
			t.Errorf("now %q: %v", r.Now, err)
		}
		return r.RunDict
	}
	if r := list(nil, nil)[ids[0]]; r.GetStatus().GetStatus() != "starting" || r.FabId != "concordat/quickstart" || r.FabHash != q.Fab.HashStr || r.RunningAt != "" || r.OverrideConfig["epochs"].GetSint64() != 7 {
		t.Errorf("run %v", r)
	}
	jobs[0].Running()
	if r := list(&ids[0], nil); len(r) != 1 || r[ids[0]].GetStatus().GetStatus() != "running" || r[ids[0]].RunningAt == "" {
		t.Errorf("run %v", r)
	}
	one := uint64(1)
	if r := list(nil, &one); len(r) != 1 || r[ids[1]] == nil {
		t.Errorf("the newest: %v", r)
	}
	jobs[0].Print("one\ntwo\n")
	jobs[0].Print("three")
	s.end <- nil
	text, last := logOf(t, c, ids[0], 0)
	if text != "one\ntwo\nthree\nRun completed.\n" {
		t.Errorf("log %q", text)
	}
	if again, _ := logOf(t, c, ids[0], last); again != "" {
		t.Errorf("after the last line: %q", again)
	}
	if r := list(&ids[0], nil)[ids[0]]; r.GetStatus().GetStatus() != "finished" || r.GetStatus().GetSubStatus() != "completed" || r.FinishedAt == "" {
		t.Errorf("run %v", r)
	}
	// The other goes on; it is stopped while its log is followed.
	followed := make(chan string)
	go func() { text, _ := logOf(t, c, ids[1], 0); followed <- text }()
	r, err := c.StopRun(ctx, &flwr.StopRunRequest{RunId: ids[1]})
	if err != nil || !r.Success {
		t.Errorf("stop: %v, %v", r, err)
	}
	if text := <-followed; text != "stopping\nRun stopped.\n" {
		t.Errorf("log of the stopped run: %q", text)
	}
	if r := list(&ids[1], nil)[ids[1]]; r.GetStatus().GetSubStatus() != "stopped" {
		t.Errorf("run %v", r)
	}
	_, err = c.StopRun(ctx, &flwr.StopRunRequest{RunId: ids[1]})
	want(t, "stop of a finished run", err, codes.FailedPrecondition, "already finished")
	// A failure says why.
	f, err := c.StartRun(ctx, request(t))
	if err != nil {
		t.Fatal(err)
	}
	s.end <- errors.New("member b declined")
	if text, _ := logOf(t, c, f.GetRunId(), 0); text != "Run failed: member b declined\n" {
		t.Errorf("log %q", text)
	}
	if st := list(nil, nil)[f.GetRunId()].GetStatus(); st.GetSubStatus() != "failed" || st.GetDetails() != "member b declined" {
		t.Errorf("status %v", st)
	}
}

func TestRefusedStarts(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t)
	for what, x := range map[string]struct {
		change func(*flwr.StartRunRequest)
		code   codes.Code
		text   string
	}{
		"no bundle":      {func(q *flwr.StartRunRequest) { q.Fab = nil }, codes.InvalidArgument, "zip"},
		"another hash":   {func(q *flwr.StartRunRequest) { q.Fab.HashStr = strings.Repeat("0", 64) }, codes.InvalidArgument, "hash"},
		"changed bundle": {func(q *flwr.StartRunRequest) { q.Fab.Content[100] ^= 1 }, codes.InvalidArgument, ""},
		"hub":            {func(q *flwr.StartRunRequest) { q.AppSpec = "@a/b" }, codes.Unimplemented, "hub"},
		"federation":     {func(q *flwr.StartRunRequest) { q.Federation = "@x/y" }, codes.NotFound, "@concordat/test"},
		"unknown key":    {func(q *flwr.StartRunRequest) { q.OverrideConfig = flwr.Scalars(map[string]any{"x": true}) }, codes.FailedPrecondition, "no key"},
		"no value":       {func(q *flwr.StartRunRequest) { q.OverrideConfig = map[string]*flwr.Scalar{"epochs": {}} }, codes.InvalidArgument, "epochs"},
		"bytes": {func(q *flwr.StartRunRequest) {
			q.OverrideConfig = map[string]*flwr.Scalar{"epochs": {Scalar: &flwr.Scalar_Bytes{}}}
		}, codes.InvalidArgument, "epochs"},
		"too large a key": {func(q *flwr.StartRunRequest) {
			q.OverrideConfig = map[string]*flwr.Scalar{"epochs": {Scalar: &flwr.Scalar_Uint64{Uint64: 1 << 63}}}
		}, codes.InvalidArgument, "limit"},
		"no rounds": {func(q *flwr.StartRunRequest) {
			q.OverrideConfig = flwr.Scalars(map[string]any{"num-server-rounds": int64(0)})
		}, codes.FailedPrecondition, "above 0"},
		"strategy": {func(q *flwr.StartRunRequest) {
			q.OverrideConfig = flwr.Scalars(map[string]any{"concordat.strategy": int64(1)})
		}, codes.FailedPrecondition, "no string"},
	} {
		q := request(t)
		x.change(q)
		_, err := c.StartRun(t.Context(), q)
		want(t, what, err, x.code, x.text)
	}
	s.refuse = errors.New("not approved")
	_, err := c.StartRun(t.Context(), request(t))
	want(t, "not approved", err, codes.PermissionDenied, "not approved")
	s.refuse = nil
	if len(s.jobs) != 0 {
		t.Error("a refused run was begun")
	}
	for range maxActive {
		if _, err := c.StartRun(t.Context(), request(t)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.StartRun(t.Context(), request(t))
	want(t, "one too many", err, codes.ResourceExhausted, "limit")
}

func TestOtherCalls(t *testing.T) {
	t.Parallel()
	s, c, conn := serve(t)
	ctx := t.Context()
	nodes, err := c.ListNodes(ctx, &flwr.ListNodesRequest{})
	if err != nil || len(nodes.NodesInfo) != 1 || nodes.NodesInfo[0].NodeId != 1<<63+1 || nodes.NodesInfo[0].Status != "online" || nodes.NodesInfo[0].OwnerName != "a" {
		t.Errorf("%v, %v", nodes, err)
	}
	all, err := c.ListFederations(ctx, &flwr.ListFederationsRequest{})
	if err != nil || len(all.Federations) != 1 || all.Federations[0].Name != "@concordat/test" {
		t.Errorf("%v, %v", all, err)
	}
	r, err := c.StartRun(ctx, request(t))
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.ShowFederation(ctx, &flwr.ShowFederationRequest{FederationName: "@concordat/test"})
	if err != nil || len(f.Federation.Members) != 2 || len(f.Federation.Runs) != 1 || len(f.Federation.Nodes) != 1 {
		t.Errorf("%v, %v", f, err)
	}
	_, err = c.ShowFederation(ctx, &flwr.ShowFederationRequest{FederationName: "@none/default"})
	want(t, "another federation", err, codes.NotFound, "is in no federation")
	_, err = c.PullArtifacts(ctx, &flwr.PullArtifactsRequest{RunId: r.GetRunId()})
	want(t, "artifacts", err, codes.FailedPrecondition, "unfinished run")
	s.end <- nil

	nobody := r.GetRunId() + 1
	_, err = c.StopRun(ctx, &flwr.StopRunRequest{RunId: nobody})
	want(t, "stop", err, codes.NotFound, "Run ID not found")
	_, err = c.ListRuns(ctx, &flwr.ListRunsRequest{RunId: &nobody})
	want(t, "list", err, codes.NotFound, "Run ID not found")
	_, err = c.PullArtifacts(ctx, &flwr.PullArtifactsRequest{RunId: nobody})
	want(t, "pull", err, codes.NotFound, "Run ID not found")
	in, err := c.StreamLogs(ctx, &flwr.StreamLogsRequest{RunId: nobody})
	if err == nil {
		_, err = in.Recv()
	}
	want(t, "log", err, codes.NotFound, "Run ID not found")

	for method, text := range map[string]string{
		"/flwr.proto.Control/GetLoginDetails":  "one local account",
		"/flwr.proto.Control/RegisterNode":     "member certify",
		"/flwr.proto.Control/CreateFederation": "signatures",
		"/flwr.proto.Control/Whatever":         "not a call of flwr",
		"/flwr.proto.Fleet/PullMessages":       "not a call of flwr",
	} {
		err := conn.Invoke(ctx, method, &flwr.ListNodesRequest{}, &flwr.ListNodesResponse{})
		want(t, method, err, codes.Unimplemented, text)
	}
}

// A flooding app fills its own log, and nothing else.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t)
	r, err := c.StartRun(t.Context(), request(t))
	if err != nil {
		t.Fatal(err)
	}
	j := <-s.jobs
	line := strings.Repeat("x", 2*maxLine)
	for range maxLogSize/maxLine + 10 {
		j.Print(line)
	}
	j.Print("bad \xff")
	s.end <- nil
	text, _ := logOf(t, c, r.GetRunId(), 0)
	if len(text) > maxLogSize+maxLine || !strings.Contains(text, "log of this run is full") {
		t.Errorf("log of %d bytes, ends %q", len(text), text[max(0, len(text)-80):])
	}
}

// When the node stops, runs in progress return before Serve does.
func TestShutdown(t *testing.T) {
	t.Parallel()
	l, err := Listen("localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{jobs: make(chan *Job, 1), end: make(chan error)}
	server := newServer(t, Config{Runner: s, Now: time.Now})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r, err := flwr.NewControlClient(conn).StartRun(t.Context(), request(t), grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	<-s.jobs
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if x := server.find(auth.Local(), r.GetRunId()); x == nil || x.outcome != "failed" || x.details != "the node stopped" {
		t.Errorf("run %+v", x)
	}
	if _, err := server.start(&Job{}); err == nil {
		t.Error("a run was begun after the end")
	}
}

func TestListen(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", ":9093", "0.0.0.0:9093", "[::]:9093", "10.0.0.1:9093", "example.com:9093", "127.0.0.1"} {
		if l, err := Listen(bad); err == nil {
			l.Close()
			t.Errorf("%q is open to others", bad)
		}
	}
	l, err := Listen("[::1]:0")
	var unavailable *net.OpError
	if errors.As(err, &unavailable) {
		t.Skip("this machine has no IPv6")
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}
