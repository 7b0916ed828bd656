package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	concordatv1 "github.com/concordat/concordat/api/concordat/v1"
	"github.com/concordat/concordat/internal/flower/fab"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// control serves the member's own users.
type control struct {
	concordatv1.UnimplementedControlServer
	n *Node
}

// maxControl bounds a request: an app bundle, or the initial arrays of a run.
const maxControl = fab.MaxSize + 1<<20

func (n *Node) serveControl(ctx context.Context) error {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxControl))
	concordatv1.RegisterControlServer(s, &control{n: n})
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		s.Stop()
	}()
	err := s.Serve(n.cfg.Control)
	if ctx.Err() != nil {
		<-done
		return nil
	}
	return fmt.Errorf("control: %w", err)
}

func (c *control) StartRun(stream grpc.ClientStreamingServer[concordatv1.StartRunRequest, concordatv1.StartRunResponse]) error {
	q, err := stream.Recv()
	if err != nil {
		return err
	}
	if len(q.GetApp()) != len(Digest{}) {
		return status.Error(codes.InvalidArgument, "app is not a digest of 32 bytes")
	}
	r := RunRequest{App: Digest(q.GetApp()), Strategy: q.GetStrategy(), Rounds: q.GetRounds(), Cohort: q.GetCohort(), Config: map[string]any{}}
	for k, v := range q.GetConfig() {
		value, err := scalar(v)
		if err != nil {
			return status.Errorf(codes.InvalidArgument, "config %q: %v", k, err)
		}
		r.Config[k] = value
	}
	r.Objects = func(add func([]byte) error) error {
		for {
			for _, raw := range q.GetInitial() {
				if err := add(raw); err != nil {
					return err
				}
			}
			if q, err = stream.Recv(); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	}
	digest, err := c.n.StartRun(stream.Context(), r)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return stream.SendAndClose(&concordatv1.StartRunResponse{Request: digest[:]})
}

func (c *control) ApproveRun(_ context.Context, q *concordatv1.ApproveRunRequest) (*concordatv1.ApproveRunResponse, error) {
	if len(q.GetRun()) != len(Digest{}) {
		return nil, status.Error(codes.InvalidArgument, "run is not a digest of 32 bytes")
	}
	err := c.n.Approve(Digest(q.GetRun()), !q.GetDecline())
	if errors.Is(err, ErrNotOffered) {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &concordatv1.ApproveRunResponse{}, nil
}

func (c *control) Deny(_ context.Context, q *concordatv1.DenyRequest) (*concordatv1.DenyResponse, error) {
	d, err := c.n.Deny(q.GetDenial())
	switch {
	case errors.Is(err, ErrDenial):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &concordatv1.DenyResponse{Digest: d.Digest[:], Member: string(d.Member), Kind: string(d.Denial.Kind), Value: d.Denial.Value, Logged: d.Logged}, nil
}

func (c *control) StopRun(_ context.Context, q *concordatv1.StopRunRequest) (*concordatv1.StopRunResponse, error) {
	if len(q.GetRequest()) != len(Digest{}) {
		return nil, status.Error(codes.InvalidArgument, "request is not a digest of 32 bytes")
	}
	err := c.n.StopRun(Digest(q.GetRequest()))
	if errors.Is(err, ErrNotRequested) {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &concordatv1.StopRunResponse{}, nil
}

// scalar reads a JSON value of the types that Flower's configs have.
func scalar(s string) (any, error) {
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return i, nil
	}
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		return nil, fmt.Errorf("%.80q is no JSON value", s)
	}
	switch v := v.(type) {
	case bool, float64, string:
		return v, nil
	}
	return nil, fmt.Errorf("%.80q is no bool, number or string", s)
}

func (c *control) WatchRuns(q *concordatv1.WatchRunsRequest, out grpc.ServerStreamingServer[concordatv1.WatchRunsResponse]) error {
	wake, forget := c.n.watch()
	defer forget()
	sent := 0
	runs := map[Digest]bool{}
	for {
		for _, e := range c.n.eventsFrom(sent) {
			sent++
			if len(q.GetRequest()) > 0 {
				if string(e.Request[:]) == string(q.GetRequest()) {
					runs[e.Run] = true
				} else if e.Run.IsZero() || !runs[e.Run] {
					continue
				}
			}
			if err := out.Send(e.proto()); err != nil {
				return err
			}
		}
		if !q.GetFollow() {
			return nil
		}
		select {
		case <-wake:
		case <-out.Context().Done():
			return nil
		case <-c.n.ctx.Done():
			return nil
		}
	}
}

func (e Event) proto() *concordatv1.WatchRunsResponse {
	r := &concordatv1.WatchRunsResponse{Event: e.Kind, Seq: e.Seq, Round: e.Round, Opens: e.Opens, Inputs: e.Inputs, Excluded: e.Excluded,
		Metrics: e.Metrics, BytesMoved: e.Moved, BytesSaved: e.Saved, Reason: e.Reason, Outcome: e.Outcome}
	if !e.Run.IsZero() {
		r.Run = e.Run[:]
	}
	if !e.Request.IsZero() {
		r.Request = e.Request[:]
	}
	return r
}

// watch returns a channel that wakes its reader when there are new events.
func (n *Node) watch() (wake <-chan struct{}, forget func()) {
	w := make(chan struct{}, 1)
	n.eventsMu.Lock()
	defer n.eventsMu.Unlock()
	n.watchers[w] = true
	return w, func() {
		n.eventsMu.Lock()
		defer n.eventsMu.Unlock()
		delete(n.watchers, w)
	}
}

func (n *Node) eventCount() int {
	n.eventsMu.Lock()
	defer n.eventsMu.Unlock()
	return len(n.events)
}

func (n *Node) eventsFrom(i int) []Event {
	n.eventsMu.Lock()
	defer n.eventsMu.Unlock()
	return append([]Event(nil), n.events[min(i, len(n.events)):]...)
}

func (c *control) GetBundle(q *concordatv1.GetBundleRequest, out grpc.ServerStreamingServer[concordatv1.GetBundleResponse]) error {
	return c.file(q.GetRun(), bundleFile, func(b []byte) error { return out.Send(&concordatv1.GetBundleResponse{Data: b}) })
}

func (c *control) GetModel(q *concordatv1.GetModelRequest, out grpc.ServerStreamingServer[concordatv1.GetModelResponse]) error {
	return c.file(q.GetRun(), modelFile, func(b []byte) error { return out.Send(&concordatv1.GetModelResponse{Data: b}) })
}

func (c *control) file(run []byte, name string, send func([]byte) error) error {
	if len(run) != len(Digest{}) {
		return status.Error(codes.InvalidArgument, "run is not a digest of 32 bytes")
	}
	f, err := os.Open(filepath.Join(c.n.runDir(Digest(run)), name))
	if errors.Is(err, os.ErrNotExist) {
		return status.Errorf(codes.NotFound, "run %s has no %s on this node: a node writes it at the run's end, while the link has what it needs; if the run has ended, this node's log says why not", Digest(run).Short(), name)
	}
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	defer f.Close()
	buf := make([]byte, 256<<10)
	for {
		k, err := f.Read(buf)
		if k > 0 {
			if err := send(buf[:k:k]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return status.Error(codes.Internal, err.Error())
		}
	}
}
