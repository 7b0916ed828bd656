package control

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/internal/flower/control/auth"
	"github.com/concordat/concordat/internal/flower/fab"
	"github.com/concordat/concordat/internal/flower/protohttp"
)

// Limits of the users' connections.
const (
	maxRequest   = fab.MaxSize + 1<<20
	maxOverrides = 1024
	maxStreams   = 64

	maxConnections = 256 // on an address that others reach
)

// Serve serves the API on l until ctx is done or the listener fails, closes l, and
// returns when every job has returned. It returns nil when ctx ended it.
func (s *Server) Serve(ctx context.Context, l *Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	s.resume(ctx)
	s.jobs.Go(func() { s.keepSaving(ctx) })
	err := protohttp.Serve(ctx, l.at, s.results(l.gate(handler(&server{s: s, login: l.login}))), maxStreams, true)
	cancel()
	s.mu.Lock()
	s.ctx = nil // whoever was about to start a job has, or will not
	s.mu.Unlock()
	s.jobs.Wait()
	s.saveAll()
	return err
}

// reasons are why a node does not serve some of Flower's calls.
var reasons = map[string]string{
	"GetLoginDetails":               noAccounts, // where there is no login
	"GetAuthTokens":                 noAccounts,
	"RefreshAuthTokens":             noAccounts,
	"RegisterNode":                  "a member's nodes are certified by the member: concordat member certify",
	"UnregisterNode":                "a member's nodes are certified by the member: concordat member certify",
	"CreateFederation":              noFederations,
	"ArchiveFederation":             noFederations,
	"AddNodeToFederation":           noFederations,
	"RemoveNodeFromFederation":      noFederations,
	"RemoveAccountFromFederation":   noFederations,
	"CreateInvitation":              noFederations,
	"ListInvitations":               noFederations,
	"AcceptInvitation":              noFederations,
	"RejectInvitation":              noFederations,
	"RevokeInvitation":              noFederations,
	"ConfigureSimulationFederation": "nothing is simulated with virtual clients here",
}

const (
	noAccounts    = "this node has one local account, so there is nothing to log in to"
	noFederations = "a federation is made and changed by its members' signatures: concordat policy"
)

// unknown answers every call that is not served.
func unknown(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	return notServed(method[strings.LastIndexByte(method, '/')+1:])
}

func notServed(name string) error {
	reason, ok := reasons[name]
	if !ok {
		reason = "not a call of flwr that it knows"
	}
	return status.Errorf(codes.Unimplemented, "A Concordat node does not serve %.80s: %s.", name, reason)
}

type server struct {
	flwr.UnimplementedControlServer
	s     *Server
	login *auth.Login // nil: there is the local account alone
}

// StartRun takes a bundle that the owner has approved. What it refuses, it refuses
// before anything of it is run.
func (v *server) StartRun(ctx context.Context, q *flwr.StartRunRequest) (*flwr.StartRunResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if q.GetAppSpec() != "" {
		return nil, status.Error(codes.Unimplemented, "A Concordat node fetches no apps from Flower's hub: get the app, have its bundle approved, and run its folder.")
	}
	if f := q.GetFederation(); f != "" && f != v.s.config.Runner.Federation().Name {
		return nil, noSuchFederation(f, v.s.config.Runner.Federation().Name)
	}
	if len(q.GetOverrideConfig()) > maxOverrides {
		return nil, status.Errorf(codes.InvalidArgument, "%d overrides, limit %d", len(q.GetOverrideConfig()), maxOverrides)
	}
	b, err := fab.Parse(q.GetFab().GetContent())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if h := q.GetFab().GetHashStr(); h != b.Hash() {
		return nil, status.Errorf(codes.InvalidArgument, "the bundle's hash is %s, not %.80q", b.Hash(), h)
	}
	overrides, err := flwr.Values(q.GetOverrideConfig())
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "run config: %v", err)
	}
	config, err := b.Fuse(overrides)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	terms, err := b.Terms(config, v.s.config.Runner.Strategy(b))
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if err := v.s.config.Runner.Check(b, terms, config); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	id, err := v.s.start(&Job{Account: who, Bundle: b, Terms: terms, Config: config, Overrides: overrides})
	if errors.Is(err, errTooMany) {
		return nil, status.Error(codes.ResourceExhausted, err.Error())
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &flwr.StartRunResponse{RunId: &id}, nil
}

func noSuchFederation(asked, have string) error {
	return status.Errorf(codes.NotFound, "This node is in no federation %.80q; it is in %q.", asked, have)
}

// run returns a run of the caller's. Another's is as if there were none. The words are
// Flower's, whose command looks for them.
func (v *server) run(ctx context.Context, id uint64) (*run, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	r := v.s.find(who, id)
	if r == nil {
		return nil, status.Error(codes.NotFound, "Run ID not found")
	}
	return r, nil
}

// StopRun says that the wish is taken; the run's status tells when it has ended.
func (v *server) StopRun(ctx context.Context, q *flwr.StopRunRequest) (*flwr.StopRunResponse, error) {
	r, err := v.run(ctx, q.GetRunId())
	if err != nil {
		return nil, err
	}
	if err := v.s.stop(r); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "Run ID %d is already finished", r.id)
	}
	return &flwr.StopRunResponse{Success: true}, nil
}

// StreamLogs ends when the run has finished and all was sent.
func (v *server) StreamLogs(q *flwr.StreamLogsRequest, out grpc.ServerStreamingServer[flwr.StreamLogsResponse]) error {
	return v.streamLogs(out.Context(), q, out.Send)
}

func (v *server) streamLogs(ctx context.Context, q *flwr.StreamLogsRequest, send func(*flwr.StreamLogsResponse) error) error {
	r, err := v.run(ctx, q.GetRunId())
	if err != nil {
		return err
	}
	at := q.GetAfterTimestamp()
	for {
		text, last, finished, changed := v.s.after(r, at)
		if text != "" {
			if err := send(&flwr.StreamLogsResponse{LogOutput: text, LatestTimestamp: last}); err != nil {
				return err
			}
			at = last
		}
		if finished {
			return nil
		}
		if text != "" {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (v *server) ListRuns(ctx context.Context, q *flwr.ListRunsRequest) (*flwr.ListRunsResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if q.RunId != nil {
		if _, err := v.run(ctx, q.GetRunId()); err != nil {
			return nil, err
		}
	}
	res := &flwr.ListRunsResponse{RunDict: map[uint64]*flwr.Run{}, Now: iso(v.s.config.Now())}
	for _, r := range v.s.list(who) {
		if q.RunId != nil && r.id != q.GetRunId() {
			continue
		}
		if q.Limit != nil && uint64(len(res.RunDict)) >= q.GetLimit() {
			break
		}
		res.RunDict[r.id] = r.proto(v.s.config.Runner.Federation().Name)
	}
	return res, nil
}

func (v *server) ListNodes(context.Context, *flwr.ListNodesRequest) (*flwr.ListNodesResponse, error) {
	return &flwr.ListNodesResponse{NodesInfo: []*flwr.NodeInfo{v.s.config.Runner.Federation().Node.proto()}, Now: iso(v.s.config.Now())}, nil
}

// ListFederations gives the name alone: flwr 1.26 numbers all else in another way.
func (v *server) ListFederations(context.Context, *flwr.ListFederationsRequest) (*flwr.ListFederationsResponse, error) {
	return &flwr.ListFederationsResponse{Federations: []*flwr.Federation{{Name: v.s.config.Runner.Federation().Name}}}, nil
}

func (v *server) ShowFederation(ctx context.Context, q *flwr.ShowFederationRequest) (*flwr.ShowFederationResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	f := v.s.config.Runner.Federation()
	if q.GetFederationName() != f.Name {
		return nil, noSuchFederation(q.GetFederationName(), f.Name)
	}
	p := &flwr.Federation{Name: f.Name, Nodes: []*flwr.NodeInfo{f.Node.proto()}}
	for _, m := range f.Members {
		p.Members = append(p.Members, &flwr.Member{Account: &flwr.Account{Id: m, Name: m}, Role: "member"})
	}
	for _, r := range v.s.list(who) {
		p.Runs = append(p.Runs, r.proto(f.Name))
	}
	return &flwr.ShowFederationResponse{Federation: p, Now: iso(v.s.config.Now())}, nil
}

// accountID is Flower's id of an account; of the local one, that of where there are none.
func accountID(a auth.Account) string {
	if a == auth.Local() {
		return "<id:none>"
	}
	return a.String()
}

func (r *run) proto(federation string) *flwr.Run {
	st := &flwr.RunStatus{Status: "starting"}
	switch {
	case !r.finished.IsZero():
		st = &flwr.RunStatus{Status: "finished", SubStatus: r.outcome, Details: r.details}
	case !r.running.IsZero():
		st.Status = "running"
	}
	return &flwr.Run{
		RunId: r.id, FabId: r.fabID, FabVersion: r.fabVersion, FabHash: r.fabHash, OverrideConfig: flwr.Scalars(r.overrides),
		PendingAt: iso(r.pending), StartingAt: iso(r.starting), RunningAt: iso(r.running), FinishedAt: iso(r.finished),
		Status: st, FlwrAid: accountID(r.account), Federation: federation, RunType: "serverapp",
	}
}

func (n Node) proto() *flwr.NodeInfo {
	since := iso(n.Since)
	p := &flwr.NodeInfo{NodeId: n.ID, OwnerAid: n.Member, OwnerName: n.Member, Status: "offline", RegisteredAt: since, LastDeactivatedAt: &since}
	if n.Online {
		p.Status, p.LastActivatedAt, p.LastDeactivatedAt = "online", &since, nil
	}
	return p
}

// iso writes a time as Python's datetime.fromisoformat of every version reads it.
func iso(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000") + "+00:00"
}
