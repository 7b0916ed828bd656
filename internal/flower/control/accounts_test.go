package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
	"github.com/concordat/concordat/internal/flower/control/auth"
	"github.com/concordat/concordat/internal/flower/control/auth/authtest"
)

// house is a server where ada and bob may log in.
type house struct {
	*script
	t        *testing.T
	provider *authtest.Provider
	server   *Server
	address  string
	tls      *tls.Config // of those who call
	grpc     flwr.ControlClient
	conn     *grpc.ClientConn
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, provider: authtest.New(t), script: &script{jobs: make(chan *Job, 300), end: make(chan error)}}
	login, err := auth.New(auth.Config{Issuer: h.provider.URL, ClientID: authtest.Client, Secret: authtest.Secret, Roots: h.provider.Roots, Now: time.Now,
		Allow: auth.Allow{Subjects: []string{"ada", "bob"}}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	// A certificate for 127.0.0.1, and who signed it.
	own := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(own.Close)
	l, err := ListenTLS("127.0.0.1:0", own.TLS.Certificates[0], login)
	if err != nil {
		t.Fatal(err)
	}
	h.tls = &tls.Config{RootCAs: x509.NewCertPool()}
	h.tls.RootCAs.AddCert(own.Certificate())
	h.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	h.server = newServer(t, Config{Runner: h.script, Now: time.Now})
	go func() { served <- h.server.Serve(ctx, l) }()
	if h.conn, err = grpc.NewClient(h.address, grpc.WithTransportCredentials(credentials.NewTLS(h.tls))); err != nil {
		t.Fatal(err)
	}
	h.grpc = flwr.NewControlClient(h.conn)
	t.Cleanup(func() {
		_ = h.conn.Close()
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return h
}

func (h *house) token(who string, edits ...map[string]any) string {
	return h.provider.Token(h.provider.Claims(who, time.Now(), edits...))
}

// as is a call over gRPC with these tokens.
func (h *house) as(access, refresh string) context.Context {
	return metadata.AppendToOutgoingContext(h.t.Context(), "flwr-oidc-access-token", access, "flwr-oidc-refresh-token", refresh)
}

// post is a call over HTTP.
func (h *house) post(access, call string, body io.Reader, edit func(*http.Request)) (*http.Response, []byte) {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, "https://"+h.address+"/v1/control/"+call, body)
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/protobuf")
	if access != "" {
		r.Header.Set("Authorization", "Bearer "+access)
	}
	if edit != nil {
		edit(r)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls, DisableKeepAlives: true}, Timeout: time.Minute}
	res, err := c.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return res, b
}

func (h *house) message(access, call string, q, into proto.Message) int {
	h.t.Helper()
	b, err := proto.Marshal(q)
	if err != nil {
		h.t.Fatal(err)
	}
	res, body := h.post(access, call, bytes.NewReader(b), nil)
	if res.StatusCode == http.StatusOK {
		if err := proto.Unmarshal(body, into); err != nil {
			h.t.Fatal(err)
		}
	}
	return res.StatusCode
}

// TestAccounts: what one account starts, another neither sees nor touches.
func TestAccounts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ada, bob := h.as(h.token("ada"), "r"), h.as(h.token("bob"), "r")
	started, err := h.grpc.StartRun(ada, request(t))
	if err != nil {
		t.Fatal(err)
	}
	id := started.GetRunId()
	j := <-h.jobs
	if want := "ada at " + h.provider.URL; j.Account.String() != want {
		t.Errorf("the job is of %q, want %q", j.Account, want)
	}
	j.Print("a secret of ada's")
	for who, x := range map[string]struct {
		ctx   context.Context
		token string
		runs  int
		code  codes.Code
		http  int
	}{
		"ada": {ada, h.token("ada"), 1, codes.OK, 200},
		"bob": {bob, h.token("bob"), 0, codes.NotFound, 404},
	} {
		if r, err := h.grpc.ListRuns(x.ctx, &flwr.ListRunsRequest{}); err != nil || len(r.RunDict) != x.runs {
			t.Errorf("%s lists %v, %v", who, r, err)
		}
		if r, err := h.grpc.ShowFederation(x.ctx, &flwr.ShowFederationRequest{FederationName: "@concordat/test"}); err != nil || len(r.GetFederation().GetRuns()) != x.runs {
			t.Errorf("%s is shown %v, %v", who, r, err)
		}
		_, err := h.grpc.ListRuns(x.ctx, &flwr.ListRunsRequest{RunId: &id})
		want(t, who+" lists the run", err, x.code, "")
		_, err = h.grpc.PullArtifacts(x.ctx, &flwr.PullArtifactsRequest{RunId: id})
		if who == "ada" {
			want(t, "ada pulls", err, codes.FailedPrecondition, "unfinished run")
		} else {
			want(t, "bob pulls", err, codes.NotFound, "Run ID not found")
		}
		in, err := h.grpc.StreamLogs(x.ctx, &flwr.StreamLogsRequest{RunId: id})
		if err != nil {
			t.Fatal(err)
		}
		m, err := in.Recv()
		want(t, who+" reads the log", err, x.code, "")
		if strings.Contains(m.GetLogOutput(), "secret") != (who == "ada") {
			t.Errorf("%s reads %q", who, m.GetLogOutput())
		}
		var runs flwr.ListRunsResponse
		if code := h.message(x.token, "list-runs", &flwr.ListRunsRequest{}, &runs); code != 200 || len(runs.RunDict) != x.runs {
			t.Errorf("over HTTP, %s lists %d, %v", who, code, &runs)
		}
		if code := h.message(x.token, "list-runs", &flwr.ListRunsRequest{RunId: &id}, &runs); code != x.http {
			t.Errorf("over HTTP, %s lists the run: %d", who, code)
		}
		var shown flwr.ShowFederationResponse
		if code := h.message(x.token, "show-federation", &flwr.ShowFederationRequest{FederationName: "@concordat/test"}, &shown); code != 200 || len(shown.GetFederation().GetRuns()) != x.runs {
			t.Errorf("over HTTP, %s is shown %d, %v", who, code, &shown)
		}
	}
	for _, call := range []string{"stop-run", "stream-logs", "pull-artifacts"} { // run_id is field 1 of each
		if code := h.message(h.token("bob"), call, &flwr.StopRunRequest{RunId: id}, &flwr.StopRunResponse{}); code != 404 {
			t.Errorf("over HTTP, bob's %s: %d", call, code)
		}
	}
	_, err = h.grpc.StopRun(bob, &flwr.StopRunRequest{RunId: id})
	want(t, "bob stops", err, codes.NotFound, "Run ID not found")
	select {
	case <-j.Stop:
		t.Fatal("bob stopped it")
	default:
	}
	if r, err := h.grpc.StopRun(ada, &flwr.StopRunRequest{RunId: id}); err != nil || !r.GetSuccess() {
		t.Errorf("ada stops: %v", err)
	}
}

// TestNoToken: no call but those of the login is answered without a valid token, of an
// account that is let in, in either dialect.
func TestNoToken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	old := map[string]any{"iat": 1000, "exp": 2000}
	for what, x := range map[string]struct {
		token string
		code  codes.Code
		http  int
	}{
		"none": {"", codes.Unauthenticated, 401}, "forged": {authtest.NewKey("1").Token(h.provider.Claims("ada", time.Now()), "JWT"), codes.Unauthenticated, 401},
		"old": {h.token("ada", old), codes.Unauthenticated, 401}, "eve's": {h.token("eve"), codes.PermissionDenied, 403},
	} {
		var calls []string
		for _, m := range flwr.Control_ServiceDesc.Methods {
			calls = append(calls, m.MethodName)
		}
		tried := 0
		for _, m := range append(calls, "StreamLogs", "RegisterNode", "NoSuchCall", "", "StartRun/GetLoginDetails") {
			if open["/flwr.proto.Control/"+m] || m == "RefreshAuthTokens" {
				continue
			}
			tried++
			ctx := h.t.Context()
			if x.token != "" {
				ctx = h.as(x.token, "")
			}
			err := h.conn.Invoke(ctx, "/flwr.proto.Control/"+m, &flwr.ListRunsRequest{}, &flwr.ListRunsResponse{})
			want(t, what+" token, "+m, err, x.code, "")
			res, body := h.post(x.token, dashed(m), strings.NewReader(""), nil)
			if res.StatusCode != x.http || (res.Header.Get("WWW-Authenticate") == "Bearer") != (x.http == 401) {
				t.Errorf("%s token, %s: %d, %s", what, dashed(m), res.StatusCode, body)
			}
		}
		if tried < 10 {
			t.Errorf("tried %d calls", tried)
		}
	}
	if res, _ := h.post("", "list-runs", strings.NewReader(""), func(r *http.Request) { r.Header.Set("Authorization", "Basic "+h.token("ada")) }); res.StatusCode != 401 {
		t.Errorf("basic: %d", res.StatusCode)
	}
	// The other way of showing a token is none.
	if res, _ := h.post("", "list-runs", strings.NewReader(""), func(r *http.Request) { r.Header.Set(accessHeader, h.token("ada")) }); res.StatusCode != 401 {
		t.Errorf("gRPC's header over HTTP: %d", res.StatusCode)
	}
	if res, _ := h.post(h.token("ada"), "list-runs", strings.NewReader(""), func(r *http.Request) { r.Host = "node.hospital.example" }); res.StatusCode != 200 {
		t.Errorf("by the node's name: %d", res.StatusCode)
	}
	if res, _ := h.post(h.token("ada"), "list-runs", strings.NewReader(""), func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }); res.StatusCode != 403 {
		t.Errorf("a page in a browser: %d", res.StatusCode)
	}
	// Without TLS there is nobody.
	if res, err := http.Post("http://"+h.address+"/v1/control/list-runs", "application/protobuf", nil); err == nil {
		res.Body.Close()
		if res.StatusCode != 400 {
			t.Errorf("without TLS: %d", res.StatusCode)
		}
	}
}

// dashed is the name of a call in dialect C.
func dashed(name string) string {
	var b strings.Builder
	for i, r := range name {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// TestBodiesOfStrangers are not read.
func TestBodiesOfStrangers(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	never, w := io.Pipe()
	defer w.Close()
	if res, _ := h.post("", "start-run", never, func(r *http.Request) { r.Header.Set("Expect", "100-continue") }); res.StatusCode != 401 {
		t.Errorf("start-run: %d", res.StatusCode)
	}
	large := bytes.Repeat([]byte("a"), maxLogin+1)
	if res, _ := h.post("", "get-auth-tokens", bytes.NewReader(large), nil); res.StatusCode != 400 {
		t.Errorf("get-auth-tokens: %d", res.StatusCode)
	}
	_, err := h.grpc.GetAuthTokens(t.Context(), &flwr.GetAuthTokensRequest{DeviceCode: string(large)})
	if err == nil {
		t.Error("a huge device code is taken")
	}
}

// TestLoginCalls logs in over both dialects, and has tokens renewed in the way of each.
func TestLoginCalls(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.provider.Handle("/device", authtest.Device("c", 60, 1))
	first, err := h.grpc.GetLoginDetails(t.Context(), &flwr.GetLoginDetailsRequest{})
	if err != nil || first.AuthnType != "oidc" || first.Interval != 1 || first.ExpiresIn != 60 || !strings.Contains(first.VerificationUriComplete, "user_code=") || len(first.DeviceCode) < 32 {
		t.Fatalf("%v, %v", first, err)
	}
	var second flwr.GetLoginDetailsResponse
	if code := h.message("", "get-login-details", &flwr.GetLoginDetailsRequest{}, &second); code != 200 || second.DeviceCode == first.DeviceCode {
		t.Fatalf("%d, %v", code, &second)
	}
	if r, err := h.grpc.GetAuthTokens(t.Context(), &flwr.GetAuthTokensRequest{DeviceCode: first.DeviceCode}); err != nil || r.AccessToken != "" {
		t.Errorf("before the approval: %v, %v", r, err)
	}
	time.Sleep(time.Second)
	access := h.token("ada")
	h.provider.Handle("/token", authtest.Grant(access, "r1"))
	if r, err := h.grpc.GetAuthTokens(t.Context(), &flwr.GetAuthTokensRequest{DeviceCode: first.DeviceCode}); err != nil || r.AccessToken != access || r.RefreshToken != "r1" {
		t.Errorf("after it: %v, %v", r, err)
	}
	_, err = h.grpc.GetAuthTokens(t.Context(), &flwr.GetAuthTokensRequest{DeviceCode: first.DeviceCode})
	want(t, "once more", err, codes.FailedPrecondition, "has ended")
	var tokens flwr.GetAuthTokensResponse
	if code := h.message("", "get-auth-tokens", &flwr.GetAuthTokensRequest{DeviceCode: second.DeviceCode}, &tokens); code != 200 || tokens.AccessToken != access {
		t.Errorf("over HTTP: %d", code)
	}

	expired, renewed := h.token("ada", map[string]any{"iat": 1000, "exp": 2000}), h.token("ada", map[string]any{"jti": "2"})
	h.provider.Handle("/token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("refresh_token") != "r1" {
			authtest.Fault("invalid_grant")(w, r)
			return
		}
		authtest.Grant(renewed, "r2")(w, r)
	})
	var header metadata.MD
	if _, err := h.grpc.ListRuns(h.as(expired, "r1"), &flwr.ListRunsRequest{}, grpc.Header(&header)); err != nil {
		t.Errorf("an expired token: %v", err)
	}
	if a, r := header.Get("flwr-oidc-access-token"), header.Get("flwr-oidc-refresh-token"); len(a) != 1 || a[0] != renewed || len(r) != 1 || r[0] != "r2" {
		t.Errorf("new tokens in the header: %q, %q", a, r)
	}
	header = nil
	if _, err := h.grpc.ListRuns(h.as(access, "r1"), &flwr.ListRunsRequest{}, grpc.Header(&header)); err != nil || len(header.Get("flwr-oidc-access-token")) > 0 {
		t.Errorf("a token that counts: %v, %v", header, err)
	}
	_, err = h.grpc.ListRuns(h.as(expired, "guess"), &flwr.ListRunsRequest{})
	want(t, "a guess", err, codes.Unauthenticated, "")
	var refreshed flwr.RefreshAuthTokensResponse
	if code := h.message("", "refresh-auth-tokens", &flwr.RefreshAuthTokensRequest{RefreshToken: "r1"}, &refreshed); code != 200 || refreshed.AccessToken != renewed || refreshed.RefreshToken != "r2" {
		t.Errorf("refreshed over HTTP: %d", code)
	}
	if code := h.message("", "refresh-auth-tokens", &flwr.RefreshAuthTokensRequest{RefreshToken: "guess"}, &refreshed); code != 401 {
		t.Errorf("a guess over HTTP: %d", code)
	}
	h.provider.Handle("/token", http.NotFound)
	_, err = h.grpc.ListRuns(h.as(expired, "r1"), &flwr.ListRunsRequest{})
	want(t, "without the provider", err, codes.Unavailable, "the node's log")
}

// TestForget: an account with many runs pushes out its own.
func TestForget(t *testing.T) {
	t.Parallel()
	s := newServer(t, Config{Now: time.Now})
	at := time.Unix(1, 0)
	add := func(a auth.Account, id uint64) {
		at = at.Add(time.Second)
		s.runs[id] = &run{id: id, account: a, pending: at, finished: at}
	}
	const few = maxKept/2 - 10
	for i := range uint64(few) { // older ones, of another account
		add(auth.Account{}, i+1)
	}
	for i := range uint64(maxKept - few) {
		add(auth.Local(), few+i+1)
	}
	for i := range uint64(10) {
		s.forget()
		add(auth.Local(), maxKept+i+1)
	}
	others := 0
	for _, r := range s.runs {
		if r.account != auth.Local() {
			others++
		}
	}
	if others != few || s.runs[few+1] != nil {
		t.Errorf("kept %d of %d of the other's; the oldest of the many: %v", others, few, s.runs[few+1] != nil)
	}
}

func TestListenTLS(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if l, err := ListenTLS("127.0.0.1:0", tls.Certificate{}, nil); err == nil {
		l.Close()
		t.Error("listens without a login")
	}
	login, err := auth.New(auth.Config{Issuer: h.provider.URL, ClientID: "x", Allow: auth.Allow{Subjects: []string{"ada"}}})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := ListenTLS("127.0.0.1:0", tls.Certificate{}, login); err == nil {
		l.Close()
		t.Error("listens without a certificate")
	}
}

// TestConnections bounds those of strangers, and forgets those that are closed.
func TestConnections(t *testing.T) {
	t.Parallel()
	inner, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := bounded(inner.at, 2)
	defer l.Close()
	dial := func() io.ReadCloser {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var held []io.Closer
	for range 2 {
		defer dial().Close()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, c)
	}
	accepted := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = c.Close()
		}
		accepted <- err
	}()
	third := dial()
	defer third.Close()
	if _, err := third.Read(make([]byte, 1)); err == nil {
		t.Error("a third connection is served")
	}
	if err := held[0].Close(); err != nil {
		t.Error(err)
	}
	_ = held[0].Close() // twice is once
	defer dial().Close()
	if err := <-accepted; err != nil {
		t.Errorf("after one was closed: %v", err)
	}
}
