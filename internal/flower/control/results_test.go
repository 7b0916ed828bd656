package control

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	flwr "github.com/concordat/concordat/api/flwr/proto"
)

// results are two files of a run.
func results(t *testing.T) []Result {
	t.Helper()
	dir := t.TempDir()
	var list []Result
	for _, name := range []string{"model.npz", "bundle.cbor"} {
		r := Result{Name: name, Path: filepath.Join(dir, name)}
		if err := os.WriteFile(r.Path, bytes.Repeat([]byte(name), 1<<16), 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// fetch gets an address, and returns what it finds there by name.
func fetch(t *testing.T, c *http.Client, method, address string) (code int, files map[string]string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || method != http.MethodGet {
		return res.StatusCode, nil
	}
	z, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name] = string(b)
	}
	return res.StatusCode, files
}

// finished has a run of the script come to its end, with a mark.
func finished(t *testing.T, ctx context.Context, s *script, c flwr.ControlClient, began bool) uint64 {
	t.Helper()
	r, err := c.StartRun(ctx, request(t))
	if err != nil {
		t.Fatal(err)
	}
	j := <-s.jobs
	if began {
		j.Began([]byte("mark"))
	}
	s.end <- nil
	in, err := c.StreamLogs(ctx, &flwr.StreamLogsRequest{RunId: r.GetRunId()})
	for err == nil {
		_, err = in.Recv()
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	return r.GetRunId()
}

// TestResults: the address that the command shows gives the run's files, in either dialect
// and for an hour, to whoever has it and nobody else.
func TestResults(t *testing.T) {
	t.Parallel()
	now := time.Now()
	s := &script{jobs: make(chan *Job, 100), end: make(chan error), left: results(t)}
	server := newServer(t, Config{Runner: s, Now: func() time.Time { return now }})
	c, conn, _ := serveOn(t, server)
	id := finished(t, t.Context(), s, c, true)
	r, err := c.PullArtifacts(t.Context(), &flwr.PullArtifactsRequest{RunId: id})
	if err != nil {
		t.Fatal(err)
	}
	address := r.GetUrl()
	if begin, end := "http://"+conn.Target()+"/v1/results/", fmt.Sprintf("/run-%d.zip", id); !strings.HasPrefix(address, begin) || !strings.HasSuffix(address, end) || len(address) != len(begin)+64+len(end) {
		t.Fatalf("address %q", address)
	}
	var other flwr.PullArtifactsResponse
	asCommand{t, "http://" + conn.Target()}.call("pull-artifacts", &flwr.PullArtifactsRequest{RunId: id}, &other)
	if other.GetUrl() == address || other.GetUrl() == "" {
		t.Errorf("another call gives %q", other.GetUrl())
	}
	for _, a := range []string{address, other.GetUrl()} {
		code, files := fetch(t, http.DefaultClient, http.MethodGet, a)
		if code != http.StatusOK || len(files) != 2 || files["model.npz"] != strings.Repeat("model.npz", 1<<16) || files["bundle.cbor"] != strings.Repeat("bundle.cbor", 1<<16) {
			t.Errorf("%d, %d files", code, len(files))
		}
	}
	key := strings.Index(address, "/v1/results/") + len("/v1/results/")
	flipped := byte('0')
	if address[key] == flipped {
		flipped = '1'
	}
	for what, x := range map[string]struct {
		method, address string
		code            int
	}{
		"another key":     {"GET", address[:key] + string(flipped) + address[key+1:], 404},
		"no key":          {"GET", address[:key], 404},
		"a shorter key":   {"GET", address[:key+63] + address[key+64:], 404},
		"no name":         {"GET", address[:key+64], 404},
		"a path":          {"GET", address + "/x", 404},
		"head":            {"HEAD", address, 200},
		"another method":  {"POST", address, 405},
		"beside the path": {"GET", strings.Replace(address, "results", "result", 1), 404},
	} {
		if code, _ := fetch(t, http.DefaultClient, x.method, x.address); code != x.code {
			t.Errorf("%s: %d, want %d", what, code, x.code)
		}
	}
	now = now.Add(resultsTime)
	if code, _ := fetch(t, http.DefaultClient, "GET", address); code != 404 {
		t.Errorf("after an hour: %d", code)
	}

	// Offers are bounded, and so is what is gone from the disk.
	last := ""
	for range maxOffers + 10 {
		last = server.offer(s.left)
		now = now.Add(time.Millisecond)
	}
	if n := len(server.offers); n != maxOffers || server.offered(last) == nil {
		t.Errorf("%d offers, the last of which gives %v", n, server.offered(last))
	}
	if err := os.Remove(s.left[0].Path); err != nil {
		t.Fatal(err)
	}
	again, err := c.PullArtifacts(t.Context(), &flwr.PullArtifactsRequest{RunId: id})
	if err != nil {
		t.Fatal(err)
	}
	if _, files := fetch(t, http.DefaultClient, "GET", again.GetUrl()); len(files) != 1 {
		t.Errorf("one of two files is gone: %d are left", len(files))
	}
	s.left = nil
	_, err = c.PullArtifacts(t.Context(), &flwr.PullArtifactsRequest{RunId: id})
	want(t, "a run without results", err, codes.NotFound, "flwr log")
	never := finished(t, t.Context(), s, c, false)
	_, err = c.PullArtifacts(t.Context(), &flwr.PullArtifactsRequest{RunId: never})
	want(t, "a run that never began", err, codes.NotFound, "flwr log")
}

// TestResultsOfAccounts: an address of one account's results comes over TLS, needs no token,
// and is for that account alone to ask for.
func TestResultsOfAccounts(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.left = results(t)
	ada, bob := h.as(h.token("ada"), "r"), h.as(h.token("bob"), "r")
	id := finished(t, ada, h.script, h.grpc, true)
	_, err := h.grpc.PullArtifacts(bob, &flwr.PullArtifactsRequest{RunId: id})
	want(t, "bob pulls", err, codes.NotFound, "Run ID not found")
	r, err := h.grpc.PullArtifacts(ada, &flwr.PullArtifactsRequest{RunId: id})
	if err != nil || !strings.HasPrefix(r.GetUrl(), "https://"+h.address+"/v1/results/") {
		t.Fatalf("%v, %v", r, err)
	}
	for _, http2 := range []bool{false, true} { // as browsers do
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: h.tls.Clone(), ForceAttemptHTTP2: http2, DisableKeepAlives: true}, Timeout: time.Minute}
		if code, files := fetch(t, c, "GET", r.GetUrl()); code != 200 || len(files) != 2 {
			t.Errorf("HTTP/2 %v: %d, %d files", http2, code, len(files))
		}
	}
}
