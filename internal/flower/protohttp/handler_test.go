package protohttp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	flwr "github.com/concordat/concordat/api/flwr/proto"
)

// api has one call of each kind.
func api(release <-chan struct{}) API {
	return API{
		Path: "/v1/test/", MaxBody: 100, Alive: time.Millisecond,
		Guard: func(r *http.Request) error {
			if r.Header.Get("token") != "t" {
				return status.Error(codes.Unauthenticated, "no token")
			}
			return nil
		},
		Calls: map[string]Call{
			"stop": Unary(func(_ context.Context, q *flwr.StopRunRequest) (*flwr.StopRunResponse, error) {
				switch q.GetRunId() {
				case 1:
					return nil, status.Error(codes.NotFound, "Run ID not found")
				case 2:
					return nil, errors.New("a secret of this server")
				}
				return &flwr.StopRunResponse{Success: true}, nil
			}),
			"logs": Stream(func(_ context.Context, q *flwr.StreamLogsRequest, send func(*flwr.StreamLogsResponse) error) error {
				for i := range q.GetRunId() {
					if err := send(&flwr.StreamLogsResponse{LogOutput: strings.Repeat("x", int(i))}); err != nil {
						return err
					}
				}
				if q.GetAfterTimestamp() > 0 {
					return status.Error(codes.Unavailable, "later")
				}
				return nil
			}),
			"wait": Unary(func(ctx context.Context, q *flwr.StopRunRequest) (*flwr.StopRunResponse, error) {
				select {
				case <-release:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
				if q.GetRunId() == 1 {
					return nil, status.Error(codes.PermissionDenied, "stopped")
				}
				return &flwr.StopRunResponse{Success: true}, nil
			}),
		},
		Unknown: func(call string) error { return status.Error(codes.Unimplemented, "not "+call) },
	}
}

func post(t *testing.T, s *httptest.Server, call string, m proto.Message, change func(*http.Request)) (*http.Response, []byte, error) {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/v1/test/"+call, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/protobuf")
	r.Header.Set("token", "t")
	if change != nil {
		change(r)
	}
	res, err := s.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

func serve(t *testing.T, release <-chan struct{}) *httptest.Server {
	s := httptest.NewServer(Handler(api(release)))
	t.Cleanup(s.Close)
	return s
}

func TestUnary(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	res, body, err := post(t, s, "stop", &flwr.StopRunRequest{RunId: 7}, nil)
	var got flwr.StopRunResponse
	if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != unaryType || proto.Unmarshal(body, &got) != nil || !got.Success {
		t.Errorf("%v, %q, %v", res, body, err)
	}
	large := &flwr.StartRunRequest{AppSpec: strings.Repeat("x", 100)}
	for name, c := range map[string]struct {
		call   string
		m      proto.Message
		change func(*http.Request)
		status int
		text   string
	}{
		"an error of the call":  {"stop", &flwr.StopRunRequest{RunId: 1}, nil, 404, `{"detail":"Run ID not found"}`},
		"an internal error":     {"stop", &flwr.StopRunRequest{RunId: 2}, nil, 500, `{"detail":"internal error"}`},
		"another call":          {"start", &flwr.StopRunRequest{}, nil, 501, "not start"},
		"no token":              {"stop", &flwr.StopRunRequest{}, func(r *http.Request) { r.Header.Del("token") }, 401, "no token"},
		"no token, and no call": {"start", &flwr.StopRunRequest{}, func(r *http.Request) { r.Header.Del("token") }, 401, "no token"},
		"text":                  {"stop", &flwr.StopRunRequest{}, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415, "content type"},
		"a page in a browser":   {"stop", &flwr.StopRunRequest{}, func(r *http.Request) { r.Header.Set("Origin", "http://localhost") }, 403, "programs on this machine"},
		"a name of somebody's":  {"stop", &flwr.StopRunRequest{}, func(r *http.Request) { r.Host = "evil.example:8000" }, 403, "programs on this machine"},
		"a name like ours":      {"stop", &flwr.StopRunRequest{}, func(r *http.Request) { r.Host = "127.0.0.1.evil.example" }, 403, "programs on this machine"},
		"GET":                   {"stop", &flwr.StopRunRequest{}, func(r *http.Request) { r.Method = http.MethodGet }, 404, "no call"},
		"another path":          {"stop", &flwr.StopRunRequest{}, func(r *http.Request) { r.URL.Path = "/v1/other/stop" }, 404, "no call"},
		"too large":             {"stop", large, nil, 413, "too large"},
		"no message":            {"stop", &flwr.StartRunRequest{AppSpec: "\x01"}, func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("\x08")); r.ContentLength = 1 }, 400, "no message"},
	} {
		res, body, err := post(t, s, c.call, c.m, c.change)
		if err != nil || res.StatusCode != c.status || !strings.Contains(string(body), c.text) || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v, %q, %v; want %d with %q", name, res.Status, body, err, c.status, c.text)
		}
	}
	for host, want := range map[string]bool{"127.0.0.1:8000": true, "localhost": true, "[::1]:8000": true, "[::1]": true, "": false, "127.0.0.2": false, "[::1": true, "::1": false} {
		if local(host) != want {
			t.Errorf("%q is local: %v", host, !want)
		}
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	for _, n := range []uint64{0, 1, 5} {
		res, body, err := post(t, s, "logs", &flwr.StreamLogsRequest{RunId: n}, nil)
		if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != streamType {
			t.Fatalf("%v, %v", res, err)
		}
		for i := range n {
			size := binary.BigEndian.Uint32(body)
			var m flwr.StreamLogsResponse
			if err := proto.Unmarshal(body[4:4+size], &m); err != nil || len(m.LogOutput) != int(i) {
				t.Errorf("frame %d: %v, %v", i, &m, err)
			}
			body = body[4+size:]
		}
		if len(body) > 0 {
			t.Errorf("%d bytes after the last frame", len(body))
		}
	}
	// An error before the first answer is one; after that the answer is cut off.
	if res, body, err := post(t, s, "logs", &flwr.StreamLogsRequest{AfterTimestamp: 1}, nil); err != nil || res.StatusCode != 503 || !strings.Contains(string(body), "later") {
		t.Errorf("%v, %q, %v", res, body, err)
	}
	if _, body, err := post(t, s, "logs", &flwr.StreamLogsRequest{RunId: 2, AfterTimestamp: 1}, nil); err == nil {
		t.Errorf("a stream that failed came to its end: %q", body)
	}
}

// A caller that waits hears so, and gets the answer or the error all the same.
func TestKeepUp(t *testing.T) {
	t.Parallel()
	for id, want := range map[uint64]int{7: 200, 1: 403} {
		release := make(chan struct{})
		s := serve(t, release)
		signs := 0
		trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
			if signs++; signs == 3 { // Go's client takes no more than five
				close(release)
			}
			if code != http.StatusProcessing {
				t.Errorf("interim response %d", code)
			}
			return nil
		}}
		res, body, err := post(t, s, "wait", &flwr.StopRunRequest{RunId: id}, func(r *http.Request) {
			*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
		})
		if err != nil || res.StatusCode != want || signs < 3 {
			t.Errorf("%v, %q, %v after %d signs", res, body, err, signs)
		}
	}
}

// When Serve returns, no call is going on, however it was cut off; and there is a limit.
func TestServe(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var going atomic.Int32
	entered := make(chan struct{}, 10)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		going.Add(1)
		defer going.Add(-1)
		entered <- struct{}{}
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, h, 2, false) }()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if res, err := http.Get("http://" + l.Addr().String()); err == nil {
				res.Body.Close()
			}
		})
		<-entered
	}
	res, err := http.Get("http://" + l.Addr().String())
	if err != nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a third call: %v, %v", res, err)
	}
	res.Body.Close()
	cancel()
	if err := <-served; err != nil || going.Load() != 0 {
		t.Errorf("served: %v, %d calls are going on", err, going.Load())
	}
	wg.Wait()
}
